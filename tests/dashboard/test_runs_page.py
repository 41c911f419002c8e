"""The Runs page as Streamlit runs it."""

from __future__ import annotations

import shutil

import pytest

from dashboard import notes
from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import labels, texts


@pytest.fixture
def two_runs(saved_runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(saved_runs / RUN, root / RUN)
    shutil.copytree(saved_runs / RUN, root / "another")
    return root


def test_without_runs_it_leads_to_start(app, empty_runs):
    at = app("runs", empty_runs, model=MODEL)
    assert "No runs in" in texts(at.info)
    assert labels(at)[-1] == "Discover a circuit"


def test_the_list_and_where_a_run_comes_from(app, two_runs):
    at = app("runs", two_runs, run=RUN)
    frame = at.dataframe[0].value
    assert set(frame["run"]) == {RUN, "another"}
    assert set(frame["model"]) == {MODEL}
    assert "scored by | eap" in texts(at.markdown)
    assert {"Heads", "Patching", "Circuit", "Evidence"} <= set(labels(at))
    assert labels(at)[-1] == f"Open the circuit of {RUN}"


def test_a_note_is_kept_and_shown_again(app, two_runs):
    at = app("runs", two_runs, run=RUN)
    at.text_area(key=f"note_{RUN}").set_value("the *movers* are in layer 1")
    at = settled(at)
    assert not at.exception
    assert notes.read(two_runs / RUN).text == "the *movers* are in layer 1"
    again = app("runs", two_runs, run=RUN)
    assert again.text_area(key=f"note_{RUN}").value == "the *movers* are in layer 1"
    other = app("runs", two_runs, run="another")
    assert other.text_area(key="note_another").value == ""


def test_damaged_notes_are_said(app, two_runs):
    (two_runs / RUN / "notes.json").write_text("{")
    at = app("runs", two_runs, run=RUN)
    assert "holds no notes that can be read" in texts(at.error)


def test_two_runs_side_by_side(app, two_runs):
    at = app("runs", two_runs, run=RUN, other="another")
    assert "Jaccard 1.00" in texts(at.caption)
    assert "Draw both in one graph" in labels(at)
    assert list(at.dataframe[1].value.columns) == ["", RUN, "another"]


def test_a_run_is_deleted_after_a_second_question(app, two_runs):
    at = app("runs", two_runs, run=RUN)
    at.button(key="delete").click()
    at = settled(at)
    assert not at.exception
    assert [path.name for path in two_runs.iterdir()] == ["another"]
    assert "run" not in at.query_params


def test_the_export_is_made_when_asked_for(app, two_runs):
    at = app("runs", two_runs, run=RUN)
    assert not at.get("download_button")
    at.button(key="export").click()
    at = settled(at)
    assert not at.exception
    (button,) = at.get("download_button")
    assert button.proto.label.replace("\\", "").startswith(f"Download {RUN}.zip")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ({"run": "../secret"}, "is not a known saved run"),
        ({"other": "nowhere"}, "'nowhere' is not a known other run"),
        ({"note": "x"}, "'note' is not a known parameter"),
    ],
)
def test_a_wrong_address_is_refused_with_one_message(app, two_runs, address, message):
    at = app("runs", two_runs, **{"run": RUN, **address})
    assert message in texts(at.warning)
    assert len(at.warning) == 1
    assert not set(address) & set(at.query_params)
