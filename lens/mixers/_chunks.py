"""Texts cut into chunks that look at their neighbours, around the end of the text too (Reformer, arXiv 2001.04451).

Letters: b batch, m chunk, s place in a chunk, w key in the chunks around; `...` any other axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lens.config import MixerConfig
from lens.frame import Frame


@dataclass(frozen=True, kw_only=True)
class Chunked(MixerConfig):
    """Tokens in a `chunk`, which looks at itself and so many chunks `before` and `after` it.

    Texts of more than `least` tokens are padded to a `multiple`, those that fit in one chunk then seen as a whole.
    """

    chunk: int
    before: int = 1
    after: int = 0
    least: int
    multiple: int
    continues: ClassVar[bool] = False

    @property
    def offsets(self) -> range:
        """The chunks that a chunk looks at, counted from itself."""
        return range(-self.before, self.after + 1)

    def padded(self, n: int) -> int:
        """The length of a text of n tokens with its padding."""
        return n if n <= self.least else -(-n // self.multiple) * self.multiple

    def around(self, x: Tensor) -> Tensor:
        """[b h m s ...] with each chunk's neighbours side by side, [b h m w ...]."""
        return torch.cat([x.roll(-offset, 2) for offset in self.offsets], 3)


class Rows(NamedTuple):
    """Where tokens are in each row's own text, which is what it would be alone."""

    place: Int[Tensor, "b p"]
    length: Int[Tensor, "b 1"]
    padded: Int[Tensor, "b 1"]
    whole: Bool[Tensor, "b 1"]  # texts of one chunk
    seen: Bool[Tensor, "b p k"]  # not padding, and where order matters not after the query
    self: Bool[Tensor, "p k"]


def rows(cfg: Chunked, frame: Frame) -> Rows:
    """The same for all rows where nothing is padding (b = 1)."""
    k = torch.arange(frame.n, device=frame.device)
    if frame.valid is None:
        place, length = k[None], torch.full((1, 1), frame.n, device=frame.device)
    else:
        place = (frame.valid.long().cumsum(-1) - 1).clamp(min=0)
        length = frame.valid.long().sum(-1, keepdim=True)
    padded = torch.where(length <= cfg.least, length, -(-length // cfg.multiple) * cfg.multiple)
    self = k[:, None] == k
    seen = (k <= k[:, None] if frame.causal else torch.ones_like(self))[None]
    if frame.valid is not None:
        seen = (seen & frame.valid[:, None, :]) | self
    return Rows(place, length, padded, padded <= cfg.chunk, seen, self)
