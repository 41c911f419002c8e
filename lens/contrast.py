"""Images against texts: two models that make one vector each (CLIP, arXiv 2103.00020, §2.3).

1. Each model reads its inputs; a text's vector is read where the text ends, an image's at the class token.
2. Vectors are projected into a common space and divided by their lengths.
3. Logits are dot products times exp(scale).

Letters: n image, m text, b either, d entries of the common space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lens.classifier import Pooler
from lens.taps import OFF, AnyTaps, Joined, Off, Taps

if TYPE_CHECKING:
    from lens.model import Transformer


class Contrast(nn.Module):
    """exp(weight) times the cosine of every image with every text."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Float[Tensor, "n d"], texts: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """The logits of each image over the texts; transposed, those of each text over the images."""
        return images @ texts.T * self.weight.exp()


def embeddings(
    model: Transformer, inputs: Any, *, normalize: bool = True, taps: AnyTaps = OFF
) -> Float[Tensor, "b d"]:
    """One vector per text or image: what the model's pooler makes of it.

    Raises:
        ValueError: the model has no pooler, or as `Transformer.forward`.
    """
    if model.pooler is None:
        raise ValueError(f"{model.cfg.name} has no pooler, so it makes no vector of a whole input")
    reader = Taps([Pooler.hook_pooler_out])
    model(inputs, taps=reader if isinstance(taps, Off) else Joined(taps, reader), logits_at=0)
    vectors = reader.seen[Pooler.hook_pooler_out]
    return vectors / vectors.norm(dim=-1, keepdim=True) if normalize else vectors


def similarity(
    model: Transformer, images: Any, texts: Any, *, taps: AnyTaps = OFF, vision_taps: AnyTaps = OFF
) -> Float[Tensor, "n m"]:
    """Logits of images over texts; transposed, of texts over images.

    Args:
        model: that of texts; `model.vision` is that of images.
        images, texts: whatever the two models read.
        taps: what the run on texts reads and edits.
        vision_taps: what the run on images reads and edits.

    Raises:
        ValueError: the model has no other that reads images, or as `Transformer.forward`.
    """
    if model.vision is None or model.contrast is None:
        raise ValueError(f"{model.cfg.name} does not compare texts with images")
    seen = embeddings(model.vision, images, taps=vision_taps)
    return model.contrast(seen, embeddings(model, texts, taps=taps))
