"""Processed weights say what the model said, in every family of decoders; what cannot be processed is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lens import processing
from lens.config import ModelConfig
from lens.model import Transformer
from tests.core.specimens import ids
from tests.core.specimens import model as specimen
from tests.parity import SPECIMENS, ours, prompts

STEPS = {
    "fold_layer_norm": processing.fold_layer_norm,
    "center_writing_weights": processing.center_writing_weights,
    "center_unembed": processing.center_unembed,
    "fold_value_biases": processing.fold_value_biases,
    "refactor_factored_attn_matrices": processing.refactor_factored_attn_matrices,
}
REFUSED = {
    "fold_layer_norm": "post-norm|no norms|experts without a bias",
    "center_writing_weights": "post-norm|cannot be centred",
    "center_unembed": "caps its logits|no unembedding",
    "fold_value_biases": "two kinds of values",
    "refactor_factored_attn_matrices": "rotary positions|norms of queries|ungroup|scores of positions|two kinds",
}
CLOSE = 1e-9


def parts(model: Transformer) -> tuple[ModelConfig, dict[str, Tensor]]:
    return model.cfg, {name: x.clone() for name, x in nn.Module.state_dict(model).items()}


def said(cfg: ModelConfig, state: dict[str, Tensor], given: Tensor) -> Tensor:
    return Transformer.from_state(cfg, state)(given).log_softmax(-1)


def processable(model: Transformer) -> bool:
    cfg = model.cfg
    plain = cfg.unembed is not None and cfg.source is None and cfg.vision is None and cfg.embed.of_tokens
    return plain and cfg.stack.attends


def cases() -> list[tuple[str, str]]:
    return [(family, name) for family, name in SPECIMENS if processable(ours(family, name, torch.float64))]


def attempt(function: Any, cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    """What it gives, or its refusal."""
    try:
        return function(cfg, state)
    except ValueError as error:
        return str(error)


@pytest.mark.slow
def test_log_probabilities_stay_in_every_family() -> None:
    done: dict[str, set[str]] = {step: set() for step in STEPS}
    for family, name in cases():
        model = ours(family, name, torch.float64)
        cfg, state = parts(model)
        kept = {n: x.clone() for n, x in state.items()}
        expected = said(cfg, state, prompts())
        for step, function in STEPS.items():
            found = attempt(function, cfg, state)
            if isinstance(found, str):
                assert re.search(REFUSED[step], found), f"{family}-{name}: {found}"
                continue
            new_cfg, new = found
            assert (said(new_cfg, new, prompts()) - expected).abs().max() < CLOSE, (family, name, step)
            done[step].add(family)
        assert all(torch.equal(state[n], kept[n]) for n in kept), "what is given stays as it is"
        if "add" in cfg.stack.norm_placement:
            with pytest.raises(ValueError, match="post-norm"):
                processing.processed(cfg, state, fold_ln=True)
            continue
        new_cfg, new = processing.processed(cfg, state)
        assert (said(new_cfg, new, prompts()) - expected).abs().max() < CLOSE, (family, name)
    assert len(done["fold_layer_norm"]) >= 14 and len(done["center_unembed"]) >= 14
    assert {"gpt2", "gptj", "gpt_neox", "opt", "phi"} <= done["center_writing_weights"]
    assert {"gpt2", "opt"} <= done["refactor_factored_attn_matrices"]
    assert {"gpt2", "llama", "qwen2", "phi"} <= done["fold_value_biases"]


@pytest.mark.parametrize(
    "kind", ["gpt2", "llama", "parallel", "sandwich", "experts", "attention-only", "windowed"]
)
def test_log_probabilities_stay_in_every_kind_of_block(kind: str) -> None:
    cfg, state = parts(specimen(kind))
    if kind == "gpt2":  # LayerNorms with everything to fold
        cfg, state = processing.with_biases(cfg, state)
        generator = torch.Generator().manual_seed(1)
        state = {n: torch.randn(x.shape, generator=generator, dtype=x.dtype) for n, x in state.items()}
    expected = said(cfg, state, ids())
    new_cfg, new = processing.processed(
        cfg, state, refactor_factored_attn_matrices=kind in ("gpt2", "attention-only")
    )
    assert (said(new_cfg, new, ids()) - expected).abs().max() < CLOSE


def test_what_processing_leaves() -> None:
    cfg, state = parts(specimen("gpt2"))
    cfg, state = processing.processed(
        *processing.with_biases(cfg, state), refactor_factored_attn_matrices=True
    )
    for layer in range(cfg.n_layers):
        path = f"stack.blocks.{layer}"
        assert (state[f"{path}.ln1.weight"] == 1).all() and (state[f"{path}.ln2.bias"] == 0).all()
        for read in ("attn.q", "mlp.up"):
            assert state[f"{path}.{read}.weight"].mean(-1).abs().max() < CLOSE
        for written in ("attn.o", "mlp.down"):
            assert state[f"{path}.{written}.weight"].mean(0).abs().max() < CLOSE
            assert state[f"{path}.{written}.bias"].mean().abs() < CLOSE
        out = state[f"{path}.attn.o.weight"].T.unflatten(0, (cfg.n_heads, -1))
        eye = torch.eye(cfg.d_head, dtype=out.dtype)
        assert (out @ out.mT - eye).abs().max() < CLOSE, "W_O rotates"
    assert state["embed.tokens.weight"].mean(-1).abs().max() < CLOSE
    assert state["unembed.linear.weight"].mean(0).abs().max() < CLOSE
    assert "v" not in cfg.stack.attn_bias


def test_tied_embeddings_are_untied() -> None:
    cfg, state = parts(ours("gpt2", "tied", torch.float64))
    assert cfg.tied
    new_cfg, new = processing.fold_layer_norm(cfg, state)
    assert not new_cfg.tied
    assert torch.equal(new["embed.tokens.weight"], state["embed.tokens.weight"])
    assert not torch.equal(new["unembed.linear.weight"], new["embed.tokens.weight"])


def test_ungrouped_heads_say_the_same() -> None:
    cfg, state = parts(specimen("llama"))
    new_cfg, new = processing.ungrouped(cfg, state)
    assert new_cfg.stack.n_kv_heads == 4 and cfg.stack.n_kv_heads == 2
    assert (said(new_cfg, new, ids()) - said(cfg, state, ids())).abs().max() < CLOSE
    with pytest.raises(ValueError, match="ungroup them first"):
        processing.refactor_factored_attn_matrices(replace(cfg, stack=replace(cfg.stack, rotary=None)), state)


def test_refusals() -> None:
    cfg, state = parts(specimen("post"))
    for step in ("fold_layer_norm", "center_writing_weights"):
        with pytest.raises(ValueError, match="post is post-norm"):
            STEPS[step](cfg, state)
    cfg, state = parts(specimen("llama"))
    with pytest.raises(ValueError, match="norms do not centre"):
        processing.center_writing_weights(cfg, state)
    with pytest.raises(ValueError, match="rotary positions stand between"):
        processing.refactor_factored_attn_matrices(cfg, state)
    bare = replace(cfg, stack=replace(cfg.stack, norm="none"))
    with pytest.raises(ValueError, match="no norms"):
        processing.fold_layer_norm(bare, state)
