"""Models that read images: patches in reading order, and what runs refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lens
from lens.description import in_words
from lens.inputs import ModelInputs
from tests.parity import ours, prompts


def images(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, 12, 12, dtype=torch.float64)


def test_patches_are_positions_in_reading_order() -> None:
    """A patch changes its own position's embedding, behind the class token, and no other."""
    model, image = ours("vit", "classifier", torch.float64), images()
    plain = model.run_with_cache(image, "embed")[1]["embed"]
    assert plain.shape == (2, 10, 32)
    changed = image.clone()
    changed[:, :, 4:8, 8:12] += 1  # second row, third column
    moved = (model.run_with_cache(changed, "embed")[1]["embed"] - plain).abs().amax((0, 2)) > 0
    assert moved.nonzero()[:, 0].tolist() == [1 + 3 + 2]
    weight, bias = model.embed.patches.linear.weight, model.embed.patches.linear.bias
    expected = torch.einsum("dcyx,bcyx->bd", weight, image[:, :, 4:8, 8:12]) + bias
    assert torch.allclose(plain[:, 6], expected)


def test_images_in() -> None:
    model, image = ours("vit", "classifier", torch.float64), images()
    classes = model(image)
    assert classes.shape == (2, 4)
    assert torch.equal(model(ModelInputs(image=image)), classes)
    assert torch.equal(model(model.to_inputs(image.float().double())), model(image.float()))
    assert "images of 12 × 12 in patches of 4 × 4, 3 channels, behind a class token" in in_words(model.cfg)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            torch.randn(2, 3, 12, 8),
            r"vit reads images \[batch, 3, 12, 12\] of floating type, not \(2, 3, 12, 8\)",
        ),
        (torch.ones(2, 3, 12, 12).long(), "of floating type"),
        (prompts(), r"vit reads images \[batch, 3, 12, 12\]"),
        (ModelInputs(ids=prompts()), "vit reads images"),
    ],
)
def test_what_is_refused(given, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours("vit", "classifier")(given)
    with pytest.raises(ValueError, match="gpt2 reads tokens, not images"):
        ours("gpt2", "tied")(torch.randn(2, 3, 12, 12))


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = ours("vit", "classifier")
    again = lens.load(lens.save(model, tmp_path / "saved"))
    assert again.cfg.embed == model.cfg.embed
    image = images().float()
    assert torch.equal(again(image), model(image))
