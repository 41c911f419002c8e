"""What all blocks of one run share: positions, masks and rotary tables, each made once.

Letters: b batch (1 where all rows agree), p query position, k key position (cached ones first), r rotated entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lens import rotary
from lens.config import Rotary
from lens.encoded import Encoded
from lens.sparsity import Sparsity

Window = int | Sparsity | None


class Frame:
    """The geometry of one run.

    Args:
        n: new positions.
        valid: True where a token is real, [b, k] over cached and new positions; None: all are.
        past: cached positions before the first new one.
        causal: each position sees itself and what precedes it.
        global_tokens: True where a token sees all others and is seen by all, [b, k]; None: there are none.
    """

    def __init__(
        self,
        n: int,
        *,
        valid: Bool[Tensor, "b k"] | None = None,
        past: int = 0,
        causal: bool = True,
        global_tokens: Bool[Tensor, "b k"] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.n, self.past, self.causal, self.valid, self.dtype = n, past, causal, valid, dtype
        self.device = valid.device if valid is not None else device
        self.global_tokens = global_tokens
        self.encoded: Encoded | None = None  # what cross-attention looks at
        self.grid: tuple[int, int] | None = None  # rows and columns, where positions are a map of any size
        self.where: Float[Tensor, "b p d"] | None = (
            None  # added to what queries and keys read, if not to the stream
        )
        self.ends: Int[Tensor, " b"] | None = None  # where texts' vectors are read, if not at the first token
        self._made: dict[Any, Any] = {}
        self._masks: dict[Window, Tensor | None] = {}
        self._tables: dict[Rotary, tuple[Tensor, Tensor]] = {}
        if valid is None:
            self.positions: Int[Tensor, "b p"] = torch.arange(past, past + n, device=self.device)[None]
        else:  # padding does not count: a padded prompt gets the positions it would have alone
            self.positions = (valid.long().cumsum(-1) - 1).clamp(min=0)[:, past:]

    def plainly_causal(self, window: Window) -> bool:
        """Is the mask just a triangle, which the fused kernel makes itself?"""
        narrow = window is not None and (not isinstance(window, int) or window < self.past + self.n)
        plain = self.valid is None and self.global_tokens is None
        return self.causal and plain and self.past == 0 and not narrow

    def mask(self, window: Window) -> Bool[Tensor, "b 1 p k"] | None:
        """True where a query may look at a key; None where it may look everywhere.

        A padding query looks at itself, so that no row is empty.
        """
        total = self.past + self.n
        window = None if isinstance(window, int) and window >= total else window
        if window not in self._masks:
            self._masks[window] = self._make_mask(window, total)
        return self._masks[window]

    def _make_mask(self, window: Window, total: int) -> Tensor | None:
        if self.valid is None and window is None and (not self.causal or self.n == 1):
            return None
        k = torch.arange(total, device=self.device)
        q = k[self.past :, None]
        seen = (k <= q if self.causal else torch.ones_like(k <= q))[None]
        if window is not None:  # distance is counted in tokens, without padding between them
            place = k[None] if self.valid is None else self.valid.long().cumsum(-1) - 1
            seen = seen & self._within(window, place[:, self.past :, None], place[:, None, :])
        if self.global_tokens is not None:
            chosen = self.global_tokens
            seen = seen | chosen[:, None, :] | chosen[:, self.past :, None]
        if self.valid is not None:
            seen = (seen & self.valid[:, None, :]) | (k == q)
        return seen[:, None]

    def _within(
        self, window: int | Sparsity, q: Int[Tensor, "b p 1"], k: Int[Tensor, "b 1 k"]
    ) -> Bool[Tensor, "b p k"]:
        """What a window or a sparse pattern lets a query see, for places counted in tokens."""
        if not isinstance(window, int):
            return window.sees(q, k)
        seen = q - k < window
        return seen if self.causal else seen & (q - k > -window)

    def distances(self) -> Int[Tensor, "b p k"]:
        """How far each key is behind (above 0) or in front of its query, in tokens that are not padding."""
        if self.valid is None:
            place = torch.arange(self.past + self.n, device=self.device)[None]
        else:
            place = (self.valid.long().cumsum(-1) - 1).clamp(min=0)
        return place[:, None, :] - place[:, self.past :, None]

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """What `make` gives, made on the first call with this key in this run."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def tables(self, spec: Rotary) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the new positions."""
        if spec not in self._tables:
            self._tables[spec] = rotary.tables(spec, self.positions, self.dtype)
        return self._tables[spec]
