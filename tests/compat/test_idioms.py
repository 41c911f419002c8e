"""Idioms of old notebooks: weights of parts, configurations that are made anew, edits in place, stores of keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lens.compat import (
    FactoredMatrix,
    HookedEncoderDecoder,
    HookedTransformer,
    HookedTransformerConfig,
    composition_scores,
)
from lens.compat.hook_modules import HookedRootModule, HookedTransformerKeyValueCache, HookPoint

SIZES = {"n_layers": 2, "d_model": 16, "n_ctx": 12, "d_head": 4, "d_vocab": 30, "act_fn": "gelu", "seed": 1}
IDS = torch.arange(8).reshape(2, 4)


def made(**options: Any) -> HookedTransformer:
    model = HookedTransformer(HookedTransformerConfig(**{**SIZES, "device": "cpu", **options}))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=30, n_positions=12, n_embd=8, n_layer=1, n_head=2))


class OwnAttention(nn.Module):
    """Attention as people write it themselves, with TransformerLens's names for its weights."""

    def __init__(self) -> None:
        super().__init__()
        for name in "QKV":
            setattr(self, f"W_{name}", nn.Parameter(torch.empty(4, 16, 4)))
            setattr(self, f"b_{name}", nn.Parameter(torch.empty(4, 4)))
        self.W_O, self.b_O = nn.Parameter(torch.empty(4, 4, 16)), nn.Parameter(torch.empty(16))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            torch.einsum("bpd,hde->bhpe", x, getattr(self, f"W_{n}")) + getattr(self, f"b_{n}")[:, None]
            for n in "QKV"
        )
        scores = (q @ k.mT / 2).masked_fill(torch.ones(x.shape[1], x.shape[1]).triu(1).bool(), -torch.inf)
        return torch.einsum("bhpe,hed->bpd", scores.softmax(-1) @ v, self.W_O) + self.b_O


def test_weights_of_a_part_go_into_a_module_of_ones_own() -> None:
    model, own, x = made(), OwnAttention(), torch.randn(2, 4, 16)
    assert not any(own.load_state_dict(model.blocks[1].attn.state_dict(), strict=False))
    torch.testing.assert_close(own(x), model.blocks[1].attn(x, x, x))
    whole = model.state_dict()
    for part in ("blocks.0", "blocks.0.attn", "blocks.1.mlp", "blocks.0.ln1", "ln_final", "unembed", "embed"):
        there = {name[len(part) + 1 :]: x for name, x in whole.items() if name.startswith(f"{part}.")}
        held: Any = model.mod_dict[part].state_dict()
        assert held.keys() == there.keys() and all(torch.equal(held[n], there[n]) for n in there), part
    assert torch.equal(model.pos_embed.state_dict()["W_pos"], whole["pos_embed.W_pos"])
    folded = made(normalization_type="LNPre")
    assert "ln1.w" not in folded.blocks[0].state_dict() and "attn.W_Q" in folded.blocks[0].state_dict()


def test_weights_go_into_a_part() -> None:
    model, other = made(), made(seed=3)
    with torch.no_grad():
        other.W_E.mul_(2)
        other.blocks[0].attn.W_Q.mul_(3)
    before = model.blocks[1].attn.state_dict()
    model.blocks[0].load_state_dict(other.blocks[0].state_dict())
    assert torch.equal(model.blocks[0].attn.W_Q, other.blocks[0].attn.W_Q)
    assert all(torch.equal(x, before[name]) for name, x in model.blocks[1].attn.state_dict().items())
    model.embed.load_state_dict(other.embed.state_dict())
    assert torch.equal(model.W_E, other.W_E)
    changed = model.unembed.load_state_dict({"b_U": torch.ones(30), "extra": torch.ones(1)}, strict=False)
    assert changed.missing_keys == ["W_U"] and changed.unexpected_keys == ["extra"]
    assert torch.equal(model.b_U, torch.ones(30))
    with pytest.raises(ValueError, match=r"'blocks.0.attn.W_X' is not a weight"):
        model.blocks[0].attn.load_state_dict({**before, "W_X": before["W_Q"]})
    with pytest.raises(ValueError, match=r"blocks.0.attn needs a weight 'W_Q'"):
        model.blocks[0].attn.load_state_dict({"W_K": before["W_K"]})
    with pytest.raises(ValueError, match=r"'blocks.0.attn.W_Q' is \(1, 16, 4\) and must be \(4, 16, 4\)"):
        model.blocks[0].attn.load_state_dict({"W_Q": before["W_Q"][:1]}, strict=False)


def test_weights_are_assigned() -> None:
    model = made()
    x = torch.randn(4, 16, 4)
    model.blocks[0].attn.W_Q = nn.Parameter(x)
    assert torch.equal(model.blocks[0].attn.W_Q, x) and torch.equal(model.W_Q[0], x)
    model.blocks[1].attn.W_Q.data = 2 * x
    assert torch.equal(model.W_Q[1], 2 * x)
    u = torch.randn(16, 30)
    model.unembed.W_U.data = u
    assert torch.equal(model.state_dict()["unembed.W_U"], u)
    model.blocks[0].mlp.W_in.data[:, 3] = 0.0
    assert not model.W_in[0, :, 3].any()
    with pytest.raises(ValueError, match=r"must be \(16, 30\)"):
        model.unembed.W_U = u.T
    with pytest.raises(ValueError, match=r"the weight is \(16, 30\)"):
        model.unembed.W_U.data = u.T
    tiny = HookedTransformer.from_pretrained("tiny", hf_model=gpt2())
    assert tiny.blocks[0].attn.b_V.shape == (2, 4) and not tiny.blocks[0].attn.b_V.any()
    with pytest.raises(ValueError, match="a bias that it lacks"):
        tiny.blocks[0].attn.b_V.data = torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"'blocks.0.attn.b_V'"):
        tiny.blocks[0].attn.b_V = torch.ones(2, 4)


def test_weights_of_parts_learn() -> None:
    model = made()
    (model.blocks[0].attn.W_Q.square().sum() / 2).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert list(grads) == ["blocks.0.attn.W_Q"]
    torch.testing.assert_close(grads["blocks.0.attn.W_Q"], model.blocks[0].attn.q.weight.detach())


def test_a_model_is_made_again_from_its_configuration() -> None:
    model = made(normalization_type="LNPre")
    fields = model.cfg.to_dict()
    assert fields["n_layers"] == 2 and fields["normalization_type"] == "LNPre"
    again = HookedTransformer(HookedTransformerConfig(**fields))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(IDS), model(IDS))


def test_casting_is_said_in_the_settings() -> None:
    model = made()
    assert model.double().cfg.dtype == torch.float64 and model(IDS).dtype == torch.float64
    assert model.half().cfg.dtype == torch.float16


@pytest.mark.parametrize(
    "site", ["hook_q_input", "hook_k_input", "hook_v_input", "hook_attn_in", "hook_mlp_in"]
)
def test_what_is_written_in_place_reaches_one_reader(site: str) -> None:
    """The same edit, in place and as a new tensor: the stream that others read stays as it is."""
    model = made()

    def in_place(x: Tensor, hook: Any) -> Tensor:
        x[..., 1, :3] = 0.0
        return x

    def anew(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        x[..., 1, :3] = 0.0
        return x

    name = f"blocks.1.{site}"
    wanted = model.run_with_hooks(IDS, fwd_hooks=[(name, anew)])
    torch.testing.assert_close(model.run_with_hooks(IDS, fwd_hooks=[(name, in_place)]), wanted)
    assert not torch.allclose(wanted, model(IDS))


def test_positions_of_one_row_are_written_in_place() -> None:
    model = made()

    def first_row(x: Tensor, hook: Any) -> None:
        x[0] = 0.0

    with torch.no_grad():
        logits = model.run_with_hooks(IDS, fwd_hooks=[("hook_pos_embed", first_row)])
        torch.testing.assert_close(logits[1], model(IDS)[1])
        assert not torch.allclose(logits[0], model(IDS)[0])


def test_a_normalised_stream_is_written_in_place() -> None:
    model, name = made(), "blocks.1.ln1.hook_normalized"

    def nothing_returned(x: Tensor, hook: Any) -> None:
        x[:, 1] = 0.5

    def anew(x: Tensor, hook: Any) -> Tensor:
        return torch.cat([x[:, :1], torch.full_like(x[:, :1], 0.5), x[:, 2:]], 1)

    with torch.no_grad():
        wanted = model.run_with_hooks(IDS, fwd_hooks=[(name, anew)])
        torch.testing.assert_close(model.run_with_hooks(IDS, fwd_hooks=[(name, nothing_returned)]), wanted)
    with torch.inference_mode():
        torch.testing.assert_close(model.run_with_hooks(IDS, fwd_hooks=[(name, nothing_returned)]), wanted)


def test_products_of_factored_matrices_stay_in_factors() -> None:
    ov, narrow, wide = (
        FactoredMatrix(torch.randn(9, 3), torch.randn(3, 9)),
        torch.randn(9, 2),
        torch.randn(2, 9),
    )
    assert isinstance(ov @ narrow, FactoredMatrix) and isinstance(wide @ ov, FactoredMatrix)
    torch.testing.assert_close((ov @ narrow).AB, ov.AB @ narrow)
    torch.testing.assert_close((wide @ ov).AB, wide @ ov.AB)
    chained = wide @ ov @ ov.T @ narrow
    assert isinstance(chained, FactoredMatrix)
    torch.testing.assert_close(chained.AB, wide @ ov.AB @ ov.AB.T @ narrow, rtol=1e-4, atol=1e-4)


def test_a_store_of_keys_is_read_by_layer() -> None:
    model = made()
    store = HookedTransformerKeyValueCache.init_cache(model.cfg, "cpu", 2)
    assert store.previous_attention_mask is None
    with pytest.raises(ValueError, match="nothing is stored yet"):
        store[0]
    with torch.no_grad():
        _, cache = model.run_with_cache(IDS, past_kv_cache=store)
    assert len(store.entries) == 2
    torch.testing.assert_close(store[1].past_keys, cache["k", 1])
    torch.testing.assert_close(store.entries[0].past_values, cache["v", 0])
    mask = store.previous_attention_mask
    assert mask is not None and torch.equal(mask, torch.ones(2, 4, dtype=torch.int))
    with pytest.raises(IndexError, match="keys of 2 layers"):
        store[2]


def test_texts_begin_as_transformerlens_begins_them() -> None:
    """Its Qwen2 and Qwen3 put no token in front; an empty text is that token alone."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    small: dict[str, Any] = {
        "vocab_size": 30,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
    }
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2}
    qwen = Qwen2ForCausalLM(Qwen2Config(**small, **heads))
    assert HookedTransformer.from_pretrained("q", hf_model=qwen).cfg.default_prepend_bos is False
    told = HookedTransformer.from_pretrained("q", hf_model=qwen, default_prepend_bos=True)
    assert told.cfg.default_prepend_bos is True
    assert HookedTransformer.from_pretrained("g", hf_model=gpt2()).cfg.default_prepend_bos is True
    shipped = HookedTransformer.from_pretrained("induction-2l", device="cpu")
    assert shipped.cfg.tokenizer_prepends_bos is shipped.tokenizer.prepends_bos
    assert shipped("").shape[:2] == (1, 1)
    with pytest.raises(ValueError, match="nothing to run"):
        shipped(None)


def test_another_class_is_named() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: dict[str, Any] = {"vocab_size": 30, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1}
    sizes |= {"num_heads": 2, "decoder_start_token_id": 0}
    t5 = T5ForConditionalGeneration(T5Config(**sizes))
    with pytest.raises(ValueError, match=r"load it by HookedEncoderDecoder\.from_pretrained"):
        HookedTransformer.from_pretrained("t", hf_model=t5)
    both = HookedEncoderDecoder.from_pretrained("t", hf_model=t5)
    with pytest.raises(ValueError, match=r"decoder_input is ids \[batch, pos\], not str"):
        both(IDS, "a text")


def test_a_model_is_a_part_of_a_root_module_of_ones_own() -> None:
    class Own(HookedRootModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.hook_out = made(), HookPoint()
            self.setup()

        def forward(self, ids: Tensor) -> Tensor:
            return self.hook_out(self.model(ids))

    own = Own()
    plain, cache = own.run_with_cache(IDS)
    torch.testing.assert_close(plain, own.model(IDS))
    assert torch.equal(cache["hook_out"], plain)
    torch.testing.assert_close(
        cache["blocks.1.hook_resid_pre"], own.model.run_with_cache(IDS)[1]["resid_pre", 1]
    )
    name = "model.blocks.0.hook_mlp_out"
    edited = own.run_with_hooks(IDS, fwd_hooks=[(name, lambda x, hook: x * 0)])
    wanted = own.model.run_with_hooks(IDS, fwd_hooks=[("blocks.0.hook_mlp_out", lambda x, hook: x * 0)])
    torch.testing.assert_close(edited, wanted)
    torch.testing.assert_close(own(IDS), plain)  # hooks of a run end with it


def test_composition_scores_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair by its definition, whatever is in memory at once."""
    model = made()
    left, right = model.OV, model.QK[1]
    wanted = torch.stack([(a @ right.AB).norm(dim=(-2, -1)) for a in left.AB.flatten(0, 1)]).view(2, 4, 4)
    wanted = wanted / left.AB.norm(dim=(-2, -1))[..., None] / right.AB.norm(dim=(-2, -1))
    for at_once in (1, 2**24):
        monkeypatch.setattr("lens.compat.factored_matrix.AT_ONCE", at_once)
        torch.testing.assert_close(composition_scores(left, right), wanted)
    torch.testing.assert_close(composition_scores(left[0], right, False), wanted[0].diagonal())
