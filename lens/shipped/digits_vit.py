"""Trains and measures `digits-vit`, the vision transformer of two layers that ships with the project.

    python -m lens.shipped.digits_vit --out FOLDER

It reads scikit-learn's handwritten digits, 8 × 8 pixels, as 16 patches of 2 × 2 behind a class token, and says which
digit it sees. Of the 1,797 images every fifth is kept for testing, so the same hands wrote both. Training sees the
others moved by up to a pixel.

The card that is written beside the weights holds what was measured on the test images, by `measure`.

Letters: n images, y row, x column.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from lens.config import ClassifierConfig, EmbedConfig, ModelConfig, PatchConfig, StackConfig
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.shipped.making import Making
from lens.train import Recipe

SIZE, N_CLASSES = 8, 10
TEST_EVERY = 5  # images
PREPROCESSING = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": SIZE, "width": SIZE},
    "do_rescale": True, "do_normalize": True, "image_mean": [0.5], "image_std": [0.5],
}  # fmt: skip
"""How a picture of 0 to 255, light on dark, becomes -1 … 1: for Hugging Face's image processor."""


def config() -> ModelConfig:
    patches = PatchConfig(image_size=(SIZE, SIZE), patch_size=(2, 2), n_channels=1)
    d, heads = 64, 4
    return ModelConfig(
        family="lens",
        name="digits-vit",
        n_ctx=patches.n_positions,
        embed=EmbedConfig(d_vocab=0, d_embed=d, n_positions=patches.n_positions, patches=patches),
        stack=StackConfig(
            n_layers=2, d_model=d, n_heads=heads, d_head=d // heads, n_kv_heads=heads, d_mlp=4 * d, causal=False,
            attn_bias=frozenset({"q", "k", "v", "o"}), act_fn="gelu",
        ),
        unembed=None,
        classifier=ClassifierConfig(n_classes=N_CLASSES),
    )  # fmt: skip


@cache
def digits() -> tuple[Float[Tensor, "n 1 y x"], Int[Tensor, " n"]]:
    """scikit-learn's images, scaled from 0 … 16 to -1 … 1, and which digits they show."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    images = torch.as_tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    return images, torch.as_tensor(found.target, dtype=torch.int64)


def parts() -> tuple[Tensor, Tensor]:
    """The indices of the images to train on, and of those to test on."""
    every = torch.arange(len(digits()[1]))
    tests = every % TEST_EVERY == 0
    return every[~tests], every[tests]


def batches(n: int, generator: Generator) -> tuple[ModelInputs, Tensor]:
    """`n` training images, each moved by up to a pixel in each direction, and their digits."""
    images, labels = digits()
    train = parts()[0]
    rows = train[torch.randint(len(train), (n,), generator=generator)]
    wide = F.pad(images[rows], (1, 1, 1, 1), value=-1.0)
    down, right = torch.randint(3, (2, n), generator=generator)
    cells = torch.arange(SIZE)
    down, right = (down[:, None] + cells)[:, :, None], (right[:, None] + cells)[:, None]
    return ModelInputs(image=wide[torch.arange(n)[:, None, None], :, down, right].movedim(-1, 1)), labels[
        rows
    ]


def loss(model: Transformer, batch: tuple[ModelInputs, Tensor]) -> Float[Tensor, ""]:
    """Cross-entropy of the digit, in nats."""
    return F.cross_entropy(model(batch[0]), batch[1])


def measure(model: Transformer) -> dict[str, Any]:
    """Accuracy on the training and the test images, the latter by digit."""
    images, labels = digits()
    train, test = parts()
    right = (model(ModelInputs(image=images.to(model.device))).argmax(-1).cpu() == labels).float()
    by_digit = [right[test][labels[test] == digit].mean().item() for digit in range(N_CLASSES)]
    return {
        "accuracy_train": right[train].mean().item(),
        "accuracy_test": right[test].mean().item(),
        "accuracy_by_digit": by_digit,
    }


def summary(measured: Mapping[str, Any]) -> str:
    return f"{measured['accuracy_test']:.1%} of the test images right"


MAKING = Making(
    name="digits-vit",
    command="python -m lens.shipped.digits_vit",
    description="a vision transformer of two layers that reads handwritten digits, 8 × 8 pixels in 2 × 2 patches",
    data="scikit-learn's load_digits (1,797 images of the UCI ML repository, CC BY 4.0), every fifth for testing",
    measured_on="the images with indices 0, 5, 10, … of load_digits",
    recipe=Recipe(steps=2000, batch_size=64, learning_rate=2e-3, warmup=100, weight_decay=0.05, seed=0),
    config=config,
    tokenizer=None,
    batches=batches,
    measure=measure,
    summary=summary,
    loss=loss,
    preprocessing=PREPROCESSING,
)

if __name__ == "__main__":
    raise SystemExit(MAKING.main())
