"""Two circuits of one model side by side: what they share, what only one has, and how alike they are.

    comparison = circuits.compare(found, known)
    comparison.jaccard, comparison.only_a.edges(), comparison.to_svg("diff.svg")

Shapes: e edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.circuit import Circuit
from circuits.correlation import spearman

if TYPE_CHECKING:
    from circuits.roles import Roles


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two circuits of one graph.

    Raises:
        ValueError: they belong to different graphs.
    """

    a: Circuit
    b: Circuit

    def __post_init__(self) -> None:
        if self.a.graph != self.b.graph:
            raise ValueError(f"the circuits belong to different graphs: {self.a.graph} and {self.b.graph}")

    @cached_property
    def shared(self) -> Circuit:
        """The edges of both, with the first circuit's scores."""
        return self.a & self.b

    @cached_property
    def only_a(self) -> Circuit:
        """The edges of the first alone."""
        return self.a - self.b

    @cached_property
    def only_b(self) -> Circuit:
        """The edges of the second alone, with its scores."""
        return self.b - self.a

    @property
    def shared_nodes(self) -> list[str]:
        """Nodes that edges of both touch."""
        others = set(self.b.nodes())
        return [name for name in self.a.nodes() if name in others]

    @property
    def only_a_nodes(self) -> list[str]:
        """Nodes that only edges of the first touch."""
        others = set(self.b.nodes())
        return [name for name in self.a.nodes() if name not in others]

    @property
    def only_b_nodes(self) -> list[str]:
        """Nodes that only edges of the second touch."""
        others = set(self.a.nodes())
        return [name for name in self.b.nodes() if name not in others]

    @property
    def jaccard(self) -> float:
        """Shared edges as a share of the edges of either, from 0 to 1; 1 for two empty circuits."""
        return _share(self.shared.n_edges, int((self.a.mask | self.b.mask).sum()))

    @property
    def node_jaccard(self) -> float:
        """The same of nodes."""
        shared = len(self.shared_nodes)
        return _share(shared, shared + len(self.only_a_nodes) + len(self.only_b_nodes))

    @property
    def weighted_jaccard(self) -> float:
        """Σ min(a, b) / Σ max(a, b), where a and b are each edge's share of its circuit's whole |score|.

        Shares, so that circuits scored in different units can be compared. NaN where a circuit that has edges
        has no scores.
        """
        if not self.a.n_edges or not self.b.n_edges:
            return 1.0 if self.a.n_edges == self.b.n_edges else 0.0
        a, b = _shares(self.a), _shares(self.b)
        return float(torch.minimum(a, b).sum() / torch.maximum(a, b).sum())

    @property
    def rank_correlation(self) -> float:
        """Spearman's correlation of the signed scores, over the edges that both circuits score.

        A score of exactly zero counts as not scored. NaN with fewer than two such edges, or all alike.
        """
        both = self.a.graph.valid & (self.a.scores != 0) & (self.b.scores.to(self.a.scores.device) != 0)
        return float(spearman(self.a.scores[both][None], self.b.scores[both][None]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; a number that does not exist is None."""
        numbers = {
            "jaccard": self.jaccard,
            "node_jaccard": self.node_jaccard,
            "weighted_jaccard": self.weighted_jaccard,
            "rank_correlation": self.rank_correlation,
        }
        sets = {"shared": self.shared, "only_a": self.only_a, "only_b": self.only_b}
        return {
            "graph": self.a.graph.to_dict(),
            "n_edges": {"a": self.a.n_edges, "b": self.b.n_edges}
            | {name: circuit.n_edges for name, circuit in sets.items()},
            **{name: None if math.isnan(value) else value for name, value in numbers.items()},
            "edges": {name: [list(edge) for edge in circuit.edges()] for name, circuit in sets.items()},
            "nodes": {"shared": self.shared_nodes, "only_a": self.only_a_nodes, "only_b": self.only_b_nodes},
        }

    def to_svg(
        self,
        path: str | Path | None = None,
        *,
        names: tuple[str, str] = ("first", "second"),
        roles: Mapping[str, str] | Roles | None = None,
        max_edges: int = 400,
        title: str = "",
    ) -> str:
        """A picture of both: shared edges grey, those of the first alone blue, of the second orange and dashed.

        Returns:
            SVG text, also written to `path` where one is given.
        """
        from circuits.drawing import picture, svg

        return svg.written(svg.draw(picture.of_comparison(self, names, roles, max_edges, title)), path)

    def to_html(
        self,
        path: str | Path | None = None,
        *,
        names: tuple[str, str] = ("first", "second"),
        roles: Mapping[str, str] | Roles | None = None,
        max_edges: int = 1000,
        title: str = "",
    ) -> str:
        """The picture of both as a page in one file; see `to_svg`."""
        from circuits.drawing import page, picture, svg

        return svg.written(page.draw(picture.of_comparison(self, names, roles, max_edges, title)), path)

    def __repr__(self) -> str:
        counts = f"{self.shared.n_edges:,} shared, {self.only_a.n_edges:,} and {self.only_b.n_edges:,} alone"
        return f"Comparison({counts}; Jaccard {self.jaccard:.2f})"

    def _repr_html_(self) -> str:
        return self.to_svg()


def compare(a: Circuit, b: Circuit) -> Comparison:
    """Two circuits of one model side by side.

    Raises:
        ValueError: they belong to different graphs.
    """
    return Comparison(a, b)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _shares(circuit: Circuit) -> Tensor:
    weights = circuit.scores.abs().double() * circuit.mask
    return weights / weights.sum()
