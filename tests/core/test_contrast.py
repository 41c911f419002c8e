"""Two models in one space: images against texts, each with its own runs; where a text's vector is read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lens
from circuits.pairs import Pairs
from lens import contrast, images
from lens.description import describe, in_words, n_parameters
from lens.family import find, read
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.taps import Taps
from tests import zoo
from tests.parity import ours, relative_error

OUT = "pooler.hook_pooler_out"


def both(dtype: torch.dtype = torch.float64) -> Transformer:
    return ours("clip", "both", dtype)


def vision_of(model: Transformer) -> Transformer:
    assert model.vision is not None
    return model.vision


def texts(n: int = 3, end: int = 1) -> Tensor:
    ids = torch.randint(3, zoo.D_VOCAB, (n, 9), generator=torch.Generator().manual_seed(1))
    ids[:, 6] = end
    return ids


def pixels(n: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(2)).to(dtype)


# ------------------------------------------------------------------ the two together


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_logits_are_hugging_faces(dtype: torch.dtype, limit: float, side: str) -> None:
    hf, model, ids = zoo.hugging_face("clip", "both", dtype), both(dtype), texts()
    place = torch.arange(9).expand(3, -1)
    mask = {"none": place >= 0, "right": place < 7, "left": place >= torch.tensor([[0], [2], [4]])}[side]
    where = (mask.long().cumsum(-1) - 1).clamp(min=0)
    hf.set_attn_implementation("sdpa")  # its explicit attention computes its softmax in float32
    out = hf(input_ids=ids, pixel_values=pixels(dtype=dtype), attention_mask=mask.long(), position_ids=where)
    hf.set_attn_implementation("eager")
    given = ModelInputs(ids=ids, mask=mask)
    found = model.similarity(pixels(dtype=dtype), given)
    assert relative_error(found, out.logits_per_image) < limit
    assert relative_error(found.T, out.logits_per_text) < limit
    assert relative_error(contrast.embeddings(model, given), out.text_embeds) < limit
    vectors = contrast.embeddings(vision_of(model), pixels(dtype=dtype))
    assert relative_error(vectors, out.image_embeds) < limit
    assert model.contrast is not None
    scale = model.contrast.weight.exp()
    assert torch.allclose(found, scale * vectors @ contrast.embeddings(model, given).T)


def test_explicit_attention_gives_the_same() -> None:
    model = both()
    seen, read_too = Taps(["blocks.1.attn.hook_pattern"]), Taps(["blocks.0.attn.hook_pattern"])
    explicit = model.similarity(pixels(), texts(), taps=seen, vision_taps=read_too)
    assert relative_error(explicit, model.similarity(pixels(), texts())) < 1e-10
    assert seen.seen["blocks.1.attn.hook_pattern"].shape == (3, 4, 9, 9)
    assert read_too.seen["blocks.0.attn.hook_pattern"].shape == (2, 3, 10, 10)


def test_each_has_its_own_sites_and_runs() -> None:
    """What is done to one image changes its row alone; hooks of one model do not act in the other."""
    model = both()
    vision, plain = vision_of(model), model.similarity(pixels(), texts())
    assert "hook_full_embed" in vision.sites and "hook_full_embed" not in model.sites

    def first_row(x: Tensor) -> Tensor:
        return torch.cat([x[:1] * 0, x[1:]])

    taps = Taps(edits={"blocks.1.hook_mlp_out": first_row})
    changed = (model.similarity(pixels(), texts(), vision_taps=taps) - plain).abs()
    assert changed[0].min() > 1e-6 and changed[1].max() == 0
    changed = (model.similarity(pixels(), texts(), taps=taps) - plain).abs()
    assert changed[:, 0].min() > 1e-6 and changed[:, 1:].max() == 0
    with vision.hooks([("hook_mlp_out", lambda x, hook: x * 0)]):
        in_block = model.similarity(pixels(), texts())
        assert torch.equal(model(texts()), both()(texts()))
    assert (in_block - plain).abs().min() > 1e-6
    assert torch.equal(model.similarity(pixels(), texts()), plain)


def test_gradients_reach_both() -> None:
    model, site = both(), "blocks.0.hook_resid_post"
    taps, vision_taps = Taps([site], grad=True), Taps([site], grad=True)
    score = model.similarity(pixels(), texts(), taps=taps, vision_taps=vision_taps)[0, 1]
    for seen in (taps.seen[site], vision_taps.seen[site]):
        (gradient,) = torch.autograd.grad(score, [seen], retain_graph=True)
        assert gradient.abs().amax((1, 2)).gt(0).sum() == 1, "one image and one text take part"


@pytest.mark.parametrize("part", ["texts", "images"])
def test_a_part_alone_is_the_same_model(part: str) -> None:
    hf, model = zoo.hugging_face("clip", "both", torch.float64), both()
    kind = "text" if part == "texts" else "vision"
    own = {
        n: x
        for n, x in hf.state_dict().items()
        if n.startswith((kind, "visual" if kind == "vision" else kind))
    }
    alone = Transformer.from_state(*read(getattr(hf.config, f"{kind}_config").to_dict(), own))
    together, given = (model, texts()) if kind == "text" else (vision_of(model), pixels())
    assert alone.cfg.stack == together.cfg.stack and alone.cfg.pooler == together.cfg.pooler
    assert torch.equal(contrast.embeddings(alone, given), contrast.embeddings(together, given))
    with pytest.raises(ValueError, match="clip does not compare texts with images"):
        alone.similarity(pixels(), texts())
    with pytest.raises(ValueError, match="gpt2 has no pooler, so it makes no vector"):
        contrast.embeddings(ours("gpt2", "tied"), texts())


# ------------------------------------------------------------------ where a text's vector is read


def read_at(model: Transformer, given: ModelInputs) -> list[int]:
    """The position of the pooled vector, where the pooler is no layer: that of the stream that it equals."""
    stream, cache = model.run_with_cache(given, [OUT])
    return [int(i) for i in (stream == cache[OUT][:, None]).all(-1).nonzero()[:, 1]]


def test_texts_are_read_where_they_end() -> None:
    state, cfg = both().state_dict(), zoo.config(zoo.ZOO["clip"]["texts_alone"]).to_dict()
    hf = zoo.hugging_face("clip", "texts_alone", torch.float64)
    old = Transformer.from_state(*read(cfg, hf.state_dict()))
    new = Transformer.from_state(*read({**cfg, "eos_token_id": 1}, hf.state_dict()))
    assert state and old.cfg.pooler is not None and old.cfg.pooler.at == "highest"
    ids = torch.tensor([[5, 60, 7, 1, 9, 1], [1, 5, 1, 7, 8, 9]])
    assert read_at(old, ModelInputs(ids=ids)) == [1, 5]
    assert read_at(new, ModelInputs(ids=ids)) == [3, 0], "the first end"
    left = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
    assert read_at(new, ModelInputs(ids=ids, mask=left)) == [3, 2], "what is padding does not end a text"
    assert read_at(old, ModelInputs(ids=ids, mask=left)) == [4, 5]
    with pytest.raises(ValueError, match="row 1 has no token 1, which ends a text of clip"):
        new.run_with_cache(torch.tensor([[5, 1, 7], [7, 8, 9]]), OUT)
    assert new(torch.tensor([[5, 1, 7], [7, 8, 9]])).shape == (2, 3, 32), (
        "where no vector is read, none need end"
    )


def test_runs_from_a_stream_are_told_where_texts_end() -> None:
    model = both()
    _, cache = model.run_with_cache(texts(), ["blocks.1.hook_resid_pre", OUT])
    entering = cache["blocks.1.hook_resid_pre"]
    given = ModelInputs(ids=texts(), stream=entering)
    again = model.run_with_cache(given, [OUT], start_at_layer=1)[1]
    assert torch.allclose(again[OUT], cache[OUT])
    with pytest.raises(ValueError, match="give the ids beside the stream"):
        model.run_with_cache(entering, [OUT], start_at_layer=1)
    with pytest.raises(ValueError, match=r"ids are \(2, 9\) and the stream beside them \(3, 9, 32\)"):
        model.run_with_cache(ModelInputs(ids=texts(2), stream=entering), [OUT], start_at_layer=1)
    with pytest.raises(ValueError, match="clip has no unembedding: it does not continue texts"):
        model.generate(texts())
    pairs = Pairs.from_tokens(ours("gpt2", "tied"), texts(2), texts(2).flip(0), [5, 6], [7, 8])
    with pytest.raises(
        ValueError, match="clip has no unembedding; circuits are found in models that predict"
    ):
        pairs.check(model.cfg)


# ------------------------------------------------------------------ configurations and checkpoints


def test_names_and_buffers_of_older_checkpoints() -> None:
    hf, model = zoo.hugging_face("clip", "texts_alone"), ours("clip", "texts_alone")
    older = {f"text_model.{name}": x for name, x in hf.state_dict().items()}
    older["text_model.embeddings.position_ids"] = torch.arange(48)[None]
    _, state = read(hf.config.to_dict(), older)
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
    hf, model = zoo.hugging_face("clip", "both"), both(torch.float32)
    buffers = {f"{side}_model.embeddings.position_ids": torch.arange(3) for side in ("text", "vision")}
    _, state = read(hf.config.to_dict(), {**hf.state_dict(), **buffers})
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"text_config": {"hidden_size": 64, "eos_token_id": 2}, "vision_config": {"patch_size": 16}},
        {
            "text_config": {"hidden_size": 64, "eos_token_id": 2},
            "text_config_dict": {"hidden_size": 64, "num_hidden_layers": 3},
            "vision_config_dict": {"hidden_size": 96, "num_attention_heads": 6, "image_size": 64},
            "projection_dim": 32,
        },
        {"text_config": {"hidden_act": "gelu", "dropout": 0.0}, "vision_config_dict": None},
    ],
)
def test_configurations_say_what_they_say_to_hugging_face(given: dict[str, Any]) -> None:
    """Parts tell only what is not usual; where they are told twice, the second counts, with what is usual there."""
    from transformers import CLIPConfig

    cfg = find({"model_type": "clip"}).config({**given, "model_type": "clip"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = CLIPConfig(**given)
    theirs = find({"model_type": "clip"}).config(full.to_dict())
    assert cfg == theirs
    assert cfg.vision is not None and cfg.pooler is not None and cfg.vision.pooler is not None
    assert cfg.d_model == full.text_config.hidden_size and cfg.n_layers == full.text_config.num_hidden_layers
    assert cfg.act_fn == full.text_config.hidden_act
    assert cfg.pooler.at == ("highest" if full.text_config.eos_token_id == 2 else "token")
    assert cfg.pooler.d_out == cfg.vision.pooler.d_out == full.projection_dim
    assert cfg.vision.embed.patches is not None
    assert cfg.vision.embed.patches.image_size[0] == full.vision_config.image_size


LEGACY: dict[str, Any] = {
    "_name_or_path": "", "add_cross_attention": False, "architectures": None, "attention_dropout": 0.0,
    "bad_words_ids": None, "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None,
    "decoder_start_token_id": None, "diversity_penalty": 0.0, "do_sample": False, "dropout": 0.0,
    "early_stopping": False, "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": None,
    "finetuning_task": None, "forced_bos_token_id": None, "forced_eos_token_id": None, "hidden_act": "quick_gelu",
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "initializer_factor": 1.0, "initializer_range": 0.02,
    "is_decoder": False, "is_encoder_decoder": False, "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "layer_norm_eps": 1e-05, "length_penalty": 1.0, "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0,
    "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1, "output_attentions": False,
    "output_hidden_states": False, "output_scores": False, "prefix": None, "problem_type": None,
    "pruned_heads": {}, "remove_invalid_values": False, "repetition_penalty": 1.0, "return_dict": True,
    "return_dict_in_generate": False, "sep_token_id": None, "task_specific_params": None, "temperature": 1.0,
    "tf_legacy_loss": False, "tie_encoder_decoder": False, "tie_word_embeddings": True, "tokenizer_class": None,
    "top_k": 50, "top_p": 1.0, "torch_dtype": None, "torchscript": False, "transformers_version": "4.16.0.dev0",
    "typical_p": 1.0, "use_bfloat16": False,
}  # fmt: skip


def test_configurations_of_the_hub() -> None:
    """As the first checkpoints of 32 × 32 and 14 × 14 patches have them."""
    text = LEGACY | {
        "bos_token_id": 0, "eos_token_id": 2, "hidden_size": 512, "intermediate_size": 2048, "vocab_size": 49408,
        "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 8,
        "num_hidden_layers": 12, "pad_token_id": 1,
    }  # fmt: skip
    vision = LEGACY | {
        "bos_token_id": None, "eos_token_id": None, "hidden_size": 768, "image_size": 224,
        "intermediate_size": 3072, "model_type": "clip_vision_model", "num_attention_heads": 12,
        "num_hidden_layers": 12, "pad_token_id": None, "patch_size": 32,
    }  # fmt: skip
    whole = {
        "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
        "model_type": "clip", "projection_dim": 512, "text_config": text, "text_config_dict": None,
        "torch_dtype": "float32", "transformers_version": None, "vision_config": vision,
        "vision_config_dict": None,
    }  # fmt: skip
    cfg = find(whole).config(whole)
    assert cfg.vision is not None and cfg.pooler is not None
    assert cfg.n_ctx == 77 and cfg.d_head == 64 and cfg.pooler.at == "highest" and cfg.pooler.d_out == 512
    assert (cfg.vision.n_ctx, cfg.vision.d_model, cfg.vision.act_fn) == (50, 768, "quick_gelu")
    large = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
    }
    seen = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
    }
    cfg = find(whole).config(
        {
            **whole,
            "projection_dim": 768,
            "text_config_dict": {**large, "projection_dim": 768},
            "vision_config_dict": {**seen, "patch_size": 14, "projection_dim": 768},
        }
    )
    assert cfg.vision is not None and cfg.pooler is not None
    assert (cfg.d_model, cfg.n_heads, cfg.pooler.at, cfg.pooler.token) == (768, 12, "token", 49407)
    assert (cfg.vision.n_ctx, cfg.vision.d_model, cfg.vision.n_layers) == (257, 1024, 24)


def test_fields_of_the_parts_are_refused_by_name() -> None:
    config = zoo.config(zoo.ZOO["clip"]["both"]).to_dict()
    for part in ("text_config", "vision_config"):
        with pytest.raises(ValueError, match="novelty=3"):
            find(config).config({**config, part: {**config[part], "novelty": 3}})
    with pytest.raises(ValueError, match="one token ends a text"):
        find(config).config({**config, "text_config": {**config["text_config"], "eos_token_id": [1, 2]}})


def test_loaded_saved_and_described(tmp_path: Path) -> None:
    hf, model = zoo.hugging_face("clip", "both"), both(torch.float32)
    hf.save_pretrained(tmp_path / "hf")
    loaded = lens.load(tmp_path / "hf")
    given = pixels(dtype=torch.float32), texts()
    assert torch.equal(loaded.similarity(*given), model.similarity(*given))
    again = lens.load(lens.save(loaded, tmp_path / "saved"))
    assert torch.equal(again.similarity(*given), model.similarity(*given))
    assert again.cfg.vision == model.cfg.vision
    assert n_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    about = describe(tmp_path / "saved")
    assert about.n_sites == len(model.sites) + len(vision_of(model).sites)
    assert {"embed.ln.hook_scale", "vision: embed.ln.hook_scale"} & {k.kind for k in about.site_kinds} == {
        "vision: embed.ln.hook_scale"
    }
    told = in_words(model.cfg)
    assert (
        "images: images of 12 × 12 in patches of 4 × 4, 3 channels, behind a class token, normalised" in told
    )
    assert "texts: a final norm, then a pooled vector per text (20 entries), read where the text ends" in told


def test_texts_in_words(tmp_path: Path) -> None:
    """A folder's own tokenizer puts a beginning and an end around texts, and pads with the end."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters), "ca", "cat</w>"]
    tokenizer = CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[("c", "a"), ("ca", "t</w>")]
    )
    hf = zoo.hugging_face("clip", "both")
    for part in (hf, tokenizer):
        part.save_pretrained(tmp_path)
    model, said = lens.load(tmp_path), ["A cat", "dogs eat"]
    assert model.to_str_tokens("A cat") == ["<|startoftext|>", "a</w>", "cat</w>", "<|endoftext|>"]
    theirs = tokenizer(said, padding=True, return_tensors="pt")
    given = pixels(dtype=torch.float32)
    expected = hf(pixel_values=given, **theirs).logits_per_image
    assert relative_error(model.similarity(given, said), expected) < 1e-5
    half = Transformer.from_state(
        model.cfg, model.state_dict(), tokenizer=model.tokenizer, dtype=torch.bfloat16
    )
    assert half.similarity(given, said).dtype == torch.bfloat16


# ------------------------------------------------------------------ pictures

CLIP_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 12},
    "crop_size": {"height": 12, "width": 12},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.3, 0.2, 0.25],
}
VIT_PROCESSOR = {"feature_extractor_type": "ViTFeatureExtractor", "size": {"height": 12, "width": 12}}


def pictured(family: str, name: str, settings: dict[str, Any] | None) -> Transformer:
    model = ours(family, name)
    return Transformer.from_state(model.cfg, model.state_dict(), preprocessing=settings)


def picture(height: int = 12, width: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_pictures_are_scaled_as_the_checkpoint_says() -> None:
    from PIL import Image

    model, array = vision_of(pictured("clip", "both", CLIP_PROCESSOR)), picture()
    made = model.to_inputs(array).image
    expected = (array / 255 - [0.4, 0.5, 0.6]) / [0.3, 0.2, 0.25]
    assert made is not None and np.allclose(made[0].permute(1, 2, 0), expected, atol=1e-5)
    for same in (Image.fromarray(array), [array], [Image.fromarray(array)]):
        assert torch.equal(model(same), model(array))
    wide = Image.fromarray(picture(24, 36))
    assert model.to_inputs([wide, array]).image.shape == (2, 3, 12, 12)  # type: ignore[union-attr]
    whole = pictured("clip", "both", CLIP_PROCESSOR)
    assert whole.similarity([wide, array], texts()).shape == (2, 3)


def test_vision_transformers_read_pictures_too(tmp_path: Path) -> None:
    from PIL import Image

    model, array = pictured("vit", "classifier", VIT_PROCESSOR), picture()
    made = model.to_inputs([Image.fromarray(array), array]).image
    assert made is not None and np.allclose(made[1].permute(1, 2, 0), array / 127.5 - 1, atol=1e-5)
    assert torch.equal(made[0], made[1])
    for older in ({"size": 12, "image_mean": [0.5] * 3}, {**VIT_PROCESSOR, "auto_map": {"x": "y--z"}}):
        assert torch.equal(pictured("vit", "classifier", older)(array), model(array))
    again = lens.load(lens.save(model, tmp_path / "saved"))
    assert again.preprocessing == VIT_PROCESSOR and torch.equal(again(array), model(array))


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_settings_come_with_the_folder(tmp_path: Path, file: str) -> None:
    import json

    zoo.hugging_face("clip", "images").save_pretrained(tmp_path / "hf")
    told = CLIP_PROCESSOR if file.startswith("pre") else {"image_processor": CLIP_PROCESSOR}
    (tmp_path / "hf" / file).write_text(json.dumps(told))
    assert lens.load(tmp_path / "hf").preprocessing == CLIP_PROCESSOR


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pictured("vit", "classifier", VIT_PROCESSOR)
    for given, message in {
        "a cat": "vit reads images, arrays or pictures of Pillow, not str",
        (): "vit reads images, arrays or pictures of Pillow, not an empty list",
    }.items():
        with pytest.raises(ValueError, match=message):
            model(list(given) if given == () else given)
    with pytest.raises(ValueError, match=r"without an image processor .* give pixels \[batch, 3, 12, 12\]"):
        ours("vit", "classifier")(picture())
    other = {**VIT_PROCESSOR, "image_processor_type": "NoSuchProcessor"}
    with pytest.raises(ValueError, match=r"preprocessor_config.json: no image processor 'NoSuchProcessor'"):
        pictured("vit", "classifier", other)(picture())
    small = {**VIT_PROCESSOR, "size": {"height": 8, "width": 8}}
    with pytest.raises(ValueError, match=r"vit reads images \[batch, 3, 12, 12\] of floating type, not"):
        pictured("vit", "classifier", small)(picture())
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pictures are read with Pillow, which is not installed"):
        model(picture())
