"""What a probe predicts of each row: a class, values, or its syntactic head.

Letters: n rows, t values per row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes import given


@dataclass(frozen=True, eq=False)
class Classes:
    """One class per row.

    Args:
        labels: int64 [n], index into `names`. After a split, a class may have no rows.
        names: of the classes, all different.

    Raises:
        ValueError: labels that are no indices, a label outside the names, or a name that stands twice.
    """

    labels: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels are whole numbers [n], not {labels.dtype} {list(labels.shape)}")
        object.__setattr__(self, "labels", fixed(labels, np.int64))
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise ValueError(f"the class {twice[0]!r} stands twice among the names")
        if wrong := np.flatnonzero((labels < 0) | (labels >= len(self.names))).tolist():
            raise ValueError(
                f"the label {labels[wrong[0]]} of row {wrong[0]} is outside the {len(self.names)} classes"
            )

    @property
    def n(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> dict[str, int]:
        """Class → how many rows have it."""
        found = np.bincount(self.labels, minlength=len(self.names))
        return {name: int(count) for name, count in zip(self.names, found, strict=True)}

    @classmethod
    def of(cls, labels: Any) -> Classes:
        """From labels of any kind, known by their names; classes are in the order of their names.

        Raises:
            ValueError: a row has no label: None or NaN.
        """
        labels = given.plain(labels, "labels")
        for i, label in enumerate(labels):
            if isinstance(label, list | tuple | dict):
                raise ValueError(
                    f"row {i} has the label {label!r}; a label is one text, number or truth value"
                )
            if label is None or (isinstance(label, float) and math.isnan(label)):
                raise ValueError(f"row {i} has no label: it is {label}")
        written = [str(label) for label in labels]
        names = sorted(set(written))
        index = {name: i for i, name in enumerate(names)}
        return cls(np.array([index[name] for name in written], dtype=np.int64), tuple(names))

    def take(self, rows: np.ndarray) -> Classes:
        """Those rows; the names stay."""
        return Classes(self.labels[rows], self.names)


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers per row, such as latitude and longitude.

    Args:
        values: float64 [n, t], finite.
        names: of the t values.
        unit: of all of them, such as "degrees".

    Raises:
        ValueError: another shape, or a value that is NaN or infinite.
    """

    values: np.ndarray
    names: tuple[str, ...]
    unit: str = ""

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 2 or values.shape[1] != len(self.names) or not self.names:
            raise ValueError(
                f"values are [n, {len(self.names)}] for {len(self.names)} names, not {list(values.shape)}"
            )
        if values.dtype.kind not in "biuf":
            raise ValueError(f"values are numbers, not {values.dtype}")
        object.__setattr__(self, "values", fixed(values, np.float64))
        if wrong := np.argwhere(~np.isfinite(self.values)).tolist():
            row, column = wrong[0]
            value = self.values[row, column]
            raise ValueError(f"the {self.names[column]} of row {row} is {value}, not a finite number")

    @property
    def n(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, values: Sequence[float | int] | np.ndarray, name: str, unit: str = "") -> Values:
        """One value per row, [n].

        Raises:
            ValueError: another shape, or values that are no finite numbers.
        """
        found = np.asarray(given.plain(values, "values"))
        if found.ndim != 1:
            raise ValueError(
                f"values are one for each row, [n], not {list(found.shape)}; Values takes [n, t]"
            )
        return cls(found[:, None], (name,), unit)

    def take(self, rows: np.ndarray) -> Values:
        """Those rows."""
        return Values(self.values[rows], self.names, self.unit)


@dataclass(frozen=True, eq=False)
class Heads:
    """A dependency tree over the rows of each text.

    Args:
        heads: int64 [n], the row of each word's syntactic head, −1 for a root. Rows of a text are contiguous
            and in the order of the words.

    Raises:
        ValueError: a head that is no row, a word that is its own head, or words that form a ring.
    """

    heads: np.ndarray

    def __post_init__(self) -> None:
        heads = np.asarray(self.heads)
        if heads.ndim != 1 or not np.issubdtype(heads.dtype, np.integer):
            raise ValueError(f"heads are row numbers [n], not {heads.dtype} {list(heads.shape)}")
        object.__setattr__(self, "heads", fixed(heads, np.int64))
        if wrong := np.flatnonzero((heads < -1) | (heads >= len(heads))).tolist():
            raise ValueError(f"the head of row {wrong[0]} is {heads[wrong[0]]}; there are {len(heads)} rows")
        at = np.arange(len(heads))
        for _ in range(len(heads)):
            at = np.where(at >= 0, self.heads[at], -1)
            if (at < 0).all():
                return
            if ring := np.flatnonzero(at == np.arange(len(heads))).tolist():
                raise ValueError(f"row {ring[0]} is above itself in its tree")

    @property
    def n(self) -> int:
        return len(self.heads)

    @property
    def depths(self) -> np.ndarray:
        """Int64 [n]: how many heads are above each row; 0 for a root."""
        depths, at = np.zeros(self.n, dtype=np.int64), self.heads
        while (at >= 0).any():
            depths += at >= 0
            at = np.where(at >= 0, self.heads[at], -1)
        return depths

    def take(self, rows: np.ndarray) -> Heads:
        """Those rows, with heads renumbered.

        Raises:
            ValueError: a row is taken without its head, or twice.
        """
        new = np.full(self.n, -2, dtype=np.int64)
        new[rows] = np.arange(len(rows))
        if len(np.unique(rows)) != len(rows):
            raise ValueError("a row of a tree cannot be taken twice")
        heads = np.where(self.heads[rows] < 0, -1, new[self.heads[rows]])
        if lost := np.flatnonzero(heads == -2).tolist():
            raise ValueError(f"a tree cannot be cut: row {rows[lost[0]]} is taken without its head")
        return Heads(heads)


Target = Classes | Values | Heads


def check_targets(targets: Any) -> None:
    """Raise a ValueError unless these are targets by name."""
    if not isinstance(targets, Mapping):
        raise ValueError(f"targets are {given.sort(targets)}; they must be targets by name")
    for name, target in targets.items():
        if not isinstance(target, Target):
            raise ValueError(
                f"target {name!r} is {given.sort(target)}; it must be probes.Classes.of(labels), "
                "probes.Values.of(numbers, name) or probes.Heads(rows)"
            )


def fixed(values: np.ndarray, dtype: type | np.dtype) -> np.ndarray:
    """A copy that cannot be written to."""
    values = np.array(values, dtype=dtype, order="C")
    values.setflags(write=False)
    return values
