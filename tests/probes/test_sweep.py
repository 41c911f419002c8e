"""Sweeps against naive pipelines on the same folds, theorems about their controls, and every line of refusal."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lens.progress import Cancelled
from probes.activations import Activations
from probes.crossfit import likelihood
from probes.estimator import estimators, get_estimator
from probes.labelled import Classes, Labelled, Values
from probes.splits import Fold, folds, nested
from probes.sweep import sweep
from probes.swept import INSIDE


def labelled(n: int = 120, c: int = 2, groups: int | None = None, types: int | None = None) -> Labelled:
    return Labelled(
        "made up", tuple(f"text {i}" for i in range(n)), np.arange(n), None,
        {
            "label": Classes(np.arange(n) % c, tuple(f"class {i}" for i in range(c))),
            "place": Values(np.random.default_rng(1).normal([50, 10], 1, (n, 2)), ("lat", "lon"), "degrees"),
        },
        groups=None if groups is None else tuple((f"g{i // c % groups}",) for i in range(n)),
        types=None if types is None else tuple(f"w{i % types}" for i in range(n)),
        columns={"country": np.array([f"c{i % 6}" for i in range(n)])},
    )  # fmt: skip


def site(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_post"


def planted(data: Labelled, strengths: list[float], d: int = 10, seed: int = 0) -> dict[str, Tensor]:
    """Noise, and the label along one direction as strongly as said, layer by layer."""
    generator = torch.Generator().manual_seed(seed)
    target = data.target("label")
    assert isinstance(target, Classes)
    axes = torch.randn(len(target.names), d, generator=generator)
    axes = axes / axes.norm(dim=1, keepdim=True)
    return {
        site(layer): torch.randn(data.n, d, generator=generator)
        + strength * axes[torch.tensor(target.labels)]
        for layer, strength in enumerate(strengths)
    }


@pytest.mark.parametrize("c", [2, 3])
@pytest.mark.parametrize("groups", [None, 12])
def test_classes_are_those_of_a_naive_pipeline(c: int, groups: int | None) -> None:
    """Penalty chosen on the inner folds, judged on the outer ones, with scikit-learn doing each fit."""
    data = labelled(c=c, groups=groups)
    x = planted(data, [0.4, 1.5])
    grid = [0.003, 0.1, 10.0]
    found = sweep(x, data, "logistic", C=grid, cv=4, seed=3, floors=["majority"])
    y = np.arange(data.n) % c
    parts = nested(data.n, 4, labels=y, groups=data.groups, seed=3)
    inner, decisions = {}, {}
    for name, tensor in x.items():
        z, decision = scaled(tensor), np.full((data.n, c), np.nan)
        for f, fold in enumerate(parts.outer):
            scores = [
                np.mean([
                    accuracy_score(y[p.test], logistic(C).fit(z[p.train], y[p.train]).predict(z[p.test]))
                    for p in parts.inner[f]
                ])
                for C in grid
            ]  # fmt: skip
            inner[name, f] = max(scores)
            best = logistic(grid[int(np.argmax(scores))]).fit(z[fold.train], y[fold.train])
            decision[fold.test] = best.predict_proba(z[fold.test])
        decisions[name] = decision
        row = found.curve().set_index("site").loc[name]
        assert row.score == pytest.approx(accuracy_score(y, decision.argmax(1)))
        aucs = [
            np.mean([roc_auc_score(y[p.test] == k, decision[p.test, k]) for k in range(c)])
            for p in parts.outer
        ]
        assert found.curve(metric="auroc").set_index("site").loc[name].score == pytest.approx(
            np.mean(aucs), abs=0.02
        )
        assert row.low <= row.score <= row.high and row.n == data.n
        assert row.floor_majority == pytest.approx(1 / c, abs=0.02)
    chosen = [max(x, key=lambda name: inner[name, f]) for f in range(4)]
    told = np.full((data.n, c), np.nan)
    for name, fold in zip(chosen, parts.outer, strict=True):
        told[fold.test] = decisions[name][fold.test]
    row = found.inside()
    assert row is not None and row.score == pytest.approx(accuracy_score(y, told.argmax(1)))
    assert row.layers == ", ".join(name.split(".")[1] for name in chosen) and row.site == INSIDE


def scaled(x: Tensor) -> np.ndarray:
    """One standardisation per site, over all its rows: it sees no labels."""
    return StandardScaler().fit_transform(x.double().numpy())


def logistic(C: float) -> LogisticRegression:
    return LogisticRegression(C=C, tol=1e-8, max_iter=10_000)


def test_values_are_those_of_a_naive_pipeline() -> None:
    data = labelled()
    y = np.asarray(data.targets["place"].values)  # type: ignore[union-attr]
    x = torch.cat([torch.tensor(y) + torch.randn(data.n, 2), torch.randn(data.n, 4)], 1)
    found = sweep(
        {site(0): x}, data, "ridge", targets="place", alpha=3.0, groups="country", cv=3,
        floors=["mean", "surface", "group-mean:country"],
    )  # fmt: skip
    told, z = np.full_like(y, np.nan), scaled(x)
    for fold in folds(data.n, 3, groups=[(f"c{i % 6}",) for i in range(data.n)]):
        told[fold.test] = Ridge(alpha=3.0).fit(z[fold.train], y[fold.train]).predict(z[fold.test])
    table = found.table.set_index("value")
    assert table.loc["", "score"] == pytest.approx(r2_score(y, told))
    for j, name in enumerate(("lat", "lon")):
        assert table.loc[name, "score"] == pytest.approx(r2_score(y[:, j], told[:, j]))
    assert table.loc["", "floor_mean"] < 0  # a mean of other rows
    assert (table["floor_group-mean:country"] == table.floor_mean).all()  # countries are held out
    assert found.probe().names == ("lat", "lon") and found.trial().unit == "degrees"
    whole = make_pipeline(StandardScaler(), Ridge(alpha=3.0)).fit(x.numpy(), y)
    np.testing.assert_allclose(found.probe().scores(x).numpy(), whole.predict(x.numpy()), rtol=1e-6)
    known = sweep(
        {site(0): x}, data, "ridge", targets="place", alpha=3.0, cv=3, floors=["group-mean:country"]
    )
    assert (known.table["floor_group-mean:country"] != table.floor_mean.to_numpy()).any()


def test_what_is_planted_is_found_and_noise_is_at_its_floor() -> None:
    data = labelled(200, types=20)
    found = sweep(planted(data, [0.0, 3.0, 0.0]), data, permutations=19, mdl=True, floors=["majority"])
    noise, signal, other = (row for _, row in found.curve().iterrows())
    assert signal.score > 0.9 and signal.p_value == 0.05 and signal.chosen_after_the_fact
    assert signal.compression > 1.5 and signal.uniform == 200
    for row in (noise, other):
        assert row.score == pytest.approx(0.5, abs=0.12) and row.p_value > 0.05 and row.compression < 1.1
        assert row.low < 0.57 and row.high > 0.43 and not row.chosen_after_the_fact
    assert found.best().site == site(1) and found.inside().layers == "1, 1, 1, 1, 1"  # type: ignore[union-attr]
    assert signal.selectivity == pytest.approx(signal.score - signal.control)


def test_selectivity_sees_a_probe_that_remembers_types() -> None:
    """Each type has its own direction: the control task is learned as well as the label, which follows the type."""
    data = labelled(400, types=10)
    x = 8 * torch.eye(10)[torch.arange(400) % 10] + torch.randn(400, 10)
    row = sweep({site(0): x}, data, controls=2, floors=[]).best()
    assert row.score > 0.95 and row.control > 0.9 and abs(row.selectivity) < 0.1
    x = torch.randn(400, 10) + 3 * (torch.arange(400) % 2)[:, None]
    row = sweep({site(0): x}, data, controls=5, floors=[]).best()
    assert row.score > 0.95 and row.selectivity > 0.15


def test_p_values_of_noise_are_uniform() -> None:
    data = labelled(60)
    x = {site(i): torch.randn(60, 3) for i in range(40)}
    p = sweep(x, data, "mass-mean", permutations=9, floors=[], bootstrap=1, cv=2).curve().p_value.to_numpy()
    assert set(np.round(p * 10)) <= set(range(1, 11))
    assert 0.35 < p.mean() < 0.75 and (p <= 0.2).mean() < 0.45


def test_the_layer_chosen_inside_is_not_the_best_after_the_fact_on_noise() -> None:
    gaps, inside = [], []
    for seed in range(5):
        data = labelled(80)
        x = planted(data, [0.0] * 12, d=4, seed=seed)
        found = sweep(x, data, "mass-mean", floors=[], bootstrap=1, metrics=["accuracy"], seed=seed)
        row = found.inside()
        assert row is not None
        gaps.append(found.best().score - row.score)
        inside.append(row.score)
    assert np.mean(gaps) > 0.05 and np.mean(inside) == pytest.approx(0.5, abs=0.07)


def test_one_site_is_not_a_choice_and_two_folds_choose_nothing() -> None:
    data = labelled(40)
    alone = sweep(planted(data, [1.0]), data, floors=[])
    assert alone.inside() is None and not alone.table.chosen_after_the_fact.any()
    halves = sweep(planted(data, [1.0, 0.0]), data, cv=2, floors=[])
    assert halves.inside() is None and halves.table.chosen_after_the_fact.sum() == 4  # one site, four metrics


def test_same_arguments_same_numbers_whatever_else_is_swept() -> None:
    data = labelled(90, c=3, types=9)
    x = planted(data, [0.3, 1.0])
    options = {"C": [0.01, 1.0], "permutations": 3, "mdl": True, "seed": 5, "floors": ["majority"]}
    first, again = sweep(x, data, **options), sweep(x, data, **options)
    assert first.table.equals(again.table)
    for key, probe in first.probes.items():
        assert torch.equal(probe.coef, again.probes[key].coef)
    alone = sweep({site(1): x[site(1)]}, data, **options)
    columns = ["score", "low", "high", "control", "p_value", "codelength"]
    np.testing.assert_allclose(
        alone.table[columns].to_numpy(),
        first.table[first.table.site == site(1)][columns].to_numpy(),
        rtol=1e-9,
    )
    assert not first.table.equals(sweep(x, data, **{**options, "seed": 6}).table)


def test_constant_features_give_no_signal_and_no_nan() -> None:
    data = labelled(60)
    found = sweep(
        {site(0): torch.full((60, 5), 3.7), site(1): torch.randn(60, 5)}, data, permutations=2, mdl=True
    )
    rows = found.table[found.table.site == site(0)]
    assert (rows.note == "no signal: every feature is constant").all()
    assert rows.score.notna().all() and rows.set_index("metric").score["accuracy"] == pytest.approx(0.5)
    assert rows.set_index("metric").score["auroc"] == 0.5
    with pytest.raises(ValueError, match="found no signal"):
        found.probe(site(0)).direction()
    values = sweep({site(0): torch.zeros(60, 5)}, data, "ridge", targets="place", floors=["mean"])
    assert values.table.score.to_numpy() == pytest.approx(values.table.floor_mean.to_numpy())


def test_several_targets_positions_and_tensors_of_words() -> None:
    data = labelled(60)
    x = planted(data, [2.0])
    found = sweep(x, data, "ridge", targets=["place"], floors=[])
    assert found.trial("place").reads == "values"
    with pytest.raises(ValueError, match="'plce' is not a known swept target; did you mean 'place'"):
        found.trial("plce")
    with pytest.raises(ValueError, match="is not a known probed site"):
        found.probe("blocks.3.hook_resid_post")


def test_given_folds_are_used() -> None:
    data = labelled(60)
    x = planted(data, [2.0])
    fold = Fold(np.arange(40), np.arange(40, 60))
    found = sweep(x, data, cv=[fold], floors=["majority"])
    assert found.table.n.unique().tolist() == [20]
    decision = found.decisions["label", site(0), ""]
    assert np.isnan(decision[:40]).all() and not np.isnan(decision[40:]).any()
    assert "given" in found.record["cv"]


def test_columns_that_stall_are_listed_in_one_warning() -> None:
    data = labelled(60)
    with pytest.warns(UserWarning, match=r"columns did not converge: label, fold 1; label, fold 2") as caught:
        sweep(planted(data, [1.0]), data, options={"max_iter": 1, "tol": 1e-14}, floors=[])
    assert len(caught) == 1


MISTAKES: dict[str, tuple[dict, dict]] = {
    "'logistc' is not a known estimator; did you mean 'logistic'": ({}, {"estimator": "logistc"}),
    "'blocks.9.hook_resid_post' is not a site": ({}, {"sites": "blocks.9.hook_resid_post"}),
    "'lable' is not a target of made up; did you mean 'label'": ({}, {"targets": "lable"}),
    "logistic probes read classes, and the target 'place' is of values": ({}, {"targets": "place"}),
    "logistic probes have no alpha; its penalty is C": ({}, {"alpha": 1.0}),
    "mass-mean probes have no C; it has no penalty": ({}, {"estimator": "mass-mean", "C": 1.0}),
    "C is -1.0; it must be positive": ({}, {"C": [1.0, -1.0]}),
    "C is 'gird'; it is a number, several, or 'grid'": ({}, {"C": "gird"}),
    "no value of C is given": ({}, {"C": []}),
    "has 1 folds; it needs at least 2": ({}, {"cv": 1}),
    "choosing among 2 values of C inside 2 folds": ({}, {"cv": 2, "C": [1.0, 2.0]}),
    "the class 'class 0' has 60 rows, fewer than the 61 folds": ({}, {"cv": 61}),
    "3 groups that can be split, fewer than the 5 folds": ({"groups": 3}, {}),
    "made up has no groups to keep together": ({}, {"groups": True}),
    "'contry' is not a column of made up; did you mean 'country'": ({}, {"groups": "contry"}),
    "needs the word type of each row, and the data have none": ({}, {"controls": 1}),
    "types that recur: of the judged rows 0%": ({"types": 120}, {"controls": 1}),
    "controls is -1": ({}, {"controls": -1}),
    "permutations is -1": ({}, {"permutations": -1}),
    "mass-mean probes give no probabilities": ({}, {"estimator": "mass-mean", "mdl": True}),
    "'majorty' is not a known floor; did you mean 'majority'": ({}, {"floors": ["majorty"]}),
    "the floor 'mean' cannot be had: it is a floor of values, not of classes": ({}, {"floors": ["mean"]}),
    "the floor 'random-init' cannot be had: there is no model": ({}, {"floors": ["random-init"]}),
    "the floor 'layer-0' cannot be had: blocks.0.hook_resid_pre was not harvested": (
        {},
        {"floors": ["layer-0"]},
    ),
    "the floor 'behaviour' cannot be had: there is no model to ask": ({}, {"floors": ["behaviour"]}),
    "the floor 'group-mean:contry' cannot be had: 'contry' is not a column": (
        {},
        {"floors": ["group-mean:contry"]},
    ),
    "'acuracy' is not a metric of classes": ({}, {"metrics": ["acuracy"]}),
    "positions are chosen when activations are harvested": ({}, {"positions": "last"}),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message: str) -> None:
    of, options = MISTAKES[message]
    data = labelled(**of)
    with pytest.raises(ValueError, match=message):
        sweep({site(0): torch.randn(120, 3)}, data, **options)


def test_activations_that_do_not_fit() -> None:
    data = labelled(40)
    x = torch.randn(40, 3)
    x[17, 1] = float("nan")
    with pytest.raises(ValueError, match=r"row 17 at 'blocks\.1\.hook_resid_post' is NaN"):
        sweep({site(0): torch.randn(40, 3), site(1): x}, data)
    with pytest.raises(ValueError, match="41 rows"):
        sweep({site(0): torch.randn(41, 3)}, data)
    one = Labelled(
        "one", data.texts, data.text, None, {"label": Classes(np.zeros(40, dtype=int), ("a", "b"))}
    )
    with pytest.raises(ValueError, match="two classes or more; every row is 'a'"):
        sweep({site(0): torch.randn(40, 3)}, one)


def test_cancelling() -> None:
    seen = []

    def watcher(done: int, total: int, label: str) -> None:
        seen.append((done, total, label))
        if done == 1 and label == "judging probes":
            raise Cancelled

    data = labelled(40)
    with pytest.raises(Cancelled):
        sweep(planted(data, [1.0, 1.0, 1.0]), data, floors=[], progress=watcher)
    assert {total for _, total, _ in seen} == {3}


def test_a_store_of_all_tokens_has_several_positions() -> None:
    """Two tokens a text: the label is in the last one."""
    data = labelled(40)
    y = torch.arange(40) % 2
    first, last = torch.randn(40, 4), torch.randn(40, 4) + 4 * y[:, None]
    x = torch.stack([first, last], 1).flatten(0, 1)
    text = np.repeat(np.arange(40), 2)
    lengths = [len(t) for t in data.texts]
    offsets = np.array([[0, 4] if i % 2 == 0 else [4, lengths[i // 2]] for i in range(80)])
    store = Activations([{site(0): x}], text, np.arange(80) % 2, offsets=offsets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sweep(store, data, positions=["first", "last"], floors=[])
    curve = found.curve().set_index("position")
    assert curve.loc["last", "score"] > 0.9 and curve.loc["first", "score"] < 0.75
    assert found.inside().layers == ", ".join(["0 last"] * 5)  # type: ignore[union-attr]


PROBABILISTIC = [
    name for name in estimators()
    if get_estimator(name).target == "classes" and hasattr(get_estimator(name).new(), "predict_proba")
]  # fmt: skip


@pytest.mark.parametrize("name", PROBABILISTIC)
@pytest.mark.parametrize("c", [2, 3])
def test_decisions_are_log_odds_where_there_are_probabilities(name: str, c: int) -> None:
    """The online code takes the probability of the true class from decisions."""
    y = np.arange(90) % c
    x = np.random.default_rng(0).normal(size=(90, 5)) + y[:, None]
    fitted = get_estimator(name).new().fit(x, y)
    expected = fitted.predict_proba(x)[np.arange(90), y]
    np.testing.assert_allclose(likelihood(fitted.decision_function(x), y), expected, atol=1e-12)
