"""Cached keys and values of positions already computed: a prefix shared by many runs, or the text so far.

Letters: b batch, g key/value head, k cached positions, p new positions, e d_head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lens.encoded import Encoded

Change = Callable[[Tensor], Tensor]


class KeyValues:
    """Keys (after rotary) and values per layer.

    A run given `past=KeyValues` stands on what is stored and appends its own keys and values, unless the store
    is `frozen`; a frozen one may serve any number of runs and threads at once.
    """

    def __init__(self, n_layers: int) -> None:
        self.keys: list[Tensor | None] = [None] * n_layers
        self.values: list[Tensor | None] = [None] * n_layers
        self.valid: Bool[Tensor, "b k"] | None = None
        self.encoded: Encoded | None = None  # what the runs' cross-attention looks at
        self.length = 0
        self.frozen = False

    def __len__(self) -> int:
        return self.length

    @property
    def n_rows(self) -> int | None:
        """Rows of the batch that is stored; None where nothing is."""
        return next((len(k) for k in self.keys if k is not None), None) if self.length else None

    def freeze(self) -> KeyValues:
        """From now on runs read this store and do not append to it."""
        self.frozen = True
        return self

    def join(
        self, layer: int, k: Float[Tensor, "b g p e"], v: Float[Tensor, "b g p e"]
    ) -> tuple[Float[Tensor, "b g kp e"], Float[Tensor, "b g kp e"]]:
        """All keys and values of `layer` up to the newest position; appends unless frozen.

        A frozen store of b rows serves runs of c * b rows: row i of each copy stands on row i.
        """
        old_k, old_v = self.keys[layer], self.values[layer]
        if old_k is not None and old_v is not None and self.length:
            if old_k.shape[2] > self.length:  # left behind by a run that did not come to its end
                old_k, old_v = old_k[:, :, : self.length], old_v[:, :, : self.length]
            copies = k.shape[0] // old_k.shape[0]
            if copies > 1:
                old_k, old_v = old_k.repeat(copies, 1, 1, 1), old_v.repeat(copies, 1, 1, 1)
            k, v = torch.cat([old_k, k], 2), torch.cat([old_v, v], 2)
        if not self.frozen:
            self.keys[layer], self.values[layer] = k, v
        return k, v

    def advance(self, n: int, valid: Bool[Tensor, "b k"] | None, encoded: Encoded | None = None) -> None:
        """Record that `n` more positions are stored (called once per run, by the model)."""
        if not self.frozen:
            self.length += n
            self.valid = valid
            self.encoded = encoded

    def upto(self, length: int) -> KeyValues:
        """A frozen view of the first `length` positions."""
        if length > self.length:
            raise ValueError(f"{length} positions were asked for and {self.length} are cached")
        return self._map(lambda t: t[:, :, :length], lambda t: t[:, :length], length, lambda t: t)

    def rows(self, index: Tensor | slice) -> KeyValues:
        """A frozen selection of batch rows; rows may repeat."""
        return self._map(lambda t: t[index], lambda t: t[index], self.length, lambda t: t[index])

    def copies(self, n: int) -> KeyValues:
        """A store that is not frozen and begins with `n` copies of this one, one after another."""

        def repeat(t: Tensor) -> Tensor:
            return t.repeat(n, *[1] * (t.ndim - 1))

        new = self._map(repeat, repeat, self.length, repeat)
        new.frozen = False
        return new

    def _map(self, per_layer: Change, valid: Change, length: int, rows: Change) -> KeyValues:
        new = KeyValues(len(self.keys))
        new.keys = [None if k is None else per_layer(k) for k in self.keys]
        new.values = [None if v is None else per_layer(v) for v in self.values]
        new.valid = None if self.valid is None else valid(self.valid)
        new.encoded = None if self.encoded is None else self.encoded.map(rows)
        new.length = length
        return new.freeze()
