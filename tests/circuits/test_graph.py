"""The graph of a model against an enumeration that knows nothing of its closed forms."""

from __future__ import annotations

import pytest

from circuits.graph import Graph

SIZES = {
    "sequential": Graph(3, 4, 4),
    "parallel": Graph(3, 4, 4, parallel=True),
    "grouped": Graph(3, 4, 2),
    "one kv head": Graph(2, 3, 1, parallel=True),
    "attention-only": Graph(2, 4, 4, mlp=False),
    "one layer": Graph(1, 1, 1),
}
graphs = pytest.mark.parametrize("graph", SIZES.values(), ids=SIZES.keys())


def slow(graph: Graph) -> tuple[list[str], list[str], set[tuple[str, str]], set[tuple[str, str]]]:
    """Senders, receivers, edges and (receiver, its node) by walking through the model's computation."""
    senders, receivers = ["embed"], []
    edges: set[tuple[str, str]] = set()
    feeds: set[tuple[str, str]] = set()
    kv_name = "h" if graph.n_kv_heads == graph.n_heads else "kv"
    for layer in range(graph.n_layers):
        before = list(senders)
        heads = [f"a{layer}.h{h}" for h in range(graph.n_heads)]
        for h, head in enumerate(heads):
            receivers.append(f"{head}<q>")
            feeds.add((f"{head}<q>", head))
            g = h * graph.n_kv_heads // graph.n_heads
            feeds |= {(f"a{layer}.{kv_name}{g}<{kind}>", head) for kind in "kv"}
        receivers += [f"a{layer}.{kv_name}{g}<{kind}>" for kind in "kv" for g in range(graph.n_kv_heads)]
        edges |= {(s, r) for r in receivers if r.startswith(f"a{layer}.") for s in before}
        senders += heads
        if graph.mlp:
            edges |= {(s, f"m{layer}") for s in (before if graph.parallel else senders)}
            receivers.append(f"m{layer}")
            senders.append(f"m{layer}")
            feeds.add((f"m{layer}", f"m{layer}"))
    edges |= {(s, "logits") for s in senders}
    return senders, [*receivers, "logits"], edges, feeds


@graphs
def test_nodes_edges_and_inputs(graph: Graph) -> None:
    senders, receivers, edges, feeds = slow(graph)
    assert list(graph.senders) == senders
    assert list(graph.receivers) == receivers
    assert {(senders[s], receivers[r]) for s, r in graph.valid.nonzero().tolist()} == edges
    assert {(receivers[r], senders[s]) for r, s in graph.feeds.nonzero().tolist()} == feeds
    assert graph.n_edges == len(edges)


@graphs
def test_places(graph: Graph) -> None:
    for layer in range(graph.n_layers):
        assert graph.senders[graph.senders_before(layer)] == f"a{layer}.h0"
        assert [graph.senders[graph.head_sender(layer, h)] for h in range(graph.n_heads)] == [
            f"a{layer}.h{h}" for h in range(graph.n_heads)
        ]
        assert len(graph.senders[graph.head_senders(layer)]) == graph.n_heads
        for kind in "qkv":
            names = graph.receivers[graph.receiver_slice(kind, layer)]
            assert names and all(n.startswith(f"a{layer}.") and n.endswith(f"<{kind}>") for n in names)
            assert len(names) == (graph.n_heads if kind == "q" else graph.n_kv_heads)
        if graph.mlp:
            assert graph.senders[graph.mlp_sender(layer)] == f"m{layer}"
            assert graph.receivers[graph.receiver_slice("mlp", layer)] == (f"m{layer}",)
    assert graph.senders_before(graph.n_layers) == graph.n_senders
    assert graph.receivers[graph.receiver_slice("logits")] == ("logits",)


def test_smollm2_sizes() -> None:
    graph = Graph(n_layers=30, n_heads=9, n_kv_heads=3)
    assert (graph.n_senders, graph.n_receivers, graph.n_edges) == (301, 481, 70_651)
    assert "a9.kv0<k>" in graph.receivers
    assert int(graph.valid.sum()) == graph.n_edges


def test_of_a_configuration(make_tiny) -> None:
    assert Graph.of(make_tiny().cfg) == Graph(2, 4, 4)
    assert Graph.of(make_tiny(n_kv_heads=2, parallel=True).cfg) == Graph(2, 4, 2, parallel=True)
    assert Graph.of(make_tiny(d_mlp=None).cfg) == Graph(2, 4, 4, mlp=False)


def test_an_edge_by_name() -> None:
    graph = Graph(2, 2, 2)
    s, r = graph.edge("a0.h1", "a1.h0<k>")
    assert (graph.senders[s], graph.receivers[r]) == ("a0.h1", "a1.h0<k>")
    with pytest.raises(ValueError, match=r"'a0.h7' is not a known sender.*did you mean 'a0.h1'"):
        graph.edge("a0.h7", "logits")
    with pytest.raises(ValueError, match=r"did you mean 'a1.h0<q>'"):
        graph.edge("embed", "a1.h0q")
    with pytest.raises(ValueError, match=r"no edge m1 → a1.h0<q>"):
        graph.edge("m1", "a1.h0<q>")


def test_what_an_attention_only_model_lacks() -> None:
    graph = Graph(2, 2, 2, mlp=False)
    with pytest.raises(ValueError, match="attention-only"):
        graph.mlp_sender(0)
    with pytest.raises(ValueError, match="'mlp' is not a known kind of receiver"):
        graph.receiver_slice("mlp", 0)


@pytest.mark.parametrize(
    "values",
    [{}, {"n_layers": 2, "n_heads": 4}, {"n_layers": 0, "n_heads": 1, "n_kv_heads": 1},
     {"n_layers": 1, "n_heads": 3, "n_kv_heads": 2}, {"n_layers": "2", "n_heads": 1, "n_kv_heads": 1}],
)  # fmt: skip
def test_sizes_that_are_none(values: dict) -> None:
    with pytest.raises(ValueError, match="not the sizes of a graph"):
        Graph.from_dict(values)
    assert Graph.from_dict(SIZES["grouped"].to_dict()) == SIZES["grouped"]
