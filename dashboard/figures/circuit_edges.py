"""A run's circuit, or two of them, to what `components/circuit_graph` draws.

Edges go to the browser as short rows: a thousand of them are some 40 KB instead of 200.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from circuits.circuit import Circuit
from circuits.compare import Comparison
from circuits.layout import (
    ColumnPayload,
    Edge,
    EdgePayload,
    GraphPayload,
    NodePayload,
    RowPayload,
    graph_payload,
)

SHARED, FIRST, SECOND = "both", "first", "second"
CLEAR, WIDE = 0.6, 1.4
"""The least opacity and width of an edge that only one circuit has: weak edges are where two circuits differ."""

EdgeRow = tuple[int, int, str, float, float, float]
"""Sender and receiver by their place among the nodes, port, score, width, opacity."""


class DrawnPayload(TypedDict):
    """A circuit's picture.

    `kinds`: what each kind of edge means where two circuits are drawn, else none; `kind`: the kind of each edge, in
    the order of the edges. `groups` joins key-value heads to their heads. `pins`, `members`: nodes to be marked.
    """

    title: str
    height: int
    spacing: float
    rows: list[RowPayload]
    columns: list[ColumnPayload]
    nodes: list[NodePayload]
    groups: list[tuple[str, str]]
    edges: list[EdgeRow]
    kinds: dict[str, str]
    kind: list[str]
    pins: list[str]
    members: list[str]


def one(
    circuit: Circuit,
    edges: Sequence[Edge],
    *,
    title: str,
    pins: Sequence[str] = (),
    members: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
) -> DrawnPayload:
    """The picture of some edges of one circuit."""
    payload = graph_payload(circuit.graph, edges, title=title, also=[*pins, *members])
    for node in payload["nodes"]:
        if roles and node["id"] in roles:
            node["about"] += f"\n{roles[node['id']]}"
    return _drawn(payload, {}, [], pins, members)


def two(
    compared: Comparison,
    names: tuple[str, str],
    *,
    title: str,
    pins: Sequence[str] = (),
    members: Sequence[str] = (),
) -> DrawnPayload:
    """The picture of two circuits: what they share, and what only one has."""
    sets = {SHARED: compared.shared, FIRST: compared.only_a, SECOND: compared.only_b}
    kinds = {SHARED: "in both", FIRST: f"only in {names[0]}", SECOND: f"only in {names[1]}"}
    of = {(s, r): kind for kind, circuit in sets.items() for s, r, _ in circuit.edges()}
    edges = [edge for circuit in sets.values() for edge in circuit.edges()]
    payload = graph_payload(compared.a.graph, edges, title=title, also=[*pins, *members])
    kind = [of[edge["source"], receiver(edge)] for edge in payload["edges"]]
    for edge, one_kind in zip(payload["edges"], kind, strict=True):
        if one_kind != SHARED:
            edge["opacity"], edge["width"] = max(edge["opacity"], CLEAR), max(edge["width"], WIDE)
    return _drawn(payload, kinds, kind, pins, members)


def receiver(edge: EdgePayload) -> str:
    """The name of the input at which an edge ends."""
    return f"{edge['target']}<{edge['port']}>" if edge["port"] else edge["target"]


def _drawn(
    payload: GraphPayload, kinds: dict[str, str], kind: list[str], pins: Sequence[str], members: Sequence[str]
) -> DrawnPayload:
    place = {node["id"]: i for i, node in enumerate(payload["nodes"])}
    rows: list[EdgeRow] = [
        (
            place[e["source"]], place[e["target"]], e["port"],
            float(f"{e['score']:.4g}"), round(e["width"], 2), round(e["opacity"], 2),
        )
        for e in payload["edges"]
    ]  # fmt: skip
    nodes: list[NodePayload] = [
        {**node, "x": round(node["x"], 4), "y": round(node["y"], 1), "r": round(node["r"], 2)}
        for node in payload["nodes"]
    ]
    return {
        "title": payload["title"],
        "height": payload["height"],
        "spacing": payload["spacing"],
        "rows": payload["rows"],
        "columns": payload["columns"],
        "groups": payload["groups"],
        "nodes": nodes,
        "edges": rows,
        "kinds": kinds,
        "kind": kind,
        "pins": list(pins),
        "members": list(members),
    }
