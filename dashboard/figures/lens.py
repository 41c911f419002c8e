"""The logit lens to a grid of streams × positions, with the token that each cell would predict.

Letters: l stream, p position, t token asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dashboard.figures.grid import GridPayload, grid_payload
from lens.logit_lens import LogitLens

BULK = 0.99
TOP, ANSWER, DIFFERENCE = "top token", "answer", "answer − wrong"


def shadings(lens: LogitLens, n_answers: int) -> list[str]:
    """What the cells can be coloured by: the first `n_answers` tokens asked about are answers, the others wrong."""
    n = len(lens.tokens)
    return [*([DIFFERENCE] if n > n_answers > 0 else []), *([ANSWER] if n_answers else []), TOP]


def stream_names(n_streams: int) -> list[str]:
    """The embedding, then the layers: a row is the stream after that layer."""
    return ["embed", *(f"L{l}" for l in range(n_streams - 1))]


def lens_grid(
    lens: LogitLens,
    tokens: Sequence[str],
    spell: Callable[[list[int]], list[str]],
    shading: str,
    n_answers: int,
    *,
    start: int = 0,
) -> GridPayload:
    """The picture of the positions from `start` on; `spell` gives the texts of token ids.

    `shading`: the probability of the most likely token, that of the answers together, or the difference of the
    mean log-probabilities of answers and wrong answers, which is that of their logits.

    Raises:
        ValueError: there is not one token per position.
    """
    if lens.top.shape[1] != len(tokens):
        raise ValueError(f"{lens.top.shape[1]} positions do not fit {len(tokens)} tokens")
    right, wrong = lens.log_probs[..., :n_answers], lens.log_probs[..., n_answers:]
    if shading == DIFFERENCE:
        values, unit = right.mean(-1) - wrong.mean(-1), "logit difference"
    elif shading == ANSWER:
        values, unit = right.exp().sum(-1), "probability of the answer"
    else:
        values, unit = lens.top_log_prob.exp(), "probability of the most likely token"
    sizes = values[1:, start:].abs().float()
    bound = float(sizes.quantile(BULK)) if shading == DIFFERENCE else 1.0  # what is read early can be far off
    about = [_about(lens, n_answers, l, p) for l in range(len(lens.top)) for p in range(start, len(tokens))]
    ids = lens.top[:, start:].flatten().tolist()
    return grid_payload(
        values[:, start:].float().numpy().astype(np.float32),
        stream_names(len(lens.top)),
        [f"{i} {token}" for i, token in enumerate(tokens)][start:],
        title="Logit lens", unit=unit, texts=spell(ids), about=about,
        diverging=shading == DIFFERENCE, flip=True, bound=bound,
    )  # fmt: skip


def _about(lens: LogitLens, n_answers: int, l: int, p: int) -> str:
    lines = [f"most likely: probability {float(lens.top_log_prob[l, p].exp()):.3f}"]
    for name, which in (("answer", range(n_answers)), ("wrong", range(n_answers, len(lens.tokens)))):
        if len(which):
            best = max(which, key=lambda i: float(lens.log_probs[l, p, i]))
            share, rank = float(lens.log_probs[l, p, best].exp()), int(lens.ranks[l, p, best])
            lines.append(f"{name}: probability {share:.3f}, rank {rank + 1:,}")
    return "\n".join(lines)
