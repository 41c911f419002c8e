"""What is made for attention says in one line that a model has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import circuits
from circuits.graph import Graph
from lens.config import ModelConfig, Rotary
from lens.head_circuits import ov_circuit, qk_circuit
from lens.head_examples import examples
from lens.model import Transformer
from lens.sites import resolve
from tests.mixers import NAMES, config, ids, model

REASON = r"^(mamba|rwkv)-\w+ mixes positions by (mamba|rwkv), not by attention: [^\n]+$"


def pairs() -> circuits.Pairs:
    clean, corrupt = ids(2), ids(2, seed=1)
    return circuits.Pairs(clean, corrupt, torch.tensor([3, 4]), torch.tensor([5, 6]))


ATTEMPTS: dict[str, Callable[[Any], Any]] = {
    "graph": lambda m: Graph.of(m.cfg),
    "pairs": lambda m: pairs().check(m.cfg),
    "attribution": lambda m: circuits.attribute(m, pairs()),
    "patching": lambda m: circuits.patch(m, pairs(), site="resid_pre"),
    "OV": lambda m: ov_circuit(m, 0, 0, [3, 4]),
    "QK": lambda m: qk_circuit(m, 0, 0, [3, 4]),
    "examples": lambda m: examples(m, 0, 0, [[3, 4, 5]]),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize(("mixer", "name"), [("mamba", "plain"), ("mamba", "hybrid"), ("rwkv", "plain")])
def test_what_needs_attention_is_refused(mixer: str, name: str, attempt: str) -> None:
    with pytest.raises(ValueError, match=REASON):
        ATTEMPTS[attempt](model(mixer, name))


def test_writers_of_a_direction_are_heads() -> None:
    from probes.writers import _stream

    with pytest.raises(ValueError, match="mixes positions by mamba, not by attention"):
        _stream(model("mamba", "plain"), "blocks.2.hook_resid_post")


def test_sites_of_a_mixer_are_found_by_their_names() -> None:
    sites = model("mamba", "hybrid").sites
    assert resolve("dt", sites) == ["blocks.0.mixer.hook_dt", "blocks.2.mixer.hook_dt"]
    assert resolve(("ssm_state", 2), sites) == ["blocks.2.mixer.hook_ssm_state"]
    assert resolve("pattern", sites) == ["blocks.1.attn.hook_pattern"]
    with pytest.raises(ValueError, match="hook_pattern"):
        resolve(("pattern", 0), sites)
    assert "blocks.0.hook_q_input" not in sites and "blocks.1.hook_q_input" in sites


@pytest.mark.parametrize(
    ("field", "value"), [("rotary", (Rotary(dim=4),) * 3), ("windows", (2, 2, 2)), ("attn_softcap", 3.0)]
)
def test_what_only_attention_can_do_is_refused(field: str, value: Any) -> None:
    """In a stack of mixers alone; a hybrid's attention can."""
    alone, hybrid = config("linear_attention", "causal"), config("linear_attention", "both")
    with pytest.raises(
        ValueError, match=f"^a stack of linear_attention has no .*: leave {field} out of its conf"
    ):
        Transformer(replace(alone, stack=replace(alone.stack, **{field: value})))
    Transformer(replace(hybrid, stack=replace(hybrid.stack, **{field: value})))


def test_mixers_that_do_not_exist() -> None:
    for mixer, name in NAMES[:1]:
        values = config(mixer, name).to_dict()
        values["stack"]["mixer"]["kind"] = "mumba"
        with pytest.raises(ValueError, match="'mumba' is not a known mixer; did you mean 'mamba'"):
            ModelConfig.from_dict(values)
