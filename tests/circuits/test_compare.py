"""Sets of edges as sets, and two circuits side by side."""

from __future__ import annotations

import json
import math
from itertools import product

import pytest
import torch
from scipy.stats import spearmanr

from circuits.circuit import Circuit
from circuits.compare import Comparison, compare
from circuits.correlation import spearman
from circuits.graph import Graph

GRAPH = Graph(2, 4, 2)


def drawn(seed: int, share: float = 0.4) -> Circuit:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(GRAPH.valid.shape, generator=generator) < share) & GRAPH.valid
    return Circuit(GRAPH, mask, torch.randn(GRAPH.valid.shape, generator=generator) * GRAPH.valid)


def edges(circuit: Circuit) -> set[tuple[str, str]]:
    return {edge[:2] for edge in circuit.edges()}


# ---- algebra


@pytest.mark.parametrize("seed", range(4))
def test_circuits_are_sets_of_edges(seed: int) -> None:
    a, b = drawn(seed), drawn(seed + 10)
    assert edges(a & b) == edges(a) & edges(b)
    assert edges(a | b) == edges(a) | edges(b)
    assert edges(a - b) == edges(a) - edges(b)
    assert edges(a ^ b) == edges(a) ^ edges(b)
    assert edges(a.complement()) == edges(Circuit.full(GRAPH)) - edges(a)
    assert edges(a.complement().complement()) == edges(a)
    assert edges((a | b).complement()) == edges(a.complement() & b.complement())
    assert (a & a).mask.equal(a.mask)
    assert (a ^ a).n_edges == 0


def test_scores_are_those_of_the_first() -> None:
    a, b = drawn(1), drawn(2)
    for made in (a & b, a - b, a.complement(), a.without_nodes(["embed"])):
        assert made.scores.equal(a.scores)
    for made in (a | b, a ^ b):
        for sender, receiver, score in made.edges():
            owner = a if (sender, receiver) in a else b
            assert score == float(owner.scores[GRAPH.edge(sender, receiver)])


def test_different_graphs_do_not_mix() -> None:
    a, b = drawn(1), Circuit.full(Graph(2, 4, 4))
    for mix in (a.__and__, a.__or__, a.__sub__, a.__xor__, lambda other: compare(a, other)):
        with pytest.raises(ValueError, match="the circuits belong to different graphs: Graph"):
            mix(b)


# ---- circuits of nodes


def test_nodes_and_the_edges_between_them() -> None:
    circuit = Circuit.from_nodes(GRAPH, ["embed", "a0.h1", "m0", "a1.h3", "logits"])
    wanted = {
        ("embed", "a0.h1<q>"), ("embed", "a0.kv0<k>"), ("embed", "a0.kv0<v>"), ("embed", "m0"),
        ("embed", "logits"), ("a0.h1", "m0"), ("a0.h1", "logits"), ("m0", "logits"), ("a1.h3", "logits"),
        *product(["embed", "a0.h1", "m0"], ["a1.h3<q>", "a1.kv1<k>", "a1.kv1<v>"]),
    }  # fmt: skip
    assert edges(circuit) == wanted
    assert edges(Circuit.from_nodes(GRAPH, ["m1", "logits"])) == {("m1", "logits")}
    assert edges(Circuit.from_nodes(GRAPH, [*GRAPH.senders, "logits"])) == edges(Circuit.full(GRAPH))
    assert edges(Circuit.from_nodes(GRAPH, [*GRAPH.senders])) == {
        e for e in edges(Circuit.full(GRAPH)) if e[1] != "logits"
    }


def test_nodes_out_and_without_nodes_are_complements() -> None:
    names = ["a0.h1", "m0", "a1.h3"]
    out, rest = Circuit.from_nodes(GRAPH, names, mode="out"), Circuit.full(GRAPH).without_nodes(names)
    assert {e[0] for e in edges(out)} == set(names)
    assert edges(out) == edges(rest.complement())
    with pytest.raises(ValueError, match=r"'a0.h9' is not a known sender of this model"):
        rest.without_nodes(["a0.h9"])
    with pytest.raises(ValueError, match=r"'logits' is not a known sender of this model"):
        rest.without_nodes(["logits"])
    with pytest.raises(ValueError, match="'al' is not a known mode; did you mean 'all'"):
        Circuit.from_nodes(GRAPH, names, mode="al")
    with pytest.raises(ValueError, match=r"'a0.kv0' is not a known sender"):
        Circuit.from_nodes(GRAPH, ["a0.kv0"])


# ---- comparison


def test_shares_by_hand() -> None:
    a = Circuit.from_edges(GRAPH, [("embed", "m0", -3.0), ("m0", "logits", 1.0)])
    b = Circuit.from_edges(GRAPH, [("embed", "m0", -1.0), ("embed", "logits", 1.0)])
    found = compare(a, b)
    assert found.shared.edges() == [("embed", "m0", -3.0)]
    assert found.only_a.edges() == [("m0", "logits", 1.0)]
    assert found.only_b.edges() == [("embed", "logits", 1.0)]
    assert found.jaccard == pytest.approx(1 / 3)
    assert (found.shared_nodes, found.only_a_nodes, found.only_b_nodes) == (
        ["embed", "m0", "logits"], [], [],
    )  # fmt: skip
    assert found.node_jaccard == 1.0
    assert found.weighted_jaccard == pytest.approx(0.5 / (0.75 + 0.25 + 0.5))
    assert math.isnan(found.rank_correlation)
    assert repr(found) == "Comparison(1 shared, 1 and 1 alone; Jaccard 0.33)"


def test_alike_and_empty() -> None:
    a, empty = drawn(1), Circuit.empty(GRAPH)
    same = compare(a, a)
    assert (same.jaccard, same.node_jaccard) == (1.0, 1.0)
    assert same.weighted_jaccard == pytest.approx(1.0)
    assert same.rank_correlation == pytest.approx(1.0)
    none = compare(empty, empty)
    assert (none.jaccard, none.node_jaccard, none.weighted_jaccard) == (1.0, 1.0, 1.0)
    assert (compare(a, empty).jaccard, compare(a, empty).weighted_jaccard) == (0.0, 0.0)
    scaled = compare(a, Circuit(GRAPH, a.mask, a.scores * 7))
    assert scaled.weighted_jaccard == pytest.approx(1.0)
    assert compare(a, Circuit(GRAPH, a.mask, -a.scores)).rank_correlation == pytest.approx(-1.0)


@pytest.mark.parametrize("seed", range(3))
def test_rank_correlation_against_scipy(seed: int) -> None:
    a, b = drawn(seed), drawn(seed + 5)
    wanted = spearmanr(a.scores[GRAPH.valid].numpy(), b.scores[GRAPH.valid].numpy()).statistic
    assert compare(a, b).rank_correlation == pytest.approx(wanted)
    x = torch.randint(0, 4, (50,), generator=torch.Generator().manual_seed(seed)).float()
    y = x + torch.randint(0, 3, (50,), generator=torch.Generator().manual_seed(seed + 1))
    assert float(spearman(x[None], y[None])) == pytest.approx(spearmanr(x.numpy(), y.numpy()).statistic)


def test_plain_data() -> None:
    found = compare(drawn(1), drawn(2)).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["n_edges"]["a"] == found["n_edges"]["shared"] + found["n_edges"]["only_a"]
    assert len(found["edges"]["only_b"]) == found["n_edges"]["only_b"]
    unscored = Circuit.from_nodes(GRAPH, ["embed", "logits"])
    assert Comparison(unscored, unscored).to_dict()["weighted_jaccard"] is None


def test_short_representations() -> None:
    assert repr(Circuit.full(GRAPH)) == "Circuit(82 of 82 edges, 12 nodes; 2 layers of 4 heads)"
