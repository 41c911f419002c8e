"""A run's circuit, or two of them, to what `components/circuit_graph` draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circuits.circuit import Circuit
from circuits.compare import Comparison
from circuits.layout import Edge, GraphPayload, graph_payload

SHARED, FIRST, SECOND = "both", "first", "second"
CLEAR, WIDE = 0.6, 1.4
"""The least opacity and width of an edge that only one circuit has: weak edges are where two circuits differ."""


class DrawnPayload(GraphPayload):
    """A circuit's picture. `kinds`: what each kind of edge means where two circuits are drawn, else none; `kind`: the
    kind of each edge, in the order of the edges; `pins`, `members`: nodes to be marked.
    """

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
    return {**payload, "kinds": {}, "kind": [], "pins": list(pins), "members": list(members)}


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
    kind = []
    for edge in payload["edges"]:
        receiver = f"{edge['target']}<{edge['port']}>" if edge["port"] else edge["target"]
        kind.append(of[edge["source"], receiver])
        edge["about"] += f"\n{kinds[kind[-1]]}"
        if kind[-1] != SHARED:
            edge["opacity"], edge["width"] = max(edge["opacity"], CLEAR), max(edge["width"], WIDE)
    return {**payload, "kinds": kinds, "kind": kind, "pins": list(pins), "members": list(members)}
