"""The Prompt page: by default, by a link, with bad input; what it computes and draws, against the plain way."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch

from dashboard import predictions as module
from dashboard.figures import attribution
from dashboard.figures.lens import ANSWER, DIFFERENCE, TOP, lens_grid, shadings
from dashboard.figures.prompts import prompts_payload, side
from dashboard.figures.short_table import short_table
from dashboard.predictions import predictions
from lens.logit_lens import logit_lens
from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import labels, texts

IDS = [20, 31, 42, 53, 20, 31]


# ---- the page


def test_the_default_prompt(app, empty_runs):
    at = app("prompt", empty_runs, model=MODEL)
    assert next(s.value for s in at.subheader) == "What comes next?"
    pieces = at.get("bidi_component")
    assert len(pieces) == 6, "tokens, two tables, logit lens, what a layer changed, components"
    assert "counterfactual: after" in texts(at.caption)
    (drawn,) = json.loads(pieces[1].proto.json)["tables"]
    assert drawn["heads"] == ["rank", "token", "probability", ""]
    assert "answer" in [row[3] for row in drawn["rows"]]
    assert not at.dataframe, "tables that can be sorted are slow to draw"
    assert labels(at)[-1] == "See what all heads look at on this prompt"


def test_a_link_selects_position_layer_and_node(app, saved_runs):
    at = app("prompt", saved_runs, model=MODEL, run=RUN, query="5", layer="1", node="a1.h2")
    assert "(position 5)" in texts(at.caption)
    assert any("Layer 1" in m.value for m in at.markdown)
    assert at.query_params["node"] == "a1.h2"
    assert not at.warning


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ({"query": "9999"}, "counted from 0"),
        ({"layer": "2"}, "induction-2l has 2 layers"),
        ({"layer": "top"}, "layer='top' is not a whole number"),
        ({"model": "no/such"}, "'no/such' is not a known model"),
    ],
)
def test_a_wrong_address_is_refused_with_one_message(app, empty_runs, address, message):
    at = app("prompt", empty_runs, **{"model": MODEL, **address})
    assert message in texts(at.warning)
    assert len(at.warning) == 1
    assert not set(address) & set(at.query_params)


def test_own_words_without_a_counterfactual_still_show_what_comes_next(app, empty_runs):
    at = app("prompt", empty_runs, model=MODEL, prompt="the ship moved so the ship")
    assert "clean: after" in texts(at.caption)
    assert "counterfactual: after" not in texts(at.caption)
    assert "needs a counterfactual prompt and an answer" in texts(at.info)
    assert len(at.get("bidi_component")) == 4, "tokens, a table, logit lens, what a layer changed"


def test_attribution_over_all_pairs(app, empty_runs):
    at = app("prompt", empty_runs, model=MODEL)
    before = texts(at.caption)
    over = next(group for group in at.button_group if group.key == "attribution_over")
    over.set_value("mean over 32 pairs")
    at = settled(at)
    assert not at.exception
    assert texts(at.caption) != before


def test_a_prompt_is_text_not_markup(app, empty_runs):
    at = app("prompt", empty_runs, model=MODEL, prompt="the <img src=x onerror=alert(1)> ship")
    assert not at.exception
    shown = [str(e.value) for e in [*at.caption, *at.error, *at.markdown]]
    assert not any("<img" in text.replace("\\<", "") for text in shown)


# ---- predictions


def test_predictions_are_those_of_the_model(induction, monkeypatch):
    monkeypatch.setattr(module, "LOGIT_BYTES", 4 * induction.cfg.d_vocab * 4)
    found = predictions(induction, IDS, [7, 9], k=5)
    probs = induction(torch.tensor([IDS]))[0].softmax(-1)
    best = probs.topk(5)
    assert np.array_equal(found.top, best.indices.numpy())
    assert np.allclose(found.probs, best.values.numpy(), atol=1e-6)
    assert np.allclose(found.followed_probs, probs[:, [7, 9]].numpy(), atol=1e-6)
    assert np.array_equal(found.followed_ranks[:, 0], (probs > probs[:, 7, None]).sum(-1).numpy())
    assert np.isnan(found.expected[0])
    assert np.allclose(found.expected[1:], [float(probs[i, IDS[i + 1]]) for i in range(5)], atol=1e-6)


def test_a_prompt_of_one_token(induction):
    found = predictions(induction, [20])
    assert found.expected.shape == (1,)
    assert found.followed_probs.shape == (1, 0)


# ---- figures


def test_a_short_table_is_texts_with_bars():
    table = short_table({"token": ["·a", "·b"], "p": [0.25, 0.5]}, {"p": ".1%"}, title="t", bar="p")
    assert table["rows"] == [["·a", "25.0%"], ["·b", "50.0%"]]
    assert (table["right"], table["bar"], table["shares"]) == ([False, True], 1, [0.25, 0.5])
    with pytest.raises(ValueError, match="columns of 1 and 2 rows"):
        short_table({"a": [1], "b": [1, 2]}, title="t")


def test_sides_must_have_equally_many_tokens():
    one = side("clean", ["a", "b"], np.array([np.nan, 0.25]))
    assert one["expected"] == [None, 0.25]
    assert prompts_payload([one, one], [1], title="t")["differs"] == [1]
    with pytest.raises(ValueError, match="2 and 3 tokens"):
        prompts_payload([one, side("x", list("abc"), np.zeros(3))], title="t")
    with pytest.raises(ValueError, match="1 probabilities do not fit 2 tokens"):
        side("clean", ["a", "b"], np.zeros(1))


def test_the_lens_can_be_coloured_by_what_is_known(induction):
    alone = logit_lens(induction, IDS)
    assert shadings(alone, 0) == [TOP]
    both = logit_lens(induction, IDS, [7, 9])
    assert shadings(both, 1) == [DIFFERENCE, ANSWER, TOP]
    assert shadings(both, 2) == [ANSWER, TOP]
    spell = induction.to_str_tokens
    grid = lens_grid(both, spell(IDS), spell, DIFFERENCE, 1, start=2)
    assert grid["rows"] == ["embed", "L0", "L1"]
    assert len(grid["columns"]) == 4 and grid["columns"][0].startswith("2 ")
    assert len(grid["texts"]) == len(grid["about"]) == 12
    assert "wrong: probability" in grid["about"][0]
    values = np.frombuffer(base64.b64decode(grid["packed"]), "<f4").reshape(3, 4)
    logits = induction(torch.tensor([IDS]))[0]
    assert values[2, 3] == pytest.approx(float(logits[5, 7] - logits[5, 9]), abs=1e-4)
    with pytest.raises(ValueError, match="6 positions do not fit 1 tokens"):
        lens_grid(both, ["a"], spell, TOP, 1)


def test_components_have_their_places():
    shares = {"embed": 0.5, "a0.h0": 1.0, "a0.h1": -2.0, "a0.bias": 0.25, "m0": 3.0, "bias": 0.1}
    grid = attribution.component_grid(shares, 1, 2, True)
    assert grid["columns"] == ["h0", "h1", "MLP"]
    assert grid["flip"] and grid["bound"] == 3.0
    assert attribution.by_layer(shares, 1) == {"attention": [-0.75], "MLP": [3.0], "other": [0.5, 0.1]}
    assert [t.name for t in attribution.layer_bars(shares, 1).data] == [
        "embedding, biases",
        "attention",
        "MLP",
    ]
    without = attribution.layer_bars({"embed": 0.0, "a0.h0": 1.0, "bias": 0.0}, 1)
    assert [t.name for t in without.data] == ["embedding, biases", "attention"]
