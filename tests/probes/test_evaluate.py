"""Accuracies and their floors: what is planted is found, what is not there is at chance, groups do not leak."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lens.progress import Cancelled
from probes.texts import Labelled
from probes.evaluate import Row, evaluate, split


def data(n: int = 120, classes: int = 2, groups: int | None = None) -> Labelled:
    texts = [f"text {i}" for i in range(n)]
    labels = [f"class {i % classes}" for i in range(n)]
    return Labelled.of(texts, labels, None if groups is None else [(i // classes) % groups for i in range(n)])


def planted(labelled: Labelled, d: int = 12, strength: float = 3.0) -> Tensor:
    directions = torch.randn(len(labelled.classes), d)
    directions = directions / directions.norm(dim=1, keepdim=True)
    return torch.randn(len(labelled.texts), d) + strength * directions[list(labelled.labels)]


@pytest.mark.parametrize("estimator", ["logistic", "mass-mean"])
@pytest.mark.parametrize("classes", [2, 3])
def test_planted_labels_are_read_and_noise_is_at_its_floor(estimator: str, classes: int) -> None:
    labelled = data(classes=classes)
    activations = {"planted": planted(labelled), "constant": torch.zeros(120, 12)}
    activations |= {f"noise {i}": torch.randn(120, 12) for i in range(6)}
    signal, constant, *noise = evaluate(activations, labelled, estimator, seed=3, shuffles=3)
    chance = 1 / classes
    assert signal.accuracy > 0.8 and signal.low > chance + 0.2
    assert sum(row.accuracy for row in noise) / 6 == pytest.approx(chance, abs=0.06)
    for row in (*noise, signal):
        assert row.n == 120 and row.low <= row.accuracy <= row.high
        assert row.majority == pytest.approx(chance)
        assert row.shuffled == pytest.approx(chance, abs=0.12)
    assert constant.accuracy == pytest.approx(chance)  # no signal, and no NaN
    assert [r.chosen_after_the_fact for r in (signal, constant, *noise)] == [True] + 7 * [False]


def test_majority_is_the_floor_of_unbalanced_classes() -> None:
    labelled = Labelled.of([f"t{i}" for i in range(100)], ["rare"] * 20 + ["common"] * 80)
    (row,) = evaluate({"site": torch.randn(100, 4)}, labelled)
    assert row.majority == 0.8
    assert not row.chosen_after_the_fact  # one site: nothing was chosen
    assert row.accuracy < 0.9


def test_same_arguments_same_rows() -> None:
    labelled = data(60)
    activations = {"a": planted(labelled, strength=1.0), "b": torch.randn(60, 12)}
    first = evaluate(activations, labelled, seed=1)
    assert first == evaluate(activations, labelled, seed=1)
    assert first != evaluate(activations, labelled, seed=2)
    alone = evaluate({"b": activations["b"]}, labelled, seed=1)
    assert alone[0] == Row(**{**vars(first[1]), "chosen_after_the_fact": False})


@pytest.mark.parametrize("groups", [None, 7, 30])
def test_folds(groups: int | None) -> None:
    labelled = data(120, classes=3, groups=groups)
    splits = split(labelled, 5, seed=4)
    assert len(splits) == 5
    judged = [row for _, judge in splits for row in judge.tolist()]
    assert sorted(judged) == list(range(120))
    for fit, judge in splits:
        assert not set(fit.tolist()) & set(judge.tolist())
        assert {labelled.labels[i] for i in fit} == {0, 1, 2}
        if labelled.groups is not None:
            assert not {labelled.groups[i] for i in fit} & {labelled.groups[i] for i in judge}


def test_a_group_that_gives_its_label_away_is_read_only_where_groups_leak() -> None:
    """Each group has its own direction and one label; only a probe that saw the group can know the label."""
    n_groups, size = 30, 6
    groups = [i // size for i in range(n_groups * size)]
    labels = [group % 2 for group in groups]
    x = torch.randn(n_groups, 40)[groups] * 3 + torch.randn(len(groups), 40) * 0.1
    texts = [f"t{i}" for i in range(len(groups))]
    (leaking,) = evaluate({"site": x}, Labelled.of(texts, labels), seed=0)
    (kept,) = evaluate({"site": x}, Labelled.of(texts, labels, groups), seed=0)
    assert leaking.accuracy > 0.95
    assert kept.accuracy < 0.75
    assert kept.high - kept.low > 0.2  # 30 groups, not 180 texts


def test_mistakes() -> None:
    labelled = data(12)
    good = torch.randn(12, 3)
    bad = good.clone()
    bad[5, 1] = float("nan")
    few = Labelled.of([f"t{i}" for i in range(12)], ["rare"] * 3 + ["common"] * 9)
    lonely = Labelled.of([f"t{i}" for i in range(20)], ["a"] * 10 + ["b"] * 10, [0] * 10 + list(range(1, 11)))
    for arguments, message in (
        (({"s": good}, labelled, "logistc"), "did you mean 'logistic'"),
        (({"s": good[:4]}, labelled), "activations at 's' are of 4 texts, and there are 12 labels"),
        (({"s": bad}, labelled), "activation of text 5 at 's' is not finite"),
        (({"s": good}, few), "class 'rare' has 3 texts, fewer than the 5 folds"),
        (({"s": good}, data(12, groups=3)), "3 groups, fewer than the 5 folds"),
        (({"s": torch.randn(20, 3)}, lonely), "all texts of the class 'a' fell into fold"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(*arguments)
    with pytest.raises(ValueError, match="folds is 1"):
        evaluate({"s": good}, labelled, folds=1)
    with pytest.raises(ValueError, match="shuffles is 0"):
        evaluate({"s": good}, labelled, shuffles=0)


def test_cancelling() -> None:
    def watcher(done: int, total: int, label: str) -> None:
        assert (total, label) == (12, "fitting probes")
        if done == 2:
            raise Cancelled

    labelled = data(20)
    with pytest.raises(Cancelled):
        evaluate({"a": torch.randn(20, 2), "b": torch.randn(20, 2)}, labelled, progress=watcher)
