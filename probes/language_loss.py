"""How well a model, whole or interfered with, predicts text: cross-entropy of the next token, in nats.

1. The last stream of every position that has a next token in its text is unembedded, some positions at a time, so
   that logits of the vocabulary's width never exist for a whole batch.
2. The loss of a text is the sum over its tokens but the first; per token it is the sum over texts, divided by the
   number of tokens predicted.

Letters: n text, b batch, p position, d d_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from probes.prompts import Batch

if TYPE_CHECKING:
    from lens.model import Transformer

AT_ONCE = 256
"""Positions that are unembedded at a time."""


def text_losses(
    model: Transformer, last: Float[Tensor, "b p d"], batch: Batch
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Summed cross-entropy of each text and how many of its tokens were predicted, float64 on the CPU."""
    rows, places = batch.mask[:, 1:].nonzero(as_tuple=True)
    losses = torch.empty(len(rows), dtype=torch.float64)
    for start in range(0, len(rows), AT_ONCE):
        row, place = rows[start : start + AT_ONCE], places[start : start + AT_ONCE]
        logits = model.to_logits(last[row, place][None])[0].float()
        losses[start : start + AT_ONCE] = F.cross_entropy(
            logits, batch.ids[row, place + 1], reduction="none"
        ).double().cpu()  # fmt: skip
    sums = torch.zeros(len(batch.ids), dtype=torch.float64).index_add_(0, rows.cpu(), losses)
    return sums, (batch.lengths - 1).double().cpu()
