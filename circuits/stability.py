"""Would another sample have given another circuit? Overlap of edge sets found under changed conditions.

- over examples: the pairs are drawn again with replacement, the edges ranked by the resampled scores, and the
  top edges of two resamples compared (Jaccard: shared edges over edges in either);
- over anything else (seeds of the pairs, ablations, methods): circuits found in each condition, compared two
  by two.

Two random sets of n of N edges share n²/N edges on average: that is the floor reported beside it.

Letters: n pair, s sender, r receiver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.bootstrap import percentiles, resamples
from circuits.circuit import Circuit, check_n_edges

if TYPE_CHECKING:
    from circuits.scores import Scores

N_RESAMPLES = 50


@dataclass(frozen=True)
class Stability:
    """Jaccard overlaps, one per comparison, with the overlap that random sets of that size have."""

    n_edges: int
    jaccards: Tensor
    floor: float
    labels: tuple[str, ...] = ()

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"Stability({self.n_edges:,} edges: Jaccard {self.mean:.2f}, {low:.2f}–{high:.2f} in {len(self.jaccards)} "
            f"comparisons, random {self.floor:.3f})"
        )

    @property
    def mean(self) -> float:
        """Mean overlap, from 0 to 1."""
        return float(self.jaccards.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The central 95% of the overlaps."""
        low, high = percentiles(self.jaccards)
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "n_edges": self.n_edges,
            "mean": self.mean,
            "interval": list(self.interval),
            "floor": self.floor,
            "each": dict(zip(self.labels, self.jaccards.tolist(), strict=True)) if self.labels else None,
        }


def stability_over_examples(
    scores: Scores, n_edges: int, *, by: str = "strength", count: int = N_RESAMPLES, seed: int = 0
) -> Stability:
    """Overlap of the top edges of pairs of bootstrap resamples of the examples.

    `by` ranks edges as in `Scores.top`, "strength" or "abs".

    Raises:
        ValueError: the scores of each pair were not kept (`attribute(…, per_example=True)`), or `by` is neither.
    """
    if scores.per_example is None:
        raise ValueError("stability over examples needs attribute(…, per_example=True)")
    if by not in ("strength", "abs"):
        raise ValueError(f"by is {by!r}; it must be 'strength' or 'abs'")
    check_n_edges(scores.graph, n_edges)
    each = scores.per_example[:, scores.graph.valid]  # [n, edges]
    each = each.abs() if by == "strength" else each
    sets = []
    for rows in resamples(len(each), 2 * count, seed):
        weights = torch.bincount(rows, minlength=len(each)).to(each.dtype)
        chosen = torch.zeros(each.shape[1], dtype=torch.bool)
        chosen[(weights @ each).abs().topk(n_edges).indices] = True
        sets.append(chosen)
    overlaps = torch.tensor([jaccard(a, b) for a, b in zip(sets[::2], sets[1::2], strict=True)])
    return Stability(n_edges, overlaps, floor(scores.graph.n_edges, n_edges))


def stability_between(circuits: Mapping[str, Circuit] | Sequence[Circuit]) -> Stability:
    """Overlap of every two of these circuits.

    Raises:
        ValueError: fewer than two, or circuits of different graphs.
    """
    named = circuits if isinstance(circuits, Mapping) else {str(i): c for i, c in enumerate(circuits)}
    if len(named) < 2:
        raise ValueError(f"a comparison needs two circuits; got {len(named)}")
    if len({c.graph for c in named.values()}) > 1:
        raise ValueError("the circuits belong to models of different sizes")
    pairs = list(combinations(named.items(), 2))
    overlaps = torch.tensor([jaccard(a.mask, b.mask) for (_, a), (_, b) in pairs])
    sizes = [c.n_edges for c in named.values()]
    n_edges = round(sum(sizes) / len(sizes))
    total = next(iter(named.values())).graph.n_edges
    labels = tuple(f"{a} / {b}" for (a, _), (b, _) in pairs)
    return Stability(n_edges, overlaps, floor(total, n_edges), labels)


def jaccard(a: Tensor, b: Tensor) -> float:
    """Shared over in either, of two bool masks; 1 where both are empty."""
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def floor(n_total: int, n: int) -> float:
    """The Jaccard overlap of two random sets of n of N, at the mean number of shared ones."""
    shared = n * n / n_total
    return shared / (2 * n - shared) if n else 1.0
