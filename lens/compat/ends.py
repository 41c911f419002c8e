"""The two ends of a drop-in model, which can also be called by themselves.

Letters: b batch, p position, d d_model, v vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lens.embed import Embed
from lens.unembed import Unembed


class TokenEmbed(Embed):
    """The core's embedding; called with ids alone, it gives what tokens add to the stream, without positions."""

    @classmethod
    def of(cls, embed: Embed) -> TokenEmbed:
        made = cls.__new__(cls)
        made.__dict__.update(embed.__dict__)
        return made

    @property
    def W_E(self) -> Tensor:
        """[v, d]."""
        return self.tokens.weight if self.cfg.scale == 1 else self.tokens.weight * self.cfg.scale

    def forward(self, given: Tensor, frame: Any = None, *rest: Any, **options: Any) -> Tensor:
        return self.W_E[given] if frame is None else super().forward(given, frame, *rest, **options)


class TokenUnembed(Unembed):
    """The core's unembedding, with TransformerLens's names for its weights."""

    @classmethod
    def of(cls, unembed: Unembed) -> TokenUnembed:
        made = cls.__new__(cls)
        made.__dict__.update(unembed.__dict__)
        return made

    W_U = property(lambda self: self.linear.weight.T)  # [d, v]

    @property
    def b_U(self) -> Tensor:
        """[v]."""
        bias = self.linear.bias
        return self.linear.weight.new_zeros(len(self.linear.weight)) if bias is None else bias


class PositionEmbed:
    """What positions add to the stream."""

    def __init__(self, W_pos: Tensor) -> None:
        self.W_pos = W_pos  # [p, d]

    def __call__(
        self, tokens: Tensor, past_kv_pos_offset: int = 0, attention_mask: Tensor | None = None
    ) -> Tensor:
        """The rows of positions of ids [b, p], [b, p, d]; `attention_mask` moves those behind padding to the front."""
        n = tokens.shape[1]
        if attention_mask is None:
            return self.W_pos[past_kv_pos_offset : past_kv_pos_offset + n].expand(len(tokens), -1, -1)
        where = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        return self.W_pos[where[:, past_kv_pos_offset:]]
