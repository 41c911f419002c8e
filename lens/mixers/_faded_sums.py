"""Sums over the positions so far, weighed by products of queries and keys: linear attention, Performer, retention.

    y[p] = Σ over k ≤ p of (q[p] · k[k]) e^(level[k] - top[p]) v[k]

where top[p] is the highest level up to p. Rising levels are a fading of what is old (retention); levels of keys
are logarithms of what their features were divided by (Performer). Three forms give the same:

1. In parallel: all weights at once, `weights`.
2. As a recurrence: a state S = Σ e^(level[k] - top) k[k] v[k]ᵀ, which fades by e^(old top - new top) as the top rises.
3. In chunks: in parallel within a chunk, by the state from chunk to chunk. Chunks of one position are the recurrence.

At padding, keys are zero and levels `NOTHING`, or those of the position before.

Letters: b batch, g key/value head, r query heads per key/value head, p position, k key position, f features,
x entries of a value.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 64
"""Positions that are mixed in parallel: time and memory grow with their number, and the number of steps falls."""

NOTHING = -1e30
"""The level of what is not there."""


class State(NamedTuple):
    """What is known of all positions so far."""

    sums: Float[Tensor, "b g f x"]
    top: Float[Tensor, "b g"]


def beginning(q: Float[Tensor, "b g r p f"], v: Float[Tensor, "b g p x"], top: float) -> State:
    """The state before the first position."""
    b, g, _, _, f = q.shape
    return State(q.new_zeros(b, g, f, v.shape[-1]), q.new_full((b, g), top))


def tops(level: Float[Tensor, "b g p"], top: Float[Tensor, "b g"]) -> Float[Tensor, "b g p"]:
    """The highest level up to each position, `top` before the first."""
    return torch.maximum(level.cummax(-1).values, top[..., None]).detach()


def weights(
    q: Float[Tensor, "b g r p f"],
    k: Float[Tensor, "b g p f"],
    level: Float[Tensor, "b g p"],
    top: Float[Tensor, "b g p"],
) -> Float[Tensor, "b g r p k"]:
    """What each position's value counts at each later one, and at itself."""
    n = level.shape[-1]
    later = torch.ones(n, n, dtype=torch.bool, device=level.device).triu(1)
    fade = (level[..., None, :] - top[..., None]).masked_fill(later, -torch.inf).exp()
    return (q @ k[:, :, None].mT) * fade[:, :, None]


def of_state(
    q: Float[Tensor, "b g r p f"], state: State, top: Float[Tensor, "b g p"]
) -> Float[Tensor, "b g r p x"]:
    """What the positions before these add to y."""
    fade = (state.top[..., None] - top).exp()
    return (q @ state.sums[:, :, None]) * fade[:, :, None, :, None]


def after(
    k: Float[Tensor, "b g p f"],
    v: Float[Tensor, "b g p x"],
    level: Float[Tensor, "b g p"],
    top: Float[Tensor, "b g p"],
    state: State,
) -> State:
    """The state once these positions have been read."""
    end = top[..., -1]
    writes = k * (level - end[..., None]).exp()[..., None]
    return State(state.sums * (state.top - end).exp()[..., None, None] + writes.mT @ v, end)


def in_chunks(
    q: Float[Tensor, "b g r p f"],
    k: Float[Tensor, "b g p f"],
    v: Float[Tensor, "b g p x"],
    level: Float[Tensor, "b g p"],
    state: State,
    size: int = CHUNK,
) -> tuple[Float[Tensor, "b g r p x"], State]:
    """y at every position, and the state after the last."""
    found = []
    parts = (q.split(size, 3), k.split(size, 2), v.split(size, 2), level.split(size, 2))
    for q_here, k_here, v_here, level_here in zip(*parts, strict=True):
        top = tops(level_here, state.top)
        within = weights(q_here, k_here, level_here, top) @ v_here[:, :, None]
        found.append(within + of_state(q_here, state, top))
        state = after(k_here, v_here, level_here, top, state)
    return torch.cat(found, 3), state
