"""Edge sets and the scores that choose them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import networkx
import pytest
import torch

from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.scores import Scores

GRAPH = Graph(2, 2, 2)
GROUPED = Graph(2, 4, 2)


def random_scores(graph: Graph = GRAPH, seed: int = 0) -> Scores:
    values = torch.randn(graph.valid.shape, generator=torch.Generator().manual_seed(seed)) * graph.valid
    return Scores(graph=graph, values=values, method="eap", metric="logit_diff")


# ---- scores


def test_top_against_sorting_by_hand() -> None:
    scores = random_scores()
    edges = [
        (s, r, scores.values[i, j].item())
        for i, s in enumerate(GRAPH.senders)
        for j, r in enumerate(GRAPH.receivers)
        if GRAPH.valid[i, j]
    ]
    for by, key in (("abs", lambda e: -abs(e[2])), ("support", lambda e: e[2]), ("oppose", lambda e: -e[2])):
        wanted = sorted(edges, key=key)[:7]
        circuit = scores.top(7, by=by)
        assert {e[:2] for e in circuit.edges()} == {e[:2] for e in wanted}
        assert circuit.edges() == sorted(wanted, key=lambda e: -abs(e[2]))
    assert scores.top(GRAPH.n_edges).mask.equal(GRAPH.valid)
    assert scores.top(0).n_edges == 0


def test_edges_that_cancel_between_pairs_are_strong() -> None:
    per_example = torch.randn(5, *GRAPH.valid.shape) * GRAPH.valid
    s, r = GRAPH.edge("embed", "m0")
    per_example[:, s, r] = torch.tensor([40.0, -40.0, 40.0, -40.0, 0.01])
    scores = Scores(
        graph=GRAPH, values=per_example.mean(0), strength=per_example.abs().mean(0), method="eap", metric="m"
    )
    assert ("embed", "m0") in scores.top(1)
    assert ("embed", "m0") not in scores.top(GRAPH.n_edges // 2, by="abs")
    strengths = torch.stack([scores.strength[GRAPH.edge(*e[:2])] for e in scores.top(8).edges()])
    assert strengths.min() >= scores.strength[GRAPH.valid].sort(descending=True).values[7]


def test_ties_keep_the_order_of_the_graph() -> None:
    flat = Scores(graph=GRAPH, values=torch.zeros(GRAPH.valid.shape), method="eap", metric="logit_diff")
    assert [e[:2] for e in flat.top(3).edges()] == [("embed", r) for r in GRAPH.receivers[:3]]


def test_top_refuses() -> None:
    with pytest.raises(
        ValueError, match=rf"1000 edges were asked for; this model's graph has {GRAPH.n_edges}"
    ):
        random_scores().top(1000)
    with pytest.raises(ValueError, match="'absolute' is not a known ranking; did you mean 'abs'"):
        random_scores().top(3, by="absolute")


def test_nodes_add_up_outgoing_edges() -> None:
    scores = random_scores()
    by_hand = {name: sum(row) for name, row in zip(GRAPH.senders, scores.values.tolist(), strict=True)}
    assert scores.nodes() == pytest.approx(by_hand, abs=1e-6)
    sizes = {
        name: sum(map(abs, row)) for name, row in zip(GRAPH.senders, scores.values.tolist(), strict=True)
    }
    assert scores.nodes("abs") == pytest.approx(sizes, abs=1e-6)
    strongest = sorted((name for name in by_hand if ".h" in name), key=lambda name: -abs(by_hand[name]))
    assert [name for name, _ in scores.top_heads(3)] == strongest[:3]
    assert dict(scores.top_heads(3)) == pytest.approx(
        {name: by_hand[name] for name in strongest[:3]}, abs=1e-6
    )
    with pytest.raises(ValueError, match="'mean' is not"):
        scores.nodes("mean")


def test_scores_refuse_what_is_not_a_score() -> None:
    values = torch.zeros(GRAPH.valid.shape)
    values[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"eap gave the score nan for the edge embed → a0.h0<q>"):
        Scores(graph=GRAPH, values=values, method="eap", metric="logit_diff")
    with pytest.raises(ValueError, match=r"scores have shape \(2, 2\); this graph needs"):
        Scores(graph=GRAPH, values=torch.zeros(2, 2), method="eap", metric="logit_diff")


def test_scores_saved_and_loaded(tmp_path: Path) -> None:
    scores = Scores(
        graph=GROUPED, values=random_scores(GROUPED).values, method="eap-ig", metric="prob_diff", steps=5,
        strength=random_scores(GROUPED, 2).values.abs(),
        per_example=random_scores(GROUPED, 1).values[None].repeat(3, 1, 1), completeness_residual=0.25,
    )  # fmt: skip
    file = scores.save(tmp_path)
    assert file == tmp_path / "scores.safetensors"
    loaded = Scores.load(tmp_path)
    assert loaded.values.equal(scores.values)
    assert loaded.strength is not None and loaded.strength.equal(scores.strength)
    assert loaded.per_example is not None and loaded.per_example.equal(scores.per_example)
    assert (loaded.graph, loaded.method, loaded.metric) == (GROUPED, "eap-ig", "prob_diff")
    assert (loaded.steps, loaded.completeness_residual) == (5, 0.25)
    random_scores().save(file)
    assert Scores.load(file).per_example is None


def test_foreign_scores(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match="no scores at"):
        Scores.load(tmp_path)
    for spoil in (
        lambda f: f.write_bytes(b"nonsense"),
        lambda f: save_file({"values": torch.zeros(2)}, f),
        lambda f: save_file({"values": torch.zeros(2)}, f, {"format": "circuits.scores", "about": "{}"}),
    ):
        spoil(tmp_path / "scores.safetensors")
        with pytest.raises(ValueError, match="holds no scores that this program can read") as raised:
            Scores.load(tmp_path)
        assert "\n" not in str(raised.value)


# ---- circuits


def test_edges_names_and_membership() -> None:
    circuit = Circuit.from_edges(
        GRAPH, [("embed", "a1.h0<v>", 0.5), ("m0", "logits", -2.0), ("embed", "m1", 0.0)]
    )
    assert circuit.n_edges == len(circuit) == 3
    assert circuit.edges() == [("m0", "logits", -2.0), ("embed", "a1.h0<v>", 0.5), ("embed", "m1", 0.0)]
    assert ("m0", "logits") in circuit
    assert ("m1", "logits") not in circuit
    assert circuit.nodes() == ["embed", "m0", "a1.h0", "m1", "logits"]
    assert Circuit.full(GRAPH).n_edges == GRAPH.n_edges
    assert Circuit.empty(GRAPH).nodes() == []
    with pytest.raises(ValueError, match=r"there is no edge m1 → a0.h0<q>"):
        Circuit.from_edges(GRAPH, [("m1", "a0.h0<q>")])


def test_masks_must_fit() -> None:
    zeros = torch.zeros(GRAPH.valid.shape)
    with pytest.raises(ValueError, match="there is no edge"):
        Circuit(GRAPH, ~GRAPH.valid, zeros)
    with pytest.raises(ValueError, match="mask has shape"):
        Circuit(GRAPH, GRAPH.valid[:2], zeros)
    with pytest.raises(ValueError, match=r"must be torch.bool"):
        Circuit(GRAPH, zeros, zeros)


def test_random_circuits() -> None:
    circuit = Circuit.random(GRAPH, 10, seed=1)
    assert circuit.n_edges == 10
    assert not (circuit.mask & ~GRAPH.valid).any()
    assert circuit.mask.equal(Circuit.random(GRAPH, 10, seed=1).mask)
    assert not circuit.mask.equal(Circuit.random(GRAPH, 10, seed=2).mask)
    assert Circuit.random(GRAPH, GRAPH.n_edges).mask.equal(GRAPH.valid)
    counts = sum(Circuit.random(GRAPH, 10, seed=i).mask.int() for i in range(400))
    share = counts[GRAPH.valid] / 400  # type: ignore[index]
    expected = 10 / GRAPH.n_edges
    assert (share - expected).abs().max() < 5 * math.sqrt(expected * (1 - expected) / 400), "not uniform"
    with pytest.raises(ValueError, match="edges were asked for"):
        Circuit.random(GRAPH, GRAPH.n_edges + 1)


@pytest.mark.parametrize("graph", [GRAPH, GROUPED, Graph(2, 2, 2, parallel=True), Graph(3, 2, 1, mlp=False)])
@pytest.mark.parametrize("seed", range(5))
def test_pruned_keeps_exactly_the_edges_on_paths(graph: Graph, seed: int) -> None:
    circuit = Circuit.random(graph, graph.n_edges // 4, seed)
    drawn = circuit.to_networkx()
    for end in ("embed", "logits"):
        drawn.add_node(end)
    after, before = networkx.descendants(drawn, "embed"), networkx.ancestors(drawn, "logits")
    wanted = {
        (s, r) for s, r, _ in circuit.edges() if s in after | {"embed"} and r in before | {"logits"}
    }  # fmt: skip
    assert {e[:2] for e in circuit.pruned().edges()} == wanted
    assert circuit.pruned().pruned().mask.equal(circuit.pruned().mask)


def test_pruned_by_hand() -> None:
    kept = [("embed", "a0.h0<q>"), ("a0.h0", "m1"), ("m1", "logits")]
    dead = [("embed", "a0.h1<v>"), ("a1.h0", "logits"), ("a0.h0", "a1.h1<k>"), ("m0", "m1")]
    assert {e[:2] for e in Circuit.from_edges(GRAPH, kept + dead).pruned().edges()} == set(kept)


def test_networkx_with_ports() -> None:
    circuit = Circuit.from_edges(
        GROUPED, [("embed", "a1.kv1<k>", -0.5), ("a1.h3", "logits", 2.0), ("embed", "m0", 1.0)]
    )
    drawn = circuit.to_networkx()
    assert isinstance(drawn, networkx.DiGraph)
    assert {(a, b): w for a, b, w in drawn.edges(data="weight") if w is not None} == {
        ("embed", "a1.kv1<k>"): -0.5, ("a1.h3", "logits"): 2.0, ("embed", "m0"): 1.0,
    }  # fmt: skip
    inputs = {(a, b) for a, b, kind in drawn.edges(data="kind") if kind == "input"}
    assert inputs == {("a1.kv1<k>", "a1.h2"), ("a1.kv1<k>", "a1.h3")}
    assert networkx.has_path(drawn, "embed", "logits")
    assert drawn.nodes["a1.h3"] == {"kind": "head", "layer": 1, "head": 3}
    assert drawn.nodes["a1.kv1<k>"] == {"kind": "k", "layer": 1, "head": 1}
    assert drawn.nodes["m0"] == {"kind": "mlp", "layer": 0}
    assert drawn.nodes["logits"] == {"kind": "logits"}


def test_networkx_of_heads() -> None:
    edges = [("embed", "a0.h0<q>", -0.5), ("embed", "a0.h0<v>", 2.0), ("a0.h0", "logits", 1.0)]
    drawn = Circuit.from_edges(GRAPH, edges).to_networkx(ports=False)
    assert set(drawn.nodes) == {"embed", "a0.h0", "logits"}
    assert drawn.edges["embed", "a0.h0"] == {"kind": "edge", "weight": 1.5, "q": -0.5, "v": 2.0}
    grouped = Circuit.from_edges(GROUPED, [("embed", "a0.kv0<v>", 0.5)]).to_networkx(ports=False)
    assert set(grouped.edges) == {("embed", "a0.h0"), ("embed", "a0.h1")}


def test_circuit_saved_and_loaded(tmp_path: Path) -> None:
    circuit = random_scores(GROUPED).top(20)
    assert circuit.save(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    for place in (tmp_path / "new" / "folder", tmp_path / "new" / "folder" / "circuit.json"):
        loaded = Circuit.load(place)
        assert loaded.graph == GROUPED
        assert loaded.mask.equal(circuit.mask)
        assert loaded.edges() == circuit.edges()
    drawn = networkx.read_graphml(tmp_path / "new" / "folder" / "circuit.graphml")
    weights = {(a, b): w for a, b, w in drawn.edges(data="weight") if w is not None}
    assert weights == pytest.approx({(s, r): score for s, r, score in circuit.edges()})


KNOWN = '"format": "circuits.circuit", "version": 1'
ONE_HEAD = '"graph": {"n_layers": 1, "n_heads": 1, "n_kv_heads": 1}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[1, 2]",
        "{}",
        '{"format": "other"}',
        '{"format": "circuits.circuit", "version": 99}',
        f"{{{KNOWN}}}",
        f'{{{KNOWN}, "graph": 3, "edges": []}}',
        f'{{{KNOWN}, "graph": {{"n_layers": 1}}, "edges": []}}',
        f'{{{KNOWN}, {ONE_HEAD}, "edges": 3}}',
        f'{{{KNOWN}, {ONE_HEAD}, "edges": [["embed", "logits"]]}}',
        f'{{{KNOWN}, {ONE_HEAD}, "edges": [["embed", "a7.h0<q>", 1]]}}',
    ],
)
def test_foreign_circuits(tmp_path: Path, text: str) -> None:
    (tmp_path / "circuit.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"circuit.json is not a circuit that this program can read"
    ) as raised:
        Circuit.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_no_circuit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no circuit at"):
        Circuit.load(tmp_path)
    (tmp_path / "circuit.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not a circuit"):
        Circuit.load(tmp_path)
    json.dumps(Circuit.empty(GRAPH).to_dict())
