"""Control tasks, shuffled labels and p-values."""

from __future__ import annotations

import numpy as np
import pytest

from probes.controls import check_recurring, control_task, p_value, recurring, shuffled, shuffled_trees
from probes.splits import Fold


def test_a_control_task_gives_each_type_one_label() -> None:
    types = [f"w{i % 50}" for i in range(500)]
    y = (np.arange(500) % 5 == 0).astype(int)
    found = control_task(types, y, seed=1)
    assert all(len({found[i] for i in range(500) if types[i] == t}) == 1 for t in set(types))
    shares = [control_task(types, y, seed=s).mean() for s in range(200)]
    assert np.mean(shares) == pytest.approx(0.2, abs=0.02)  # drawn from the labels' own distribution
    assert not np.array_equal(found, control_task(types, y, seed=2))
    values = control_task(types, np.random.default_rng(0).normal(size=(500, 2)))
    assert values.shape == (500, 2) and len(np.unique(values, axis=0)) <= 50


def test_types_must_recur() -> None:
    fold = [Fold(np.arange(8), np.arange(8, 10))]
    assert recurring(list("aabbccddab"), fold) == 1.0
    check_recurring(list("aabbccddab"), fold)
    for types, message in (
        (None, "needs the word type of each row, and the data have none"),
        (list("aaaaaaaaaa"), "several word types; every row is 'a'"),
        (
            list("abcdefghij"),
            "types that recur: of the judged rows 0% have a type that is also fitted, and 50%",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            check_recurring(types, fold)


def test_shuffling_moves_whole_units() -> None:
    y = np.arange(60)
    assert sorted(shuffled(y, seed=1).tolist()) == list(range(60)) and not np.array_equal(shuffled(y), y)
    groups = [(f"g{i % 12}",) for i in range(60)]  # not contiguous, of equal size
    label = np.array([i % 12 % 3 for i in range(60)])
    found = shuffled(label, groups, seed=3)
    assert np.bincount(found).tolist() == np.bincount(label).tolist()
    assert all(len({found[i] for i in range(60) if i % 12 == g}) == 1 for g in range(12))
    assert not np.array_equal(found, label)


def test_shuffled_trees_keep_their_shape() -> None:
    heads = np.array([1, -1, 1, 2, -1, 4, 5])
    text = np.array([0, 0, 0, 0, 1, 1, 1])
    for seed in range(5):
        found = shuffled_trees(heads, text, seed=seed)
        assert (found[:4] < 4).all() and ((found[4:] >= 4) | (found[4:] == -1)).all()
        for rows in (slice(0, 4), slice(4, 7)):
            children = sorted(np.bincount(found[rows][found[rows] >= 0], minlength=7).tolist())
            assert children == sorted(np.bincount(heads[rows][heads[rows] >= 0], minlength=7).tolist())


def test_p_values_by_hand() -> None:
    assert p_value(0.9, [0.5, 0.6, 0.95]) == 0.5
    assert p_value(0.9, [0.1] * 19) == 0.05
    assert p_value(0.5, [0.5] * 4) == 1.0
    assert np.isnan(p_value(0.5, [])) and np.isnan(p_value(float("nan"), [0.1]))
