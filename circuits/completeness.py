"""Does a circuit hold all of the model's parts for a task, and only those? (Wang et al. 2022, arXiv 2211.00593, §4)

Completeness: take the same nodes K away from the circuit C and from the whole model M. If C is complete, both
lose the same: |F(C \\ K) − F(M \\ K)| is small for every K. A circuit that lacks the backups of its own parts
is caught by this and not by faithfulness.

Minimality: a node v of C earns its place if there is a K ⊆ C such that taking v away from C \\ K matters:
|F(C \\ (K ∪ {v})) − F(C \\ K)| is large.

1. Draw the sets K: random halves of the circuit's heads and MLPs (and the empty set, which is faithfulness).
2. Evaluate all circuits C \\ K and M \\ K, or C \\ (K ∪ {v}), together: each is an edge set in which the edges
   out of the nodes taken away are missing.

Letters: n pair, k set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.bootstrap import mean_interval
from circuits.circuit import Circuit
from circuits.evaluate import Evaluation, evaluate_many

if TYPE_CHECKING:
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.model import Transformer

N_SETS = 10


@dataclass(frozen=True)
class Completeness:
    """For each set K of `knocked_out`: the circuit and the model without it."""

    knocked_out: tuple[tuple[str, ...], ...]
    circuit: tuple[Evaluation, ...]
    model: tuple[Evaluation, ...]

    def __repr__(self) -> str:
        return f"Completeness(mean gap {self.incompleteness:.1%} over {len(self.knocked_out)} sets)"

    @property
    def gaps(self) -> Tensor:
        """|F(C \\ K) − F(M \\ K)| per set, as a share of what the model gains over the ablated one."""
        gains = [e.metric_model - e.metric_corrupt for e in self.circuit]
        pairs = zip(self.circuit, self.model, gains, strict=True)
        return torch.tensor([abs(c.metric - m.metric) / abs(g) if g else float("nan") for c, m, g in pairs])

    @property
    def incompleteness(self) -> float:
        """The mean gap: 0 for a circuit that answers every knock-out as the model does."""
        return float(self.gaps.mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "incompleteness": self.incompleteness,
            "sets": [
                {"knocked_out": list(k), "circuit": c.metric, "model": m.metric, "gap": float(gap)}
                for k, c, m, gap in zip(self.knocked_out, self.circuit, self.model, self.gaps, strict=True)
            ],
        }


@dataclass(frozen=True)
class Minimality:
    """What each node of a circuit is worth.

    `drops` float [node]: the largest |F(C \\ (K ∪ {v})) − F(C \\ K)| over the sets K tried, as a share of what the
    model gains over the ablated one. `sets`: the place of that K. `intervals` [node, 2]: 95% over the pairs.
    """

    nodes: tuple[str, ...]
    drops: Tensor
    sets: tuple[int, ...]
    intervals: Tensor

    def idle(self, below: float = 0.01) -> list[str]:
        """The nodes whose removal changes less than this share."""
        return [node for node, drop in zip(self.nodes, self.drops.tolist(), strict=True) if drop < below]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        rows = zip(self.nodes, self.drops.tolist(), self.intervals.tolist(), strict=True)
        return {"nodes": [{"node": n, "drop": drop, "interval": ends} for n, drop, ends in rows]}


def completeness(
    model: Transformer,
    pairs: Pairs,
    circuit: Circuit,
    metric: str | Metric = "logit_diff",
    *,
    sets: Sequence[Sequence[str]] | None = None,
    n_sets: int = N_SETS,
    seed: int = 0,
    **options: Any,
) -> Completeness:
    """Knock the same nodes out of the circuit and out of the model.

    Args:
        sets: names of nodes to take away together, such as the heads of one role; None: `n_sets` random
            halves of the circuit's nodes, after the empty set.
        options: as in `evaluate_many`.

    Raises:
        ValueError: as `evaluate_many`; an unknown node; a circuit without nodes to take away.
    """
    chosen = _sets(circuit, sets, n_sets, seed)
    full = Circuit.full(circuit.graph)
    made = [c.without_nodes(names) for c in (circuit, full) for names in chosen]
    found = evaluate_many(model, pairs, made, metric, **options)
    return Completeness(chosen, tuple(found[: len(chosen)]), tuple(found[len(chosen) :]))


def minimality(
    model: Transformer,
    pairs: Pairs,
    circuit: Circuit,
    metric: str | Metric = "logit_diff",
    *,
    sets: Sequence[Sequence[str]] | None = None,
    n_sets: int = 0,
    seed: int = 0,
    **options: Any,
) -> Minimality:
    """What the circuit loses with each of its nodes; arguments as in `completeness`.

    With `n_sets=0` only the empty set is tried, which costs one evaluation per node.
    """
    nodes = inner_nodes(circuit)
    chosen = _sets(circuit, sets, n_sets, seed)
    made = [circuit.without_nodes(names) for names in chosen]
    made += [circuit.without_nodes({*names, node}) for names in chosen for node in nodes]
    found = evaluate_many(model, pairs, made, metric, **options)
    before = torch.stack([e.circuit for e in found[: len(chosen)]])  # [k, n]
    after = torch.stack([e.circuit for e in found[len(chosen) :]]).view(len(chosen), len(nodes), -1)
    gain = found[0].metric_model - found[0].metric_corrupt
    changes = (after - before[:, None]).double() / gain  # [k, node, n]
    inside = torch.tensor([[node in names for node in nodes] for names in chosen])
    sizes = changes.mean(-1).abs().masked_fill(inside, 0.0)
    drops, at = sizes.max(0)
    best = changes[at, torch.arange(len(nodes))]
    best = best * best.mean(-1, keepdim=True).sign()
    low, high = mean_interval(best, seed=seed)
    return Minimality(tuple(nodes), drops, tuple(at.tolist()), torch.stack([low, high], -1))


def inner_nodes(circuit: Circuit) -> list[str]:
    """The heads and MLPs that the circuit uses, in the graph's order.

    Raises:
        ValueError: there are none.
    """
    senders = zip(circuit.senders, circuit.mask.any(1).tolist(), strict=True)
    nodes = [name for name, used in senders if used and name != "embed"]
    if not nodes:
        raise ValueError("the circuit has no heads and no MLPs to take away")
    return nodes


def _sets(
    circuit: Circuit, sets: Sequence[Sequence[str]] | None, n_sets: int, seed: int
) -> tuple[tuple[str, ...], ...]:
    if sets is not None:
        return tuple(tuple(names) for names in sets)
    nodes = inner_nodes(circuit)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(n_sets, len(nodes), generator=generator) < 0.5
    return ((), *(tuple(n for n, out in zip(nodes, row, strict=True) if out) for row in draws.tolist()))
