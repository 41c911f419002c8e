"""Preconditioned L-BFGS for many convex problems at once (Nocedal, Wright 2006, algorithm 7.4).

1. Direction: the two-loop recursion over the last steps, with a `Metric` in its middle.
2. An exact line search on the scores, which change linearly along the direction: no matrix product.
3. A step costs each problem two products with the features: scores of the direction, gradient of the new point.
4. −gᵀd / 2 estimates how far the objective is above its minimum (half the squared Newton decrement). A problem whose
   estimate is small enough leaves the batch, as does one that gets nowhere: its float32 gradient is noise.

Letters: p problems, k outputs, n rows, w width of the design.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.solvers.columns import Columns, scores
from probes.solvers.metric import Metric

MEMORY = 8
PACE = 4  # steps after which the pace of a problem is judged
STUCK = 8  # steps without a smaller excess after which a problem stops


@dataclass
class State:
    """Where each problem of a batch stands."""

    w: Tensor  # [p, k, w]
    excess: Tensor  # [p] estimate of the objective less its minimum
    steps: Tensor  # [p] int64


def minimise(
    a: Tensor,
    columns: Columns,
    state: State,
    metric: Metric,
    target: Tensor,
    *,
    steps: int,
    patience: int | None = None,
) -> None:
    """Improve `state` in place until the excess is at most `target` [p], or for so many steps.

    Args:
        a: features [n, w].
        metric: the preconditioner.
        patience: a problem that, at the pace it had, would need more further steps than this stops early.
    """
    left = torch.arange(len(state.w), device=a.device)
    w, z = state.w.clone(), scores(a, state.w)
    g = columns.gradient(a, w, z)
    past: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
    first = best = torch.full((len(w),), torch.inf, dtype=torch.float64, device=a.device)
    since = torch.zeros(len(w), dtype=torch.int64, device=a.device)
    for step in range(steps + 1):
        d = _direction(g, past, metric)
        excess = -0.5 * (g * d).sum((1, 2), dtype=torch.float64)
        since = torch.where(excess < 0.9 * best, 0, since + 1)
        best = torch.minimum(best, excess)
        first = excess if step == 0 else first
        done = (excess <= target[left]) | ~(excess > 0) | (since > STUCK) | (step == steps)
        if patience is not None and step >= PACE:
            pace = (best / first).log() / step
            done |= (target[left] / best).log() / pace > patience
        if bool(done.any()):
            gone = left[done]
            state.w[gone], state.excess[gone] = w[done], excess[done]
            state.steps[gone] += step
            keep = ~done
            left = left[keep]
            if not len(left):
                return
            columns, metric = columns[keep], metric[keep]
            w, z, g, d = w[keep], z[keep], g[keep], d[keep]
            first, best, since = first[keep], best[keep], since[keep]
            past = deque(((s[keep], y[keep], r[keep]) for s, y, r in past), maxlen=MEMORY)
        zd = scores(a, d)
        t = columns.line(w, z, d, zd)[:, None, None]
        moved = d.mul_(t)
        w += moved
        z.addcmul_(zd, t)
        new = columns.gradient(a, w, z)
        change, g = new - g, new
        product = (moved * change).sum((1, 2))
        past.append((moved, change, torch.where(product > 0, 1 / product, 0.0)))


def _direction(g: Tensor, past: deque[tuple[Tensor, Tensor, Tensor]], metric: Metric) -> Tensor:
    """−H g, by the two-loop recursion."""
    q = g.clone()
    taken = []
    for moved, change, inverse in reversed(past):
        alpha = inverse * (moved * q).sum((1, 2))
        q.addcmul_(change, alpha[:, None, None], value=-1)
        taken.append(alpha)
    q = metric(q)
    for (moved, change, inverse), alpha in zip(past, reversed(taken), strict=True):
        beta = inverse * (change * q).sum((1, 2))
        q.addcmul_(moved, (alpha - beta)[:, None, None])
    return q.neg_()
