"""What the Circuit, Evidence and Patching pages draw, and the computations behind the Circuit page."""

from __future__ import annotations

import base64
import io
import json
import math

import numpy as np
import pytest

import circuits
from circuits import Circuit, Run, compare
from circuits.drawing import picture
from circuits.evidence import gather
from circuits.graph import Graph
from circuits.node_effects import node_effects
from dashboard import interventions
from dashboard.figures import circuit_edges, evidence, raster
from dashboard.figures.grid import grid_payload
from dashboard.figures.verdicts import QUESTIONS, answer, begun, share
from tests.dashboard.conftest import RUN

BIG = Graph(n_layers=30, n_heads=9, n_kv_heads=3, mlp=True, parallel=False)


@pytest.fixture(scope="module")
def run(saved_runs):
    return Run.load(saved_runs / RUN)


# ---- the grid


def test_a_grid_holds_its_values_row_by_row():
    values = np.array([[1.0, -2.0, np.nan], [0.5, 0.0, 3.0]])
    payload = grid_payload(values, ["L0", "L1"], ["a", "b", "<b>"], title="t", texts=list("abcdef"))
    packed = np.frombuffer(base64.b64decode(payload["packed"]), "<f4").reshape(2, 3)
    np.testing.assert_array_equal(packed, values.astype("f4"))
    assert payload["bound"] == 3.0
    assert payload["columns"][2] == "<b>"
    assert json.dumps(payload)
    empty = grid_payload(np.full((1, 1), np.nan), ["L0"], ["a"], title="t")
    assert empty["bound"] == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rows": ["L0"]}, "do not fit 1 rows"), ({"texts": ["a"]}, "1 texts do not fit 4 cells")],
)
def test_a_grid_refuses_labels_that_do_not_fit(changes, message):
    given = {"rows": ["L0", "L1"], "columns": ["a", "b"], "title": "t", **changes}
    with pytest.raises(ValueError, match=message):
        grid_payload(np.zeros((2, 2)), **given)


# ---- the graph


def test_two_circuits_keep_every_edge_once_with_its_kind(run):
    first, second = run.scores.top(8), run.scores.top(14)
    compared = compare(
        first, Circuit(first.graph, second.mask & ~first.mask | first.mask & (first.scores < 0), first.scores)
    )
    payload = circuit_edges.two(compared, ("a", "b"), title="t", pins=["a0.h0"], members=["a1.h1"])
    assert len(payload["edges"]) == len(payload["kind"]) == int((compared.a.mask | compared.b.mask).sum())
    sets = {"both": compared.shared, "first": compared.only_a, "second": compared.only_b}
    for kind, circuit in sets.items():
        assert payload["kind"].count(kind) == circuit.n_edges
    for (sender, target, port, *_), kind in zip(payload["edges"], payload["kind"], strict=True):
        ends = [payload["nodes"][i]["id"] for i in (sender, target)]
        assert (ends[0], f"{ends[1]}<{port}>" if port else ends[1]) in sets[kind]
    assert {"a0.h0", "a1.h1"} <= {node["id"] for node in payload["nodes"]}


def test_the_payload_of_a_thousand_edges_is_small():
    circuit = Circuit.random(BIG, 1000, 0)
    payload = circuit_edges.one(circuit, circuit.edges(), title="t", pins=["a3.h1"])
    assert len(json.dumps(payload)) < 120_000
    assert len(payload["edges"]) == 1000


def test_roles_are_told_with_the_nodes(run):
    payload = circuit_edges.one(run.circuit, run.circuit.edges(), title="t", roles={"a1.h0": "induction"})
    assert next(n for n in payload["nodes"] if n["id"] == "a1.h0")["about"].endswith("induction")


def test_a_png_has_the_picture_in_it(run):
    from PIL import Image

    for drawn in (
        picture.of_circuit(run.circuit, pins=["a1.h0"], title="<x>"),
        picture.of_comparison(compare(run.scores.top(4), run.scores.top(9))),
        picture.of_circuit(Circuit.random(BIG, 50, 0)),
    ):
        image = Image.open(io.BytesIO(raster.png(drawn, width=700)))
        assert image.width == 1400
        assert len(image.getcolors(1 << 20) or []) > 20


# ---- what is tried out


def test_fewer_edges_are_the_strongest_of_the_circuit(run, induction):
    kept = interventions.kept(induction, run, 4)
    assert kept.faithfulness == pytest.approx(
        circuits.evaluate(induction, run.pairs, run.scores.top(4)).faithfulness
    )
    assert interventions.strongest(run.circuit, 10**6) is run.circuit


def test_without_a_node_is_its_exact_effect(run, induction):
    exact = node_effects(induction, run.pairs).to_dict()
    for node in ("a0.h2", "a1.h0", "embed"):
        found = interventions.without(induction, run, [node])
        assert found.model_without - found.model == pytest.approx(exact[node], abs=1e-3)
        assert found.model == pytest.approx(run.summary["metric_model"], abs=1e-4)
        assert found.ablated == pytest.approx(run.summary["metric_corrupt"], abs=1e-4)
    assert found.share(found.ablated - found.model) == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="logits send nothing"):
        interventions.without(induction, run, ["logits"])


def test_a_key_value_head_stands_for_the_heads_of_its_group():
    assert interventions.senders_of(BIG, "a4.kv1") == ["a4.h3", "a4.h4", "a4.h5"]
    assert interventions.senders_of(BIG, "m4") == ["m4"]


def test_roles_are_those_of_find_roles(run, induction):
    found = interventions.roles(induction, run)
    direct = circuits.find_roles(induction, run.pairs, scores=run.scores)
    for head in ("a0.h2", "a1.h0"):
        assert [name for name, _ in interventions.roles_of(found, head)] == direct[head]


# ---- evidence


@pytest.fixture(scope="module")
def gathered(run, induction):
    return gather(induction, run)


def test_every_piece_has_a_figure_and_a_sentence(run, gathered):
    truth = {"causal": {"auroc": 0.9, "auprc": 0.5, "auprc_chance": 0.1, "n_positive": 3, "n_edges": 30}}
    kept = {**gathered, "truth": truth}
    for question in QUESTIONS:
        text = answer(question, kept, run.summary)
        assert text is not None
        assert text.endswith(".")
        assert answer(question, {}, run.summary) is None
        assert (begun(question, run.summary) is None) == (question.kind != "curve")
        with pytest.raises(ValueError, match=f"{question.kind} is damaged"):
            answer(question, {question.kind: {"x": 1}}, run.summary)
    assert answer(QUESTIONS[1], {"completeness": {"skipped": "no nodes"}}, {}) == "Not asked: no nodes."
    one = {"circuits": [{"n_edges": 1, "faithfulness": 0.5, "random": {"faithfulness": None}}]}
    assert begun(QUESTIONS[0], one) == (
        "Its 1 edge keeps 50% of the behaviour. Other sizes and an interval: not measured yet."
    )
    assert begun(QUESTIONS[0], {}) is None
    curve = evidence.size_curve(gathered["curve"], circuit=(run.circuit.n_edges, 0.67))
    assert list(curve.data[1].y) == gathered["curve"]["faithfulness"]
    assert list(curve.data[2].y) == gathered["curve"]["random"]["faithfulness"]
    assert (curve.data[3].name, *curve.data[3].x, *curve.data[3].y) == (
        "this circuit",
        run.circuit.n_edges,
        0.67,
    )
    assert curve.layout.annotations[-1].x == pytest.approx(math.log10(run.circuit.n_edges))
    sets = gathered["completeness"]["sets"]
    assert list(evidence.knock_outs(gathered["completeness"]).data[1].y) == [row["circuit"] for row in sets]
    bars = evidence.node_worth(gathered["minimality"]).data[0]
    assert list(bars.y) == sorted(bars.y, reverse=True)
    assert evidence.overlap(gathered["stability"]).data[0].x == (gathered["stability"]["mean"],)


def test_the_scatter_has_one_trace_per_kind_and_rings_the_selected_node(gathered):
    points = gathered["agreement"]["points"]
    figure = evidence.agreement_scatter(points, selected="a1.h0")
    assert [trace.name for trace in figure.data[1:-1]] == evidence.kinds_of(points)
    for trace, kind in zip(figure.data[1:-1], evidence.kinds_of(points), strict=True):
        assert list(trace.text) == [point["name"] for point in points if point["kind"] == kind]
    chosen = next(point for point in points if point["name"] == "a1.h0")
    assert (figure.data[-1].x[0], figure.data[-1].y[0]) == (chosen["exact"], chosen["estimate"])


def test_the_live_curve_is_in_order_of_size():
    figure = evidence.kept_curve({9: 0.9, 1: 0.1, 4: 0.5}, {9: [0.0, 0.2], 1: []}, shown=4)
    assert list(figure.data[0].x) == [1, 4, 9]
    assert list(figure.data[0].y) == [0.1, 0.5, 0.9]
    assert list(figure.data[1].y) == [pytest.approx(0.1)]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (float("nan"), "–"), (-0.001, "0%"), (0.456, "46%")]
)
def test_shares_in_words(value, text):
    assert share(value) == text


@pytest.mark.parametrize(
    ("sizes", "labels"),
    [
        ([200, 1000], {"200", "500", "1,000"}),
        ([75, 75_681], {"100", "1,000", "10,000"}),
        ([1, 9], {"1", "2", "5"}),
    ],
)
def test_logarithmic_axes_are_labelled_with_whole_sizes(sizes, labels):
    drawn = evidence.ticks(sizes)
    inside = {text for value, text in zip(*drawn.values(), strict=True) if sizes[0] <= value <= sizes[-1]}
    assert inside == labels
