"""The faithfulness of circuits of growing size, and the areas that sum it up (MIB, arXiv 2504.13151, §3.2).

1. The edges are ranked once; the circuit of size k has the k strongest.
2. All sizes are evaluated together (`evaluate_many`).
3. CPR is the area under faithfulness against the share of edges, CMD the area between it and 1, by the
   trapezoid rule over the shares given, as MIB computes them. A faithfulness above 1 adds to CPR, and one that
   swings about 1 can have a good CPR; so both are also given with the faithfulness clipped to 0…1.

Letters: n pair, k size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.bootstrap import interval
from circuits.circuit import Circuit, check_n_edges
from circuits.evaluate import Evaluation, evaluate_many

if TYPE_CHECKING:
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from circuits.scores import Scores
    from lens.model import Transformer

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The shares of edges at which MIB measures."""


@dataclass(frozen=True)
class Curve:
    """Evaluations of circuits of growing size. `n_edges_total` is the graph's, for shares of it."""

    evaluations: tuple[Evaluation, ...]
    n_edges_total: int

    def __repr__(self) -> str:
        points = ", ".join(f"{n:,}: {f:.0%}" for n, f in zip(self.n_edges, self.faithfulness, strict=True))
        return f"Curve(CPR {self.cpr:.3f}, CMD {self.cmd:.3f}; edges: faithfulness {points})"

    @property
    def n_edges(self) -> list[int]:
        """The sizes."""
        return [e.n_edges for e in self.evaluations]

    @property
    def shares(self) -> list[float]:
        """The sizes as shares of all edges."""
        return [n / self.n_edges_total for n in self.n_edges]

    @property
    def faithfulness(self) -> list[float]:
        """At each size."""
        return [e.faithfulness for e in self.evaluations]

    @property
    def cpr(self) -> float:
        """Circuit performance ratio: the area under the curve; higher is better."""
        return area(self.shares, self.faithfulness)

    @property
    def cmd(self) -> float:
        """Circuit–model distance: the area between the curve and 1; 0 is best."""
        return area(self.shares, [abs(1 - f) for f in self.faithfulness])

    @property
    def cpr_clipped(self) -> float:
        """`cpr` with the faithfulness clipped to 0…1."""
        return area(self.shares, [min(max(f, 0.0), 1.0) for f in self.faithfulness])

    @property
    def cmd_clipped(self) -> float:
        """`cmd` with the faithfulness clipped to 0…1."""
        return area(self.shares, [1 - min(max(f, 0.0), 1.0) for f in self.faithfulness])

    def intervals(self, seed: int = 0) -> list[tuple[float, float]]:
        """95% bootstrap intervals of the faithfulness at each size, over the pairs."""
        return [faithfulness_interval(e, seed) for e in self.evaluations]

    def cpr_interval(self, seed: int = 0) -> tuple[float, float]:
        """95% bootstrap interval of `cpr` over the pairs."""
        return self._area_interval(lambda f: f, seed)

    def cmd_interval(self, seed: int = 0) -> tuple[float, float]:
        """95% bootstrap interval of `cmd` over the pairs."""
        return self._area_interval(lambda f: (1 - f).abs(), seed)

    def _area_interval(self, height: Any, seed: int) -> tuple[float, float]:
        circuits = torch.stack([e.circuit for e in self.evaluations]).double()  # [k, n]
        clean, corrupt = (self.evaluations[0].clean.double(), self.evaluations[0].corrupt.double())

        def statistic(rows: Tensor) -> float:
            nothing = corrupt[rows].mean()
            faithful = (circuits[:, rows].mean(1) - nothing) / (clean[rows].mean() - nothing)
            return area(self.shares, height(faithful).tolist())

        return interval(circuits.shape[1], statistic, seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "n_edges": self.n_edges,
            "shares": self.shares,
            "metric": [e.metric for e in self.evaluations],
            "faithfulness": self.faithfulness,
            "intervals": [list(ends) for ends in self.intervals()],
            "metric_model": self.evaluations[0].metric_model,
            "metric_corrupt": self.evaluations[0].metric_corrupt,
            "cpr": self.cpr,
            "cmd": self.cmd,
            "cpr_clipped": self.cpr_clipped,
            "cmd_clipped": self.cmd_clipped,
        }


def faithfulness_curve(
    model: Transformer,
    pairs: Pairs,
    scores: Scores | Sequence[Circuit],
    sizes: Sequence[int] | None = None,
    metric: str | Metric = "logit_diff",
    *,
    by: str = "strength",
    **options: Any,
) -> Curve:
    """The curve of the top edges of `scores`, or of circuits already made.

    Args:
        scores: what ranks the edges; or circuits, in order of size.
        sizes: numbers of edges; None: `SHARES` of the graph's.
        by: how edges are ranked, as in `Scores.top`.
        options: as in `evaluate_many`: ablation, max_memory, checkpoint, progress, …

    Raises:
        ValueError: as `evaluate_many`; a size that the graph does not have.
    """
    if isinstance(scores, Sequence):
        circuits = sorted(scores, key=len)
        if not circuits:
            raise ValueError("a curve needs at least one circuit")
        graph = circuits[0].graph
    else:
        graph = scores.graph
        sizes = mib_sizes(graph.n_edges) if sizes is None else sorted(set(sizes))
        for n in sizes:
            check_n_edges(graph, n)
        circuits = [scores.top(n, by) for n in sizes]
    return Curve(tuple(evaluate_many(model, pairs, circuits, metric, **options)), graph.n_edges)


def random_curve(
    model: Transformer,
    pairs: Pairs,
    graph: Any,
    sizes: Sequence[int] | None = None,
    metric: str | Metric = "logit_diff",
    *,
    seed: int = 0,
    **options: Any,
) -> Curve:
    """The floor: the curve of edges in random order."""
    from circuits.scores import Scores

    order = torch.rand(graph.valid.shape, generator=torch.Generator().manual_seed(seed)) * graph.valid
    scores = Scores(graph=graph, values=order, method="random", metric="none")
    return faithfulness_curve(model, pairs, scores, sizes, metric, **options)


def mib_sizes(n_edges: int) -> list[int]:
    """`SHARES` as numbers of edges, rounded down as MIB does, without repeats and zero."""
    return sorted({int(share * n_edges) for share in SHARES} - {0})


def area(x: Sequence[float], y: Sequence[float]) -> float:
    """Trapezoid rule; NaN where a height is."""
    return math.fsum((b - a) * (f + g) / 2 for a, b, f, g in zip(x, x[1:], y, y[1:], strict=False))


def faithfulness_interval(evaluation: Evaluation, seed: int = 0) -> tuple[float, float]:
    """95% bootstrap interval of the faithfulness, over the pairs."""
    circuit, clean, corrupt = (x.double() for x in (evaluation.circuit, evaluation.clean, evaluation.corrupt))

    def statistic(rows: Tensor) -> float:
        nothing = corrupt[rows].mean()
        return float((circuit[rows].mean() - nothing) / (clean[rows].mean() - nothing))

    return interval(len(circuit), statistic, seed=seed)
