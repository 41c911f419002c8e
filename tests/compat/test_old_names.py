"""What few notebooks ask for, and some do: each name does what TransformerLens 2.18's does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lens.compat
from lens import HookedTransformer, HookedTransformerConfig
from tests import zoo
from tests.compat import calls
from tests.compat.test_reference import compare, group, ours


@pytest.mark.parametrize("name", ["gpt2", "attn_only", "llama"])
def test_steps_one_by_one_give_transformerlenss_processed_weights(name: str) -> None:
    model = ours(name, False)
    state = model.fold_layer_norm(group(name, False, "weights"))
    if model.cfg.normalization_type == "LN":
        state = model.center_writing_weights(state)
    state = model.fold_value_biases(model.center_unembed(state))
    expected = group(name, True, "weights")
    assert set(state) == set(expected)
    compare(state, expected, "steps")
    assert torch.equal(model.state_dict()["embed.W_E"], group(name, False, "weights")["embed.W_E"]), (
        "unchanged"
    )
    assert set(model.fill_missing_keys({})) == set(group(name, False, "weights"))


def test_switches_in_their_places() -> None:
    """Old calls give them without names."""
    plain, tokens = ours("gpt2", False), calls.ids()
    named = ours("gpt2", False)
    named.process_weights_(fold_ln=False, center_writing_weights=False, center_unembed=True)
    plain.process_weights_(False, False, True)
    assert torch.equal(named(tokens), plain(tokens)) and plain.cfg.normalization_type == "LN"
    plain.load_and_process_state_dict(group("gpt2", False, "weights"), False, False, True, True)
    assert torch.allclose(named(tokens), plain(tokens), atol=1e-5)
    theirs = zoo.hugging_face("gpt2", "tied")
    model = HookedTransformer.from_pretrained("gpt2", False, hf_model=theirs, device="cpu")
    assert model.cfg.normalization_type == "LN"


def test_refusals_of_steps() -> None:
    model = ours("gpt2", False)
    with pytest.raises(ValueError, match="with its bias and its mean"):
        model.fold_layer_norm(model.state_dict(), fold_biases=False)
    with pytest.raises(ValueError, match="stand between"):
        ours("llama", False).refactor_factored_attn_matrices(group("llama", False, "weights"))


def test_caching_hooks_by_their_old_names() -> None:
    model, kept, some = ours("gpt2", False), {}, {}
    model.cache_all(kept)
    model.cache_some(some, lambda name: "pattern" in name)
    model(calls.ids())
    model.reset_hooks()
    _, cache = model.run_with_cache(calls.ids())
    compare(kept, dict(cache), "cached")
    assert set(some) == {f"blocks.{l}.attn.hook_pattern" for l in range(2)}
    seen: list[str] = []

    class Careful(HookedTransformer):
        def check_hooks_to_add(self, hook_point: Any, hook_point_name: str, *rest: Any, **more: Any) -> None:
            seen.append(hook_point_name)

    careful = Careful(HookedTransformerConfig(**calls.CONFIGS["gpt2"], device="cpu"))
    careful.add_hook("blocks.0.hook_resid_pre", lambda x, hook: x)
    assert seen == ["blocks.0.hook_resid_pre"]
    model.setup()
    assert "hook_embed" in dir(model) and "attention_dir" in dir(model.cfg)


def test_weights_of_parts() -> None:
    model = ours("llama", False)
    for layer, block in enumerate(model.blocks):
        assert torch.equal(block.attn.QK.AB, model.QK[layer].AB)
        assert torch.equal(block.attn.OV.AB, model.OV[layer].AB)
        assert block.attn.layer_id == layer and block.mlp.d_mlp == 12
        assert block.attn.attn_scale == model.cfg.attn_scale
    x = torch.randn(3)
    assert torch.equal(model.blocks[0].mlp.act_fn(x), torch.nn.functional.silu(x))


def test_new_first_weights_and_seeds() -> None:
    config = HookedTransformerConfig(**{**calls.CONFIGS["gpt2"], "act_fn": "relu"}, device="cpu", seed=3)
    model = HookedTransformer(config)
    first = model.state_dict()
    model.load_state_dict({name: x * 0 for name, x in first.items()})
    model.init_weights()
    assert all(torch.equal(x, first[name]) for name, x in model.state_dict().items())
    assert not config.is_layer_norm_activation()
    config.set_seed_everywhere(5)
    drawn = torch.randn(2)
    config.set_seed_everywhere(5)
    assert torch.equal(torch.randn(2), drawn)


def test_datapoints() -> None:
    model = ours("gpt2", False)
    with pytest.raises(ValueError, match=r"there is no sample of what custom \(None\) was trained on"):
        model.sample_datapoint()
    model.dataset = [{"text": "w3 w4"}]
    assert model.sample_datapoint() == "w3 w4"
    assert model.sample_datapoint(tokenize=True, prepend_bos=False).tolist() == [[3, 4]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_further_names_after_install() -> None:
    lens.compat.install(quiet=True)
    try:
        from transformer_lens import EasyTransformer, EasyTransformerConfig, loading, utils
        from transformer_lens.components import MLP, Attention, LayerNorm
        from transformer_lens.loading_from_pretrained import get_official_model_name

        assert EasyTransformer is HookedTransformer and EasyTransformerConfig is HookedTransformerConfig
        assert get_official_model_name("gpt2-small") == "openai-community/gpt2"
        assert loading.get_official_model_name is get_official_model_name
        block = ours("gpt2", False).blocks[0]
        assert isinstance(block.mlp, MLP) and isinstance(block.attn, Attention)
        assert isinstance(block.ln1, LayerNorm)
        tokenizer = ours("gpt2", False).tokenizer
        assert utils.get_input_with_manually_prepended_bos(tokenizer, ["w3"]) == ["<bos>w3"]
    finally:
        lens.compat.uninstall()
