"""What the Patching page measures, beside the functions that define it, and runs made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuits
from circuits import Run, load_task
from circuits.graph import Graph
from dashboard import discovery, patching, subject
from dashboard.jobs import Runner
from dashboard.patching import HEADS, PATHS


@pytest.fixture(scope="module")
def pairs(induction):
    return load_task("induction").pairs(induction, 5, 0)


@pytest.fixture(scope="module")
def looked_at(induction, pairs):
    return subject.of_pairs("induction-2l", induction, pairs, 0, "logit_diff", "Induction")


def test_heads_are_those_of_patch(induction, pairs):
    cells = patching.measure(induction, pairs, HEADS, "logit_diff")
    found = circuits.patch(induction, pairs, "z")
    np.testing.assert_allclose(cells.effect, found.effect.numpy(), rtol=1e-5, atol=1e-6)
    assert cells.nodes[5] == "a1.h1"
    row, column = cells.strongest(1)[0]
    assert abs(cells.effect[row, column]) == np.abs(cells.effect).max()
    assert cells.ranked()[0] == cells.nodes[4 * row + column]
    assert cells.whole == pytest.approx(float((found.corrupt - found.clean).mean()), rel=1e-5)


def test_denoising_turns_the_two_runs_around(induction, pairs):
    cells = patching.measure(induction, pairs, HEADS, "logit_diff", denoise=True)
    found = circuits.patch(induction, pairs, "z", denoise=True)
    np.testing.assert_allclose(cells.effect / cells.whole, found.normalized.numpy(), rtol=1e-4, atol=1e-6)


def test_streams_by_position(induction, pairs):
    cells = patching.measure(induction, pairs, "resid_post", "logit_diff")
    assert cells.effect.shape == (2, pairs.n_positions)
    assert set(cells.nodes) == {""}


def test_paths_have_no_cell_where_no_path_leads(induction, pairs):
    cells = patching.measure(induction, pairs, PATHS, "logit_diff", receiver="a1.h2<k>")
    found = circuits.path_patch_to(induction, pairs, ["a1.h2<k>"])
    assert np.isnan(cells.effect[1]).all()
    np.testing.assert_allclose(cells.effect[0], found.heads[0].numpy(), rtol=1e-5)
    assert cells.beside["embed"].mean() == pytest.approx(float(found.effect[0]), rel=1e-5)
    assert all(row == 0 for row, _ in cells.strongest(8)), "NaN is not strong"


def test_the_interval_of_a_cell_holds_its_mean(induction, pairs):
    cells = patching.measure(induction, pairs, HEADS, "logit_diff")
    at = cells.strongest(1)[0]
    ends = cells.interval(*at)
    assert ends is not None
    assert ends[0] <= cells.effect[at] <= ends[1]
    assert patching.measure(induction, pairs[:1], HEADS, "logit_diff").interval(*at) is None


def test_what_a_model_does_not_have_is_refused(induction, pairs):
    assert "mlp_out" not in patching.kinds(induction)
    with pytest.raises(ValueError, match="induction-2l has no mlp_out to patch"):
        patching.measure(induction, pairs, "mlp_out", "logit_diff")
    with pytest.raises(ValueError, match="did you mean 'paths'"):
        patching.measure(induction, pairs, "path", "logit_diff")


def test_places_are_named_by_what_all_pairs_share(induction, pairs):
    one = patching.places_of(induction, pairs[:1])
    tokens = induction.to_str_tokens(pairs.clean[0].tolist())
    assert one == [f"{i} {token}" for i, token in enumerate(tokens)]
    several = patching.places_of(induction, pairs)
    same = [bool((pairs.clean[:, i] == pairs.clean[0, i]).all()) for i in range(pairs.n_positions)]
    assert [a == b for a, b in zip(one, several, strict=True)] == same
    assert several[-1] == f"{len(several) - 1} <END>"


def test_estimates_stand_beside_exact_effects(induction, pairs):
    found = patching.compared(induction, pairs, "eap-ig", "logit_diff")
    exact = patching.measure(induction, pairs, HEADS, "logit_diff")
    place = {name: i for i, name in enumerate(found.names)}
    for name, effect in zip(exact.nodes, exact.effect.flatten(), strict=True):
        assert float(found.exact[place[name]]) == pytest.approx(float(effect), abs=1e-4)


def test_a_circuit_of_heads_has_every_edge_between_them(induction, pairs):
    graph = Graph.of(induction.cfg)
    scores = circuits.attribute(induction, pairs, "eap")
    circuit = patching.between(graph, ["a0.h2", "a1.h0"], scores)
    assert {s for s, _, _ in circuit.edges()} <= {"embed", "a0.h2", "a1.h0"}
    assert ("a0.h2", "a1.h0<k>") in circuit
    assert ("a1.h0", "logits") in circuit
    assert torch.equal(circuit.scores, scores.values)


@pytest.mark.parametrize("known", [False, True])
def test_heads_are_sent_to_a_run(induction, looked_at, pairs, tmp_path, known):
    cells = patching.measure(induction, pairs, HEADS, "logit_diff") if known else None
    job = discovery.send_heads(Runner(), looked_at, pairs, 3, tmp_path, cells)
    assert job.wait(60)
    assert job.state == "done", job.error
    run = Run.load(tmp_path / job.result.run)
    strongest = patching.measure(induction, pairs, HEADS, "logit_diff").ranked()[:3]
    assert run.info["heads"] == strongest
    assert {s for s, _, _ in run.circuit.edges()} <= {"embed", *strongest}
    assert run.info["model"]["source"] == "induction-2l"


def test_edges_are_sent_after_they_were_measured(looked_at, tmp_path):
    job = discovery.send_edges(Runner(), looked_at, 12, tmp_path)
    assert job.wait(60)
    assert job.state == "done", job.error
    run = Run.load(tmp_path / job.result.run)
    assert run.circuit.n_edges == 12
    assert run.info["verify"] == 24
    assert run.scores.method == "eap-ig, verified"


def test_another_algorithm_chooses_from_the_runs_scores(looked_at, tmp_path, saved_runs):
    from tests.dashboard.conftest import MODEL, RUN

    run = Run.load(saved_runs / RUN)
    shelf = discovery.Shelf(lambda name, progress: looked_at.model)
    job = discovery.choose_again(Runner(), shelf, MODEL, run, "greedy", 9, tmp_path)
    assert job.wait(60)
    assert job.state == "done", job.error
    made = Run.load(tmp_path / job.result.run)
    assert made.info["algorithm"] == "greedy"
    assert made.circuit.n_edges == 9
    assert torch.equal(made.scores.values, run.scores.values)
    with pytest.raises(ValueError, match="edges were asked for"):
        discovery.choose_again(Runner(), shelf, MODEL, run, "greedy", 10**6, tmp_path)


def test_a_metric_without_a_gradient_is_refused_before_the_work(looked_at, tmp_path):
    from dataclasses import replace

    with pytest.raises(ValueError, match="accuracy"):
        discovery.send_edges(Runner(), replace(looked_at, metric="accuracy"), 12, tmp_path)


@pytest.mark.parametrize("send", ["heads", "edges", "again"])
def test_a_cancelled_job_leaves_nothing_half_written(looked_at, pairs, tmp_path, saved_runs, send):
    from lens.progress import Cancelled
    from tests.dashboard.conftest import MODEL, RUN

    class Impatient(Runner):
        """Does the work here, and cancels it at its last step."""

        def submit(self, label, work, *, lane, key=None):
            def stop(done, total, step):
                if "evaluate" in step:
                    raise Cancelled

            with pytest.raises(Cancelled):
                work(stop)
            return super().submit(label, lambda progress: None, lane=lane)

    runner = Impatient()
    if send == "heads":
        discovery.send_heads(runner, looked_at, pairs, 3, tmp_path)
    elif send == "edges":
        discovery.send_edges(runner, looked_at, 5, tmp_path)
    else:
        shelf = discovery.Shelf(lambda name, progress: looked_at.model)
        discovery.choose_again(runner, shelf, MODEL, Run.load(saved_runs / RUN), "top-n", 5, tmp_path)
    assert list(tmp_path.iterdir()) == []
