"""What an encoder made of its inputs: the keys and values of cross-attention (arXiv 1706.03762, §3.2.3).

Letters: b batch, k source position, g key/value head, e d_head, d d_model.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor

KeysValues = tuple[Float[Tensor, "b k g e"], Float[Tensor, "b k g e"]]


class Encoded:
    """The encoder's last stream after its norm, and where it is real; to attention, a frame without an order.

    `where` is added to what keys read, where a model's positions are known to attention alone.

    `kept` holds each layer's keys and values where a run keeps them for runs that continue it.
    """

    global_tokens = None

    def __init__(
        self,
        stream: Float[Tensor, "b k d"],
        valid: Bool[Tensor, "b k"] | None = None,
        where: Float[Tensor, "b k d"] | None = None,
    ) -> None:
        self.stream, self.valid, self.where = stream, valid, where
        self.kept: dict[int, KeysValues] = {}

    @property
    def n_rows(self) -> int:
        return self.stream.shape[0]

    def plainly_causal(self, window: object) -> bool:
        """Every position of the target looks at every one of the source."""
        return False

    def mask(self, window: object) -> Bool[Tensor, "b 1 1 k"] | None:
        """True where the source is not padding; None where it nowhere is."""
        return None if self.valid is None else self.valid[:, None, None, :]

    def map(self, change: Callable[[Tensor], Tensor]) -> Encoded:
        """The same with other rows: `change` acts on the first axis of every tensor."""
        valid, where = (None if x is None else change(x) for x in (self.valid, self.where))
        new = Encoded(change(self.stream), valid, where)
        new.kept = {layer: (change(k), change(v)) for layer, (k, v) in self.kept.items()}
        return new

    def for_rows(self, n: int) -> Encoded:
        """The same for a run of n rows, which are copies of these one after another."""
        copies = n // self.n_rows
        return self if copies == 1 else self.map(lambda x: x.repeat(copies, *[1] * (x.ndim - 1)))
