"""Scores against scikit-learn, weighted and not; intervals against resampling done by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as oracle

from probes import scores
from probes.scores import METRICS, Resamples, measured, metrics_of

DRAW = np.random.default_rng(0)


def sample(c: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = DRAW.integers(0, c, n)
    decision = DRAW.normal(size=n if c == 2 else (n, c)).round(1)  # with ties
    decision = decision + (0.5 * (2 * y - 1) if c == 2 else 0.5 * np.eye(c)[y])
    return y, decision.round(1), DRAW.integers(0, 3, n)


@pytest.mark.parametrize("c", [2, 4])
def test_classes_against_scikit_learn(c: int) -> None:
    y, decision, fold = sample(c)
    weights = DRAW.integers(0, 4, (7, len(y))).astype(float)
    said = scores.told(decision)
    for name, of in {
        "accuracy": oracle.accuracy_score,
        "balanced_accuracy": oracle.balanced_accuracy_score,
        "macro_f1": lambda *a, **k: oracle.f1_score(*a, average="macro", **k),
    }.items():
        assert measured(METRICS[name], y, decision, fold) == pytest.approx(of(y, said))
        found = METRICS[name].of(y, decision, fold, weights)
        for w, value in zip(weights, found, strict=True):
            rows = w > 0
            assert value == pytest.approx(of(y[rows], said[rows], sample_weight=w[rows])), name


@pytest.mark.parametrize("c", [2, 4])
def test_auroc_is_the_mean_over_folds(c: int) -> None:
    y, decision, fold = sample(c, 200)
    weights = DRAW.integers(0, 4, (5, len(y))).astype(float)
    for w, value in zip(weights, METRICS["auroc"].of(y, decision, fold, weights), strict=True):
        each = []
        for f in range(3):
            rows = (fold == f) & (w > 0)
            score = decision[rows] if c == 2 else None
            per_class = (
                [oracle.roc_auc_score(y[rows], score, sample_weight=w[rows])]
                if c == 2
                else [
                    oracle.roc_auc_score(y[rows] == k, decision[rows, k], sample_weight=w[rows])
                    for k in range(c)
                ]
            )
            each.append(np.mean(per_class))
        assert value == pytest.approx(np.mean(each))
    one_class = np.zeros(len(y), dtype=int)
    assert np.isnan(measured(METRICS["auroc"], one_class, decision[:, 0] if c > 2 else decision, fold))


def test_a_fold_without_both_classes_is_left_out_of_auroc() -> None:
    y, decision, fold = np.array([0, 1, 1, 1]), np.array([0.0, 1.0, 5.0, -5.0]), np.array([0, 0, 1, 1])
    assert measured(METRICS["auroc"], y, decision, fold) == 1.0


def test_r2_against_scikit_learn() -> None:
    y = DRAW.normal(size=(50, 2)) + 100
    told = y + 0.3 * DRAW.normal(size=(50, 2))
    fold = np.zeros(50, dtype=int)
    assert measured(METRICS["r2"], y, told, fold) == pytest.approx(oracle.r2_score(y, told))
    weights = DRAW.integers(0, 3, (4, 50)).astype(float)
    for w, value in zip(weights, METRICS["r2"].of(y, told, fold, weights), strict=True):
        assert value == pytest.approx(oracle.r2_score(y, told, sample_weight=w))
    assert np.isnan(measured(METRICS["r2"], np.ones((50, 1)), told[:, :1], fold))


@pytest.mark.parametrize("groups", [None, "one", "two"])
def test_intervals_are_those_of_resampling_by_hand(groups: str | None) -> None:
    y, decision, fold = sample(2, 40)
    names = {
        None: None,
        "one": [(f"g{i // 4}",) for i in range(40)],
        "two": [(f"g{i // 4}", f"h{i % 4}") for i in range(40)],
    }[groups]
    resamples = Resamples.of(40, names, count=300, seed=3)
    low, high = resamples.interval(lambda w: METRICS["accuracy"].of(y, decision, fold, w))
    draw = np.random.default_rng([3, 1])
    order = sorted({g for row in names for g in row}) if names else list(range(40))
    counts = draw.multinomial(len(order), np.full(len(order), 1 / len(order)), size=300)
    right, values = scores.told(decision) == y, []
    for count in counts:
        times = dict(zip(order, count.tolist(), strict=True))
        w = [np.prod([times[g] for g in (names[i] if names else (i,))]) for i in range(40)]
        if sum(w):
            values.append(np.average(right, weights=w))
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_the_interval_does_not_depend_on_how_weights_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    y, decision, fold = sample(2, 50)
    resamples = Resamples.of(50, count=100)
    whole = resamples.interval(lambda w: METRICS["auroc"].of(y, decision, fold, w))
    monkeypatch.setattr(scores, "_CELLS", 333)
    assert len(list(resamples.weights())) > 10
    assert resamples.interval(lambda w: METRICS["auroc"].of(y, decision, fold, w)) == whole


def test_groups_widen_the_interval() -> None:
    group = np.arange(200) // 10
    right = (DRAW.random(20) < 0.7)[group]
    y, fold = np.ones(200, dtype=int), np.zeros(200, dtype=int)
    decision = np.where(right, 1.0, -1.0)

    def width(groups: list[tuple[str, ...]] | None) -> float:
        low, high = Resamples.of(200, groups).interval(lambda w: scores.accuracy(y, decision, fold, w))
        return high - low

    assert width([(f"g{g}",) for g in group]) > 2 * width(None)


def test_metrics_by_name() -> None:
    assert [m.name for m in metrics_of("values")] == ["r2"]
    assert [m.name for m in metrics_of("classes", ["auroc", "accuracy"])] == ["auroc", "accuracy"]
    with pytest.raises(ValueError, match="'acuracy' is not a metric of classes; did you mean 'accuracy'"):
        metrics_of("classes", ["acuracy"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, _ = Resamples.of(4, count=5).interval(lambda w: np.full(len(w), np.nan))
    assert np.isnan(low)
