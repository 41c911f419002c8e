"""One number for a set of predictions, under any weights of the rows, and its bootstrap interval.

1. Every metric takes weights [r, n], one row per resample, and gives [r]. Weights of one give the plain value.
2. Rows are pooled over folds, but for AUROC: scores of probes that were fitted apart have no common scale, so it
   is taken inside each fold and averaged over the folds that have both classes (as `cross_val_score` does).
3. The interval is a percentile bootstrap over groups: a resample draws as many groups as there are, with
   replacement, and a row counts as often as its group was drawn; as the product over its groups, where it
   belongs to several (Owen, Eckles 2012, Bootstrapping data arrays of arbitrary order, Annals of Applied
   Statistics). It covers the choice of rows; not that of the folds, nor of the best site.

Letters: n rows, r resamples, g groups, c classes, t values, u distinct scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lens.nearest import unknown

RESAMPLES = 1000
LEVEL = 0.95
_CELLS = 4_000_000  # of a block of weights [r, n]: 32 MB

Weights = Float[np.ndarray, "r n"]
Result = Float[np.ndarray, " r"]


@dataclass(frozen=True)
class Metric:
    """A number for predictions: `of(y, decision, fold, weights)`.

    y: classes, int [n], or values, float [n, t]. decision: [n] or [n, c] for classes, [n, t] for values.
    fold: which fold judged each row, int [n]. `chance` is what no information gives, where that is a constant.
    """

    name: str
    target: str
    of: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    chance: float | None = None


def told(decision: np.ndarray) -> Int[np.ndarray, " n"]:
    """The class that scores say: [n] is positive for class 1, of [n, c] the largest wins."""
    return (decision > 0).astype(np.int64) if decision.ndim == 1 else decision.argmax(1)


def accuracy(y: np.ndarray, decision: np.ndarray, fold: np.ndarray, weights: Weights) -> Result:
    """Share of the rows whose class is told."""
    return weights @ (told(decision) == y).astype(float) / weights.sum(1)


def balanced_accuracy(y: np.ndarray, decision: np.ndarray, fold: np.ndarray, weights: Weights) -> Result:
    """Mean over classes of the share of its rows that is told; classes without rows are left out."""
    right, mine = told(decision) == y, np.unique(y)[:, None] == y
    found = _ratio(weights @ (right & mine).T.astype(float), weights @ mine.T.astype(float))  # [r, c]
    return _mean(found.T)


def macro_f1(y: np.ndarray, decision: np.ndarray, fold: np.ndarray, weights: Weights) -> Result:
    """Mean over classes of 2 TP / (2 TP + FP + FN); classes neither present nor told are left out."""
    classes = np.union1d(y, told(decision))[:, None]
    said, mine = told(decision) == classes, y == classes
    both = weights @ (said & mine).T.astype(float)
    either = weights @ (said.astype(float) + mine).T
    return _mean(_ratio(2 * both, either).T)


def auroc(y: np.ndarray, decision: np.ndarray, fold: np.ndarray, weights: Weights) -> Result:
    """Chance that a row of the class scores above one of another class, ties counting half; mean over folds.

    For more than two classes the mean over classes, each against the rest. NaN where no fold has both.
    """
    per_fold = []
    for f in np.unique(fold):
        rows = np.flatnonzero(fold == f)
        part, w, target = decision[rows], weights[:, rows], y[rows]
        if decision.ndim == 1:
            per_fold.append(_auroc(target == 1, part, w))
            continue
        each = np.stack([_auroc(target == c, part[:, c], w) for c in range(decision.shape[1])])
        per_fold.append(_mean(each))
    return _mean(np.stack(per_fold))


def r2(y: np.ndarray, decision: np.ndarray, fold: np.ndarray, weights: Weights) -> Result:
    """1 − Σ (y − ŷ)² / Σ (y − ȳ)², ȳ the mean of the rows judged; the mean over values. NaN where y is constant."""
    total = weights.sum(1)[:, None]
    rest = weights @ (y - decision) ** 2
    centred = y - y.mean(0)
    spread = weights @ centred**2 - (weights @ centred) ** 2 / total
    constant = spread <= 1e-12 * (weights @ centred**2)
    each = 1 - np.divide(rest, spread, out=np.full_like(rest, np.nan), where=~constant)
    return each.mean(1)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "classes", accuracy),
        Metric("balanced_accuracy", "classes", balanced_accuracy),
        Metric("auroc", "classes", auroc, chance=0.5),
        Metric("macro_f1", "classes", macro_f1),
        Metric("r2", "values", r2, chance=0.0),
    )
}


def metrics_of(target: str, names: Sequence[str] | None = None) -> tuple[Metric, ...]:
    """The metrics of "classes" or "values", all or those named.

    Raises:
        ValueError: a name that is no metric of that target.
    """
    fitting = {name: metric for name, metric in METRICS.items() if metric.target == target}
    for name in names or ():
        if name not in fitting:
            raise ValueError(unknown("metric", name, fitting, of=target))
    return tuple(fitting[name] for name in names or fitting)


def measured(metric: Metric, y: np.ndarray, decision: np.ndarray, fold: np.ndarray) -> float:
    """The plain value, every row counting once."""
    return float(metric.of(y, decision, fold, np.ones((1, len(y))))[0])


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each row is in each resample of a bootstrap over groups.

    Args:
        counts: uint8 [r, g], how often each group was drawn.
        member: int [n, m], the groups of each row; g stands for none.
    """

    counts: np.ndarray
    member: np.ndarray

    @classmethod
    def of(
        cls, n: int, groups: Sequence[tuple[str, ...]] | None = None, *, count: int = RESAMPLES, seed: int = 0
    ) -> Resamples:
        """`count` resamples of n rows: over groups, or over rows where there are none."""
        if groups is None:
            member, g = np.arange(n)[:, None], n
        else:
            index = {name: i for i, name in enumerate(sorted({name for names in groups for name in names}))}
            g = len(index)
            member = np.full((n, max(len(set(names)) for names in groups)), g)
            for row, names in enumerate(groups):
                for j, name in enumerate(dict.fromkeys(names)):
                    member[row, j] = index[name]
        draw = np.random.default_rng([seed, 1])
        counts = draw.multinomial(g, np.full(g, 1 / g), size=count).clip(max=255).astype(np.uint8)
        return cls(counts, member)

    def weights(self) -> Iterator[Weights]:
        """Blocks of rows of the weights [r, n], float64."""
        block = max(1, _CELLS // len(self.member))
        for start in range(0, len(self.counts), block):
            part = self.counts[start : start + block].astype(float)
            part = np.concatenate([part, np.ones((len(part), 1))], 1)
            weights = part[:, self.member[:, 0]]
            for j in range(1, self.member.shape[1]):
                weights = weights * part[:, self.member[:, j]]
            yield weights[weights.sum(1) > 0]

    def interval(self, of: Callable[[np.ndarray], np.ndarray], level: float = LEVEL) -> tuple[float, float]:
        """The central interval of `of(weights) -> [r]`; resamples where it is NaN (a class is missing) are left out."""
        return self.intervals([of], level)[0]

    def intervals(
        self, of: Sequence[Callable[[np.ndarray], np.ndarray]], level: float = LEVEL
    ) -> list[tuple[float, float]]:
        """Several at once."""
        blocks = [[each(weights) for each in of] for weights in self.weights()]
        found = []
        for parts in zip(*blocks, strict=True):
            values = np.concatenate(parts)
            values = values[~np.isnan(values)]
            ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else [np.nan] * 2
            found.append((float(ends[0]), float(ends[1])))
        return found


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(each: np.ndarray) -> np.ndarray:
    """Mean over the first axis without NaN; NaN where all are."""
    known = ~np.isnan(each)
    return _ratio(np.where(known, each, 0).sum(0), known.sum(0).astype(float))


def _auroc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[r]; NaN where a side has no weight."""
    order = np.argsort(score, kind="stable")
    ordered, up = score[order], positive[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of each distinct score
    w = weights[:, order]
    above = np.add.reduceat(w * up, starts, axis=1)  # [r, u]
    below = np.add.reduceat(w * ~up, starts, axis=1)
    beaten = np.cumsum(below, 1) - 0.5 * below
    return _ratio((above * beaten).sum(1), above.sum(1) * below.sum(1))
