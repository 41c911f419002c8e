"""Our HookedEncoder and HookedEncoderDecoder beside TransformerLens 2.18's; `record_encoders.py` made the numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

import lens.compat
from lens import HookedEncoder, HookedEncoderDecoder, HookedTransformerConfig
from lens.compat import BertNextSentencePrediction
from lens.tokens import Tokenizer as Words
from tests import zoo
from tests.compat import calls_encoders as calls
from tests.compat.test_reference import HERE, compare, recorded

FORMS = {
    "encoder": ("<cls> $A <sep>", "<cls> $A <sep> $B:1 <sep>:1"),
    "encoder_decoder": ("$A <sep>", "$A <sep> $B <sep>"),
}
Model = HookedEncoder | HookedEncoderDecoder


def words(kind: str) -> Words:
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(calls.WORDS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(t, special=True) for t in calls.WORDS[:4]])
    single, pair = FORMS[kind]
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<cls>", 0), ("<sep>", 1)]
    )
    bos = "<cls>" if kind == "encoder" else None
    return Words(backend, bos=bos, eos="<sep>", pad="<pad>", mask="<mask>")


def group(stem: str, of: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{of}/"): x for k, x in recorded(stem).items() if k.startswith(f"{of}/")}


def ours(stem: str) -> Any:
    kinds = {"encoder": (HookedEncoder, calls.BERT), "encoder_decoder": (HookedEncoderDecoder, calls.T5)}
    made, config = kinds[stem]
    model = made(HookedTransformerConfig(**config), words(stem))
    model.load_state_dict(group(stem, "weights"))
    return model.requires_grad_(False)


def answers(stem: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    model = ours(stem)
    if stem == "encoder":
        return calls.of_encoder(model, BertNextSentencePrediction(model))
    return calls.of_encoder_decoder(model)


@pytest.mark.parametrize("stem", ["encoder", "encoder_decoder"])
def test_everything_asked_of_them(stem: str) -> None:
    """Logits, every activation that both have, edits, parts, views of weights, ids of texts, and words."""
    found, said = answers(stem)
    expected = {k: x for k, x in recorded(stem).items() if not k.startswith(("weights/", "unmasked"))}
    if stem == "encoder":  # where words are masked and next sentences too, one run has both
        assert {k for k in found if k not in expected} <= {
            "cache/hook_logits", "cache/mlm_head.hook_mlm_pre", "cache/mlm_head.hook_mlm_post",
            "cache/pooler.hook_pooler_pre",
        }  # fmt: skip
    compare(found, expected, stem)
    assert said == json.loads((HERE / f"{stem}.json").read_text())


@pytest.mark.parametrize("stem", ["encoder", "encoder_decoder"])
def test_weights_go_in_and_out(stem: str) -> None:
    weights, model = group(stem, "weights"), ours(stem)
    state = model.state_dict()
    assert set(state) == set(weights)
    assert all(torch.equal(state[name], x) for name, x in weights.items())
    assert {name for name, _ in model.named_parameters()} == set(weights)
    fresh = type(model)(calls.BERT if stem == "encoder" else calls.T5)
    assert all(p.requires_grad for p in fresh.parameters())
    assert all(bool(x.isfinite().all()) for x in fresh.state_dict().values())


def test_without_a_mask_transformerlenss_decoder_sees_what_comes_later() -> None:
    """Its logits agree for the first token of a text alone; ours do not depend on what is said later."""
    model, tokens, unmasked = ours("encoder_decoder"), calls.ids(), recorded("encoder_decoder")["unmasked"]
    logits = model(tokens, tokens[:, :3])
    assert (logits - unmasked).abs().max() > 0.1
    assert torch.allclose(model(tokens, tokens[:, :2]), logits[:, :2], atol=1e-5)


@pytest.mark.parametrize("name", ["pretraining", "masked", "base", "pairs"])
def test_loaded_encoders_say_what_hugging_face_says(name: str) -> None:
    theirs = zoo.hugging_face("bert", name)
    model = HookedEncoder.from_pretrained("tiny", hf_model=theirs, device="cpu")
    tokens = torch.randint(1, zoo.D_VOCAB, (2, 6))
    types = torch.randint(0, 2, (2, 6))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    said = theirs(tokens, token_type_ids=types, attention_mask=mask, output_hidden_states=True)
    real = mask.bool()
    stream = model.encoder_output(tokens, types, mask)
    assert torch.allclose(stream[real], said.hidden_states[-1][real], atol=1e-5)
    logits = getattr(said, "prediction_logits", said.get("logits"))
    if name in ("pretraining", "masked"):
        found = model(tokens, token_type_ids=types, one_zero_attention_mask=mask)
        assert torch.allclose(found[real], logits[real], atol=1e-5)
    if name in ("pretraining", "pairs"):
        expected = said.seq_relationship_logits if name == "pretraining" else logits
        pairs = BertNextSentencePrediction(model)
        found = pairs(tokens, token_type_ids=types, one_zero_attention_mask=mask)
        assert torch.allclose(found, expected, atol=1e-5)
    else:
        with pytest.raises(ValueError, match="no head that says whether one sentence follows"):
            BertNextSentencePrediction(model)(tokens, token_type_ids=types)
    state = model.state_dict()
    again = HookedEncoder.from_pretrained("tiny", hf_model=theirs, device="cpu")
    again.load_state_dict({k: torch.zeros_like(x) for k, x in state.items()})
    again.load_state_dict(state)
    assert torch.equal(again.encoder_output(tokens, types, mask), stream)


@pytest.mark.parametrize("name", ["plain", "gated"])
def test_loaded_encoder_decoders_say_what_hugging_face_says(name: str) -> None:
    theirs = zoo.hugging_face("t5", name)
    model = HookedEncoderDecoder.from_pretrained("tiny", hf_model=theirs, device="cpu")
    tokens, target = torch.randint(1, zoo.D_VOCAB, (2, 6)), torch.randint(1, zoo.D_VOCAB, (2, 4))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    said = theirs(tokens, attention_mask=mask, decoder_input_ids=target).logits
    assert torch.allclose(model(tokens, target, one_zero_attention_mask=mask), said, atol=1e-5)
    logits, cache = model.run_with_cache(
        tokens, target, one_zero_attention_mask=mask, names_filter=lambda name: "hook_pattern" in name
    )
    assert torch.allclose(logits, said, atol=1e-5)
    assert set(cache) == {name for name in model.sites if "hook_pattern" in name}
    greedy = theirs.generate(
        tokens, attention_mask=mask, max_new_tokens=5, do_sample=False, min_new_tokens=5,
        suppress_tokens=None,
    )  # fmt: skip
    end = theirs.config.eos_token_id
    ours = model.generate(tokens, mask, max_new_tokens=5, do_sample=False, stop_at_eos=False)
    if end not in ours[:, 1:]:
        assert torch.equal(ours, greedy)
    hooked = [("encoder.0.attn.hook_z", lambda z, hook: z)]
    with model.hooks(hooked):
        assert torch.equal(model.generate(tokens, mask, 5, do_sample=False, stop_at_eos=False), ours)
    block = model.decoder[0]
    frame = torch.randn(1, 3, model.cfg.d_model)
    assert block(frame, encoder_hidden_states=frame).shape == frame.shape


def test_pairs_of_texts_and_what_is_too_long() -> None:
    model = ours("encoder")
    ids, types, mask = model.to_tokens([("w4 w5", "w6"), "w7"])
    assert ids.tolist() == [[0, 4, 5, 1, 6, 1], [0, 7, 1, 2, 2, 2]]
    assert types.tolist() == [[0, 0, 0, 0, 1, 1], [0] * 6] and mask.sum().item() == 9
    long = " ".join(calls.WORDS[4:])
    assert (
        model.to_tokens(long)[0].shape == (1, 12) and model.to_tokens(long, truncate=False)[0].shape[1] == 21
    )
    ids, types, _ = model.to_tokens([(long, "w6 w7")])
    assert ids[0, -4:].tolist() == [1, 6, 7, 1] and ids.shape == (1, 12)


def test_the_core_and_its_tools_take_them() -> None:
    """Shorthands, halting runs, gradients, hooks in a thread: as for any model."""
    model = ours("encoder")
    logits, cache = model.run_with_cache(calls.ids(), "pattern")
    assert set(cache) == {f"blocks.{l}.attn.hook_pattern" for l in range(2)}
    assert torch.allclose(logits, model(calls.ids()), atol=1e-5)
    seen = model.activations(model.to_inputs(["w4 w5"]), ["embed.hook_embed"])
    assert seen["embed.hook_embed"].shape == (1, 4, 12)
    _, cache = model.run_with_cache(calls.ids(), names_filter=["embed.hook_token_type_embed"], grad=True)
    assert cache["embed.hook_token_type_embed"].requires_grad
    with pytest.raises(ValueError, match=r"did you mean .*embed\.hook_embed"):
        model.run_with_hooks(calls.ids(), fwd_hooks=[("embed.hook_embd", lambda x, hook: x)])
    twin = ours("encoder_decoder")
    point = "decoder.1.ln3.hook_scale"
    assert twin.decoder[1].ln3.hook_scale == point == twin.mod_dict[point].name
    assert twin.mod_dict["decoder.1.ln3"] is twin.decoder[1].ln3
    assert twin.mod_dict["encoder.0.mlp"] is twin.encoder[0].mlp
    assert model.mod_dict["nsp_head"] is model.nsp_head


def test_after_install_they_are_there() -> None:
    lens.compat.install(quiet=True)
    try:
        import transformer_lens
        from transformer_lens.BertNextSentencePrediction import BertNextSentencePrediction as Pairs
        from transformer_lens.HookedEncoder import HookedEncoder as Named

        assert transformer_lens.HookedEncoder is Named is HookedEncoder
        assert transformer_lens.HookedEncoderDecoder is HookedEncoderDecoder
        assert transformer_lens.BertNextSentencePrediction is Pairs is BertNextSentencePrediction
    finally:
        lens.compat.uninstall()


def test_refusals() -> None:
    model, twin = ours("encoder"), ours("encoder_decoder")
    with pytest.raises(ValueError, match=r"no <mask> in these texts"):
        model("w4 w5", return_type="predictions")
    with pytest.raises(ValueError, match="'loss' is not a known return type"):
        model("w4", return_type="loss")
    with pytest.raises(ValueError, match="exactly two texts"):
        BertNextSentencePrediction(model)(["w4"])
    with pytest.raises(ValueError, match="need token_type_ids"):
        BertNextSentencePrediction(model)(calls.ids())
    with pytest.raises(ValueError, match="need decoder_input"):
        twin(calls.ids())
    with pytest.raises(
        ValueError, match="positional_embedding_type of a HookedEncoder is 'standard', not 'rotary'"
    ):
        HookedEncoder({**calls.BERT, "positional_embedding_type": "rotary"})
    with pytest.raises(ValueError, match="has not the shape of BERT: try HookedEncoderDecoder"):
        HookedEncoder.from_pretrained("tiny", hf_model=zoo.hugging_face("t5", "plain"))
    with pytest.raises(ValueError, match="has not the shape of T5: try HookedTransformer"):
        HookedEncoderDecoder.from_pretrained("tiny", hf_model=zoo.hugging_face("gpt2", "tied"))
    with pytest.raises(ValueError, match="load_in_8bit"):
        HookedEncoder.from_pretrained("tiny", load_in_8bit=True)
