"""One target as it is tried: its labels, the folds that judge it, the groups that are resampled.

Everything here is decided before any activation is read, so that all sites, floors and controls share it, and what
cannot work is refused early.

Letters: n rows, k outputs, t values, b rows that are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from probes import scores, splits, trees
from probes.estimator import Kind
from probes.labelled import Classes, Heads, Labelled, Values
from probes.scores import Metric, Resamples
from probes.splits import Fold, Groups, Splits

READS = {
    "classes": "classes",
    "pairs": "classes",
    "sequences": "classes",
    "values": "values",
    "heads": "heads",
}
"""What a kind of probe needs of a target, by the kind's own target."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One target of some rows.

    Args:
        target: its name.
        reads: "classes", "values" or "heads".
        y: int [n] (indices into `names`, each of which has rows), float [n, t], or int [n] heads.
        names: of the classes or of the values; empty for heads.
        unit: of the values.
        splits: outer folds, and folds inside them.
        groups: what is resampled and shuffled together; None where rows stand alone.
        types: word types, for control tasks.
        text: int [n], the text of each row.
        pairs: int [p, 2] or None.
        metrics: the first of them is what penalties and layers are chosen by.
        resamples: of the judged rows.
    """

    target: str
    reads: str
    y: np.ndarray
    names: tuple[str, ...]
    unit: str
    splits: Splits
    groups: Groups | None
    types: tuple[str, ...] | None
    text: np.ndarray
    pairs: np.ndarray | None
    metrics: tuple[Metric, ...]
    resamples: Resamples

    @property
    def n(self) -> int:
        """Rows, judged or not."""
        return len(self.y)

    @cached_property
    def judged(self) -> np.ndarray:
        """Int [b]: the rows that some fold judges."""
        return self.splits.judged

    @cached_property
    def fold(self) -> np.ndarray:
        """Int [n]: the fold that judges each row, −1 for none."""
        found = np.full(self.n, -1)
        for f, fold in enumerate(self.splits.outer):
            found[fold.test] = f
        return found

    def items(self) -> list[tuple[Metric, str]]:
        """What is reported: each metric, and with several values that metric of each of them by name."""
        each = ["", *self.names] if self.reads == "values" and len(self.names) > 1 else [""]
        return [(metric, value) for metric in self.metrics for value in each]

    def score(self, metric: Metric, value: str, decision: np.ndarray, y: np.ndarray | None = None) -> float:
        """A metric of decisions [n, k] on the judged rows (those of other rows are not looked at)."""
        return float(self._of(metric, value, decision, y)(np.ones((1, len(self.judged))))[0])

    def intervals(self, decision: np.ndarray) -> list[tuple[float, float]]:
        """The bootstrap intervals of all `items`."""
        return self.resamples.intervals([self._of(*item, decision, None) for item in self.items()])

    def choosing(self, decision: np.ndarray, y: np.ndarray, fold: Fold) -> float:
        """The first metric on one fold's judged rows, of decisions for these."""
        target = self.seen(y)[fold.test]
        weights = np.ones((1, len(target)))
        return float(self.metrics[0].of(target, decision, np.zeros(len(target), dtype=int), weights)[0])

    def seen(self, y: np.ndarray) -> np.ndarray:
        """Labels as metrics take them."""
        return np.stack([trees.offsets(y), self.text], 1) if self.reads == "heads" else y

    def _of(
        self, metric: Metric, value: str, decision: np.ndarray, y: np.ndarray | None
    ) -> Callable[[np.ndarray], np.ndarray]:
        rows = self.judged
        target, told = self.seen(self.y if y is None else y)[rows], decision[rows]
        if value:
            column = [self.names.index(value)]
            target, told = target[:, column], told[:, column]
        fold = self.fold[rows]
        return lambda weights: metric.of(target, told, fold, weights)

    @classmethod
    def of(
        cls,
        labelled: Labelled,
        target: str | None,
        kind: Kind,
        *,
        cv: Any = 5,
        inside: bool = True,
        metrics: Sequence[str] | None = None,
        seed: int = 0,
        bootstrap: int = scores.RESAMPLES,
    ) -> Trial:
        """A target of labelled rows; None: the main one. Groups are those of `labelled`.

        Args:
            cv: what `splits.asked` gives: how many folds, folds that someone made, or a splitter.
            inside: whether there must be folds inside the folds, to choose in.
            metrics: by name; None: all of that sort of target.

        Raises:
            ValueError: a target that the kind cannot be fitted to, one class only, a class smaller than the folds,
                groups on both sides, a missing `pairs`, an unknown metric.
        """
        name = target if target is not None else next(iter(labelled.targets), "")
        found = labelled.target(target)
        reads = {Classes: "classes", Values: "values", Heads: "heads"}[type(found)]
        if READS[kind.target] != reads:
            raise ValueError(
                f"{kind.name} probes read {READS[kind.target]}, and the target {name!r} is of {reads}"
            )
        if kind.target == "pairs" and labelled.pairs is None:
            raise ValueError(f"{kind.name} probes need pairs of rows, and {labelled.name} has none")
        y, names = _densely(found)
        groups = _kept_together(labelled, kind, reads)
        labels = y if reads == "classes" else None
        if not isinstance(cv, int | tuple | list):
            cv = splits.split_by(cv, labelled.n, labels, groups)
        if isinstance(cv, int):
            parts = splits.nested(
                labelled.n, cv, labels=labels, groups=groups, seed=seed, names=names, inside=inside
            )
        else:
            parts = splits.checked(
                cv, labelled.n, labels=labels, groups=groups, seed=seed, names=names, inside=inside
            )
        judged = parts.judged
        over = groups if labelled.groups is None else labelled.groups
        resampled = None if over is None else [over[row] for row in judged]
        return cls(
            target=name, reads=reads, y=y, names=names, unit=getattr(found, "unit", ""), splits=parts,
            groups=groups, types=labelled.types, text=labelled.text, pairs=labelled.pairs,
            metrics=_metrics(reads, kind, metrics),
            resamples=Resamples.of(len(judged), resampled, count=bootstrap, seed=seed),
        )  # fmt: skip


def _densely(target: Classes | Values | Heads) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and names, without the classes that no row has."""
    if isinstance(target, Values):
        return target.values.copy(), target.names
    if isinstance(target, Heads):
        return target.heads.copy(), ()
    present, y = np.unique(target.labels, return_inverse=True)
    return y, tuple(target.names[i] for i in present)


def _kept_together(labelled: Labelled, kind: Kind, reads: str) -> Groups | None:
    """The groups of the data, and besides them the words of one tree and the rows of one pair."""
    groups: Groups | None = labelled.groups
    if reads == "heads":
        groups = splits.together(groups, [f"text {i}" for i in labelled.text.tolist()])
    if kind.target == "pairs":
        assert labelled.pairs is not None
        pair = [f"row {i}" for i in range(labelled.n)]
        for i, rows in enumerate(labelled.pairs.tolist()):
            for row in rows:
                pair[row] = f"pair {i}"
        groups = splits.together(groups, pair)
    return groups


def _metrics(reads: str, kind: Kind, names: Sequence[str] | None) -> tuple[Metric, ...]:
    if reads != "heads":
        return scores.metrics_of(reads, names)
    of = "depth" if "depth" in kind.name else "distance"
    for name in names or ():
        if name not in trees.METRICS:
            raise ValueError(scores.unknown("metric", name, trees.METRICS, of="heads"))
    return tuple(trees.METRICS[name] for name in names or trees.USUAL[of])
