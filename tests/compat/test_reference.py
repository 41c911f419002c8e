"""Our drop-in beside TransformerLens 2.18's HookedTransformer on the same weights; `record.py` made the numbers.

What it answered is in `reference/`: of GPT-2-like, LLaMA-like, parallel and attention-only models, raw and processed.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lens import HookedTransformer, HookedTransformerConfig
from lens.tokens import Tokenizer
from tests.compat import calls

HERE = Path(__file__).parent / "reference"
CASES = [(name, processed) for name in calls.CONFIGS for processed in (False, True)]
CLOSE = 1e-5

each_case = pytest.mark.parametrize(
    ("name", "processed"), CASES, ids=[f"{n}-{'processed' if p else 'raw'}" for n, p in CASES]
)


@cache
def recorded(stem: str) -> dict[str, Tensor]:
    return load_file(HERE / f"{stem}.safetensors")


def group(name: str, processed: bool, of: str) -> dict[str, Tensor]:
    found = recorded(f"{name}{'-processed' if processed else ''}")
    return {key.removeprefix(f"{of}/"): x for key, x in found.items() if key.startswith(f"{of}/")}


def said(name: str, processed: bool) -> dict[str, Any]:
    return json.loads((HERE / f"{name}{'-processed' if processed else ''}.json").read_text())


def words() -> Tokenizer:
    return Tokenizer.from_words(calls.WORDS, bos="<bos>", eos="<eos>", pad="<pad>")


def ours(name: str, processed: bool, **flags: bool) -> HookedTransformer:
    config = HookedTransformerConfig(**calls.CONFIGS[name], device="cpu", seed=0)
    model = HookedTransformer(config, words())
    weights = group(name, False, "weights")
    if processed:
        model.load_and_process_state_dict(weights, **flags)
    else:
        model.load_state_dict(weights)
    return model.requires_grad_(False)


worst: dict[str, float] = {}


def compare(found: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    """Every recorded value, relative to the largest of its tensor; masked scores are alike."""
    assert expected, where
    for key, theirs in expected.items():
        mine = found[key]
        assert mine.shape == theirs.shape, (
            f"{where} {key}: {tuple(mine.shape)} and theirs {tuple(theirs.shape)}"
        )
        if not theirs.is_floating_point():
            assert torch.equal(mine, theirs), f"{where} {key}"
            continue
        masked = theirs == -torch.inf
        assert torch.equal(masked, mine == -torch.inf), f"{where} {key}"
        scale = theirs.masked_fill(masked, 0).abs().max().clamp(min=1e-3)
        error = ((mine - theirs).masked_fill(masked, 0).abs().max() / scale).item()
        worst[where] = max(worst.get(where, 0), error)
        assert error < CLOSE, f"{where} {key}: {error:.1e}"


@each_case
def test_runs(name: str, processed: bool) -> None:
    compare(calls.of_runs(ours(name, processed)), group(name, processed, "runs"), "runs")


@pytest.mark.parametrize("name", ["gpt2", "llama", "solu"])
@pytest.mark.parametrize("processed", [False, True])
def test_every_site_and_its_gradient(name: str, processed: bool) -> None:
    """Gradients at `ln1` are those of everything that it is read for; TransformerLens runs that norm three times and
    keeps the gradient of one of them."""
    expected = {n: x for n, x in group(name, processed, "sites").items() if not re.search(r"ln1\..*_grad", n)}
    found = calls.of_sites(ours(name, processed))
    compare(found, expected, "sites")
    more = {n for n in set(found) - set(expected) if "ln1" not in n}
    assert more == {"hook_logits", "hook_logits_grad"}


@each_case
def test_every_method_of_the_cache(name: str, processed: bool) -> None:
    found, labels = calls.of_cache(ours(name, processed))
    compare(found, group(name, processed, "cache"), "cache")
    assert labels == said(name, processed)["labels"]


@each_case
def test_views_of_weights(name: str, processed: bool) -> None:
    compare(calls.of_weights(ours(name, processed)), group(name, processed, "views"), "views")


@each_case
def test_texts_and_generation(name: str, processed: bool) -> None:
    found, told = calls.of_texts(ours(name, processed))
    compare(found, group(name, processed, "texts"), "texts")
    assert told == said(name, processed)["words"]


@each_case
def test_weights_go_in_and_out(name: str, processed: bool) -> None:
    """What is loaded comes out again; processed weights are TransformerLens's, and load as such."""
    model, expected = ours(name, processed), group(name, processed, "weights")
    state = model.state_dict()
    assert set(state) == set(expected)
    compare(state, expected, "weights")
    if not processed:
        assert all(torch.equal(state[key], x) for key, x in expected.items())
    kind = model.cfg.normalization_type
    assert str(kind).endswith("Pre") is processed
    fresh = HookedTransformer(
        HookedTransformerConfig(**{**calls.CONFIGS[name], "normalization_type": kind}), words()
    )
    fresh.load_state_dict(expected)
    compare({"logits": fresh(calls.ids())}, {"logits": group(name, processed, "runs")["logits"]}, "loaded")


@pytest.mark.parametrize("mode", calls.INITIAL)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_first_weights_of_a_seed(mode: str, name: str) -> None:
    config = {**calls.CONFIGS[name], "n_layers": 1, "init_mode": mode, "seed": 11, "device": "cpu"}
    before = torch.get_rng_state()
    state = HookedTransformer(config).state_dict()
    assert torch.equal(torch.get_rng_state(), before), "the process's random state stays"
    sums = calls.weighed(state)
    start = f"initial/{mode}/{name}/"
    expected = {n.removeprefix(start): x for n, x in recorded("rest").items() if n.startswith(start)}
    assert set(sums) == set(expected)
    compare(sums, expected, "initial")


def test_factors_made_even() -> None:
    """Up to the signs of singular vectors."""
    model = ours("gpt2", True, refactor_factored_attn_matrices=True)
    found, expected = model.state_dict(), recorded("rest")
    compare(
        {"refactored logits": model(calls.ids())},
        {k: expected[k] for k in ["refactored logits"]},
        "refactored",
    )
    for layer in range(2):
        there = {
            n: expected[f"refactored/blocks.{layer}.attn.{n}"] for n in ("W_Q", "W_K", "W_V", "W_O", "b_O")
        }
        here = {n: found[f"blocks.{layer}.attn.{n}"] for n in there}
        compare({n: x.abs() for n, x in here.items()}, {n: x.abs() for n, x in there.items()}, "refactored")
        compare({"QK": here["W_Q"] @ here["W_K"].mT}, {"QK": there["W_Q"] @ there["W_K"].mT}, "refactored")


def test_a_bias_that_is_added_after_the_gate_becomes_one_of_the_output() -> None:
    model = ours("llama", False)
    model.load_state_dict({"blocks.0.mlp.b_in": torch.linspace(-1, 1, 12)}, strict=False)
    key = "logits with b_in"
    compare({key: model(calls.ids())}, {key: recorded("rest")[key]}, "gated")
    assert not model.b_in.any()


def test_ungrouped_heads() -> None:
    model, start = ours("llama", False), "ungrouped/"
    plain = model(calls.ids())
    model.set_ungroup_grouped_query_attention(True)
    cache = model.run_with_cache(calls.ids())[1]
    expected = {n.removeprefix(start): x for n, x in recorded("rest").items() if n.startswith(start)}
    compare({n: cache[n] for n in expected}, expected, "ungrouped")
    assert cache["k", 0].shape[2] == 4
    model.set_ungroup_grouped_query_attention(False)
    assert model.run_with_cache(calls.ids())[1]["k", 0].shape[2] == 2
    assert torch.allclose(model(calls.ids()), plain, atol=1e-5)
