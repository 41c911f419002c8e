"""What the Circuit page tries out on a run: fewer edges, nodes taken away, roles. No Streamlit: this runs in jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuits.circuit import Circuit
from circuits.evaluate import evaluate, evaluate_many
from circuits.places import head_name, place
from circuits.roles import find_roles
from dashboard import pieces
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.graph import Graph
    from circuits.pairs import Pairs
    from circuits.store import Run
    from lens.model import Transformer


@dataclass(frozen=True)
class Kept:
    """What is left of the behaviour with `n_edges` edges. `faithfulness` is NaN where the model has no behaviour."""

    n_edges: int
    metric: float
    faithfulness: float


@dataclass(frozen=True)
class Without:
    """The mean metric of the model and of the circuit, whole and without some nodes, and with everything ablated."""

    nodes: tuple[str, ...]
    model: float
    model_without: float
    circuit: float
    circuit_without: float
    ablated: float

    def share(self, change: float) -> float:
        """A change of the metric as a share of the behaviour; negative where it is lost."""
        gap = self.model - self.ablated
        return change / gap if gap else float("nan")


def strongest(circuit: Circuit, n: int) -> Circuit:
    """The `n` strongest edges of a circuit, with all its scores."""
    if n >= circuit.n_edges:
        return circuit
    return Circuit(circuit.graph, Circuit.from_edges(circuit.graph, circuit.edges()[:n]).mask, circuit.scores)


def kept(model: Transformer, run: Run, n: int, progress: Progress = silent) -> Kept:
    """The `n` strongest edges of a run's circuit, evaluated on its pairs."""
    found = evaluate(
        model, run.pairs, strongest(run.circuit, n), metric_of(run), **_options(model, run, progress)
    )
    return Kept(n, found.metric, found.faithfulness)


def without(model: Transformer, run: Run, nodes: Sequence[str], progress: Progress = silent) -> Without:
    """Some nodes taken away from the model, and from the run's circuit: all that they send is ablated.

    Raises:
        ValueError: a node that sends nothing.
    """
    graph, circuit = run.circuit.graph, run.circuit
    names = [sender for node in nodes for sender in senders_of(graph, node)]
    full = Circuit.full(graph)
    made = [full, full.without_nodes(names), circuit, circuit.without_nodes(names)]
    found = evaluate_many(model, run.pairs, made, metric_of(run), **_options(model, run, progress))
    whole, cut, circuit_whole, circuit_cut = (e.metric for e in found)
    return Without(tuple(nodes), whole, cut, circuit_whole, circuit_cut, found[0].metric_corrupt)


def roles(model: Transformer, run: Run, progress: Progress = silent) -> dict[str, Any]:
    """What the heads do for the behaviour, as plain JSON types: see `circuits.Roles.to_dict`."""
    return find_roles(
        model, run.pairs, scores=run.scores, metric=metric_of(run), **_options(model, run, progress)
    ).to_dict()


def roles_on(model: Transformer, pairs: Pairs, metric: str, progress: Progress = silent) -> dict[str, Any]:
    """What the heads do for the behaviour of these pairs, as plain JSON types: see `circuits.Roles.to_dict`."""
    return find_roles(model, pairs, metric=metric, progress=progress).to_dict()


def roles_of(found: Mapping[str, Any], node: str) -> list[tuple[str, str]]:
    """The roles of a node, each with what it means."""
    return [(role["role"], role["description"]) for role in found["roles"] if node in role["heads"]]


def senders_of(graph: Graph, node: str) -> list[str]:
    """The senders that a node of the picture stands for: itself, or the heads that share a key/value head.

    Raises:
        ValueError: the logits, which send nothing.
    """
    at = place(node)
    if at.kind == "logits":
        raise ValueError("the logits send nothing that could be ablated")
    if at.kind != "kv":
        return [node]
    size, first = graph.n_heads // graph.n_kv_heads, at.head or 0
    return [head_name(at.layer or 0, h) for h in range(first * size, (first + 1) * size)]


def metric_of(run: Run) -> str:
    return str(run.info["metric"])


def _options(model: Transformer, run: Run, progress: Progress) -> dict[str, Any]:
    ablation = str(run.info.get("ablation", "counterfactual"))
    return {"ablation": ablation, "max_memory": pieces.held(model, pieces.RUNS), "progress": progress}
