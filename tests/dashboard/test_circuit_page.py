"""The Circuit page as Streamlit runs it: budgets, the inspector, pins and groups, another circuit beside it."""

from __future__ import annotations

import re
import shutil
import threading

import pytest

from circuits import Run, evaluate
from dashboard import interventions, notes
from dashboard.notes import Notes
from dashboard.opened import Opened
from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import labels, texts


@pytest.fixture
def two_runs(saved_runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(saved_runs / RUN, root / RUN)
    shutil.copytree(saved_runs / RUN, root / "another")
    return root


def metric_of(at, label: str) -> str:
    return next(m.value for m in at.metric if label in re.sub(r"\\(.)", r"\1", m.label))


def test_without_runs_it_leads_to_start(app, empty_runs):
    at = app("circuit", empty_runs)
    assert "no saved run" in texts(at.info)
    assert labels(at)[-1] == "Discover a circuit"


def test_graph_numbers_and_the_next_step(app, saved_runs):
    at = app("circuit", saved_runs, run=RUN)
    assert "Induction in induction-2l" in texts(at.title)
    assert len(at.get("bidi_component")) == 2, "the graph and all heads"
    assert at.metric[0].label == "Model's logit diff"
    assert "random" in at.metric[2].delta
    assert "See all heads on this prompt" in labels(at)
    assert labels(at)[-1] == "How sure can one be of this circuit?"


def test_fewer_edges_are_evaluated_when_they_are_shown(app, saved_runs, induction):
    at = app("circuit", saved_runs, run=RUN, edges="7")
    run = Run.load(saved_runs / RUN)
    expected = evaluate(induction, run.pairs, run.scores.top(7)).faithfulness
    assert metric_of(at, "7 shown") == f"{round(100 * expected)}%"
    at.slider(key="view_edges").set_value(5)
    at = settled(at)
    assert metric_of(at, "5 shown")
    assert set(at.session_state["tried"][RUN]) == {5, 7}


def test_a_node_shows_attention_edges_and_what_is_lost_without_it(app, saved_runs, induction):
    at = app("circuit", saved_runs, run=RUN, node="a1.h0", edges="5")
    assert any(s.value.startswith("a1.h0 · effect") for s in at.subheader)
    assert len(at.get("bidi_component")) == 3, "the graph, the attention, all heads"
    at.button(key="ablate").click()
    at = settled(at)
    run = Run.load(saved_runs / RUN)
    found = interventions.without(induction, run, ["a1.h0"])
    assert metric_of(at, "In the model") == f"{found.model_without:.3f}"
    assert metric_of(at, "In the circuit") == f"{found.circuit_without:.3f}"


def test_the_roles_of_heads(app, saved_runs):
    at = app("circuit", saved_runs, run=RUN, node="a1.h0")
    at.button(key="find_roles").click()
    at = settled(at)
    assert not at.exception
    assert "induction" in texts(at.markdown) or "None of the known roles" in texts(at.caption)


def test_what_is_under_way_is_shown_once(app, two_runs, monkeypatch):
    """Work that never ends: every page run must go through, with one button per job to stop it."""
    from dashboard import work

    at = app("circuit", two_runs, run=RUN, node="a1.h0", edges="3")
    gate = threading.Event()
    monkeypatch.setattr(interventions, "roles", lambda *_: gate.wait(20))
    monkeypatch.setattr(interventions, "without", lambda *_: gate.wait(20))
    monkeypatch.setattr(interventions, "kept", lambda *_: gate.wait(20))
    try:
        at.slider(key="view_edges").set_value(4)
        at.button(key="find_roles").click()
        at.button(key="ablate").click()
        at.run()
        assert not at.exception
        assert len([b for b in at.button if b.label == "Cancel"]) == 3
    finally:
        for job in work.runner().jobs():
            if job.active:
                job.cancel()
        gate.set()
        assert work.runner().wait(30)


def test_pins_and_groups_are_kept_with_the_run_and_reached_by_address(app, two_runs):
    at = app("circuit", two_runs, run=RUN, node="a1.h2")
    at.button(key="pin").click()
    at = settled(at)
    assert notes.read(two_runs / RUN).pins == ("a1.h2",)
    at.text_input(key="new_group").set_value("movers & <b>more</b>")
    at = settled(at)
    at.button(key="begin_group").click()
    at = settled(at)
    assert not at.exception
    assert notes.read(two_runs / RUN).groups == {"movers & <b>more</b>": ("a1.h2",)}
    assert at.query_params["group"] == "movers & <b>more</b>"
    again = app("circuit", two_runs, run=RUN, group="movers & <b>more</b>")
    assert not again.warning
    assert "a1.h2" in texts(again.caption)
    again.button(key="ablate_group").click()
    assert metric_of(settled(again), "In the model")


def test_two_circuits_in_one_graph(app, two_runs):
    at = app("circuit", two_runs, run=RUN, other="another")
    assert "Jaccard 1.00" in texts(at.caption)
    assert at.selectbox(key="view_other").value == "another"


def test_another_algorithm_makes_another_run(app, two_runs):
    at = app("circuit", two_runs, run=RUN)
    at.selectbox(key="algorithm").set_value("greedy")
    at.number_input(key="algorithm_edges").set_value(6)
    at.button(key="choose").click()
    at = settled(at)
    assert not at.exception
    (made,) = {path.name for path in two_runs.iterdir()} - {RUN, "another"}
    assert Run.load(two_runs / made).info["algorithm"] == "greedy"
    assert Run.load(two_runs / made).circuit.n_edges == 6
    assert "See what it changed" in labels(at)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ({"run": "induction-two-layer"}, f"did you mean '{RUN}'"),
        ({"run": "../../etc"}, "is not a known saved run"),
        ({"node": "a7.h0"}, "a7.h0"),  # by the model's sizes where it is loaded already, else by the run's
        ({"node": "m0"}, "'m0' is not a node of this model"),
        ({"example": "4"}, "the run has 4 examples"),
        ({"edges": "all"}, "edges='all' is not a whole number"),
        ({"group": "movers"}, "the run has no groups"),
        ({"other": "x"}, "there is no other run"),
    ],
)
def test_a_wrong_address_is_refused_with_one_message(app, saved_runs, address, message):
    at = app("circuit", saved_runs, **{"run": RUN, **address})
    assert message in texts(at.warning)
    assert len(at.warning) == 1
    assert not set(address) & set(at.query_params)


def test_a_damaged_run_is_one_clear_line(app, saved_runs, tmp_path):
    shutil.copytree(saved_runs / RUN, tmp_path / "broken")
    (tmp_path / "broken" / "circuit.json").write_text("{}")
    at = app("circuit", tmp_path, run="broken")
    assert len(at.error) == 1
    assert "not a circuit" in texts(at.error)
    assert "\n" not in at.error[0].value
    assert labels(at)[-1] == "Discover another circuit"


def test_damaged_notes_do_not_hide_the_circuit(app, two_runs):
    notes.write(two_runs / RUN, Notes("x"))
    (two_runs / RUN / "notes.json").write_text("{")
    at = app("circuit", two_runs, run=RUN)
    assert "holds no notes that can be read" in texts(at.error)
    assert at.get("bidi_component")


def test_another_model_is_the_runs_own(app, saved_runs):
    at = app("circuit", saved_runs, run=RUN, model="smollm2")
    assert not at.exception
    assert at.session_state["view_model"] == MODEL


def test_known_results_are_shown_where_the_model_is_not_loaded(app, two_runs, monkeypatch):
    """What was once found stays to be seen: by others too, who did not ask for it."""
    at = app("circuit", two_runs, run=RUN, node="a1.h0", edges="6")
    at.button(key="find_roles").click()
    at = settled(at)
    at.button(key="ablate").click()
    at = settled(at)
    monkeypatch.setattr(Opened, "model", lambda self: None)
    at = app("circuit", two_runs, run=RUN, node="a1.h0", edges="6")
    assert "find_roles" not in {button.key for button in at.button}
    assert "induction" in texts(at.markdown) or "None of the known roles" in texts(at.caption)
    assert metric_of(at, "6 shown")
    assert metric_of(at, "In the model")
