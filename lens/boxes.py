"""Where the objects of an image are: a box per object query (DETR, arXiv 2005.12872, §3.2).

Letters: b batch, p object query, d d_model, c classes, x coordinate (centre across, centre down, width, height).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens.taps import OFF, AnyTaps, Joined, Off, Taps

if TYPE_CHECKING:
    from lens.model import Transformer


class Boxes(nn.Module):
    """Three linear maps with ReLU between them; a sigmoid makes parts of the image's width and height."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Linear(d_model, n) for n in (d_model, d_model, 4))
        names = ("pre1", "post1", "pre2", "post2", "pre", "boxes")
        self.sites = tuple(f"boxes.hook_{name}" for name in names)

    def forward(self, x: Float[Tensor, "b p d"], taps: AnyTaps = OFF) -> Float[Tensor, "b p x"]:
        pre1, post1, pre2, post2, pre, boxes = self.sites
        x = taps(post1, F.relu(taps(pre1, self.first(x))))
        x = taps(post2, F.relu(taps(pre2, self.second(x))))
        return taps(boxes, taps(pre, self.last(x)).sigmoid())


def detect(
    model: Transformer, inputs: Any, *, taps: AnyTaps = OFF
) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b p x"]]:
    """Logits over classes of every object query, the last of them "no object", and boxes.

    A box is its centre across and down, its width and its height, in parts of what is real of the image.

    Raises:
        ValueError: the model finds no boxes, or as `Transformer.forward`.
    """
    if model.boxes is None:
        raise ValueError(f"{model.cfg.name} does not say where objects are")
    reader = Taps([model.boxes.sites[-1]])
    logits = model(inputs, taps=reader if isinstance(taps, Off) else Joined(taps, reader))
    return logits, reader.seen[model.boxes.sites[-1]]
