"""Clean and corrupt prompts without the tokens they share at the start.

Under a causal mask every activation before the first difference is the same in both prompts: every patch
there is zero and every difference of senders there is zero. So the shared prefix is run once, its keys and
values are kept, and all later runs touch only the positions from the first difference on.

Letters: n pair, c copies, p all positions, t positions from the first difference on, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.memory import LOGIT_BYTES
from lens.frame import Frame

if TYPE_CHECKING:
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.kv import KeyValues
    from lens.model import Transformer
    from lens.taps import AnyTaps


@dataclass(frozen=True)
class Suffix:
    """The part of `pairs` that matters, on the model's device.

    `start`: how many positions are cut off in front; `past`: their keys and values, frozen, n rows (None where
    start is 0); `ends`: where the answer is read, counted within the suffix; `mask`: all positions, or None.
    """

    model: Transformer
    pairs: Pairs
    clean: Int[Tensor, "n t"]
    corrupt: Int[Tensor, "n t"]
    ends: Int[Tensor, " n"]
    mask: Bool[Tensor, "n p"] | None
    start: int
    past: KeyValues | None

    @classmethod
    def of(cls, model: Transformer, pairs: Pairs, share_prefix: bool = True) -> Suffix:
        """Run the shared prefix (nothing, where the first tokens differ) and cut it off."""
        pairs.check(model.cfg)
        stop = int(pairs.ends.max()) + 1  # nothing after the last answer matters
        share = share_prefix and model.own
        start = min(pairs.first_difference, int(pairs.ends.min())) if share else 0
        mask = None if pairs.attention_mask is None else pairs.attention_mask[:, :stop].to(model.device)
        clean, corrupt = pairs.clean[:, :stop].to(model.device), pairs.corrupt[:, :stop].to(model.device)
        past = None
        if start:
            past = model.new_past()
            before = None if mask is None else mask[:, :start]
            with torch.no_grad():
                model(clean[:, :start], past=past, attention_mask=before, logits_at=slice(0, 0))
            past.freeze()
        ends = (pairs.ends - start).to(model.device)
        return cls(model, pairs, clean[:, start:], corrupt[:, start:], ends, mask, start, past)

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def width(self) -> int:
        """How many positions are left."""
        return self.clean.shape[1]

    def run(
        self, ids: Int[Tensor, "cn t"], taps: AnyTaps, past: KeyValues | None = None
    ) -> Float[Tensor, "cn 1 v"]:
        """Logits at the answers, for rows that are copies of the pairs one after another."""
        copies = len(ids) // len(self)
        return self.model(
            ids,
            taps=taps,
            past=self.past if past is None else past,
            attention_mask=None if self.mask is None else self.mask.repeat(copies, 1),
            logits_at=self.ends.repeat(copies),
        )

    def open_past(self, copies: int) -> KeyValues:
        """A store for a run of `copies` copies that keeps its keys and values, beginning with the prefix."""
        if self.past is None:
            return self.model.new_past()
        return self.past.copies(copies)

    def frame(self, copies: int, skip: int = 0) -> Frame:
        """The geometry of a run of `copies` copies that leaves out the first `skip` positions of the suffix."""
        mask = None if self.mask is None else self.mask.repeat(copies, 1)
        return Frame(
            self.width - skip,
            valid=mask,
            past=self.start + skip,
            causal=self.model.cfg.stack.causal,
            device=self.model.device,
            dtype=self.model.dtype,
        )

    def metric(self, stream: Float[Tensor, "cn t d"], metric: Metric, skip: int = 0) -> Float[Tensor, "c n"]:
        """The metric of each row of a last residual stream; logits are made for a few copies at a time.

        Meaningless for pairs whose answer is read before position `skip`.
        """
        n = len(self)
        rows = torch.arange(len(stream), device=stream.device)
        at_end = stream[rows, (self.ends.repeat(len(stream) // n) - skip).clamp(min=0), None]
        values = [
            metric(self.model.to_logits(chunk)[:, 0].unflatten(0, (-1, n)), self.pairs)
            for chunk in at_end.split(self._copies_of_logits() * n)
        ]
        return torch.cat(values)

    def _copies_of_logits(self) -> int:
        return max(1, LOGIT_BYTES // (4 * self.model.cfg.d_vocab * len(self)))


def batches(
    model: Transformer, pairs: Pairs, size: int, share_prefix: bool = True
) -> Iterator[tuple[slice, Suffix]]:
    """Suffixes of at most `size` pairs each, with the places of their pairs."""
    for first in range(0, len(pairs), size):
        where = slice(first, min(first + size, len(pairs)))
        yield where, Suffix.of(model, pairs[where], share_prefix)
