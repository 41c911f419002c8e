"""Labelled rows: what a probe learns from, and the groups that must stay together when data are split.

A row is a whole text or a word in one (a span of its characters). Each row has one or more targets, and may have
groups, a word type and further attributes; rows may be paired as each other's contrast.

Letters: m texts, n rows, t values, k pairs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lens.nearest import unknown
from probes import given
from probes.table import csv_table, huggingface_table, jsonl_table, one_class, rows_of, table_of
from probes.targets import Classes, Heads, Target, Values, check_targets, fixed

__all__ = ["Classes", "Heads", "Labelled", "Target", "Values"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts and the rows that are probed in them. Arrays are copied and cannot be written to.

    Args:
        name: what it is called in tables and records.
        texts: m texts, none of them empty.
        text: int64 [n], the text of each row.
        spans: int64 [n, 2], characters [start, end) of the row's text; None: whole texts, and `text` is 0 … m−1.
        targets: name → what is to be predicted; the first is the main one. May be empty: texts to harvest.
        groups: what each row belongs to, one name or several (both countries of a statement, …); rows that share a
            group are never on both sides of a split. None where nothing can leak.
        types: the word type of each row, for control tasks.
        columns: further attributes of each row, [n] each: template, source, frequency, …
        places: further spans by name, int64 [n, 2] each: where in its text the city stands, the country, …
        pairs: int64 [k, 2], rows that are each other's contrast: a statement and its negation.
        licence: of the data.
        source: where they are from.

    Raises:
        ValueError: no texts, an empty text, lengths that differ, a span past the end of its text, a target's tree
            that crosses texts; one line that names the row.
    """

    name: str
    texts: tuple[str, ...]
    text: np.ndarray
    spans: np.ndarray | None
    targets: Mapping[str, Target]
    groups: tuple[tuple[str, ...], ...] | None = None
    types: tuple[str, ...] | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    places: Mapping[str, np.ndarray] = field(default_factory=dict)
    pairs: np.ndarray | None = None
    licence: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(given.texts(self.texts)))
        if not self.texts:
            raise ValueError(f"{self.name} has no texts")
        for i, text in enumerate(self.texts):
            if not text.strip():
                raise ValueError(f"text {i} is empty")
        object.__setattr__(self, "text", fixed(given.whole_numbers(self.text, "text"), np.int64))
        if not self.n:
            raise ValueError(f"{self.name} has no rows")
        if wrong := np.flatnonzero((self.text < 0) | (self.text >= len(self.texts))).tolist():
            raise ValueError(
                f"row {wrong[0]} is of text {self.text[wrong[0]]}, and there are {len(self.texts)} texts"
            )
        if self.spans is None:
            if len(self.texts) != self.n or (self.text != np.arange(self.n)).any():
                raise ValueError("without spans each text is one row, and text is 0, 1, 2, …")
        else:
            object.__setattr__(self, "spans", self._checked_spans("word", self.spans))
        check_targets(self.targets)
        if self.groups is not None:
            object.__setattr__(self, "groups", given.groups(self.groups))
        if self.types is not None:
            object.__setattr__(self, "types", tuple(map(str, given.plain(self.types, "types"))))
        self._check_lengths()
        places = {name: self._checked_spans(name, spans) for name, spans in self.places.items()}
        object.__setattr__(self, "places", MappingProxyType(places))
        object.__setattr__(self, "targets", MappingProxyType(dict(self.targets)))
        columns = {name: fixed(x, np.asarray(x).dtype) for name, x in self.columns.items()}
        object.__setattr__(self, "columns", MappingProxyType(columns))
        for name, target in self.targets.items():
            if isinstance(target, Heads):
                self._check_trees(name, target)

    def _check_lengths(self) -> None:
        lengths = {f"target {name!r}": target.n for name, target in self.targets.items()}
        lengths |= {f"column {name!r}": np.shape(x)[0] for name, x in self.columns.items()}
        if self.groups is not None:
            lengths["groups"] = len(self.groups)
        if self.types is not None:
            lengths["types"] = len(self.types)
        for what, length in lengths.items():
            if length != self.n:
                raise ValueError(f"there are {self.n} rows, and {what} has {length}")
        for i, of in enumerate(self.groups or ()):
            if not of or not all(of):
                raise ValueError(f"row {i} has an empty group")
        if self.pairs is not None:
            pairs = given.whole_numbers(self.pairs, "pairs")
            if pairs.ndim != 2 or pairs.shape[1] != 2 or (pairs < 0).any() or (pairs >= self.n).any():
                raise ValueError(f"pairs are row numbers [k, 2] below {self.n}")
            object.__setattr__(self, "pairs", fixed(pairs, np.int64))

    def _checked_spans(self, what: str, spans: np.ndarray) -> np.ndarray:
        spans = fixed(given.whole_numbers(spans, "spans"), np.int64)
        if spans.shape != (self.n, 2):
            raise ValueError(f"the spans of {what!r} are {list(spans.shape)}, not [{self.n}, 2]")
        ends = np.array([len(text) for text in self.texts])[self.text]
        bad = (spans[:, 0] < 0) | (spans[:, 0] >= spans[:, 1]) | (spans[:, 1] > ends)
        if wrong := np.flatnonzero(bad).tolist():
            row = wrong[0]
            start, end = spans[row].tolist()
            raise ValueError(
                f"row {row}: the characters {start} to {end} ({what}) are not in text {self.text[row]} "
                f"{given.short(self.texts[self.text[row]])}, which has {ends[row]}"
            )
        for row, (i, (start, end)) in enumerate(zip(self.text.tolist(), spans.tolist(), strict=True)):
            if self.texts[i][start:end].isspace():
                raise ValueError(f"row {row}: the characters {start} to {end} ({what}) of text {i} are blank")
        return spans

    def _check_trees(self, name: str, target: Heads) -> None:
        if (np.diff(self.text) < 0).any():
            raise ValueError(f"target {name!r}: the rows of each text must stand together, in order")
        crossing = (target.heads >= 0) & (self.text[target.heads] != self.text)
        if wrong := np.flatnonzero(crossing).tolist():
            raise ValueError(f"target {name!r}: row {wrong[0]} has its head in another text")

    def __repr__(self) -> str:
        rows = f"{self.n:,} rows" if self.spans is None else f"{self.n:,} words"
        groups = "" if self.groups is None else ", grouped"
        return (
            f"Labelled({self.name}: {rows} of {len(self.texts):,} texts, {', '.join(self.targets)}{groups})"
        )

    @property
    def n(self) -> int:
        """How many rows."""
        return len(self.text)

    def target(self, name: str | None = None) -> Target:
        """A target by name; None: the main one.

        Raises:
            ValueError: there is none of that name.
        """
        if not self.targets:
            raise ValueError(f"{self.name} has no labels")
        if name is None:
            return next(iter(self.targets.values()))
        if not isinstance(name, str) or name not in self.targets:
            raise ValueError(unknown("target", name, self.targets, of=self.name))
        return self.targets[name]

    def words(self) -> list[str]:
        """What each row covers of its text."""
        if self.spans is None:
            return list(self.texts)
        return [
            self.texts[i][start:end]
            for i, (start, end) in zip(self.text.tolist(), self.spans.tolist(), strict=True)
        ]

    def column(self, name: str) -> np.ndarray:
        """An attribute of each row, [n].

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.columns:
            raise ValueError(unknown("column", name, self.columns, of=self.name))
        return self.columns[name]

    def subset(self, rows: Sequence[int] | np.ndarray | slice) -> Labelled:
        """Those rows (numbers, or a truth value for each), in that order, with the texts that they need.

        Raises:
            ValueError: no rows, a row that is not there, or a tree that would be cut.
        """
        picked = np.asarray(given.rows_numbered(rows, self.n))
        if picked.ndim != 1:
            raise ValueError("rows are row numbers [k], or a truth value for each row")
        picked = np.flatnonzero(picked) if picked.dtype == bool and len(picked) == self.n else picked
        if not picked.size:
            raise ValueError(f"no rows of {self.name} are left")
        picked = given.whole_numbers(picked, "rows")
        if (picked < 0).any() or (picked >= self.n).any():
            raise ValueError(
                f"rows are 0 to {self.n - 1}, and {picked.min()} to {picked.max()} were asked for"
            )
        if self.spans is None:
            used, text = self.text[picked], np.arange(len(picked))
        else:
            used, text = np.unique(self.text[picked], return_inverse=True)
        pairs = None
        if self.pairs is not None:
            new = np.full(self.n, -1)
            new[picked] = np.arange(len(picked))
            pairs = new[self.pairs]
            pairs = pairs[(pairs >= 0).all(1)]
        return replace(
            self,
            texts=tuple(self.texts[i] for i in used.tolist()),
            text=text,
            spans=None if self.spans is None else self.spans[picked],
            targets={name: target.take(picked) for name, target in self.targets.items()},
            groups=None if self.groups is None else tuple(self.groups[i] for i in picked.tolist()),
            types=None if self.types is None else tuple(self.types[i] for i in picked.tolist()),
            columns={name: x[picked] for name, x in self.columns.items()},
            places={name: x[picked] for name, x in self.places.items()},
            pairs=pairs,
        )

    def grouped_by(self, *columns: str) -> Labelled:
        """The same rows, each belonging to the groups that its values in these columns name.

        "text" groups the rows of a text; no column at all drops the groups.

        Raises:
            ValueError: there is no such column.
        """
        if not columns:
            return replace(self, groups=None)
        known = {"text": self.text, **self.columns}
        for name in columns:
            if name not in known:
                raise ValueError(unknown("column", name, known, of=self.name))
        groups = zip(*([str(value) for value in known[name].tolist()] for name in columns), strict=True)
        return replace(self, groups=tuple(groups))

    def only(self, *targets: str) -> Labelled:
        """The same rows with these targets, the first of them the main one.

        Raises:
            ValueError: there is none of that name.
        """
        return replace(self, targets={name: self.target(name) for name in targets})

    @property
    def texts_fingerprint(self) -> str:
        """SHA-256 of the texts, in their order."""
        return _sha(json.dumps(self.texts))

    @property
    def places_fingerprint(self) -> str:
        """SHA-256 of what activations depend on: texts, rows and spans, but not targets."""
        spans = {"": self.spans, **self.places}
        return _sha(json.dumps([self.texts, self.text.tolist(), {k: _plain(x) for k, x in spans.items()}]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that is learned from or split by."""
        targets = {
            name: [type(target).__name__, *(_plain(x) for x in vars(target).values())]
            for name, target in self.targets.items()
        }
        rest = [self.groups, self.types, {k: _plain(x) for k, x in self.columns.items()}, _plain(self.pairs)]
        return _sha(json.dumps([self.places_fingerprint, targets, rest]))

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        labels: Any,
        groups: Any = None,
        *,
        name: str = "texts",
    ) -> Labelled:
        """Whole texts with a class each, from labels and groups of any kind, known by their names.

        Lists, NumPy arrays, tensors and pandas series do. A row with several groups has a tuple of them.

        Raises:
            ValueError: as for the class, or fewer than two classes.
        """
        texts = given.texts(texts)
        labels = given.plain(labels, "labels")
        if len(labels) != len(texts):
            raise ValueError(f"there are {len(texts)} texts and {len(labels)} labels")
        if len((target := Classes.of(labels)).names) < 2:
            raise ValueError(one_class(target.names, len(texts)))
        return cls(
            name, tuple(texts), np.arange(len(texts)), None, {"label": target},
            groups=None if groups is None else given.groups(groups),
        )  # fmt: skip

    @classmethod
    def unlabelled(cls, texts: Iterable[str], *, name: str = "texts") -> Labelled:
        """Whole texts without a target, to harvest.

        Raises:
            ValueError: no texts, or an empty one.
        """
        texts = given.texts(texts)
        return cls(name, tuple(texts), np.arange(len(texts)), None, {})

    @classmethod
    def from_csv(cls, path: str | Path, **columns: Any) -> Labelled:
        """Read a CSV file in UTF-8 with a header; `from_table` tells the columns and the further arguments.

        Raises:
            ValueError: the file cannot be read, is empty, lacks a column or a value, or has one class only; one
                line that names the file, and the line where there is one.
        """
        return cls.from_table(csv_table(path), **columns)

    @classmethod
    def from_jsonl(cls, path: str | Path, **columns: Any) -> Labelled:
        """Read a file of one JSON object a line; `from_table` tells the keys and the further arguments.

        Raises:
            ValueError: as for `from_csv`.
        """
        return cls.from_table(jsonl_table(path), **columns)

    @classmethod
    def from_huggingface(cls, data: Any, **columns: Any) -> Labelled:
        """From one split, a `datasets.Dataset`; `from_table` tells the columns and the further arguments.

        Numbers of a `ClassLabel` become its names.

        Raises:
            ValueError: several splits instead of one, a column that is not there, rows without a label.
        """
        return cls.from_table(huggingface_table(data), **columns)

    @classmethod
    def read(cls, path: str | Path, **columns: Any) -> Labelled:
        """Read a `.csv`, `.jsonl` or `.ndjson` file.

        Raises:
            ValueError: as for `from_csv`, or another kind of file.
        """
        suffix = given.path(path).suffix.lower()
        if suffix == ".csv":
            return cls.from_csv(path, **columns)
        if suffix in (".jsonl", ".ndjson"):
            return cls.from_jsonl(path, **columns)
        raise ValueError(f"{str(path)!r} is neither a .csv nor a .jsonl file")

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        text: str = "text",
        label: str = "label",
        values: Sequence[str] = (),
        unit: str = "",
        group: str | Sequence[str] = "group",
        type: str = "type",
        licence: str = "",
    ) -> Labelled:
        """From named columns.

        Args:
            table: columns by name ({"text": […], "label": […]}), a pandas data frame, or a list of rows, each a
                mapping.
            text: the column of the texts. With columns `start` and `end` a row is those characters of its text
                (a word), and equal texts in a row are one text; without them a row is a whole text.
            label: the column of the class, or "" where only values are to be predicted.
            values: columns of numbers, which become the target "values", the main one if there is no label.
            unit: of these numbers.
            group: the column of the group, or several; "group" may be missing.
            type: the column of the word type; may be missing.

        All further columns become `columns`, as numbers where all their values are numbers.

        Raises:
            ValueError: a column or value is missing or malformed, or one class only; one line that names it.
        """
        table = table_of(table)
        fields = rows_of(table, text, label, values, unit, group, type)
        try:
            return cls(**fields, licence=licence)
        except ValueError as error:
            raise ValueError(f"{table.source}: {error}") from error


def _plain(values: Any) -> Any:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
