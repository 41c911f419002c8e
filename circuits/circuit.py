"""A circuit: a set of edges of a model's graph, with the scores that chose them.

A score estimates the change of the metric when that edge is given its corrupt value; a negative score means
that the edge supports the behaviour.

Shapes: s sender, r receiver.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.graph import Graph, Node

if TYPE_CHECKING:
    import networkx

FORMAT = "circuits.circuit"
VERSION = 1
FILE = "circuit.json"
GRAPHML = "circuit.graphml"


@dataclass(frozen=True, eq=False)
class Circuit:
    """An edge set: `mask` BoolTensor [s, r] and `scores` float [s, r] (zero where nothing was scored)."""

    graph: Graph
    mask: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        shape = (self.graph.n_senders, self.graph.n_receivers)
        for name, tensor in (("mask", self.mask), ("scores", self.scores)):
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}; this graph needs {shape}")
        if self.mask.dtype != torch.bool:
            raise ValueError(f"mask has dtype {self.mask.dtype}; it must be torch.bool")
        if (self.mask & ~self.graph.valid).any():
            s, r = (int(i) for i in (self.mask & ~self.graph.valid).nonzero()[0])
            self.graph.edge(self.graph.senders[s], self.graph.receivers[r])  # raises, naming the edge

    @classmethod
    def from_edges(cls, graph: Graph, edges: list[tuple[str, str]] | list[tuple[str, str, float]]) -> Circuit:
        """A circuit from names: (sender, receiver) or (sender, receiver, score).

        Raises:
            ValueError: a name is unknown, or there is no such edge.
        """
        mask = torch.zeros_like(graph.valid)
        scores = torch.zeros(graph.valid.shape)
        for sender, receiver, *score in edges:
            s, r = graph.edge(sender, receiver)
            mask[s, r] = True
            scores[s, r] = score[0] if score else 0.0
        return cls(graph, mask, scores)

    @classmethod
    def full(cls, graph: Graph) -> Circuit:
        """Every edge of the model."""
        return cls(graph, graph.valid.clone(), torch.zeros(graph.valid.shape))

    @classmethod
    def empty(cls, graph: Graph) -> Circuit:
        """No edge at all."""
        return cls(graph, torch.zeros_like(graph.valid), torch.zeros(graph.valid.shape))

    @classmethod
    def random(cls, graph: Graph, n_edges: int, seed: int = 0) -> Circuit:
        """`n_edges` different edges, each edge of the graph equally likely; the floor for any method.

        Raises:
            ValueError: the graph does not have that many edges.
        """
        check_n_edges(graph, n_edges)
        places = graph.valid.flatten().nonzero().flatten()
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
        mask = torch.zeros(graph.valid.numel(), dtype=torch.bool)
        mask[places[order[:n_edges]]] = True
        return cls(graph, mask.view_as(graph.valid), torch.zeros(graph.valid.shape))

    @property
    def senders(self) -> tuple[str, ...]:
        return self.graph.senders

    @property
    def receivers(self) -> tuple[str, ...]:
        return self.graph.receivers

    @property
    def n_edges(self) -> int:
        return int(self.mask.sum())

    def __len__(self) -> int:
        return self.n_edges

    def __contains__(self, edge: tuple[str, str]) -> bool:
        return bool(self.mask[self.graph.edge(*edge)])

    def __iter__(self) -> Iterator[tuple[str, str, float]]:
        return iter(self.edges())

    def edges(self) -> list[tuple[str, str, float]]:
        """(sender, receiver, score), largest |score| first; equal scores in the order of the graph."""
        places = self.mask.nonzero()
        values = self.scores[self.mask]
        order = torch.argsort(values.abs(), descending=True, stable=True)
        senders, receivers = self.graph.senders, self.graph.receivers
        return [
            (senders[s], receivers[r], score)
            for (s, r), score in zip(places[order].tolist(), values[order].tolist(), strict=True)
        ]

    def nodes(self) -> list[str]:
        """The embedding, heads, MLPs and logits that an edge of the circuit touches, in the graph's order."""
        graph = self.graph
        touched = self.mask.any(1) | graph.feeds[self.mask.any(0)].any(0)
        names = [name for name, on in zip(graph.senders, touched.tolist(), strict=True) if on]
        return names + (["logits"] if self.mask[:, -1].any() else [])

    def pruned(self) -> Circuit:
        """Without the edges that lie on no path from `embed` to `logits`.

        What an evaluation computes does not change: a sender that nothing clean reaches keeps its corrupt
        value whether or not its edges are in the circuit, and a receiver from which no path leads to the
        logits is not seen.
        """
        feeds = self.graph.feeds
        reached = torch.zeros(self.graph.n_senders, dtype=torch.bool)
        reached[0] = True
        for s in range(1, self.graph.n_senders):
            reached[s] = self.mask[reached][:, feeds[:, s]].any()
        seen = torch.zeros(self.graph.n_receivers, dtype=torch.bool)
        seen[-1] = True
        for s in reversed(range(1, self.graph.n_senders)):
            if self.mask[s, seen].any():
                seen |= feeds[:, s]
        return Circuit(self.graph, self.mask & reached[:, None] & seen[None, :], self.scores)

    def to_networkx(self, ports: bool = True) -> networkx.DiGraph:
        """The circuit as a directed graph whose edges carry the signed score as `weight`.

        Nodes have `kind` (embed, head, mlp, logits; q, k, v for inputs of heads) and, where it applies,
        `layer` and `head`. With `ports` every edge of the circuit is one edge of the graph, and an input such
        as `a9.h2<q>` is a node with an edge of kind "input", without a weight, to each head that uses it, so
        that paths in the graph are paths in the model. Without, heads are joined directly: the weight is the
        sum over q, k and v, whose own scores stand in the attributes `q`, `k`, `v`; under grouped queries an
        edge into a key-value head leads to each head of its group.
        """
        import networkx

        drawn = networkx.DiGraph()
        senders = {node.name: node for node in self.graph.sender_nodes}
        receivers = {node.name: node for node in self.graph.receiver_nodes}
        for name in self.nodes():
            _add_node(drawn, senders.get(name) or receivers[name])
        for sender, receiver, score in self.edges():
            node = receivers[receiver]
            owners = self._owners(receiver)
            if ports or not owners:
                if node.kind in ("q", "k", "v"):
                    _add_node(drawn, node)
                    drawn.add_edges_from(((receiver, owner) for owner in owners), kind="input")
                drawn.add_edge(sender, receiver, kind="edge", weight=score)
                continue
            for owner in owners:
                before = drawn.edges[sender, owner]["weight"] if drawn.has_edge(sender, owner) else 0.0
                drawn.add_edge(sender, owner, kind="edge", weight=before + score, **{node.kind: score})
        return drawn

    def _owners(self, receiver: str) -> list[str]:
        """The heads that use this q, k or v input; none for an MLP and for the logits."""
        r = self.graph.receiver_index[receiver]
        if self.graph.receiver_nodes[r].head is None:
            return []
        return [self.graph.senders[s] for s in self.graph.feeds[r].nonzero().flatten().tolist()]

    # ---- files

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the sizes of the graph and the edges, strongest first."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "graph": self.graph.to_dict(),
            "n_edges": self.n_edges,
            "edges": [list(edge) for edge in self.edges()],
        }

    @classmethod
    def from_dict(cls, values: Any) -> Circuit:
        """The inverse of `to_dict`; scores outside the edge set come back as zero.

        Raises:
            ValueError: not a circuit, or of a version that this program does not know.
        """
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f'not a circuit: "format" is not "{FORMAT}"')
        if values.get("version") != VERSION:
            raise ValueError(f"a circuit of version {values.get('version')!r}; this program reads {VERSION}")
        try:
            graph = Graph.from_dict(values["graph"])
            edges = [(str(s), str(r), float(score)) for s, r, score in values["edges"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a circuit: {type(error).__name__} {error}") from error
        return cls.from_edges(graph, edges)

    def save(self, directory: str | Path) -> Path:
        """Write `circuit.json` and `circuit.graphml` into a folder (made if needed); returns the folder.

        Raises:
            OSError: the folder cannot be written.
        """
        import networkx

        from lens import atomic

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(directory / FILE, json.dumps(self.to_dict(), allow_nan=False).encode())
        graphml = "\n".join(networkx.generate_graphml(self.to_networkx())) + "\n"
        atomic.write_bytes(directory / GRAPHML, graphml.encode())
        return directory

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read a circuit from its folder, or from the JSON file itself.

        Raises:
            ValueError: the file is missing or is not a circuit; the message names it.
        """
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        try:
            return cls.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise ValueError(f"no circuit at {path}: {error.strerror}") from error
        except ValueError as error:  # JSON and Unicode errors are ValueErrors
            raise ValueError(f"{file} is not a circuit that this program can read: {error}") from error


def check_n_edges(graph: Graph, n_edges: int) -> None:
    """Raises ValueError unless 0 ≤ n_edges ≤ the graph's."""
    if not 0 <= n_edges <= graph.n_edges:
        raise ValueError(f"{n_edges} edges were asked for; this model's graph has {graph.n_edges}")


def _add_node(drawn: networkx.DiGraph, node: Node) -> None:
    attributes = {"kind": node.kind, "layer": node.layer, "head": node.head}
    drawn.add_node(node.name, **{k: v for k, v in attributes.items() if v is not None})
