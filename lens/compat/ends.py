"""The two ends of a drop-in model, which can also be called by themselves.

Letters: b batch, p position, d d_model, v vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lens.classifier import Classifier, Pooler
from lens.compat.hook_points import Board, alone
from lens.compat.stored import StoredPart, as_weights
from lens.embed import Embed
from lens.frame import Frame
from lens.unembed import Transform, Unembed


class Alone:
    """A part that is given an activation alone when it is called by itself."""

    board: Board

    def forward(self, x: Tensor, taps: Any = None, *rest: Any) -> Tensor:
        if taps is not None:
            return super().forward(x, taps, *rest)  # type: ignore[misc]
        with alone(self.board) as here:
            return super().forward(self.read(x), here, *rest)  # type: ignore[misc]

    def read(self, x: Tensor) -> Tensor:
        """What is read of an activation that is given by itself."""
        return x


@as_weights
class TokenEmbed(StoredPart, Embed):
    """The core's embedding. Called with ids alone, it gives what tokens add to the stream, without positions; where
    the sum is normalised (BERT), the whole embedding, of ids and their types."""

    board: Board

    @property
    def W_E(self) -> Tensor:
        """[v, d]."""
        return self.tokens.weight if self.cfg.scale == 1 else self.tokens.weight * self.cfg.scale

    W_pos = property(lambda self: self.positions.weight[self.cfg.position_offset :])  # [p, d]
    W_token_type = property(lambda self: self.types.weight)  # [types, d]
    embed = property(lambda self: TokenTable(self.W_E, "W_E"))
    pos_embed = property(lambda self: PositionEmbed(self.W_pos))
    token_type_embed = property(lambda self: TokenTable(self.types.weight, "W_token_type"))

    def forward(self, given: Tensor, frame: Any = None, *rest: Any, **options: Any) -> Tensor:
        if isinstance(frame, Frame):
            return super().forward(given, frame, *rest, **options)
        if self.types is None or self.ln is None:
            return self.W_E[given]
        types = options.get("token_type_ids", frame)
        with alone(self.board) as taps:
            where = Frame(given.shape[1], causal=False, device=given.device, dtype=self.tokens.weight.dtype)
            return super().forward(given, where, taps, types)


class TokenTable:
    """A row per token, or per token type; `W_E` or `W_token_type` is the table."""

    def __init__(self, table: Tensor, name: str) -> None:
        self.table = table
        setattr(self, name, table)

    def __call__(self, ids: Tensor) -> Tensor:
        return self.table[ids]


@as_weights
class TokenUnembed(StoredPart, Unembed):
    """The core's unembedding, with TransformerLens's names for its weights.

    Called by itself it is W_U and b_U alone, without the cap of logits and the hidden layer in front (`mlm_head`).
    """

    @property
    def W_U(self) -> Tensor:
        """[d, v]."""
        weight = self.linear.weight if self.project is None else self.linear.weight @ self.project.weight
        return weight.T if self.cfg.scale == 1 else weight.T * self.cfg.scale

    @property
    def b_U(self) -> Tensor:
        """[v]."""
        bias = self.linear.bias
        return self.linear.weight.new_zeros(len(self.linear.weight)) if bias is None else bias

    def forward(self, x: Tensor, taps: Any = None) -> Tensor:
        return x @ self.W_U + self.b_U if taps is None else super().forward(x, taps)


class MaskedHead(Alone, StoredPart, Transform):
    """The hidden layer in front of a masked language model's vocabulary: TransformerLens's `mlm_head`."""

    W = property(lambda self: self.dense.weight.T)  # [d, d]
    b = property(lambda self: self.dense.bias)  # [d]
    act_fn = property(lambda self: self.act)


class PooledHead(Alone, StoredPart, Pooler):
    """The pooler, which by itself takes a whole stream [b, p, d] and reads its first position."""

    W = property(lambda self: self.dense.weight.T)  # [d, d]
    b = property(lambda self: self.dense.bias)  # [d]
    activation = property(lambda self: self.act)

    def read(self, x: Tensor) -> Tensor:
        return x[:, 0] if x.ndim == 3 else x


class ClassHead(Alone, StoredPart, Classifier):
    """The map to classes: TransformerLens's `nsp_head`."""

    W = property(lambda self: self.linear.weight.T)  # [d, classes]
    b = property(lambda self: self.linear.bias)  # [classes]


class PositionEmbed:
    """What positions add to the stream."""

    def __init__(self, W_pos: Tensor) -> None:
        self.W_pos = W_pos  # [p, d]

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of the table, as `W_pos`."""
        return {"W_pos": self.W_pos.detach().clone()}

    def __call__(
        self, tokens: Tensor, past_kv_pos_offset: int = 0, attention_mask: Tensor | None = None
    ) -> Tensor:
        """The rows of positions of ids [b, p], [b, p, d]; `attention_mask` moves those behind padding to the front."""
        n = tokens.shape[1]
        if attention_mask is None:
            return self.W_pos[past_kv_pos_offset : past_kv_pos_offset + n].expand(len(tokens), -1, -1)
        where = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        return self.W_pos[where[:, past_kv_pos_offset:]]
