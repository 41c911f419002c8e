"""Direct logit attribution: shares add up, and are the heads' numbers of `head_table`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuits.head_table import head_table
from circuits.logit_attribution import BIAS, logit_attribution, neuron_attribution
from circuits.metrics import measure
from circuits.pairs import Pairs
from lens.config import UnembedConfig
from lens.model import Transformer
from tests.circuits.conftest import tiny

STACKS = {
    "pre-norm": {},
    "rms, grouped queries": {"norm": "rms", "n_kv_heads": 2},
    "no norm": {"norm": "none"},
    "biases": {"attn_bias": frozenset("qkvo")},
    "norms on outputs": {"norm_placement": frozenset({"in", "out"}), "attn_bias": frozenset("o")},
    "parallel": {"parallel": True, "shared_norm": True},
    "attention only": {"d_mlp": None},
    "gated": {"gated": True},
}


def pairs_of(model: Transformer, wrong: list | None = None) -> Pairs:
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(2, 40, (3, 7), generator=generator)
    corrupt = clean.clone()
    corrupt[:, 3] = 0
    return Pairs.from_tokens(model, clean, corrupt, [[5, 6], [7], [8]], wrong or [[9], [10, 11], [12]])


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_shares_add_up_to_the_logit_difference(stack):
    model = tiny(**stack)
    pairs = pairs_of(model)
    found = logit_attribution(model, pairs)
    assert torch.allclose(found.total, measure(model, pairs, "logit_diff"), atol=1e-4)
    assert torch.allclose(found.values.sum(1), found.total, atol=1e-4)
    assert found.names[0] == "embed" and found.names[-1] == BIAS
    assert found.values.shape == (3, len(found.names))


@pytest.mark.parametrize("stack", [STACKS["rms, grouped queries"], STACKS["biases"]])
def test_heads_have_the_direct_effect_of_the_head_table(stack):
    model = tiny(**stack)
    pairs = pairs_of(model)
    mean, table = logit_attribution(model, pairs).mean, head_table(model, pairs)
    for layer in range(2):
        for head in range(4):
            name = f"a{layer}.h{head}"
            assert mean[name] == pytest.approx(table.of(name)["direct"], abs=1e-4)


@pytest.mark.parametrize("name", ["gated", "norms on outputs", "biases"])
def test_neurons_and_the_bias_add_up_to_their_mlp(name):
    model = tiny(**STACKS[name])
    for parameter in [p for n, p in model.named_parameters() if n.endswith(("down.bias", "ln2_post.bias"))]:
        parameter.data.zero_()
    pairs = pairs_of(model)
    found = logit_attribution(model, pairs)
    for layer in range(2):
        neurons = neuron_attribution(model, pairs, layer)
        assert neurons.shape == (3, 24)
        assert torch.allclose(neurons.sum(1), found.values[:, found.names.index(f"m{layer}")], atol=1e-4)


def test_without_a_wrong_answer_it_is_the_logit_above_the_mean():
    model = tiny()
    pairs = pairs_of(model, wrong=[[], [], []])
    found = logit_attribution(model, pairs)
    logits = model(pairs.clean)[:, -1]
    expected = torch.stack([logits[0, [5, 6]].mean(), logits[1, 7], logits[2, 8]]) - logits.mean(-1)
    assert torch.allclose(found.total, expected, atol=1e-4)
    assert torch.allclose(found.values.sum(1), expected, atol=1e-4)


def test_padded_prompts_are_read_at_their_own_end():
    model = tiny()
    rows = [[1, 2, 3, 4, 5], [6, 7, 8]]
    other = [[1, 9, 3, 4, 5], [6, 9, 8]]
    both = Pairs.from_tokens(model, rows, other, [20, 21], [22, 23])
    found = logit_attribution(model, both)
    for i in range(2):
        alone = Pairs.from_tokens(model, rows[i : i + 1], other[i : i + 1], [20 + i], [22 + i])
        assert torch.allclose(found.values[i], logit_attribution(model, alone).values[0], atol=1e-4)


def test_what_cannot_be_attributed_is_told_in_one_line():
    model = tiny(norm_placement=frozenset({"add"}), final_norm=False)
    with pytest.raises(ValueError, match="post-norm"):
        logit_attribution(model, pairs_of(model))
    model = tiny(d_mlp=None)
    with pytest.raises(ValueError, match="no MLP in layer 1"):
        neuron_attribution(model, pairs_of(model), 1)
    with pytest.raises(ValueError, match="layer 2 does not exist"):
        neuron_attribution(model, pairs_of(model), 2)
    model = tiny()
    unembed = UnembedConfig(d_vocab=40, d_embed=16, transform="gelu")
    headed = Transformer(replace(model.cfg, unembed=unembed))
    with pytest.raises(ValueError, match="hidden layer"):
        logit_attribution(headed, pairs_of(headed))
