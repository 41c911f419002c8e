"""What a probe scores on labels that mean nothing: control tasks and shuffled labels.

Control task (Hewitt, Liang 2019, arXiv 1909.03368): every word type gets one label, drawn from the labels that rows
have, and all its rows have that label. A probe can only learn it by remembering types. Selectivity is the probe's
score on the real labels minus its score on the control task. It needs types that recur: a type that is judged must
have been fitted.

Shuffled labels: the labels are permuted over the rows. Where rows have groups, labels within a group resemble each
other, and so do its activations; therefore whole blocks move: the rows are laid out unit by unit (a unit: rows with
the same groups), the label blocks of the units are put in a random order, each shuffled inside, and laid along the
same rows. With units of equal size, labels that were the same for a whole unit stay so. The p-value of N permutations
is (1 + those that score as high as the real labels) / (1 + N): never zero, and uniform where there is nothing to find
(Phipson, Smyth 2010, Permutation p-values should never be zero).

Letters: n rows, N permutations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probes.splits import Fold

RECURRING = 0.5
"""The share of judged rows whose type must be among the fitted ones."""


def control_task(types: Sequence[str], y: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Labels of a control task: one per type, that of a row drawn at random; of the shape of y [n] or [n, t]."""
    index = _index(types)
    draw = np.random.default_rng([seed, 3])
    return y[draw.integers(0, len(y), size=int(index.max()) + 1)][index]


def recurring(types: Sequence[str], folds: Sequence[Fold]) -> float:
    """The share of judged rows whose type is among the rows that their fold is fitted to."""
    index = _index(types)
    found = [np.isin(index[fold.test], index[fold.train]) for fold in folds]
    return float(np.concatenate(found).mean())


def check_recurring(types: Sequence[str] | None, folds: Sequence[Fold]) -> None:
    """Raise a ValueError unless a control task can be learned.

    Raises:
        ValueError: rows have no types, one type only, or types that seldom recur.
    """
    if types is None:
        raise ValueError("a control task needs the word type of each row, and the data have none")
    if len(set(types)) < 2:
        raise ValueError(f"a control task needs several word types; every row is {types[0]!r}")
    share = recurring(types, folds)
    if share < RECURRING:
        raise ValueError(
            f"a control task needs types that recur: of the judged rows {share:.0%} have a type that is also "
            f"fitted, and {RECURRING:.0%} are needed"
        )


def shuffled(y: np.ndarray, groups: Sequence[tuple[str, ...]] | None = None, *, seed: int = 0) -> np.ndarray:
    """y permuted over its rows, whole blocks at a time where there are groups."""
    draw = np.random.default_rng([seed, 4])
    if groups is None:
        return y[draw.permutation(len(y))]
    unit = _index([tuple(sorted(set(names))) for names in groups])
    rows = np.argsort(unit, kind="stable")
    rank = draw.permutation(int(unit.max()) + 1)[unit]
    source = np.lexsort((draw.permutation(len(y)), rank))  # units in a random order, shuffled inside
    found = np.empty_like(y)
    found[rows] = y[source]
    return found


def shuffled_trees(heads: np.ndarray, text: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """The same tree for every text, its words changing places."""
    draw = np.random.default_rng([seed, 4])
    found = np.full_like(heads, -1)
    for rows in np.split(np.arange(len(heads)), np.flatnonzero(np.diff(text)) + 1):
        place = rows[draw.permutation(len(rows))]  # where each word goes
        above = heads[rows]
        hangs = above >= 0
        found[place[hangs]] = place[above[hangs] - rows[0]]
    return found


def p_value(score: float, permuted: Sequence[float]) -> float:
    """(1 + #{permuted ≥ score}) / (1 + N); NaN where the score is NaN or there are no permutations."""
    if not len(permuted) or np.isnan(score):
        return float("nan")
    return (1 + sum(not value < score - 1e-12 for value in permuted)) / (1 + len(permuted))


def _index(names: Sequence[object]) -> np.ndarray:
    """A number per name, in the order of first appearance."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])
