"""The Head page: its sections, side by side, by link, with bad input; what it computes, against the plain way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.patch import patch
from circuits.tasks import tasks
from dashboard import ablated, survey
from dashboard.ablated import COUNTERFACTUAL, MEAN, ZERO, ablate
from dashboard.figures.attention import weighted_by
from dashboard.figures.passages import passages_payload
from dashboard.figures.token_table import token_table
from lens.head_circuits import ov_circuit
from lens.head_examples import examples
from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import labels, texts

IDS = [1, 20, 31, 42, 20, 31]


def section(at, name: str):
    next(group for group in at.button_group if group.key == "section").set_value(name)
    at = settled(at)
    assert not at.exception
    return at


# ---- the page


def test_the_default_head(app, empty_runs):
    at = app("head", empty_runs, model=MODEL)
    assert at.subheader[0].value.startswith("a")
    assert at.subheader[1].value == "What kind of head?"
    assert len(at.get("bidi_component")) == 1, "its attention"
    assert list(at.dataframe[1].value.columns) == ["token looked at", "own rank", "promotes", "suppresses"]
    assert labels(at)[-1].startswith("Patch a")


def test_every_section_of_a_head(app, empty_runs):
    at = app("head", empty_runs, model=MODEL, node="a1.h1")
    at = section(at, "What it looks for")
    assert "looks for" in at.dataframe[1].value.columns
    at = section(at, "Without it")
    assert at.metric[0].label.startswith("logit diff, mean over 32 pairs")
    assert list(at.dataframe[1].value.columns) == ["token", "with", "without", "change"]
    at = section(at, "Where it is active")
    assert "12 of 32 passages" in texts(at.caption)
    assert len(at.get("bidi_component")) == 2, "its attention and the passages"


def test_a_link_shows_two_heads_beside_each_other(app, saved_runs):
    at = app("head", saved_runs, model=MODEL, run=RUN, node="a1.h1", beside="a0.h2")
    assert [s.value.split(" ·")[0] for s in at.subheader] == ["a1.h1", "a0.h2"]
    assert len(at.get("bidi_component")) == 2
    assert len(at.dataframe) == 2
    at = section(at, "Without it")
    assert len(at.metric) == 4


def test_a_head_on_both_prompts(app, empty_runs):
    at = app("head", empty_runs, model=MODEL, node="a1.h1")
    at.selectbox(key="beside").set_value("counterfactual")
    at = settled(at)
    assert at.query_params["beside"] == "counterfactual"
    assert "a1.h1 on the counterfactual" in [s.value for s in at.subheader]


def test_sink_and_values(app, empty_runs):
    at = app("head", empty_runs, model=MODEL)
    at.toggle(key="hide_sink").set_value(True)
    at.toggle(key="by_values").set_value(True)
    at = settled(at)
    assert not at.exception
    assert len(at.get("bidi_component")) == 1


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ({"node": "a9.h0"}, "a9.h0 is not a head of induction-2l"),
        ({"beside": "a9.h0"}, "'a9.h0' is no head of induction-2l"),
        ({"beside": "../x"}, "is no head of induction-2l"),
        ({"beside": "counterfactual", "prompt": "the ship moved"}, "no counterfactual of this prompt"),
    ],
)
def test_a_wrong_address_is_refused_with_one_message(app, empty_runs, address, message):
    at = app("head", empty_runs, **{"model": MODEL, **address})
    assert message in texts(at.warning)
    assert len(at.warning) == 1


def test_own_text_is_searched(app, empty_runs, induction):
    at = app("head", empty_runs, model=MODEL, prompt="the ship moved so the ship")
    at = section(at, "Where it is active")
    assert "1 of 1 passages" in texts(at.caption)
    at.text_area(key="examples_text").set_value(induction.to_string(list(range(20, 170))))
    at = settled(at)
    assert "4 of 4 passages" in texts(at.caption) or "passages" in texts(at.caption)
    at.text_area(key="examples_text").set_value("xyzzy plugh")
    at = settled(at)
    assert "is not a word of this tokenizer" in texts(at.error)


def test_without_a_pair_a_head_can_still_be_ablated(app, empty_runs):
    at = app("head", empty_runs, model=MODEL, prompt="the ship moved so the ship")
    at = section(at, "Without it")
    assert not at.metric
    assert "without" in at.dataframe[1].value.columns


# ---- ablation


def naive(model, ids, layer, head, value):
    def replace(z, hook):
        z[:, :, head] = value
        return z

    return model.run_with_hooks(torch.tensor([ids]), [(model.block(layer).attn.hook_z, replace)])[0].softmax(
        -1
    )


@pytest.mark.parametrize("kind", [ZERO, MEAN, COUNTERFACTUAL])
def test_an_ablated_head_is_one_whose_output_is_replaced(induction, kind):
    corrupt = [1, 20, 31, 99, 20, 31]
    site = induction.block(1).attn.hook_z
    own, other = (induction.activations(torch.tensor([x]), [site])[site][:, :, 2] for x in (IDS, corrupt))
    value = {ZERO: torch.zeros_like(own), MEAN: own.mean(1, keepdim=True), COUNTERFACTUAL: other}[kind]
    found = ablate(induction, IDS, 1, 2, kind, position=4, corrupt=corrupt, asked=[7])
    expected = naive(induction, IDS, 1, 2, value)[4]
    assert np.allclose(found.after, expected[found.tokens].numpy(), atol=1e-6)
    assert np.allclose(
        found.before, induction(torch.tensor([IDS]))[0, 4].softmax(-1)[found.tokens].numpy(), atol=1e-6
    )
    assert 7 in found.tokens and len(found.metric) == 0
    assert (np.diff(found.before) <= 0).all()


def test_the_metric_without_a_head_is_that_of_exact_patching(induction):
    pairs = tasks()["induction"].pairs(induction, 4)
    ids, corrupt = pairs.clean[0].tolist(), pairs.corrupt[0].tolist()
    for kind in ablated.kinds(pairs):
        found = ablate(induction, ids, 1, 0, kind, position=len(ids) - 1, corrupt=corrupt, pairs=pairs)
        effect = patch(induction, pairs, "z", units=[(1, 0)], ablation=kind)
        assert np.allclose(found.change, effect.per_example[1, 0].numpy(), atol=1e-5)
        assert np.allclose(found.metric, effect.clean.numpy(), atol=1e-5)


def test_a_counterfactual_of_another_length_is_refused(induction):
    with pytest.raises(ValueError, match="no counterfactual prompt of equally many tokens"):
        ablate(induction, IDS, 0, 0, COUNTERFACTUAL, position=0, corrupt=[1, 2])
    assert ablated.kinds(None) == [MEAN, ZERO]


# ---- figures


def test_sizes_of_values_are_norms_of_what_is_written(induction):
    sizes = survey.value_sizes(induction, IDS, 1)
    attn = induction.block(1).attn
    v = induction.activations(torch.tensor([IDS]), [attn.hook_v])[attn.hook_v][0]
    assert sizes.shape == (4, 6)
    assert sizes[3, 2] == pytest.approx(float((v[2, 3] @ attn.W_O[3]).norm()), rel=1e-5)


def test_weights_by_values_sum_to_one():
    pattern = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert np.allclose(weighted_by(pattern, np.array([1.0, 3.0])), [[1, 0], [0.25, 0.75]])
    assert np.allclose(weighted_by(pattern, np.zeros(2)), 0)


def test_a_token_table_shows_spaces(induction):
    found = ov_circuit(induction, 1, 0, IDS, k=2)
    frame = token_table(
        found, [" a"] * 6, lambda ids: [f" {i}" for i in ids], names=("t", "own", "up", "down")
    )
    assert frame["t"][0] == "·a"
    assert frame["up"][0].startswith(f"·{int(found.high[0, 0])} ")
    assert frame["own"].tolist() == (found.own_rank + 1).tolist()
    with pytest.raises(ValueError, match="rows of 6 tokens do not fit 1"):
        token_table(found, ["a"], induction.to_str_tokens, names=("t", "own", "up", "down"))


def test_passages_carry_what_is_drawn(induction):
    (found,) = examples(induction, 1, 0, [IDS])
    payload = passages_payload([found], induction.to_str_tokens, title="t", unit="attention")
    (one,) = payload["passages"]
    assert one["query"] == found.query and len(one["tokens"]) == len(one["weights"]) == 6
    assert one["label"].startswith("attention 0.")


def test_the_role_of_a_head_is_named_here_too(app, empty_runs):
    at = app("head", empty_runs, model=MODEL, task="induction", node="a1.h0")
    assert not any("mover" in s.value for s in at.subheader)
    at.button(key="name_roles").click()
    at = settled(at)
    assert not at.exception and not at.error
    assert any(
        s.value.startswith("a1.h0 · ") and "induction" in s.value.split(" · ")[1] for s in at.subheader
    )
    assert not [b for b in at.button if b.key == "name_roles"]
