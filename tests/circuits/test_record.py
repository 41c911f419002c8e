"""A circuit made by hand, kept as a run: the same numbers as evaluating it, and a folder that opens again."""

from __future__ import annotations

import pytest

import circuits
from circuits import Circuit, Run, load_task
from circuits.record import record


@pytest.fixture(scope="module")
def made(induction):
    pairs = load_task("induction").pairs(induction, 4, 0)
    return induction, pairs, circuits.attribute(induction, pairs, "eap")


def test_a_recorded_circuit_has_its_own_evaluation_and_opens_again(made, tmp_path):
    model, pairs, scores = made
    circuit = scores.top(12)
    run = record(
        model,
        pairs,
        circuit,
        scores,
        algorithm="by hand",
        budgets=[3],
        random_sets=2,
        out=tmp_path / "r",
        extra=7,
    )
    small, whole = run.summary["circuits"]
    assert (small["n_edges"], whole["n_edges"]) == (3, 12)
    assert whole["faithfulness"] == pytest.approx(circuits.evaluate(model, pairs, circuit).faithfulness)
    strongest = Circuit.from_edges(scores.graph, circuit.edges()[:3])
    assert small["faithfulness"] == pytest.approx(circuits.evaluate(model, pairs, strongest).faithfulness)
    assert whole["random"]["sets"] == 2
    opened = Run.load(tmp_path / "r")
    assert opened.circuit.edges() == circuit.edges()
    assert opened.info["algorithm"] == "by hand"
    assert opened.info["extra"] == 7
    assert opened.info["model"]["revision"] == model.revision


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": [13]}, "13 edges were asked for; the circuit has 12"),
        ({"ablation": "zeros"}, "did you mean 'zero'"),
        ({"circuit": None}, "the circuit has no edges"),
    ],
)
def test_what_cannot_be_recorded_is_told_before_the_work(made, tmp_path, change, message):
    model, pairs, scores = made
    circuit = Circuit.empty(scores.graph) if "circuit" in change else scores.top(12)
    change.pop("circuit", None)
    with pytest.raises(ValueError, match=message):
        record(model, pairs, circuit, scores, algorithm="by hand", out=tmp_path / "r", **change)
    assert not (tmp_path / "r").exists()
