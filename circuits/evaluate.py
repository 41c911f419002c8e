"""How well a circuit does the model's job: everything outside it is ablated (`circuit_run`).

Letters: n pair.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import memory, senders
from circuits.ablation import get_ablation
from circuits.circuit import Circuit
from circuits.circuit_run import BLOCK, CircuitRun
from circuits.differences import Room
from circuits.graph import Graph
from circuits.metrics import bind, metric_name
from circuits.reference import Reference, constant_sites
from circuits.spans import Span, span_masks
from circuits.sweep import Batch, Parts, checkpoint_at, sweep
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.ablation import Ablation
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.model import Transformer

ENOUGH = 200
"""Positions that keep a processor busy: on the CPU a taller stack of circuits only leaves its caches."""


@dataclass(frozen=True)
class Evaluation:
    """The metric of a circuit beside those of the whole model and of no model: with everything ablated.

    All three are float [n], one per pair, in units of the metric. With the counterfactual ablation nothing is
    left of the clean prompt in the empty circuit: `corrupt` is the model's metric on the corrupt prompts.
    """

    metric_name: str
    n_edges: int
    circuit: Float[Tensor, " n"]
    clean: Float[Tensor, " n"]
    corrupt: Float[Tensor, " n"]

    def __repr__(self) -> str:
        return (
            f"Evaluation({self.n_edges:,} edges: {self.metric_name} {self.metric:.2f}, between "
            f"{self.metric_corrupt:.2f} ablated and {self.metric_model:.2f} whole, "
            f"faithfulness {self.faithfulness:.1%})"
        )

    @property
    def metric(self) -> float:
        """Mean metric of the circuit."""
        return float(self.circuit.mean())

    @property
    def metric_model(self) -> float:
        """Mean metric of the whole model on the clean prompts."""
        return float(self.clean.mean())

    @property
    def metric_corrupt(self) -> float:
        """Mean metric of a circuit without edges; on the corrupt prompts, where these are the ablation."""
        return float(self.corrupt.mean())

    @property
    def faithfulness(self) -> float:
        """(m(circuit) − m(corrupt)) / (m(model) − m(corrupt)): 1 does the whole job, 0 none of it.

        NaN where the model itself does not tell clean from corrupt.
        """
        gap = self.metric_model - self.metric_corrupt
        return (self.metric - self.metric_corrupt) / gap if gap else float("nan")

    def to_dict(self) -> dict[str, float | int | str]:
        """The means, for JSON."""
        return {
            "metric_name": self.metric_name,
            "n_edges": self.n_edges,
            "metric": self.metric,
            "metric_model": self.metric_model,
            "metric_corrupt": self.metric_corrupt,
            "faithfulness": self.faithfulness,
        }


def evaluate(
    model: Transformer, pairs: Pairs, circuit: Circuit, metric: str | Metric = "logit_diff", **options: Any
) -> Evaluation:
    """One circuit's `Evaluation`; options as in `evaluate_many`."""
    return evaluate_many(model, pairs, [circuit], metric, **options)[0]


@torch.no_grad()
def evaluate_many(
    model: Transformer,
    pairs: Pairs,
    circuits: Sequence[Circuit],
    metric: str | Metric = "logit_diff",
    *,
    ablation: str | Ablation = "counterfactual",
    share_prefix: bool = True,
    max_memory: int | str = memory.DEFAULT,
    checkpoint: str | Path | None = None,
    progress: Progress = silent,
) -> list[Evaluation]:
    """Evaluations of several circuits, which share the runs of the whole model and are stacked in batches.

    Args:
        ablation: what everything outside a circuit is replaced by, one of `circuits.ablation.ablations()`.
        share_prefix: run the tokens that all prompts share only once (the results are the same).
        max_memory: how much memory to use beyond the weights, such as "700MB"; decides how many pairs and
            circuits are treated together. The results do not depend on it.
        checkpoint: a folder that keeps finished parts, so that a killed evaluation can be begun again; it is
            deleted at the end.

    Raises:
        ValueError: a circuit of another graph, a model whose stream is post-norm, pairs that do not fit, an
            unknown ablation, a checkpoint of other work.
    """
    senders.check_linear(model.cfg)
    pairs.check(model.cfg)
    graph, chosen, ablation = Graph.of(model.cfg), bind(metric, model, pairs), get_ablation(ablation)
    _check_graphs(model, graph, circuits)
    if not circuits:
        return []
    masks = torch.stack([c.mask for c in circuits])
    about = {"what": "evaluate", "circuits": hashlib.sha256(masks.numpy().tobytes()).hexdigest()[:16]}
    kept = checkpoint_at(checkpoint, model, pairs, metric, ablation, about)
    source = ablation.source(model, pairs, constant_sites(model))
    width = source.width(share_prefix)
    rows = memory.rows_within(max_memory, evaluation_row(model, graph, width))
    together = max(1, rows // min(len(pairs), rows))
    if model.device.type == "cpu":
        together = min(together, math.ceil(ENOUGH / (min(len(pairs), rows) * width)))

    def work(batch: Batch) -> Parts:
        part = source[batch.rows]
        reference = Reference.of(part, part.suffix(model, share_prefix), graph, chosen)
        found, room = [], Room()
        for first in range(0, len(circuits), together):
            run = lambda first=first: CircuitRun(reference, masks[first : first + together], room=room)  # noqa: E731
            made = lambda run=run: {"metric": run().metric(chosen).mT}  # noqa: E731
            found.append(batch.part(f"circuits {first}-{together}", first, len(circuits), made)["metric"])
        return {"circuits": torch.cat([x.cpu() for x in found], 1), "whole": reference.metrics.mT.cpu()}

    parts = sweep(len(pairs), rows, work, label="evaluate", checkpoint=kept, progress=progress)
    if kept is not None:
        kept.remove()
    clean, corrupt = parts["whole"].unbind(1)
    return [
        Evaluation(metric_name(metric), circuit.n_edges, values, clean, corrupt)
        for circuit, values in zip(circuits, parts["circuits"].unbind(1), strict=True)
    ]


@torch.no_grad()
def evaluate_at(
    model: Transformer,
    pairs: Pairs,
    circuits: Mapping[Span, Circuit],
    metric: str | Metric = "logit_diff",
    *,
    ablation: str | Ablation = "counterfactual",
    share_prefix: bool = True,
    max_memory: int | str = memory.DEFAULT,
    progress: Progress = silent,
) -> Evaluation:
    """A circuit whose edges are there at some positions only: {span: edges at that span} (`circuits.spans`).

    An edge in a span passes what its sender writes at the positions of that span; everything else, and every
    position in no span, is ablated. `n_edges` counts an edge once per span.

    Raises:
        ValueError: as `evaluate_many`; an unknown span, or spans that overlap.
    """
    senders.check_linear(model.cfg)
    graph, chosen, ablation = Graph.of(model.cfg), bind(metric, model, pairs), get_ablation(ablation)
    _check_graphs(model, graph, list(circuits.values()))
    spans = span_masks(pairs, list(circuits))
    if (spans.sum(0) > 1).any():
        raise ValueError("the spans overlap, so that an edge would count twice")
    masks = torch.stack([c.mask for c in circuits.values()])[None]
    source = ablation.source(model, pairs, constant_sites(model))
    row = len(spans) * evaluation_row(model, graph, source.width(share_prefix))

    def work(batch: Batch) -> Parts:
        part = source[batch.rows]
        suffix = part.suffix(model, share_prefix)
        reference = Reference.of(part, suffix, graph, chosen)
        here = spans[:, batch.rows, suffix.start : suffix.start + suffix.width].to(model.device)
        values = batch.part(
            "spans", 0, 1, lambda: {"m": CircuitRun(reference, masks, spans=here).metric(chosen)[0]}
        )
        return {"circuit": values["m"].cpu(), "whole": reference.metrics.mT.cpu()}

    rows = memory.rows_within(max_memory, row)
    parts = sweep(len(pairs), rows, work, label="evaluate", progress=progress)
    clean, corrupt = parts["whole"].unbind(1)
    n_edges = sum(circuit.n_edges for circuit in circuits.values())
    return Evaluation(metric_name(metric), n_edges, parts["circuit"], clean, corrupt)


def evaluation_row(model: Transformer, graph: Graph, width: int) -> int:
    """Bytes of one pair in one circuit."""
    summed = len(range(graph.n_receivers)[graph.layer_receivers(0, BLOCK)])  # receivers whose sums are held
    return memory.difference_row(model.cfg, graph.n_senders + summed, width) + 4 * memory.block_row(
        model.cfg, width
    )


def _check_graphs(model: Transformer, graph: Graph, circuits: Sequence[Any]) -> None:
    for circuit in circuits:
        if not isinstance(circuit, Circuit):
            raise ValueError(
                f"a Circuit is evaluated, such as scores.top(1000); this is {type(circuit).__name__}"
            )
        if circuit.graph != graph:
            raise ValueError(
                f"this circuit belongs to a graph of other sizes ({circuit.graph}), not to {model.name}"
            )
