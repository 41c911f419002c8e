"""What a model expects after every token of a prompt. No Streamlit: this runs in jobs.

Letters: p position, k of the most likely tokens, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from lens.progress import Progress, silent

if TYPE_CHECKING:
    from lens.model import Transformer

TOP = 10
LOGIT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Predictions:
    """The most likely next tokens after each position, and how expected each token of the prompt was.

    `top` [p, k] with probabilities `probs` [p, k]; `followed_probs`, `followed_ranks` [p, t]: of the tokens asked
    about, rank 0 the most likely. `expected` [p]: the probability that the model gave to the token at p before it
    was there; NaN at the first.
    """

    top: NDArray[np.int64]
    probs: NDArray[np.float32]
    followed_probs: NDArray[np.float32]
    followed_ranks: NDArray[np.int64]
    expected: NDArray[np.float32]


@torch.no_grad()
def predictions(
    model: Transformer,
    ids: Sequence[int],
    followed: Sequence[int] = (),
    *,
    k: int = TOP,
    progress: Progress = silent,
) -> Predictions:
    """One run of a prompt; logits are made for a few positions at a time."""
    tokens = torch.tensor(list(ids), device=model.device)
    asked = torch.tensor(list(followed), dtype=torch.int64, device=model.device)
    progress(0, len(ids), "token")
    stream = model(tokens[None], stop_at_layer=model.cfg.n_layers)[0]
    size = max(1, LOGIT_BYTES // (4 * model.cfg.d_vocab))
    parts: list[tuple[torch.Tensor, ...]] = []
    for first in range(0, len(ids), size):
        progress(first, len(ids), "token")
        part = stream[first : first + size]
        probs = model.to_logits(part[None])[0].float().softmax(-1)
        best = probs.topk(min(k, probs.shape[-1]))
        after = tokens[first + 1 : first + 1 + len(part)]
        seen = probs[: len(after)].gather(1, after[:, None])[:, 0]
        wanted = probs[:, asked]
        ranks = [(probs > wanted[:, i, None]).sum(-1) for i in range(len(asked))]
        parts.append(
            (best.indices, best.values, wanted, torch.stack(ranks, 1) if ranks else wanted.long(), seen)
        )
    top, values, wanted, ranks, seen = (
        torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)
    )
    expected = np.concatenate([np.full(1, np.nan, np.float32), seen]).astype(np.float32)
    return Predictions(top, values, wanted, ranks, expected)
