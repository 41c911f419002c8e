"""Cached keys and values of positions already computed: a prefix shared by many runs, or the text so far.

Recurrent mixers keep their state instead, which is that of the last position alone.

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
    """Keys (after rotary) and values per layer, or the states of a recurrent mixer.

    A run given `past=KeyValues` stands on what is stored and appends its own keys and values, unless the store
    is `frozen`; a frozen one may serve any number of runs and threads at once.
    """

    def __init__(self, n_layers: int) -> None:
        self.keys: list[Tensor | None] = [None] * n_layers
        self.values: list[Tensor | None] = [None] * n_layers
        self.states: list[dict[str, Tensor]] = [{} for _ in range(n_layers)]
        self._left: list[dict[str, Tensor]] = [{} for _ in range(n_layers)]  # by a run that has not ended yet
        self.valid: Bool[Tensor, "b k"] | None = None
        self.encoded: Encoded | None = None  # what the runs' cross-attention looks at
        self.length = 0
        self.frozen = False

    def __len__(self) -> int:
        return self.length

    @property
    def n_rows(self) -> int | None:
        """Rows of the batch that is stored; None where nothing is."""
        stored = [*self.keys, *(x for state in self.states for x in state.values())]
        return next((len(x) for x in stored if x is not None), None) if self.length else None

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

    def recall(self, layer: int, name: str, rows: int) -> Tensor | None:
        """What the runs so far left in `layer` under this name, for a run of `rows` rows; None at the beginning."""
        state = self.states[layer].get(name)
        if state is None or rows == len(state):
            return state
        return state.repeat(rows // len(state), *[1] * (state.ndim - 1))

    def keep(self, layer: int, **state: Tensor) -> None:
        """Leave the state at the last position for runs that continue this one; unless frozen."""
        if not self.frozen:
            self._left[layer] |= state

    def advance(self, n: int, valid: Bool[Tensor, "b k"] | None, encoded: Encoded | None = None) -> None:
        """Record that `n` more positions are stored (called once per run, by the model)."""
        if not self.frozen:
            self.states = [old | new for old, new in zip(self.states, self._left, strict=True)]
            self._left = [{} for _ in self.states]
            self.length += n
            self.valid = valid
            self.encoded = encoded

    def upto(self, length: int) -> KeyValues:
        """A frozen view of the first `length` positions.

        Raises:
            ValueError: fewer are cached, or all of them are and a state is known at the last alone.
        """
        if length > self.length:
            raise ValueError(f"{length} positions were asked for and {self.length} are cached")
        if length < self.length and any(self.states):
            raise ValueError(
                f"{length} of {self.length} positions were asked for and a recurrent state is known after the last"
            )
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
        new.states = [{name: rows(x) for name, x in state.items()} for state in self.states]
        new.valid = None if self.valid is None else valid(self.valid)
        new.encoded = None if self.encoded is None else self.encoded.map(rows)
        new.length = length
        return new.freeze()
