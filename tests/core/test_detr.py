"""Feature maps of images, positions that attention adds, object queries and their boxes; what runs refuse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lens
from lens.boxes import detect
from lens.description import in_words, n_parameters
from lens.family import find, read
from lens.features import sines
from lens.inputs import ModelInputs
from lens.model import Transformer
from tests import zoo
from tests.parity import CLOSE, EXACT, PLACES, inputs, oracle, ours, padding, prompts, relative_error, shown

OBJECTS = ("detr", "objects")
ENCODER_POSITIONS = "encoder.hook_pos_embed"


def model_of() -> Transformer:
    return ours(*OBJECTS, torch.float64)


def image(n: int = 2, rows: int = 96, columns: int = 128) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(n, 3, rows, columns, generator=generator, dtype=torch.float64)


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and relative_error(a, b) < EXACT


# ------------------------------------------------------------------ images and features


def test_features_may_be_given() -> None:
    model = model_of()
    logits, cache = model.run_with_cache(image(), ["encoder.hook_features", "encoder.hook_embed"])
    features = cache["encoder.hook_features"]
    assert features.shape == (2, 16, 3, 4)
    assert close(model(ModelInputs(features=features)), logits)
    assert model.encoder is not None and model.encoder.embed.features is not None
    linear = model.encoder.embed.features.linear
    assert linear.bias is not None
    places = torch.einsum("bcyx,dc->byxd", features, linear.weight[:, :, 0, 0]) + linear.bias
    assert close(cache["encoder.hook_embed"], places.flatten(1, 2))
    moved = features.clone()
    moved[:, :, 1, 2] += 1
    edited = model.run_with_cache(
        image(), ["encoder.hook_embed"], edits={"encoder.hook_features": lambda _: moved}
    )
    changed = (edited[1]["encoder.hook_embed"] - cache["encoder.hook_embed"]).abs().amax((0, 2)) > 1e-9
    assert changed.nonzero()[:, 0].tolist() == [4 + 2]
    assert not close(edited[0], logits)


def test_forms_of_images() -> None:
    """A tensor, with a mask of pixels or without, alone or as the source; and what the encoder made of it."""
    model, given = model_of(), image()
    mask = torch.ones(2, 96, 128, dtype=torch.bool)
    mask[0, 64:], mask[1, :, 70:] = False, False
    plain, masked = model(given), model(given, attention_mask=mask)
    assert plain.shape == (2, 6, 5)
    assert not close(plain, masked)
    inputs = ModelInputs(image=given, mask=mask)
    for same in (
        inputs,
        ModelInputs(source=inputs),
        model.to_inputs(inputs),
        ModelInputs(source=model.encode(inputs)),
    ):
        assert close(model(same), masked)
    assert close(model(model.to_inputs(given)), plain)
    made = model.encode(given)
    ids = model.to_inputs(given).ids
    assert ids is not None and ids.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert close(model(ModelInputs(ids=torch.cat([ids, ids]), source=made)), torch.cat([plain, plain]))
    with torch.no_grad():
        theirs = zoo.hugging_face(*OBJECTS, torch.float64)(given, pixel_mask=mask.long())
    assert relative_error(masked, theirs.logits) < CLOSE


def test_pictures_of_several_sizes_through_the_processor() -> None:
    from PIL import Image
    from transformers import AutoImageProcessor

    settings = {
        "image_processor_type": "DetrImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 96},
    }
    hf = zoo.hugging_face(*OBJECTS)
    model = Transformer.from_state(*read(hf.config.to_dict(), hf.state_dict()), preprocessing=settings)
    generator = np.random.default_rng(0)
    pictures = [
        Image.fromarray(generator.integers(0, 255, size, dtype=np.uint8))
        for size in ((40, 60, 3), (70, 50, 3))
    ]
    source = model.to_inputs(pictures).source
    assert isinstance(source, ModelInputs) and source.image is not None and source.mask is not None
    assert source.mask.shape == source.image[:, 0].shape and not source.mask.all()
    with torch.no_grad():
        expected = hf(source.image, pixel_mask=source.mask.long())
    logits, boxes = detect(model, pictures)
    assert relative_error(logits, expected.logits) < CLOSE
    assert relative_error(boxes, expected.pred_boxes) < CLOSE
    assert close(model(np.asarray(pictures[0])), model([pictures[0]]))
    del AutoImageProcessor


# ------------------------------------------------------------------ positions


def test_sines_by_definition() -> None:
    valid = torch.zeros(2, 3, 5, dtype=torch.bool)
    valid[0], valid[1, :2, :4] = True, True
    found = sines(valid, 6, torch.float64)
    for b, (rows, columns) in enumerate(((3, 5), (2, 4))):
        for y in range(rows):
            for x in range(columns):
                expected = []
                for place, n in ((y + 1, rows), (x + 1, columns)):
                    angle = place / (n + 1e-6) * 2 * math.pi
                    for i in range(3):
                        expected += [f(angle / 10000 ** (2 * i / 6)) for f in (math.sin, math.cos)]
                assert torch.allclose(found[b, y, x], torch.tensor(expected, dtype=torch.float64))


def test_positions_are_added_where_queries_and_keys_read() -> None:
    model = model_of()
    sites = ["q", "k", "v", "cross_attn.hook_q", "cross_attn.hook_k", "cross_attn.hook_v", "resid_pre"]
    sites = [f"decoder.1.{s}" if "." in s else f"decoder.1.attn.hook_{s}" for s in sites[:-1]]
    wanted = [*sites, "decoder.1.hook_resid_pre", "decoder.1.ln1.hook_normalized", "decoder.hook_pos_embed"]
    cache = model.run_with_cache(image(), [*wanted, ENCODER_POSITIONS])[1]
    block, x = model.blocks[1], cache["decoder.1.hook_resid_pre"]
    queries, places = cache["decoder.hook_pos_embed"], cache[ENCODER_POSITIONS]
    assert torch.equal(queries[1], model.embed.positions.weight)  # type: ignore[union-attr]
    for name, seen in {"q": x + queries, "k": x + queries, "v": x}.items():
        made = getattr(block.attn, name)(seen).unflatten(-1, (2, -1))
        assert close(cache[f"decoder.1.attn.hook_{name}"], made), name
    normed = cache["decoder.1.ln1.hook_normalized"] * block.ln1.weight + block.ln1.bias
    source = model.encode(image()).stream
    for name, seen in {"q": normed + queries, "k": source + places, "v": source}.items():
        made = getattr(block.cross_attn, name)(seen).unflatten(-1, (2, -1))
        assert close(cache[f"decoder.1.cross_attn.hook_{name}"], made), name


def test_the_stream_begins_at_zero_and_positions_can_be_edited() -> None:
    model = model_of()
    plain, cache = model.run_with_cache(image(), ["decoder.0.hook_resid_pre", "decoder.hook_pos_embed"])
    assert not cache["decoder.0.hook_resid_pre"].any()
    assert "decoder.hook_embed" not in model.sites

    def exchanged(where: Tensor) -> Tensor:
        return where[:, [1, 0, 2, 3, 4, 5]]

    edited = model.run_with_cache(image(), [], edits={"decoder.hook_pos_embed": exchanged})[0]
    assert close(edited, plain[:, [1, 0, 2, 3, 4, 5]]), "object queries are nothing but their positions"
    stream = model.run_with_cache(image(), ["decoder.1.hook_resid_pre"])[1]["resid_pre", 1]
    given = ModelInputs(stream=stream, source=ModelInputs(image=image()))
    with pytest.raises(ValueError, match=r"'decoder.hook_pos_embed' cannot fire in a run of layers 1 to 1"):
        model.run_with_cache(given, ["decoder.hook_pos_embed"], start_at_layer=1)


def test_the_first_look_of_queries_at_each_other_tells_nothing() -> None:
    """Their values are all the same there, so whatever they look at, they see that."""
    model = model_of()
    site = "decoder.0.attn.hook_attn_scores"
    noisy = model.run_with_cache(image(), [], edits={site: lambda x: x + torch.randn_like(x)})[0]
    assert close(noisy, model(image()))
    later = model.run_with_cache(
        image(), [], edits={site.replace("0", "1"): lambda x: x + torch.randn_like(x)}
    )[0]
    assert not close(later, model(image()))


def test_learned_positions_end_somewhere() -> None:
    model = ours("detr", "learned", torch.float64)
    features = torch.randn(1, 16, 2, 51, dtype=torch.float64)
    assert model(ModelInputs(features=features[..., :50])).shape == (1, 6, 3)
    with pytest.raises(
        ValueError, match="a feature map of 2 × 51 has places beyond the 50 × 50 learned positions"
    ):
        model(ModelInputs(features=features))


def test_a_mask_that_is_lost_is_noticed() -> None:
    hf, model = zoo.hugging_face(*OBJECTS), ours(*OBJECTS)
    given = inputs(model, prompts(), padding("right"))
    expected = oracle(hf, given, "eager")
    source = given.source
    assert isinstance(source, ModelInputs) and source.mask is not None
    assert [int(m.sum()) for m in source.mask] == [rows * columns for rows, columns in PLACES]
    assert shown(model, given, "eager").error(expected, None, source) < CLOSE
    lost = ModelInputs(source=ModelInputs(features=source.features))
    assert shown(model, lost, "eager").error(expected, None, source) > 10 * CLOSE


# ------------------------------------------------------------------ objects


def test_boxes() -> None:
    model = model_of()
    logits, boxes = detect(model, image())
    assert logits.shape == (2, 6, 5) and boxes.shape == (2, 6, 4)
    assert ((boxes > 0) & (boxes < 1)).all()
    taps = lens.Taps(edits={"boxes.hook_pre": torch.zeros_like, "decoder.0.hook_mlp_out": torch.zeros_like})
    other, halves = detect(model, image(), taps=taps)
    assert torch.equal(halves, torch.full_like(halves, 0.5)) and not close(other, logits)
    heads, stream = model.boxes, model.run_with_cache(image(), ["decoder_final_ln.hook_normalized"])[1]
    assert heads is not None and model.ln_final is not None and model.ln_final.bias is not None
    x = stream["decoder_final_ln.hook_normalized"] * model.ln_final.weight + model.ln_final.bias
    assert close(heads.last(heads.second(heads.first(x).relu()).relu()).sigmoid(), boxes)
    assert close(model.classifier.linear(x), logits)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="vit does not say where objects are"):
        detect(ours("vit", "classifier"), torch.randn(1, 3, 12, 12))


def test_without_heads_a_run_gives_the_stream_of_the_queries() -> None:
    model = ours("detr", "base", torch.float64)
    assert model.boxes is None and model.classifier is None
    assert model(image()).shape == (2, 6, 32)
    assert model(image(), logits_at=2).shape == (2, 1, 32)


# ------------------------------------------------------------------ checkpoints


def timms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint with the names of timm's ResNet, as the published ones have them."""
    found = {}
    for name, x in state.items():
        before, backbone, path = name.partition("backbone.model.")
        if not backbone:
            found[name] = x
            continue
        stem = path.startswith("embedder.")
        *where, kind, leaf = path.split(".")
        conv = kind == "convolution"
        if stem:
            module = "conv1" if conv else "bn1"
        else:
            _, _, stage, _, block, part, *number = where
            module = f"layer{int(stage) + 1}.{block}."
            module += f"downsample.{int(not conv)}" if part == "shortcut" else ("conv" if conv else "bn")
            module += str(int(number[0]) + 1) if number else ""
        found[f"{before}backbone.conv_encoder.model.{module}.{leaf}"] = x
        if not conv:
            found[f"{before}backbone.conv_encoder.model.{module}.num_batches_tracked"] = torch.tensor(0)
    return found


@pytest.mark.parametrize("name", ["objects", "base"])
def test_names_of_published_checkpoints(name: str) -> None:
    hf = zoo.hugging_face("detr", name)
    state = timms(dict(hf.state_dict()))
    assert any(key.endswith("conv_encoder.model.layer1.0.downsample.1.running_var") for key in state)
    assert any(key.endswith("conv_encoder.model.layer2.0.conv3.weight") for key in state)
    cfg, found = read(hf.config.to_dict(), state)
    expected = ours("detr", name).state_dict()
    assert cfg == ours("detr", name).cfg and found.keys() == expected.keys()
    assert all(torch.equal(found[key], x) for key, x in expected.items())


PUBLISHED: dict[str, Any] = {
    "activation_dropout": 0.0, "activation_function": "relu", "architectures": ["DetrForObjectDetection"],
    "attention_dropout": 0.0, "auxiliary_loss": False, "backbone": "resnet50", "bbox_cost": 5,
    "bbox_loss_coefficient": 5, "class_cost": 1, "classifier_dropout": 0.0, "d_model": 256,
    "decoder_attention_heads": 8, "decoder_ffn_dim": 2048, "decoder_layerdrop": 0.0, "decoder_layers": 6,
    "dice_loss_coefficient": 1, "dilation": False, "dropout": 0.1, "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048, "encoder_layerdrop": 0.0, "encoder_layers": 6, "eos_coefficient": 0.1, "giou_cost": 2,
    "giou_loss_coefficient": 2, "id2label": {str(i): str(i) for i in range(91)}, "init_std": 0.02,
    "init_xavier_std": 1.0, "is_encoder_decoder": True, "mask_loss_coefficient": 1,
    "max_position_embeddings": 1024, "model_type": "detr", "num_channels": 3, "num_hidden_layers": 6,
    "num_queries": 100, "position_embedding_type": "sine", "scale_embedding": False,
    "use_pretrained_backbone": True, "use_timm_backbone": True,
}  # fmt: skip


RESNET_50, RESNET_101 = (25_557_032, 26_560), (44_549_160, 52_672)
"""Weights of the published networks, and channels of their norms, which have two each."""


@pytest.mark.parametrize(("backbone", "size"), [("resnet50", RESNET_50), ("resnet101", RESNET_101)])
def test_published_sizes(backbone: str, size: tuple[int, int]) -> None:
    """DETR's 41 524 768 weights beside the norms of ResNet-50; and four numbers for each channel of these."""
    (n, channels), (least, narrow) = size, RESNET_50
    cfg = find(PUBLISHED).config({**PUBLISHED, "backbone": backbone})
    assert n_parameters(cfg) == 41_524_768 + (n - 2 * channels) - (least - 2 * narrow) + 4 * channels


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "resnet51"}, "did you mean 'resnet50'"),
        ({"backbone": "efficientnet_b0"}, "cannot be made here"),
        ({"dilation": True}, "dilation=True"),
        ({"backbone_kwargs": {"output_stride": 16}}, "output_stride=16"),
        ({"auxiliary_loss": True}, "auxiliary_loss=True"),
        ({"position_embedding_type": "sines"}, "did you mean 'sine'"),
        ({"backbone_config": {"model_type": "swin"}}, "model_type='swin'"),
        ({"backbone_config": {"model_type": "resnet", "out_features": ["stage3"]}}, "must end with 'stage4'"),
        ({"backbone_config": {"model_type": "resnet", "novelty": 3}}, "novelty=3"),
    ],
)
def test_configurations_that_are_not_read(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(PUBLISHED).config({**PUBLISHED, **fields})


# ------------------------------------------------------------------ the rest


def test_in_words() -> None:
    words = in_words(find(PUBLISHED).config(PUBLISHED))
    net = "images of any size, 3 channels, through a ResNet of 16 bottlenecks to 2,048 channels"
    assert f"encoder: {net}; its places in 256 dimensions" in words
    reads = "added to what queries and keys read in every layer"
    assert f"encoder: sines of row and column, {reads}; images of any size" in words
    assert "decoder: 100 object queries, for which the stream begins at zero" in words
    assert f"decoder: learned positions, {reads}; context of 100 positions" in words
    assert "a final norm, then logits over 92 classes of each object query (which object, or none)" in words
    assert "a final norm, then three linear maps and a sigmoid to the box of each object query" in words


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = ours("detr", "learned")
    again = lens.load(lens.save(model, tmp_path / "saved"))
    assert again.cfg.embed == model.cfg.embed and again.cfg.source == model.cfg.source
    assert torch.equal(again(image().float()), model(image().float()))


WANTED = r"detr reads images \[batch, 3, row, column\] or their features"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (image()[:, :2], rf"{WANTED}, of floating type; image is \(2, 2, 96, 128\)"),
        (ModelInputs(features=image()), rf"{WANTED}, of floating type; features is \(2, 3, 96, 128\)"),
        (prompts(), WANTED),
        (ModelInputs(ids=prompts()), "detr has 6 object queries of its own"),
        (ModelInputs(ids=torch.arange(6)[None]), "detr needs a source"),
        (
            ModelInputs(source=ModelInputs(stream=torch.zeros(2, 12, 32))),
            rf"{WANTED} \[batch, 16, row, column\]",
        ),
        (
            ModelInputs(image=image(), mask=torch.ones(2, 12)),
            r"the mask of images is \[batch, row, column\], not \(2, 12\)",
        ),
        (
            ModelInputs(ids=torch.arange(5)[None], source=ModelInputs(image=image(1))),
            "detr has 6 object queries of its own",
        ),
        (
            ModelInputs(
                mask=torch.ones(2, 6), ids=torch.zeros(2, 6).long(), source=ModelInputs(image=image())
            ),
            "nothing of its object queries can be masked",
        ),
        ("hello", "detr reads images, arrays or pictures of Pillow, not str"),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of()(given)


def test_models_of_texts_refuse_features() -> None:
    with pytest.raises(ValueError, match="gpt2 reads tokens, not images"):
        ours("gpt2", "tied")(ModelInputs(features=torch.zeros(1, 16, 3, 4)))
    with pytest.raises(ValueError, match=r"vit reads images \[batch, 3, 12, 12\]"):
        ours("vit", "classifier")(ModelInputs(features=torch.zeros(1, 16, 3, 4)))


def test_it_says_no_text() -> None:
    with pytest.raises(ValueError, match="detr reads images as a whole"):
        model_of().generate(image(), 3)
    with pytest.raises(ValueError, match="it takes no targets"):
        model_of().to_inputs(image(), targets=torch.zeros(2, 3).long())
