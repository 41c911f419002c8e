"""Inputs as people have them: ids as lists and arrays, what Hugging Face makes, pictures of every kind, recordings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lens import arguments, text
from lens.inputs import ModelInputs, from_mapping
from lens.model import Transformer
from lens.tokens import Tokenizer
from tests import zoo
from tests.parity import ours, padding, prompts

VIT_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 12, "width": 12},
    "do_rescale": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
}  # fmt: skip


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def seeing() -> Transformer:
    model = ours("vit", "classifier")
    return Transformer.from_state(model.cfg, model.state_dict(), preprocessing=VIT_PROCESSOR)


# ---- ids


@pytest.mark.parametrize(("family", "name"), [("gpt2", "tied"), ("bert", "masked"), ("bart", "plain")])
def test_ids_in_every_form(family: str, name: str) -> None:
    model, ids = ours(family, name), prompts()
    expected = model(ids)
    for given in (ids.tolist(), ids.numpy(), ids.numpy().astype(np.uint16), ids.int(), ids.to(torch.uint8)):
        assert torch.equal(model(given), expected)
        assert torch.equal(model(model.to_inputs(given)), expected)
    assert torch.equal(model(ids[0].tolist()), model(ids[:1]))
    if model.cfg.causal:
        assert torch.equal(model.generate(ids.tolist(), 3), model.generate(ids, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1, 2], [3]], "rows of ids have 1 to 2 tokens: pad them"),
        (torch.tensor([[True, False]]), "token ids are whole numbers, not torch.bool"),
        (torch.tensor([[1.0, 2.0]]), r"a residual stream is \[batch, pos, 32\], not .*; token ids are whole"),
        (("one", "other"), r"a pair of texts stands in a list, as \[\(first, second\)\]"),
        ({"input_ids": [[1]], "labels": [[1]]}, "'labels' is not a field of inputs that a model reads"),
        ({"input_ids": [[1, 2], [3]]}, "rows of 'input_ids' have several lengths: ask the tokenizer"),
        ({"input_ids": [[1]], "decoder_input_ids": [[1]]}, "'decoder_input_ids' is not a field"),
        ([True, False], "expected a text, a list of texts or a tensor of token ids"),
    ],
)
def test_ids_that_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        text.to_inputs(ours("gpt2", "tied"), given)


def test_what_a_tokenizer_of_hugging_face_makes() -> None:
    """Padding, token types and both sides of an encoder–decoder arrive where `ModelInputs` has them."""
    ids, mask = prompts(), padding("right")
    assert mask is not None
    types = torch.zeros_like(ids)
    types[:, 4:] = 1
    bert = ours("bert", "masked")
    expected = bert(ModelInputs(ids=ids, mask=mask, types=types))
    for of in (lambda x: x, lambda x: x.numpy(), lambda x: x.tolist()):
        given = {"input_ids": of(ids), "attention_mask": of(mask.long()), "token_type_ids": of(types)}
        assert torch.equal(bert(given), expected)
    roberta = ours("distilbert", "masked")  # it has no token types, and its tokenizer may say that all are 0
    assert torch.equal(roberta({"input_ids": ids, "token_type_ids": types * 0}), roberta(ids))
    bart = ours("bart", "plain")
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :4]}
    expected = bart(ModelInputs(ids=ids[:, :4], source=ModelInputs(ids=ids, mask=mask)))
    assert torch.equal(bart(given), expected)
    assert torch.equal(bart({"input_ids": ids}), bart(ids))
    sides = from_mapping({"pixel_values": torch.zeros(1, 3, 4, 4), "pixel_mask": [[1, 0]]}, encodes=True)
    assert isinstance(sides.source, ModelInputs) and sides.source.mask is not None and sides.ids is None


def test_masks_in_every_form() -> None:
    mask = padding("left")
    assert mask is not None
    for family, name in (("bert", "masked"), ("bart", "plain")):
        model = ours(family, name)
        for given in (mask.tolist(), mask.long().numpy()):
            made = arguments.inputs(model, prompts(), given, 0)
            assert torch.equal(model(made), model(prompts(), attention_mask=mask))


def test_targets_in_every_form() -> None:
    model, ids = ours("bart", "plain"), prompts()
    expected = model.to_inputs(ids, targets=ids[:, :4]).ids
    assert expected is not None
    for targets in (ids[:, :4].tolist(), ids[:, :4].numpy()):
        assert torch.equal(model.to_inputs(ids.tolist(), targets=targets).ids, expected)  # type: ignore[arg-type]
    source = ModelInputs(ids=ids)
    assert torch.equal(model.to_inputs(source, targets=ids[:, :4]).ids, expected)  # type: ignore[arg-type]
    assert torch.equal(model.to_inputs(ids[:1], targets=ids[0, :4]).ids, expected[:1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="token ids are whole numbers, not"):
        model(model.to_inputs(ids, targets=torch.zeros(3, 2)))


def test_texts_are_not_taken_for_ids() -> None:
    model = ours("gpt2", "tied")
    words = Tokenizer.from_words([f"w{i}" for i in range(zoo.D_VOCAB)], bos="w1", eos="w2", pad="w0")
    model = Transformer.from_state(model.cfg, model.state_dict(), tokenizer=words)
    assert model.generate("w5 w6", 2).startswith("w5 w6")
    assert torch.equal(model(["w5 w6"]), model([[5, 6]]))


# ---- pictures


def test_pictures_of_every_mode() -> None:
    from PIL import Image

    model, grey = seeing(), picture(12, 12)
    coloured = np.repeat(grey[..., None], 3, -1)
    expected = model.to_inputs(coloured).image
    assert expected is not None and torch.allclose(
        expected[0, 0].double(), torch.tensor(grey / 127.5 - 1), atol=1e-6
    )
    opaque = np.concatenate([coloured, np.full((12, 12, 1), 9, np.uint8)], -1)
    of_pillow = Image.fromarray(grey)
    forms = [grey, grey[..., None], coloured.transpose(2, 0, 1), opaque, of_pillow, Image.fromarray(opaque)]
    forms += [of_pillow.convert("RGB"), torch.tensor(coloured), torch.tensor(grey), coloured.astype(np.int64)]
    for form in forms:
        assert torch.equal(model.to_inputs(form).image, expected)  # type: ignore[arg-type]
    assert torch.equal(model(np.stack([coloured] * 2)), model([of_pillow, grey]))
    assert torch.equal(model(torch.tensor(coloured)[None]), model(coloured))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            picture(12, 12, 3) / 255,
            r"0 to 255 as pictures, not \[12, 12, 3\] float64; give what is scaled",
        ),
        (picture(12, 12, 3).astype(int) * 2, "whole numbers 0 to 255 as pictures"),
        (picture(12, 12, 2), r"as pictures, not \[12, 12, 2\] uint8"),
        (picture(12), r"as pictures, not \[12\] uint8"),
        (
            torch.rand(3, 12, 12),
            r"a residual stream is .*, not \(3, 12, 12\); images are \[batch, 3, 12, 12\]",
        ),
        ("cat.png", "vit reads images, arrays or pictures of Pillow, not str"),
    ],
)
def test_pictures_that_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seeing()(given)


def test_pictures_of_many_bits_are_refused() -> None:
    from PIL import Image

    with pytest.raises(ValueError, match="8 bits per channel, not of mode 'F'"):
        seeing()(Image.new("F", (12, 12)))


# ---- sounds


def test_recordings() -> None:
    model = ours("whisper", "plain")
    waveform = np.random.default_rng(0).normal(size=2000) * 0.1
    expected = model(waveform)
    assert torch.equal(model(waveform.tolist()), expected)
    assert torch.equal(model({"array": waveform, "sampling_rate": 16_000, "path": "a.wav"}), expected)
    words = Tokenizer.from_words([f"w{i}" for i in range(zoo.D_VOCAB)], bos="w1", eos="w2", pad="w0")
    speaking = Transformer.from_state(model.cfg, model.state_dict(), tokenizer=words)
    said = [
        speaking.generate(given, 3)
        for given in (waveform, waveform.tolist(), {"array": waveform, "sampling_rate": 16_000})
    ]
    assert isinstance(said[0], str) and said == said[:1] * 3
    mel = model.to_inputs(waveform).source.mel  # type: ignore[union-attr]
    assert torch.equal(model({"input_features": mel}), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"array": [0.0], "sampling_rate": 44_100},
            "reads sounds of 16000 samples a second, not 44100: resample",
        ),
        (torch.rand(7, 22), r"reads mel frames \[batch, 7, 22\], not \[7, 22\]: give frames\[None\]"),
        (np.array([0.1, np.nan]), "a waveform for whisper holds NaN or infinity"),
    ],
)
def test_sounds_that_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours("whisper", "plain")(given)
