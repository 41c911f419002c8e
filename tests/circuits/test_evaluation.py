"""Circuits evaluated in one forward, against circuits put together edge by edge."""

from __future__ import annotations

import pytest
import torch

from circuits import Circuit, evaluate
from circuits.evaluate import evaluate_many
from circuits.graph import Graph
from tests.circuits.naive import KINDS, circuit_metric, measure, pairs_for


def circuits_of(graph: Graph) -> list[Circuit]:
    n = graph.n_edges
    return [Circuit.random(graph, size, seed=size) for size in (1, n // 4, n // 2, n - 3)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_one_forward_is_the_edge_by_edge_reconstruction(make_tiny, kind, padded):
    model = make_tiny(**KINDS[kind]).double()
    pairs = pairs_for(model, padded=padded)
    circuits = circuits_of(Graph.of(model.cfg))
    found = evaluate_many(model, pairs, circuits)
    for circuit, evaluation in zip(circuits, found, strict=True):
        assert torch.allclose(evaluation.circuit, circuit_metric(model, pairs, circuit), atol=1e-10)
        assert torch.allclose(evaluation.clean, measure(model, pairs, pairs.clean), atol=1e-10)
        assert torch.allclose(evaluation.corrupt, measure(model, pairs, pairs.corrupt), atol=1e-10)
    assert len({round(e.metric, 6) for e in found}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_all_edges_are_the_model_and_no_edges_are_the_corrupt_run(make_tiny, kind):
    model = make_tiny(**KINDS[kind]).double()
    pairs, graph = pairs_for(model), Graph.of(model.cfg)
    everything = Circuit(graph, graph.valid, torch.zeros(graph.valid.shape))
    nothing = Circuit(graph, torch.zeros_like(graph.valid), torch.zeros(graph.valid.shape))
    whole, none = evaluate_many(model, pairs, [everything, nothing])
    assert whole.faithfulness == pytest.approx(1, abs=1e-9)
    assert none.faithfulness == pytest.approx(0, abs=1e-9)
    assert torch.allclose(whole.circuit, whole.clean)
    assert torch.allclose(none.circuit, none.corrupt)


def test_prefix_budget_and_company_do_not_matter(make_tiny):
    model = make_tiny(n_kv_heads=2).double()
    pairs = pairs_for(model, n=5, padded=True)
    circuits = circuits_of(Graph.of(model.cfg))
    together = evaluate_many(model, pairs, circuits)
    for options in ({"share_prefix": False}, {"max_memory": 1}, {"max_memory": 200_000}):
        for one, other in zip(together, evaluate_many(model, pairs, circuits, **options), strict=True):
            assert torch.allclose(one.circuit, other.circuit, atol=1e-12)
    alone = [evaluate(model, pairs, circuit) for circuit in circuits]
    assert [e.metric for e in alone] == pytest.approx([e.metric for e in together], abs=1e-12)


def test_dead_ends_do_not_matter(make_tiny):
    model = make_tiny().double()
    pairs = pairs_for(model)
    circuit = Circuit.random(Graph.of(model.cfg), 40, seed=3)
    pruned = circuit.pruned()
    assert pruned.n_edges < circuit.n_edges
    assert evaluate(model, pairs, pruned).metric == pytest.approx(
        evaluate(model, pairs, circuit).metric, abs=1e-12
    )


def test_a_circuit_of_another_model_is_refused(make_tiny):
    model, other = make_tiny(), make_tiny(n_layers=3)
    circuit = Circuit.random(Graph.of(other.cfg), 5, seed=0)
    with pytest.raises(ValueError, match="graph of other sizes"):
        evaluate(model, pairs_for(model), circuit)
