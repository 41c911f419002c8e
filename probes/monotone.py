"""Over which range a measured curve is monotone.

1. Two points contradict a rising curve where the interval of their difference, over bootstrap resamples of the
   curve, lies wholly below zero.
2. The monotone range is the longest run of neighbouring points in which no two contradict it, and whose ends differ:
   the interval of their difference lies wholly above zero. Likewise for falling curves; the longer of the two counts.

Noise may bend the curve inside the range; a reversal that is more than noise may not lie in it.

Letters: m point, r resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probes.intervals import percentiles


@dataclass(frozen=True)
class Monotone:
    """Between these two points the curve only rises (`sign` 1) or only falls (−1), within noise."""

    low: float
    high: float
    sign: int


def monotone_range(points: Sequence[float | int], resamples: Float[Tensor, "r m"]) -> Monotone | None:
    """The monotone range of a curve known by resamples of its values at increasing points; None where there is none."""
    best: tuple[int, float | int, Monotone] | None = None
    for sign in (1, -1):
        rise = sign * (resamples[:, None, :] - resamples[:, :, None])  # [r, from, to]
        low, high = percentiles(rise)
        for i in range(len(points)):
            for j in range(i + 1, len(points)):
                if bool((high[i:j, j] < 0).any()):
                    break  # j contradicts one of them, and so does every longer range
                if float(low[i, j]) > 0:
                    found = (j - i, points[j] - points[i], Monotone(float(points[i]), float(points[j]), sign))
                    best = found if best is None or found[:2] > best[:2] else best
    return None if best is None else best[2]


def spearman(points: Sequence[float | int], values: Tensor) -> float:
    """Rank correlation of values [m] with their points, ties sharing their mean rank; 0 for a flat curve."""
    from scipy.stats import rankdata

    ranks = [torch.as_tensor(rankdata(x)).double() for x in (list(points), values.double().numpy().round(12))]
    a, b = (rank - rank.mean() for rank in ranks)
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else 0.0
