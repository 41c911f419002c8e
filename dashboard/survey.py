"""What the Heads page shows of a model and a prompt. No Streamlit: this runs in jobs.

Patterns of all heads of a long prompt do not fit in memory at once, so each layer's is reduced to squares and
scores as soon as it is computed.

Shapes: l layer, h head, q query position, k key position, t side of a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dashboard.figures.attention import without_sink
from dashboard.figures.head_kinds import KINDS
from dashboard.figures.montage import pool
from lens.head_scores import head_scores
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from lens.model import Transformer

LONGEST = 1024
REPEATED = 32


@dataclass(frozen=True)
class Survey:
    """All heads at a glance: `tiles` uint8 [l, h, t, t], `scores` float [l, h, 5] in the order of `KINDS`.

    `without_sink`: the tiles where attention to the first token is left out.
    """

    tiles: NDArray[np.uint8]
    without_sink: NDArray[np.uint8]
    scores: NDArray[np.float32]


def survey(model: Transformer, ids: Sequence[int], progress: Progress = silent) -> Survey:
    """Squares and scores of all heads on one prompt, by one forward without logits."""
    layers = model.cfg.n_layers
    tiles: list[NDArray[np.uint8]] = []
    hidden: list[NDArray[np.uint8]] = []
    scores: list[NDArray[np.float32]] = []

    tokens = torch.tensor([list(ids)])

    def reduce(pattern: torch.Tensor, hook: object) -> None:
        found = head_scores(pattern.cpu(), tokens)
        scores.append(torch.stack([found[kind.score] for kind in KINDS], 1).numpy())
        weights = pattern[0].float().cpu().numpy()
        tiles.append(pool(weights))
        hidden.append(pool(without_sink(weights)))
        progress(len(tiles), layers, "layer")

    progress(0, layers, "layer")
    model.run_with_hooks(tokens, [("pattern", reduce)], stop_at_layer=layers)
    return Survey(np.stack(tiles), np.stack(hidden), np.stack(scores))


def layer_patterns(model: Transformer, ids: Sequence[int], layer: int) -> NDArray[np.float32]:
    """The attention patterns [h, q, k] of one layer on one prompt."""
    cache = model.activations(torch.tensor([list(ids)]), [("pattern", layer)])
    return cache["pattern", layer][0].float().cpu().numpy()


@torch.no_grad()
def value_sizes(model: Transformer, ids: Sequence[int], layer: int) -> NDArray[np.float32]:
    """The norm of what each head would write if it looked at one key only, ‖v W_O‖ [h, k]."""
    attn = model.block(layer).attn
    values = model.activations(torch.tensor([list(ids)]), [attn.hook_v])[attn.hook_v][0]  # [k, g, e]
    values = values.repeat_interleave(model.cfg.n_heads // model.cfg.n_key_value_heads, 1)
    return torch.einsum("khe,hed->hkd", values, attn.W_O).float().norm(dim=-1).cpu().numpy()


def n_queries(ids: Sequence[int]) -> list[int]:
    """Over how many positions each score is a mean, in the order of `KINDS`: where it can be asked for."""
    n = len(ids)
    repeats = sum(ids[i] in ids[:i] for i in range(n))
    followed = sum(ids[i] in ids[: max(i - 1, 0)] for i in range(n))
    return [n - 1, repeats, followed, n - 1, n - 1]


def repeated_ids(model: Transformer, length: int = REPEATED) -> list[int]:
    """Random tokens and the same tokens again, after the usual first token: what induction heads are told by.

    The tokens are the same in every call. Special tokens are left out.
    """
    special = set()
    first: list[int] = []
    if model.tokenizer is not None:
        special = {model.tokenizer.bos_id, model.tokenizer.eos_id, model.tokenizer.pad_id}
        if model.tokenizer.bos_id is not None:
            first = [model.tokenizer.bos_id]
    usual = np.array([i for i in range(model.cfg.embed.d_vocab) if i not in special])
    room = (model.cfg.n_ctx - len(first)) // 2
    drawn = np.random.default_rng(0).choice(usual, min(length, room, len(usual)), replace=False).tolist()
    return [*first, *drawn, *drawn]
