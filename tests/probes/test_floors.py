"""Floors: what each is by hand, on the folds of the probe, and which can be had where."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import probes
from lens.model import Transformer
from probes.floor import Answers, Floor, floors, get_floor
from probes.floors.behaviour import asked
from probes.floors.random_init import untrained
from probes.labelled import Classes, Heads, Labelled
from probes.splits import folds
from tests.probes.conftest import WORDS

SITE = "blocks.1.hook_resid_post"


def words_data(n: int = 80) -> Labelled:
    """The class is the last word's first letter."""
    draw = np.random.default_rng(0)
    last = [w for w in WORDS if w[0] in "bm"]
    texts = [" ".join([*draw.choice(WORDS, 2), last[i % len(last)]]) for i in range(n)]
    return Labelled.of(texts, [text.split()[-1][0] for text in texts], name="words")


@pytest.mark.parametrize("name", floors())
def test_every_floor_says_what_it_is(name: str) -> None:
    floor, argument = get_floor(f"{name}:x")
    assert isinstance(floor, Floor) and floor.summary and argument == "x"
    assert floor.reads and set(floor.reads) <= {"classes", "values", "heads"}


def test_floors_of_a_model(tiny: Transformer) -> None:
    data = words_data()
    store = probes.harvest(tiny, data, [SITE])
    found = probes.sweep(store, data, model=tiny, seed=2, C=0.1)
    names = {name for name in found.table.columns if name.startswith("floor_")}
    assert names == {
        f"floor_{name}" for name in ("majority", "surface", "layer-0", "random-init", "likelihood")
    }
    row = found.best()
    first = probes.harvest(tiny, data, ["blocks.0.hook_resid_pre"])
    again = probes.sweep(first, data, seed=2, C=0.1, floors=[]).best()
    assert row["floor_layer-0"] == again.score  # the last token's embedding tells its letter
    other = probes.harvest(untrained(tiny, 2), data, [SITE])
    assert row["floor_random-init"] == probes.sweep(other, data, seed=2, C=0.1, floors=[]).best().score
    assert row.floor_surface > 0.8 and row.floor_majority == 0.5
    both = probes.harvest(tiny, data, ["blocks.0.hook_resid_pre", SITE])
    kept = probes.sweep(both, data, sites=[SITE], seed=2, C=0.1, floors=["layer_0"]).best()
    assert kept["floor_layer-0"] == again.score


def test_a_random_model_has_the_shapes_and_none_of_the_weights(tiny: Transformer) -> None:
    made = untrained(tiny, 3)
    for (name, old), (_, new) in zip(tiny.state_dict().items(), made.state_dict().items(), strict=True):
        assert old.shape == new.shape and not torch.equal(old, new), name
    assert made.revision != tiny.revision and made.tokenizer is tiny.tokenizer
    assert all(map(torch.equal, made.state_dict().values(), untrained(tiny, 3).state_dict().values()))
    assert not torch.equal(made.embed.tokens.weight, untrained(tiny, 4).embed.tokens.weight)


def test_behaviour_is_the_models_own_answer(tiny: Transformer) -> None:
    data = words_data(30)
    answers = Answers({"b": "bar", "m": "mop"}, "{text} dop")
    found = asked(tiny, data, answers, batch_size=7)
    tokenizer = tiny.tokenizer
    for row in (0, 13, 29):
        logits = tiny(f"{data.texts[row]} dop")[0, -1].double().log_softmax(-1)
        expected = [float(logits[tokenizer.encode(word)[0]]) for word in ("bar", "mop")]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-5)
    store = probes.harvest(tiny, data, [SITE])
    row = probes.sweep(store, data, model=tiny, answers=answers, floors=["behaviour"]).best()
    assert 0 <= row.floor_behaviour <= 1
    with pytest.raises(ValueError, match="'bar' and 'bar' begin with the same token"):
        asked(tiny, data, Answers({"b": "bar", "m": "bar"}))
    with pytest.raises(ValueError, match="no answer is named for the class 'm'"):
        probes.sweep(store, data, model=tiny, answers=Answers({"b": "bar"}), floors=["behaviour"])


def test_likelihood_is_that_of_the_text(tiny: Transformer) -> None:
    from probes.floors.likelihood import told

    data = words_data(20)
    found = told(tiny, data, batch_size=6)
    for row in (0, 19):
        ids = torch.tensor([tiny.tokenizer.prompt(data.texts[row])])
        logp = tiny(ids)[0, :-1].double().log_softmax(-1)
        each = [float(logp[i, ids[0, i + 1]]) for i in range(ids.shape[1] - 1)]
        assert found[row].tolist() == pytest.approx([math.fsum(each), math.fsum(each) / len(each)], abs=1e-4)


def test_group_means_by_hand() -> None:
    n = 60
    draw = np.random.default_rng(0)
    country = np.array([f"c{i % 6}" for i in range(n)])
    y = np.array([float(i % 6) for i in range(n)])[:, None] * [1.0, -2.0] + draw.normal(size=(n, 2))
    data = Labelled(
        "cities", tuple(f"t{i}" for i in range(n)), np.arange(n), None,
        {"place": probes.Values(y, ("lat", "lon")), "label": Classes(np.arange(n) % 2, ("a", "b"))},
        columns={"country": country},
    )  # fmt: skip
    x = {SITE: torch.randn(n, 3)}
    found = probes.sweep(x, data, "ridge", floors=["group-mean:country", "mean"], seed=1)
    told, mean = np.zeros_like(y), np.zeros_like(y)
    for fold in folds(n, 5, seed=1):
        mean[fold.test] = y[fold.train].mean(0)
        for row in fold.test:
            told[row] = y[[i for i in fold.train if country[i] == country[row]]].mean(0)

    def r2(guess: np.ndarray) -> float:
        return float(np.mean(1 - ((y - guess) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)))

    row = found.best()
    assert row["floor_group-mean:country"] == pytest.approx(r2(told)) and r2(told) > 0.5
    assert row.floor_mean == pytest.approx(r2(mean))
    classes = probes.sweep(x, data, targets="label", floors=["group-mean:country"]).best()
    assert classes["floor_group-mean:country"] == 1.0  # of even countries all are a


def test_structural_probes_have_the_linear_chain(tiny: Transformer) -> None:
    draw = np.random.default_rng(0)
    texts, spans, text, heads = [], [], [], []
    for t in range(20):
        words = draw.choice(WORDS, 7).tolist()
        start = len(heads)
        heads += [-1 if i == 3 else start + (i + 1 if i < 3 else i - 1) for i in range(7)]
        at = 0
        for word in words:
            spans.append([at, at + len(word)])
            at += len(word) + 1
            text.append(t)
        texts.append(" ".join(words))
    data = Labelled("trees", tuple(texts), np.array(text), np.array(spans), {"tree": Heads(np.array(heads))})
    points = torch.zeros(len(heads), 8)
    points[torch.arange(len(heads)), torch.arange(len(heads)) % 7] = 1
    for estimator, metrics in (
        ("structural-distance", {"uuas", "distance_spearman"}),
        ("structural-depth", {"depth_spearman", "root_accuracy"}),
    ):
        found = probes.sweep(
            {SITE: points + 0.01 * torch.randn(points.shape)}, data, estimator, cv=3, permutations=2,
            options={"epochs": 150, "lr": 0.02},
        )  # fmt: skip
        assert set(found.table.metric) == metrics and set(found.table.filter(like="floor_")) == {
            "floor_linear-chain"
        }
        row = found.table.set_index("metric")
        if estimator == "structural-distance":
            assert row.loc["uuas", "floor_linear-chain"] == 1.0 and row.loc["uuas", "score"] > 0.6
            assert row.loc["uuas", "p_value"] >= 1 / 3
        else:
            assert row.loc["root_accuracy", "floor_linear-chain"] == 0.0
            assert row.loc["root_accuracy", "score"] > 0.8
        assert found.probe().reads == "map"
    with pytest.raises(ValueError, match="no control task for structural-distance probes"):
        probes.sweep({SITE: points}, data, "structural-distance", controls=1)
    with pytest.raises(ValueError, match="logistic probes read classes, and the target 'tree' is of heads"):
        probes.sweep({SITE: points}, data)


def test_pairs_stay_together_and_sequences_are_read_whole(tiny: Transformer) -> None:
    data = words_data(60)
    store = probes.harvest(tiny, data, [SITE], positions="all")
    found = probes.sweep(
        store, data, "attention-pooling", cv=3, floors=["majority"], options={"max_iter": 30}
    )
    assert found.table.n.unique().tolist() == [60] and found.table.position.unique().tolist() == ["all"]
    probe = found.probe()
    assert probe.texts and probe.mean is not None
    tokens = store[SITE].double()  # of texts of several lengths: padding does not count
    torch.testing.assert_close(probe.mean, tokens.mean(0))
    with pytest.raises(
        ValueError, match="attention-pooling probes are not linear and have no direction; ccs, "
    ):
        probe.direction()
    with pytest.raises(ValueError, match="harvest with positions='all'"):
        probes.sweep({SITE: torch.randn(60, 4)}, data, "attention-pooling")
    y = (np.arange(60) + np.arange(60) // 2) % 2  # either row of a pair may be the true one
    pairs = np.arange(60).reshape(30, 2)
    paired = Labelled("pairs", data.texts, data.text, None, {"label": Classes(y, ("no", "yes"))}, pairs=pairs)
    x = (
        torch.randn(30, 1, 6).repeat(1, 2, 1).flatten(0, 1)
        + 4.0 * torch.eye(6)[0] * torch.tensor(2 * y - 1)[:, None]
    )
    result = probes.sweep({SITE: x}, paired, "ccs", cv=3, floors=["majority"])
    assert all(len(set(fold.test // 2) & set(fold.train // 2)) == 0 for fold in result.trial().splits.outer)
    assert max(result.best().score, 1 - result.best().score) > 0.9
    with pytest.raises(ValueError, match="ccs probes need pairs of rows, and words has none"):
        probes.sweep({SITE: x}, data, "ccs")
