"""Screen by an estimate, verify exactly: the strongest edges of an attribution are measured one by one.

1. The K edges of the largest estimates are chosen; the others are left to the estimate.
2. Each is patched by itself (`exact_edges`), on every pair.
3. Both numbers are reported with intervals: the pairs are drawn again with replacement many times, the same
   draws for all edges, and the middle part of the means is the interval (percentile bootstrap, Efron 1979).
4. The scores are put together again: the exact value where there is one, else the estimate; both are changes of
   the metric, so one ranking holds for all edges.

An estimate without a score for each pair has no interval; `attribute(…, per_example=True)` keeps them.

Letters: n pair, k edge, s sender, r receiver.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import memory
from circuits.bootstrap import N_RESAMPLES, mean_interval
from circuits.circuit import Circuit, check_n_edges
from circuits.exact_edges import EdgeEffects, patch_edges
from circuits.graph import Graph
from circuits.scores import Scores
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.ablation import Ablation
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.model import Transformer


@dataclass(frozen=True)
class VerifiedEdge:
    """One row of the table. Ranks count from 1, among the measured edges; intervals are (low, high).

    `sure`: the interval of the exact effect leaves out zero. `flipped`: estimate and exact effect differ in sign.
    """

    sender: str
    receiver: str
    estimate: float
    estimate_interval: tuple[float, float] | None
    exact: float
    exact_interval: tuple[float, float]
    estimate_rank: int
    exact_rank: int

    @property
    def sure(self) -> bool:
        return self.exact_interval[0] > 0 or self.exact_interval[1] < 0

    @property
    def flipped(self) -> bool:
        return self.estimate * self.exact < 0


@dataclass(frozen=True, eq=False)
class Verified:
    """An attribution whose strongest edges were measured.

    `table`: the measured edges, strongest exact effect first. `scores`: exact values where there are any, else
    the estimate. `level`: what part of the draws the intervals hold.
    """

    estimate: Scores
    effects: EdgeEffects
    table: tuple[VerifiedEdge, ...]
    scores: Scores
    level: float

    def __repr__(self) -> str:
        return (
            f"Verified({len(self.table)} edges measured: {self.sign_agreement:.0%} have the sign that "
            f"{self.estimate.method} gave, Pearson {self.pearson:.2f})"
        )

    def circuit(self, n: int) -> Circuit:
        """The `n` strongest edges by the best number there is: exact where measured, else the estimate.

        Raises:
            ValueError: the graph does not have that many edges.
        """
        return self.scores.top(n)

    @property
    def sign_agreement(self) -> float:
        """The part of the measured edges whose estimate has the sign of the exact effect."""
        same = self.effects.effect.sign() == self._estimates.sign()
        return float(same.double().mean())

    @property
    def pearson(self) -> float:
        """Correlation of estimate and exact effect over the measured edges; NaN where one does not vary."""
        both = torch.stack([self._estimates.double(), self.effects.effect.double()])
        return float(both.corrcoef()[0, 1]) if both.shape[1] > 1 else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the table, and how far the estimate agrees with it."""
        return {
            "edges": [asdict(row) | {"sure": row.sure, "flipped": row.flipped} for row in self.table],
            "sign_agreement": self.sign_agreement,
            "pearson": None if math.isnan(self.pearson) else self.pearson,
            "level": self.level,
        }

    @property
    def _estimates(self) -> Float[Tensor, " k"]:
        return self.estimate.values[tuple(self.effects.places.T)]


def verify(
    model: Transformer,
    pairs: Pairs,
    scores: Scores,
    k: int = 100,
    metric: str | Metric = "logit_diff",
    *,
    ablation: str | Ablation = "counterfactual",
    level: float = 0.95,
    draws: int = N_RESAMPLES,
    seed: int = 0,
    share_prefix: bool = True,
    max_memory: int | str = memory.DEFAULT,
    checkpoint: str | Path | None = None,
    progress: Progress = silent,
) -> Verified:
    """Measure the `k` strongest edges of `scores` exactly, on these pairs.

    Args:
        scores: an estimate of the same metric under the same ablation.
        level: what part of the draws an interval holds.
        draws, seed: of the bootstrap over pairs.

    Raises:
        ValueError: scores of another graph, more edges than there are, a level outside (0, 1), pairs that the
            estimate's scores per pair are not of; as `patch_edges`.
    """
    graph = Graph.of(model.cfg)
    if scores.graph != graph:
        raise ValueError(f"the scores belong to a graph of other sizes: {scores.graph}, not {graph}")
    check_n_edges(graph, k)
    if k < 1:
        raise ValueError(f"k is {k}; at least one edge must be measured")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1")
    if draws < 1:
        raise ValueError(f"draws is {draws}; it must be at least 1")
    known = scores.per_example
    if known is not None and len(known) != len(pairs):
        raise ValueError(f"the estimate has scores of {len(known)} pairs; {len(pairs)} pairs were given")
    effects = patch_edges(
        model, pairs, scores.top(k), metric, ablation=ablation, share_prefix=share_prefix,
        max_memory=max_memory, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    at = tuple(effects.places.T)
    both = [effects.per_example, None if known is None else known.cpu()[:, *at]]
    exact_ends, estimate_ends = (
        None if x is None else torch.stack(mean_interval(x.mT, level=level, count=draws, seed=seed), -1)
        for x in both
    )
    assert exact_ends is not None
    return Verified(
        scores, effects, _table(scores, effects, exact_ends, estimate_ends), _joined(scores, effects), level
    )


def _table(
    scores: Scores, effects: EdgeEffects, exact: Tensor, estimated: Tensor | None
) -> tuple[VerifiedEdge, ...]:
    at = tuple(effects.places.T)
    estimate = scores.values[at]
    strength = (estimate.abs() if scores.strength is None else scores.strength[at]).cpu()
    size = effects.per_example.abs().mean(0)
    ranks = [torch.argsort(torch.argsort(-x, stable=True)) + 1 for x in (strength, size)]
    rows = [
        VerifiedEdge(
            sender=scores.senders[s],
            receiver=scores.receivers[r],
            estimate=float(estimate[i]),
            estimate_interval=None if estimated is None else (float(estimated[i, 0]), float(estimated[i, 1])),
            exact=float(effects.effect[i]),
            exact_interval=(float(exact[i, 0]), float(exact[i, 1])),
            estimate_rank=int(ranks[0][i]),
            exact_rank=int(ranks[1][i]),
        )
        for i, (s, r) in enumerate(effects.places.tolist())
    ]
    return tuple(sorted(rows, key=lambda row: row.exact_rank))


def _joined(scores: Scores, effects: EdgeEffects) -> Scores:
    """The estimate, with exact values where they were measured."""
    at = tuple(effects.places.T)
    values, strength = scores.values.clone(), scores.values.abs()
    strength = strength if scores.strength is None else scores.strength.clone()
    values[at] = effects.effect.to(values)
    strength[at] = effects.per_example.abs().mean(0).to(strength)
    each = None if scores.per_example is None else scores.per_example.clone()
    if each is not None:
        each[:, *at] = effects.per_example.to(each)
    method = f"{scores.method}, verified"
    return replace(scores, values=values, strength=strength, method=method, per_example=each)
