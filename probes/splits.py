"""Folds that do not leak: classes in equal shares, no group on both sides, and folds inside folds.

1. Rows without groups are dealt to k folds by scikit-learn's `StratifiedKFold` (`KFold` for values), shuffled.
2. With groups it is the groups that are dealt: largest first, each to the fold that keeps the shares of the
   classes most even (the rule of `StratifiedGroupKFold`). A row may belong to several groups. It *touches* every
   fold that one of its groups was dealt to.
3. Fold f is judged on the rows that touch f alone, and fitted to those that do not touch f. A row that touches f
   and another fold is on neither side: both its answers would leak.
4. Inside fold f the same deal is used again: for every other fold g, fitted to the rows that touch neither f nor
   g, judged on those that touch g alone. What is chosen (a penalty, a layer) is chosen on these, so that f's rows
   judge a choice they had no part in. The fits of (f, g) and of (g, f) are the same, k (k − 1) / 2 in all.

Letters: n rows, k folds, c classes.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes import given

Groups = Sequence[tuple[str, ...]]


@dataclass(frozen=True, eq=False, init=False)
class Fold:
    """Rows to fit and rows to judge.

    Args:
        train, test: row numbers, each once, or a truth value for each row; kept as sorted int64.

    Raises:
        ValueError: something else, a row that stands twice, or no rows.
    """

    train: np.ndarray
    test: np.ndarray

    def __init__(self, train: Any, test: Any) -> None:
        for name, values in (("train", train), ("test", test)):
            rows = given.indices(values, f"the {name} rows of a fold")
            unique, counts = np.unique(rows, return_counts=True)
            if len(unique) < len(rows):
                raise ValueError(f"row {unique[counts > 1][0]} stands twice among the {name} rows of a fold")
            object.__setattr__(self, name, unique)
        if not len(self.train) or not len(self.test):
            raise ValueError(f"a fold has {len(self.train)} rows to fit and {len(self.test)} to judge")


@dataclass(frozen=True, eq=False)
class Splits:
    """Outer folds, and for each its inner folds (none where k is 2)."""

    outer: tuple[Fold, ...]
    inner: tuple[tuple[Fold, ...], ...]

    @property
    def judged(self) -> np.ndarray:
        """The rows that some outer fold judges, sorted."""
        return np.unique(np.concatenate([fold.test for fold in self.outer]))


def folds(
    n: int,
    k: int = 5,
    *,
    labels: np.ndarray | None = None,
    groups: Groups | None = None,
    seed: int = 0,
    names: Sequence[str] = (),
) -> tuple[Fold, ...]:
    """k folds of n rows (steps 1 to 3).

    Args:
        labels: the class of each row, int [n]; None for values.
        groups: what each row belongs to, one or several; None where rows stand alone.
        names: of the classes, for messages.

    Raises:
        ValueError: fewer than 2 folds, a class with fewer rows than folds, fewer groups than folds, a fold
            without rows to judge, a class that is missing where a fold is fitted, or never judged.
    """
    return nested(n, k, labels=labels, groups=groups, seed=seed, names=names, inside=False).outer


def nested(
    n: int,
    k: int = 5,
    *,
    labels: np.ndarray | None = None,
    groups: Groups | None = None,
    seed: int = 0,
    names: Sequence[str] = (),
    inside: bool = True,
) -> Splits:
    """k folds of n rows, and folds inside each (steps 1 to 4); none inside where `inside` is false or k is 2.

    Raises:
        ValueError: as for `folds`.
    """
    if k < 2:
        raise ValueError(f"the cross-validation has {k} folds; it needs at least 2")
    if labels is not None:
        _check_classes(labels, k, names)
    if n < k:
        raise ValueError(f"there {_are(n, 'row')}, fewer than the {k} folds")
    touches = _touches(n, k, labels, groups, seed)
    outer = tuple(_fold(touches, [f], f, k, labels, names) for f in range(k))
    _check_judged(outer, labels, names, k)
    if not inside or k == 2:
        return Splits(outer, ((),) * k)
    inner = tuple(
        tuple(_fold(touches, [f, g], g, k, labels, names) for g in range(k) if g != f) for f in range(k)
    )
    return Splits(outer, inner)


def checked(
    outer: Sequence[Fold],
    n: int,
    *,
    labels: np.ndarray | None = None,
    groups: Groups | None = None,
    seed: int = 0,
    names: Sequence[str] = (),
    inside: bool = True,
    k: int = 3,
) -> Splits:
    """Folds that someone made, checked, with k folds inside the rows that each fits.

    Raises:
        ValueError: no folds, a row outside the n, a row that two folds judge, a row or a group on both sides of a
            fold, or as for `folds`.
    """
    if not outer:
        raise ValueError("no folds are given")
    for i, fold in enumerate(outer):
        rows = np.concatenate([fold.train, fold.test])
        if rows.min() < 0 or rows.max() >= n:
            wrong = rows.min() if rows.min() < 0 else rows.max()
            raise ValueError(f"fold {i + 1} names row {wrong}, and there are {n} rows")
        if len(both := np.intersect1d(fold.train, fold.test)):
            raise ValueError(f"fold {i + 1}: row {both[0]} is on both sides")
        _check_fold(fold.train, labels, names, f"fold {i + 1}")
    twice = Counter(np.concatenate([np.unique(fold.test) for fold in outer]).tolist()).most_common(1)[0]
    if twice[1] > 1:
        raise ValueError(f"row {twice[0]} is judged by {twice[1]} folds; each row is judged once")
    check_leaks(outer, groups)
    if not inside:
        return Splits(tuple(outer), ((),) * len(outer))
    inner = []
    for fold in outer:
        part = None if labels is None else labels[fold.train]
        kept = None if groups is None else [groups[row] for row in fold.train]
        found = folds(len(fold.train), k, labels=part, groups=kept, seed=seed, names=names)
        inner.append(tuple(Fold(fold.train[f.train], fold.train[f.test]) for f in found))
    return Splits(tuple(outer), tuple(inner))


def asked(cv: Any) -> Any:
    """How folds are asked for: a number of them, folds, or a scikit-learn splitter.

    Args:
        cv: a number; a list of `Fold`, of pairs (rows to fit, rows to judge), or what a splitter's `split` gives; or
            a splitter.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        return int(cv)
    if callable(getattr(cv, "split", None)) and not isinstance(cv, str):
        return cv
    what = "a number of folds, a list of (rows to fit, rows to judge), or a scikit-learn splitter"
    if isinstance(cv, str) or not isinstance(cv, Iterable):
        raise ValueError(f"cv is {given.sort(cv)}; it must be {what}")
    found = []
    for fold in cv:
        if not isinstance(fold, Fold) and not (isinstance(fold, tuple | list) and len(fold) == 2):
            raise ValueError(f"cv has {given.sort(fold)} where a fold should be; it must be {what}")
        found.append(fold if isinstance(fold, Fold) else Fold(*fold))
    return tuple(found)


def split_by(splitter: Any, n: int, labels: np.ndarray | None, groups: Groups | None) -> tuple[Fold, ...]:
    """The folds of a scikit-learn splitter, which sees the classes and the groups.

    Raises:
        ValueError: it cannot split these rows, or rows belong to several groups, which it could not keep together.
    """
    names = None
    if groups is not None:
        if any(len(set(row)) > 1 for row in groups):
            raise ValueError(
                "rows belong to several groups, and a splitter takes one; give a number of folds"
            )
        names = np.array([row[0] for row in groups])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The groups parameter is ignored")  # what leaks is refused later
        return tuple(Fold(*fold) for fold in splitter.split(np.zeros((n, 1)), labels, names))


def check_leaks(outer: Sequence[Fold], groups: Groups | None) -> None:
    """Raise a ValueError that names the first group with rows on both sides of a fold."""
    if groups is None:
        return
    for i, fold in enumerate(outer):
        fitted = {group for row in fold.train for group in groups[row]}
        for row in fold.test:
            for group in groups[row]:
                if group in fitted:
                    raise ValueError(
                        f"fold {i + 1}: the group {group!r} leaks, it has rows on both sides; row {row} is judged"
                    )


def together(groups: Groups | None, also: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups in which rows that share a name of `also` (a text, a pair) stay together as well."""
    return [(*(groups[i] if groups is not None else ()), name) for i, name in enumerate(also)]


def _touches(n: int, k: int, labels: np.ndarray | None, groups: Groups | None, seed: int) -> np.ndarray:
    """Which folds each row touches, bool [n, k]."""
    from sklearn.model_selection import KFold, StratifiedKFold

    touches = np.zeros((n, k), dtype=bool)
    if groups is None:
        splitter = (KFold if labels is None else StratifiedKFold)(k, shuffle=True, random_state=seed)
        for f, (_, test) in enumerate(splitter.split(np.zeros(n), labels)):
            touches[test, f] = True
        return touches
    if len(groups) != n:
        raise ValueError(f"there are {n} rows and groups for {len(groups)}")
    members = _members(groups)
    if len(members) < k:
        raise ValueError(f"there {_are(len(members), 'group')} that can be split, fewer than the {k} folds")
    dealt = _dealt(members, n, k, np.zeros(n, dtype=int) if labels is None else labels, seed)
    for rows, f in zip(members, dealt, strict=True):
        touches[rows, f] = True
    return touches


def _members(groups: Groups) -> list[np.ndarray]:
    """The rows of each group, without the groups all of whose rows lie in another group that is dealt."""
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(groups):
        if not names:
            raise ValueError(f"row {row} belongs to no group")
        for name in dict.fromkeys(names):
            rows.setdefault(name, []).append(row)
    kept: dict[str, set[int]] = {}
    for name in sorted(rows, key=lambda g: (-len(rows[g]), g)):  # a group can only lie inside a larger one
        mine = set(rows[name])
        if not any(mine <= kept[other] for other in groups[rows[name][0]] if other in kept):
            kept[name] = mine
    return [np.array(rows[name]) for name in kept]


def _dealt(members: list[np.ndarray], n: int, k: int, labels: np.ndarray, seed: int) -> list[int]:
    """The fold of each group (step 2)."""
    shares = np.zeros(n)
    for rows in members:
        shares[rows] += 1
    _, index = np.unique(labels, return_inverse=True)
    c = int(index.max()) + 1
    weights = np.stack([np.bincount(index[r], weights=1 / shares[r], minlength=c) for r in members])
    totals = weights.sum(0)
    shuffled = np.random.default_rng([seed, 0]).permutation(len(members))
    order = sorted(shuffled.tolist(), key=lambda g: -float(weights[g].sum()))  # stable: ties stay shuffled
    held, dealt = np.zeros((k, c)), [0] * len(members)
    for g in order:
        cost = (held * weights[g] / totals**2).sum(1)
        best = min(range(k), key=lambda f: (round(float(cost[f]), 12), float(held[f].sum()), f))
        held[best] += weights[g]
        dealt[g] = best
    return dealt


def _fold(
    touches: np.ndarray, out: list[int], f: int, k: int, labels: np.ndarray | None, names: Sequence[str]
) -> Fold:
    """Fitted to the rows that touch none of `out`, judged on those that touch f alone."""
    train = np.flatnonzero(~touches[:, out].any(1))
    test = np.flatnonzero(touches[:, f] & (touches.sum(1) == 1))
    where = f"fold {f + 1} of {k}"
    if not len(test):
        raise ValueError(
            f"{where} has no rows to judge: the groups are too uneven or too mixed; use fewer folds"
        )
    if not len(train):
        raise ValueError(f"{where} has no rows to fit: every row shares a group with it; use more folds")
    _check_fold(train, labels, names, " and ".join(f"{i + 1}" for i in out) if len(out) > 1 else where)
    return Fold(train, test)


def _check_classes(labels: np.ndarray, k: int, names: Sequence[str]) -> None:
    counts = Counter(labels.tolist())
    if len(counts) < 2:
        only = _name(next(iter(counts)), names) if counts else "nothing"
        raise ValueError(f"a probe needs two classes or more; every row is {only}")
    smallest, count = min(counts.items(), key=lambda item: item[1])
    if count < k:
        raise ValueError(
            f"the class {_name(smallest, names)} has {count} row{'s' * (count != 1)}, fewer than the {k} folds"
        )


def _check_fold(train: np.ndarray, labels: np.ndarray | None, names: Sequence[str], where: str) -> None:
    if labels is None:
        return
    lost = set(labels.tolist()) - set(labels[train].tolist())
    if lost:
        which = where if where.startswith("fold") else f"folds {where}"
        raise ValueError(
            f"without {which} no row of the class {_name(min(lost), names)} is left to fit: its rows must be "
            "spread over more groups"
        )


def _check_judged(outer: Sequence[Fold], labels: np.ndarray | None, names: Sequence[str], k: int) -> None:
    if labels is None:
        return
    judged = set(np.concatenate([labels[fold.test] for fold in outer]).tolist())
    if lost := set(labels.tolist()) - judged:
        raise ValueError(
            f"no row of the class {_name(min(lost), names)} can be judged: each mixes groups of several of the "
            f"{k} folds; use fewer folds"
        )


def _are(count: int, what: str) -> str:
    return f"is 1 {what}" if count == 1 else f"are {count} {what}s"


def _name(label: int, names: Sequence[str]) -> str:
    return repr(names[label]) if 0 <= label < len(names) else str(label)
