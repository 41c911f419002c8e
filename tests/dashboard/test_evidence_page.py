"""The Evidence page as Streamlit runs it, and what its jobs keep in the run's folder."""

from __future__ import annotations

import json
import shutil

import pytest

from circuits import evidence
from dashboard.figures.verdicts import QUESTIONS, share
from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import labels, texts


@pytest.fixture
def one_run(saved_runs, tmp_path):
    shutil.copytree(saved_runs / RUN, tmp_path / "runs" / RUN)
    return tmp_path / "runs"


def test_without_runs_it_leads_to_start(app, empty_runs):
    at = app("evidence", empty_runs)
    assert "no saved run" in texts(at.info)
    assert labels(at)[-1] == "Discover a circuit"


def test_what_the_circuit_page_says_is_not_called_unmeasured(app, one_run):
    said = texts(app("evidence", one_run, run=RUN).markdown)
    (row,) = [line for line in said.splitlines() if "Does it do the job?" in line]
    mine = json.loads((one_run / RUN / "summary.json").read_text())["circuits"][-1]
    assert f"Its {mine['n_edges']:,} edges keep {share(mine['faithfulness'])} of the behaviour" in row
    assert f"random sets of that size {share(mine['random']['faithfulness'])}" in row
    assert row.endswith("Other sizes and an interval: not measured yet. |")


def test_everything_is_measured_and_kept_in_the_run(app, one_run):
    at = app("evidence", one_run, run=RUN)
    (table,) = [element.value for element in at.markdown if "| question | answer |" in element.value]
    assert table.count("not measured yet") == 5
    assert labels(at)[-1].startswith("Keep a note")
    at.button(key="measure_all").click()
    at = settled(at)
    assert not at.exception
    assert not at.error
    kept = evidence.load(one_run / RUN)
    assert set(kept) >= {question.kind for question in QUESTIONS if question.kind != "truth"}
    said = texts(at.markdown)
    assert "not measured yet" not in said
    for words in ("keep", "differ by", "taken away", "resamples", "correlate"):
        assert words in said
    assert len(at.get("plotly_chart")) == 5
    assert not [b for b in at.button if b.key == "measure_all"]


def test_one_piece_is_measured_by_its_own_button(app, one_run):
    at = app("evidence", one_run, run=RUN)
    at.button(key="measure_stability").click()
    settled(at)
    assert "stability" in evidence.load(one_run / RUN)
    assert "curve" not in evidence.load(one_run / RUN)


def test_a_known_circuit_can_be_given(app, one_run):
    from circuits import Run
    from dashboard import truth

    run = Run.load(one_run / RUN)
    edges = [list(edge) for edge in run.circuit.edges()[:4]]
    content = "sender,receiver,score\n" + "".join(f"{s},{r},{v}\n" for s, r, v in edges)
    truth.keep(run, "known.csv", content.encode())
    at = app("evidence", one_run, run=RUN)
    assert "not measured yet" in texts(at.markdown)
    at.button(key="measure_truth").click()
    at = settled(at)
    assert not at.error
    assert evidence.load(one_run / RUN)["truth"]["given"]["n_positive"] == 4
    assert "AUROC" in texts(at.markdown)
    assert at.dataframe[0].value["AUROC"][0] > 0.9, "the strongest edges of this very ranking"


def test_a_planted_circuit_is_discovered_beside_its_truth(app, one_run):
    at = app("evidence", one_run, run=RUN)
    at.selectbox(key="plant_family").set_value("induction")
    at.selectbox(key="plant_difficulty").set_value("easy")
    at.button(key="plant").click()
    at = settled(at)
    (made,) = [path.name for path in one_run.iterdir() if path.name.startswith("planted")]
    assert f"Evidence for {made}" in labels(at)
    at = app("evidence", one_run, run=made)
    at.button(key="measure_truth").click()
    at = settled(at)
    assert not at.error
    found = evidence.load(one_run / made)["truth"]
    assert found["structural"]["auroc"] > 0.9
    assert found["causal"]["auroc"] > 0.9


def test_damaged_evidence_is_said_and_can_be_measured_again(app, one_run):
    (one_run / RUN / "evidence.json").write_text(
        json.dumps({"format": "circuits.evidence", "ablation": "counterfactual", "curve": {"n_edges": 3}})
    )
    at = app("evidence", one_run, run=RUN)
    assert "damaged: measure it again" in texts(at.error)
    (one_run / RUN / "evidence.json").write_text("[]")
    at = settled(at)
    assert not at.exception
    assert "no evidence that this program can read" in texts(at.error)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ({"run": "../../etc"}, "is not a known saved run"),
        ({"node": "a9.h9"}, "a9.h9"),  # by the model's sizes where it is loaded already, else by the run's
    ],
)
def test_a_wrong_address_is_refused_with_one_message(app, saved_runs, address, message):
    at = app("evidence", saved_runs, **{"run": RUN, **address})
    assert message in texts(at.warning)
    assert len(at.warning) == 1
    assert not set(address) & set(at.query_params)


def test_another_model_is_the_runs_own(app, saved_runs):
    at = app("evidence", saved_runs, run=RUN, model="smollm2")
    assert not at.exception
    assert at.session_state["view_model"] == MODEL
