"""Folds: equal shares, no group on both sides, folds inside folds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

from probes.splits import Fold, check_leaks, checked, folds, nested, together

Groups = list[tuple[str, ...]]


def two_countries(n: int = 400, countries: int = 40, seed: int = 0) -> tuple[np.ndarray, Groups]:
    """True statements belong to one country, false ones to two."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    groups: Groups = []
    for label in labels:
        a, b = draw.choice(countries, 2, replace=False)
        groups.append((f"g{a}",) if label else (f"g{a}", f"g{b}"))
    return labels, groups


@pytest.mark.parametrize("k", [2, 5])
def test_without_groups_the_folds_are_those_of_scikit_learn(k: int) -> None:
    labels = np.arange(60) % 3
    expected = list(StratifiedKFold(k, shuffle=True, random_state=7).split(labels, labels))
    for fold, (train, test) in zip(folds(60, k, labels=labels, seed=7), expected, strict=True):
        assert fold.train.tolist() == train.tolist() and fold.test.tolist() == test.tolist()
    expected = list(KFold(k, shuffle=True, random_state=7).split(labels))
    assert [f.test.tolist() for f in folds(60, k, seed=7)] == [test.tolist() for _, test in expected]


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_on_one_side_and_classes_are_even(seed: int) -> None:
    draw = np.random.default_rng(seed)
    group = draw.integers(0, 50, 600)
    labels = (draw.random(50) < 0.3).astype(int)[group]
    groups = [(f"g{g}",) for g in group]
    found = folds(600, 5, labels=labels, groups=groups, seed=seed)
    check_leaks(found, groups)
    assert sorted(np.concatenate([f.test for f in found]).tolist()) == list(range(600))
    for fold in found:
        assert 80 <= len(fold.test) <= 160
        assert labels[fold.test].mean() == pytest.approx(labels.mean(), abs=0.1)


def test_rows_of_several_groups_are_on_neither_side_when_mixed() -> None:
    labels, groups = two_countries()
    found = nested(400, 4, labels=labels, groups=groups, seed=1)
    for f, fold in enumerate(found.outer):
        sides = [{g for row in part for g in groups[row]} for part in (fold.train, fold.test)]
        assert not sides[0] & sides[1]
        mixed = set(range(400)) - set(fold.train.tolist()) - set(fold.test.tolist())
        assert mixed and all(len(groups[row]) == 2 for row in mixed)
        for row in mixed:  # each touches this fold's groups and another's
            assert not set(groups[row]) <= sides[1]
        for inner in found.inner[f]:
            assert not set(inner.train) & set(fold.test) and not set(inner.test) & set(fold.test)
            inside = [{g for row in part for g in groups[row]} for part in (inner.train, inner.test)]
            assert not inside[0] & inside[1] and not (inside[0] | inside[1]) & sides[1]


def test_inner_fits_are_shared_between_pairs_of_folds() -> None:
    found = nested(100, 5, labels=np.arange(100) % 2)
    trains = {inner.train.tobytes() for inside in found.inner for inner in inside}
    assert sum(map(len, found.inner)) == 20 and len(trains) == 10
    for f, inside in enumerate(found.inner):
        rows = np.sort(np.concatenate([inner.test for inner in inside]))
        assert rows.tolist() == found.outer[f].train.tolist()
    assert nested(100, 2, labels=np.arange(100) % 2).inner == ((), ())


def test_groups_within_groups_are_dealt_as_one() -> None:
    groups = together([("a",)] * 20 + [("b",)] * 20 + [("c",)] * 20, [f"text {i // 4}" for i in range(60)])
    found = folds(60, 3, groups=groups)
    assert sorted(len(f.test) for f in found) == [20, 20, 20]
    assert all(len({groups[row][0] for row in f.test}) == 1 for f in found)


def test_given_folds_are_checked() -> None:
    labels = np.array([0, 1] * 10)
    good = [Fold(np.arange(12), np.arange(12, 20))]
    assert len(checked(good, 20, labels=labels).inner[0]) == 3
    assert checked(good, 20, labels=labels, inside=False).inner == ((),)
    leaky = [("x",)] * 13 + [("y",)] * 7
    for outer, options, message in (
        ([], {}, "no folds are given"),
        ([Fold(np.arange(12), np.arange(11, 20))], {}, "fold 1: row 11 is on both sides"),
        ([Fold(np.arange(12), np.arange(12, 21))], {}, "names row 20, and there are 20 rows"),
        (good * 2, {}, "row 12 is judged by 2 folds"),
        (good, {"groups": leaky}, "fold 1: the group 'x' leaks, it has rows on both sides; row 12"),
    ):
        with pytest.raises(ValueError, match=message):
            checked(outer, 20, labels=labels, **options)


def test_mistakes() -> None:
    labels = np.array([0] * 3 + [1] * 9)
    lonely: Groups = [("g0",)] * 10 + [(f"g{i}",) for i in range(1, 11)]
    crossed: Groups = [("a", "b"), ("b", "c"), ("a", "c")] * 4
    for arguments, options, message in (
        ((12, 1), {}, "has 1 folds; it needs at least 2"),
        ((12, 5), {"labels": labels, "names": ("rare", "common")}, "class 'rare' has 3 rows, fewer than the 5"),
        ((12, 5), {"labels": np.zeros(12, int), "names": ("only",)}, "two classes or more; every row is 'only'"),
        ((3, 5), {}, "there are 3 rows, fewer than the 5 folds"),
        ((12, 5), {"groups": [("a",)] * 6 + [("b",)] * 6}, "2 groups that can be split, fewer than the 5"),
        ((12, 2), {"groups": [("a",)] * 11 + [()]}, "row 11 belongs to no group"),
        ((12, 2), {"groups": [("a",)] * 11}, "12 rows and groups for 11"),
        ((12, 3), {"groups": crossed}, "fold 1 of 3 has no rows to judge"),
        (
            (20, 2), {"groups": lonely, "labels": np.array([0] * 10 + [1] * 10), "names": ("x", "y")},
            "no row of the class 'x' is left to fit",
        ),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            folds(*arguments, **options)
    with pytest.raises(ValueError, match="0 rows to fit"):
        Fold(np.arange(0), np.arange(3))


def test_a_class_that_is_always_mixed_is_refused() -> None:
    """Every false statement joins the two halves of the countries."""
    labels = np.array([1] * 20 + [0] * 20)
    groups: Groups = [(f"g{i % 2}",) for i in range(20)] + [("g0", "g1")] * 20
    with pytest.raises(ValueError, match="'false'"):
        folds(40, 2, labels=labels, groups=groups, names=("false", "true"))
