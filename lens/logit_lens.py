"""Logit lens: what each residual stream would predict if the model ended there (nostalgebraist 2020).

1. One run keeps the stream that enters each block, and the last one, at every position.
2. Each is read as the model reads its last: final norm, then unembedding. The last row is the model's output.
3. Kept per cell: the most likely token, and log-probability and rank of the tokens asked about.

Streams are numbered by the blocks that they have passed: 0 is the embedding, `n_layers` the output.

Letters: l stream, p position, t token asked about, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lens.progress import Progress, silent

if TYPE_CHECKING:
    from lens.model import Transformer

LOGIT_BYTES = 64 * 2**20
CANDIDATES = 50


@dataclass(frozen=True, eq=False)
class LogitLens:
    """What every stream predicts after every position, on the CPU.

    `top`: the most likely token and `top_log_prob` its log-probability in nats. `log_probs`, `ranks`: of each of
    `tokens`; rank 0 is the most likely token.
    """

    tokens: tuple[int, ...]
    top: Int[Tensor, "l p"]
    top_log_prob: Float[Tensor, "l p"]
    log_probs: Float[Tensor, "l p t"]
    ranks: Int[Tensor, "l p t"]


@dataclass(frozen=True, eq=False)
class Moved:
    """How tokens' standing changes between two streams at one position; one entry per token.

    `before`, `after`: log-probabilities in nats; `rank_before`, `rank_after`: 0 is the most likely token.
    """

    ids: Int[Tensor, " t"]
    before: Float[Tensor, " t"]
    after: Float[Tensor, " t"]
    rank_before: Int[Tensor, " t"]
    rank_after: Int[Tensor, " t"]


@torch.no_grad()
def logit_lens(
    model: Transformer, ids: Sequence[int], tokens: Sequence[int] = (), progress: Progress = silent
) -> LogitLens:
    """Every stream of one prompt read as if it were the last.

    Args:
        ids: the prompt's tokens, at least one.
        tokens: ids to follow through the layers.

    Raises:
        ValueError: the model has no unembedding, or a token is outside the vocabulary.
    """
    asked = _asked(model, tokens)
    streams = _streams(model, ids, range(model.cfg.n_layers + 1))
    rows: list[tuple[Tensor, ...]] = []
    for layer, stream in enumerate(streams):
        progress(layer, len(streams), "stream")
        parts = [_read(part, asked) for part in _log_probs(model, stream)]
        rows.append(tuple(torch.cat(column).cpu() for column in zip(*parts, strict=True)))
    progress(len(streams), len(streams), "stream")
    top, best, log_probs, ranks = (torch.stack(column) for column in zip(*rows, strict=True))
    return LogitLens(tuple(tokens), top, best, log_probs, ranks)


@torch.no_grad()
def moved(
    model: Transformer,
    ids: Sequence[int],
    position: int,
    before: int,
    after: int,
    *,
    k: int = 10,
    candidates: int = CANDIDATES,
) -> tuple[Moved, Moved]:
    """The tokens that are promoted most between two streams at a position, and those suppressed most.

    Promoted are, of the `candidates` most likely tokens after, the k whose log-probability rises most;
    suppressed, of those most likely before, the k whose falls most. Unlikely tokens move far without mattering.

    Raises:
        ValueError: there is no such position or stream, or no unembedding.
    """
    _asked(model, ())
    if not 0 <= position < len(ids):
        raise ValueError(f"position {position} does not exist; the prompt has {len(ids)} tokens")
    for layer in (before, after):
        if not 0 <= layer <= model.cfg.n_layers:
            raise ValueError(f"stream {layer} does not exist; {model.name} has 0 to {model.cfg.n_layers}")
    streams = _streams(model, ids, (before, after))
    first, last = (next(_log_probs(model, stream[:, position : position + 1]))[0] for stream in streams)
    change = last - first
    found = []
    for sign, among in ((1, last), (-1, first)):
        likely = among.topk(min(candidates, len(among))).indices
        order = (sign * change[likely]).argsort(descending=True)[:k]
        chosen = likely[order]
        chosen = chosen[sign * change[chosen] > 0]
        found.append(
            Moved(
                chosen.cpu(),
                first[chosen].cpu(),
                last[chosen].cpu(),
                (first > first[chosen, None]).sum(-1).cpu(),
                (last > last[chosen, None]).sum(-1).cpu(),
            )
        )
    return found[0], found[1]


def _asked(model: Transformer, tokens: Sequence[int]) -> Tensor:
    if model.cfg.unembed is None:
        raise ValueError(f"{model.name} has no unembedding: its streams predict no tokens")
    size = model.cfg.d_vocab
    for token in tokens:
        if not 0 <= token < size:
            raise ValueError(f"token {token} is outside the vocabulary of {size}")
    return torch.tensor(list(tokens), dtype=torch.int64, device=model.device)


def _streams(model: Transformer, ids: Sequence[int], layers: Sequence[int]) -> list[Tensor]:
    """The streams [1, p, d] that have passed so many blocks, as the next component reads them."""
    last = model.block(model.cfg.n_layers - 1)
    end = last.hook_normalized_resid_post if last.after_sum else last.hook_resid_post
    sites = [model.block(n).hook_resid_pre if n < model.cfg.n_layers else end for n in layers]
    cache = model.activations(torch.tensor([list(ids)]), list(dict.fromkeys(sites)))
    return [cache[site] for site in sites]


def _log_probs(model: Transformer, stream: Tensor) -> Iterator[Tensor]:
    """Log-probabilities [p, v] in parts of positions that fit in memory."""
    size = max(1, LOGIT_BYTES // (4 * model.cfg.d_vocab))
    for part in stream[0].split(size):
        yield model.to_logits(part[None])[0].float().log_softmax(-1)


def _read(log_probs: Tensor, asked: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    best, top = log_probs.max(-1)
    found = log_probs[:, asked]
    if len(asked) == 0:
        return top, best, found, found.long()
    ranks = torch.stack([(log_probs > found[:, i, None]).sum(-1) for i in range(len(asked))], 1)
    return top, best, found, ranks
