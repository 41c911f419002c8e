"""Checkpoints as drop-in models: what Hugging Face's models say, texts, weights in both layouts, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lens
from lens import HookedTransformer, HookedTransformerConfig
from lens.compat.generation import sample_logits
from lens.compat.loading import official_name
from lens.compat.tokenizer import HookedTokenizer
from lens.tokens import Tokenizer
from tests import zoo
from tests.parity import prompts

CLOSE = 2e-5
FAMILIES = {
    "gpt2": "tied", "gpt_neo": "windowed", "gptj": "partial", "gpt_neox": "parallel", "opt": "before",
    "llama": "untied", "mistral": "windowed", "qwen2": "full", "qwen3": "full", "gemma": "tied", "gemma2": "capped",
    "phi": "shared", "phi3": "full",
}  # fmt: skip
WORDS = ["<bos>", "<eos>", "<pad>", *(f"w{i}" for i in range(3, 23))]


def named(family: str) -> str:
    return FAMILIES[family] if FAMILIES[family] in zoo.ZOO[family] else next(iter(zoo.ZOO[family]))


def words(**options: Any) -> Tokenizer:
    return Tokenizer.from_words(WORDS, bos="<bos>", eos="<eos>", pad="<pad>", **options)


def small(**options: Any) -> HookedTransformer:
    config = {
        "n_layers": 2,
        "d_model": 12,
        "n_ctx": 9,
        "d_head": 4,
        "act_fn": "relu",
        "d_vocab": 23,
        "seed": 0,
    }
    return HookedTransformer({**config, **options}, words())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_models_say_what_hugging_face_says(family: str) -> None:
    hf = zoo.hugging_face(family, named(family))
    theirs = hf(prompts()).logits.log_softmax(-1)
    for load in (HookedTransformer.from_pretrained, HookedTransformer.from_pretrained_no_processing):
        model = load(family, hf_model=hf, device="cpu")
        assert (model(prompts()).log_softmax(-1) - theirs).abs().max() < CLOSE * theirs.abs().max()
        state = model.state_dict()
        again = load(family, hf_model=hf, device="cpu")
        again.load_state_dict({name: x * 0 for name, x in state.items()})
        again.load_state_dict(state)
        assert torch.allclose(again(prompts()), model(prompts()), atol=1e-5)
        assert not any(p.requires_grad for p in model.parameters())
    assert str(model.cfg.normalization_type) in ("LN", "RMS")
    assert str(HookedTransformer.from_pretrained(family, hf_model=hf).cfg.normalization_type).endswith("Pre")


def test_parts_of_a_checkpoint() -> None:
    hf = zoo.hugging_face("gpt2", "tied")
    whole = HookedTransformer.from_pretrained_no_processing("gpt2", hf_model=hf, device="cpu")
    part = HookedTransformer.from_pretrained_no_processing("gpt2", hf_model=hf, first_n_layers=2, n_ctx=20)
    assert torch.equal(part(prompts(), stop_at_layer=2), whole(prompts(), stop_at_layer=2))
    assert part.cfg.n_ctx == 20 and part.W_pos.shape[0] == 20 and part.cfg.n_layers == 2
    half = HookedTransformer.from_pretrained("gpt2", hf_model=hf, dtype="bfloat16")
    assert half.dtype == torch.bfloat16 and half.cfg.dtype == torch.bfloat16
    for options, said in (
        ({"first_n_layers": 9}, "first_n_layers is 9 and gpt2 has 3 layers"),
        ({"n_ctx": 99}, "n_ctx is 99 and gpt2 has learned 48 positions"),
        ({"n_devices": 2}, "n_devices is 2"),
        ({"checkpoint_index": 3}, "revision="),
        ({"fold_layer_norm": True}, "did you mean 'fold_ln'"),
    ):
        with pytest.raises(ValueError, match=said):
            HookedTransformer.from_pretrained("gpt2", hf_model=hf, **options)
    with pytest.raises(ValueError, match="post-norm"):
        HookedTransformer.from_pretrained("opt", hf_model=zoo.hugging_face("opt", "factorised"))
    with pytest.raises(ValueError, match=r"HookedTransformer\.from_pretrained\('gpt2'\)"):
        HookedTransformer("gpt2")


def test_short_names() -> None:
    assert official_name("gpt2-small") == "openai-community/gpt2" == official_name("gpt2")
    assert official_name("gpt2-xl") == "openai-community/gpt2-xl"
    assert official_name("pythia-70m-deduped") == "EleutherAI/pythia-70m-deduped"
    assert official_name("gemma-2b-it") == "google/gemma-2b-it" and official_name("me/mine") == "me/mine"


def test_a_shipped_model_by_name(tmp_path: Path) -> None:
    plain = lens.load("induction-2l", device="cpu")
    model = HookedTransformer.from_pretrained("induction-2l", device="cpu", default_prepend_bos=False)
    ids = torch.randint(0, plain.cfg.d_vocab, (2, 12))
    assert torch.allclose(model(ids).log_softmax(-1), plain(ids).log_softmax(-1), atol=1e-4)
    assert model.tokenizer is not None and model.origin == plain.origin
    lens.save(model, tmp_path / "saved")
    again = lens.load(tmp_path / "saved", device="cpu")
    assert torch.allclose(again(ids), model(ids), atol=1e-5), "it is saved as what it is"


# ---------------------------------------------------------------------- text


def test_texts_begin_as_asked() -> None:
    model = small()
    assert model.to_tokens("w3 w4").tolist() == [[0, 3, 4]]
    assert model.to_tokens("w3 w4", prepend_bos=False).tolist() == [[3, 4]]
    model.cfg.default_prepend_bos = False
    assert model.to_tokens(["w3 w4", "w5"]).tolist() == [[3, 4], [5, 2]]
    assert model.to_inputs("w3").ids.tolist() == [[3]]  # type: ignore[union-attr]
    model.set_tokenizer(words(add_bos=True))
    assert model.to_tokens("w3").tolist() == [[3]] and model.to_tokens("w3", prepend_bos=True).tolist() == [
        [0, 3]
    ]
    nameless = small()
    nameless.set_tokenizer(Tokenizer.from_words(WORDS, eos="<eos>"))
    assert nameless.to_tokens(["w3", "w4 w5"]).tolist() == [[1, 3, 1], [1, 4, 5]], (
        "the end of a text begins one"
    )
    assert small().to_tokens("w3 " * 20).shape == (1, 9), "cut to the context"
    assert small().to_tokens("w3 " * 20, truncate=False).shape == (1, 21)


def test_padding_on_the_left_changes_nothing() -> None:
    model = small()
    alone = model("w5 w6 w7")
    model.tokenizer.padding_side = "left"
    both = model(["w3 w4 w8 w9", "w5 w6 w7"])
    assert torch.allclose(both[1, 1:], alone[0], atol=1e-5)
    ids = model.to_tokens(["w3 w4 w8 w9", "w5 w6 w7"])
    assert torch.equal(model(ids), both), "ids that are padded are masked as well"


def test_the_tokenizer_answers_to_transformers_names() -> None:
    tokenizer = HookedTokenizer.of(words())
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert tokenizer.bos_token == "<bos>" and len(tokenizer) == 23 == tokenizer.vocab_size
    assert tokenizer.decode(torch.tensor([3, 4, 1]), skip_special_tokens=True) == "w3 w4"
    assert tokenizer("w3 w4")["input_ids"] == [3, 4] and tokenizer.convert_ids_to_tokens([5]) == ["w5"]
    from_hf = HookedTokenizer.of(tokenizer.hf)
    assert from_hf.encode("w3 w9") == [3, 9] and from_hf.bos_token_id == 0
    for wrong, said in (
        (words(), "'middle' is not a known padding side"),
        ("gpt2", "a fast one of transformers"),
    ):
        with pytest.raises(ValueError, match=said):
            HookedTokenizer.of(wrong, "middle" if isinstance(wrong, Tokenizer) else "right")


def test_refusals_of_texts() -> None:
    model = small()
    for act, said in (
        (lambda: model.to_tokens([]), "expected a text or texts"),
        (lambda: model.to_single_token("w3 w4"), "'w3 w4' is not a single token"),
        (lambda: model.get_token_position("w9", "w3 w4"), "token 9 does not occur"),
        (lambda: model.get_token_position("w3", "w3", mode="any"), "'any' is not a known mode"),
        (lambda: model.to_str_tokens(torch.zeros(2, 3, dtype=torch.long)), "one row of ids, not 2"),
        (lambda: model.to_string(torch.zeros(1, 2, 3, dtype=torch.long)), r"not \(1, 2, 3\)"),
        (
            lambda: HookedTransformer(HookedTransformerConfig(1, 8, 5, 4, act_fn="relu", d_vocab=9))("w3"),
            "no tokenizer",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            act()


# ---------------------------------------------------------------------- configurations and weights


def test_configurations_follow_transformerlens() -> None:
    cfg = HookedTransformerConfig(n_layers=2, d_model=16, n_ctx=9, d_head=4, act_fn="relu", d_vocab=7)
    assert (cfg.n_heads, cfg.d_mlp, cfg.d_vocab_out) == (4, 64, 7)
    assert cfg.initializer_range == pytest.approx(0.2) and cfg.attn_scale == 2.0
    assert cfg.n_params == 2 * (4 * 16 * 16 + 2 * 16 * 64)
    assert HookedTransformerConfig.from_dict(cfg.to_dict()) == cfg
    model = HookedTransformer(cfg)
    assert isinstance(HookedTransformer(model.cfg), HookedTransformer)
    for options, said in (
        ({"act_fn": "rellu"}, "did you mean 'relu'"),
        ({"act_fn": None}, "act_fn must be given"),
        (
            {"normalization_type": "LNP"},
            "'LNP' is not a known normalization type; did you mean 'LN' or 'LNPre'",
        ),
        ({"positional_embedding_type": "shortformer"}, "'shortformer' is not a known kind of positions"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True is not supported"),
        ({"d_vocab": -1}, "d_vocab must be given"),
        ({"init_mode": "muP"}, "'muP' is not a known init_mode"),
        ({"n_layer": 3}, "'n_layer' is not a field of HookedTransformerConfig; did you mean 'n_layers'"),
    ):
        with pytest.raises(ValueError, match=said):
            HookedTransformer({**cfg.to_dict(), **options})
    with pytest.raises(ValueError, match="d_model says what this model is"):
        model.cfg.d_model = 3
    with pytest.raises(ValueError, match="did you mean 'use_attn_result'"):
        model.cfg.use_attn_results = True
    with pytest.raises(AttributeError, match="nothing"):
        _ = model.cfg.nothing


def test_d_vocab_comes_from_the_tokenizer_and_outputs_may_be_others() -> None:
    model = small(d_vocab=-1, d_vocab_out=5)
    assert model.cfg.embed.d_vocab == 23 and model("w3").shape == (1, 2, 5)


def test_a_model_made_here_learns() -> None:
    model = small(seed=3, n_ctx=5)
    ids = torch.randint(3, 23, (16, 5), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    names = [name for name, _ in model.named_parameters()]
    assert "blocks.0.attn.W_Q" in names and "unembed.W_U" in names and "blocks.1.mlp.b_out" in names
    checkpoint = model.state_dict()
    losses = []
    for _ in range(30):
        loss = model(ids, return_type="loss")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    model.load_state_dict(checkpoint)
    assert model(ids, return_type="loss").item() == pytest.approx(losses[0], rel=1e-5)


def test_processing_in_place_keeps_hooks_and_what_is_said() -> None:
    model = small()
    ids = torch.randint(3, 23, (2, 6), generator=torch.Generator().manual_seed(0))
    said = model(ids).log_softmax(-1)
    model.add_hook("blocks.0.hook_mlp_out", lambda x, hook: x * 0)
    model.process_weights_()
    assert model.cfg.normalization_type == "LNPre" and model.hook_dict["blocks.0.hook_mlp_out"].fwd_hooks
    assert not torch.allclose(model(ids).log_softmax(-1), said, atol=1e-3)
    model.reset_hooks()
    assert torch.allclose(model(ids).log_softmax(-1), said, atol=1e-5)
    assert all(p.requires_grad for p in model.parameters())
    assert not [name for name, _ in model.named_parameters() if ".ln" in name or name.startswith("ln")]
    stream, tokens, _, mask = model.input_to_embed("w3 w4")
    assert tokens is not None and tokens.tolist() == [[0, 3, 4]] and mask is None
    assert torch.allclose(stream, model.embed(tokens) + model.pos_embed(tokens), atol=1e-6)
    assert torch.allclose(model(stream, start_at_layer=0), model("w3 w4"), atol=1e-6)


def test_refusals_of_weights() -> None:
    model = small()
    state = model.state_dict()
    for weights, said in (
        ({**state, "blocks.0.attn.W_X": state["embed.W_E"]}, "did you mean 'blocks.0.attn.W_"),
        ({n: x for n, x in state.items() if n != "embed.W_E"}, "needs a weight 'embed.W_E'"),
        (
            {**state, "blocks.0.attn.W_Q": state["embed.W_E"]},
            r"'blocks.0.attn.W_Q' is \(23, 12\) and must be \(3, 12, 4\)",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            model.load_state_dict(weights)
    mixed = {"embed.W_E": state["embed.W_E"] * 2, "unknown": state["embed.W_E"]}
    model.load_state_dict(mixed, strict=False)
    assert torch.equal(model.W_E, state["embed.W_E"] * 2)


# ---------------------------------------------------------------------- sampling


def drawn(n: int = 4000, **options: Any) -> Tensor:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(n, -1)
    return torch.bincount(sample_logits(logits, **options), minlength=4) / n


def test_sampling() -> None:
    p = torch.tensor([2.0, 1.0, 0.0, -1.0]).softmax(-1)
    assert (drawn() - p).abs().max() < 0.04
    assert drawn(temperature=0.0)[0] == 1
    kept = drawn(top_k=2)
    assert kept[2:].sum() == 0 and abs(kept[0] - 1 / (1 + math.exp(-1))) < 0.04
    assert drawn(top_p=0.7)[2:].sum() == 0, "those whose probabilities reach 0.7"
    penalised = drawn(freq_penalty=10.0, tokens=torch.zeros(4000, 2, dtype=torch.long))
    assert penalised[0] < 0.01


def test_generation_options() -> None:
    model = small()
    ids = model.to_tokens("w3 w4")
    torch.manual_seed(1)
    a = model.generate(ids, 4, stop_at_eos=False)
    torch.manual_seed(1)
    b = model.generate(ids, 4, stop_at_eos=False, use_past_kv_cache=False)
    assert torch.equal(a, b) and a.shape == (1, 7)
    assert model.generate("w3 w4", 3, return_type="tokens", do_sample=False).shape[0] == 1
    assert isinstance(model.generate(["w3 w4", "w5"], 2, do_sample=False), list)
    by_core = model.generate(ids, 3, seed=1, stop_at_eos=False)
    assert torch.equal(by_core, model.generate(ids, 3, do_sample=False, stop_at_eos=False))
    for options, said in (
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"return_type": "list"}, "'list' is not a known return type"),
        ({"max_new_tokens": 30}, "takes at most 9"),
    ):
        with pytest.raises(ValueError, match=said):
            model.generate(ids, **options)
