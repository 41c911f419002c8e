"""Runs of probes on the Runs page: listed, opened, noted, compared, exported, deleted."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import pytest

from dashboard import notes, probe_bundle, probing
from dashboard.jobs import Runner
from dashboard.models import Shelf
from probes.config import Config
from probes.store import Run
from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import labels, texts

FAST = {"floors": ["majority"], "bootstrap": 50, "C": 0.01}


@pytest.fixture(scope="module")
def made(tmp_path_factory, induction) -> Path:
    folder = tmp_path_factory.mktemp("probes")
    shelf, runner = Shelf(lambda name, progress: induction), Runner()
    settings = Config.of({"dataset": probing.REPEATS, "model": MODEL, **FAST})
    job = probing.start(
        runner, shelf, probing.Source(probing.REPEATS), 60, settings, ["last", "first"], folder
    )
    assert job.wait(120), "still training"
    assert job.state == "done", job.error
    return folder


@pytest.fixture
def both(made, saved_runs, tmp_path) -> Path:
    root = tmp_path / "runs"
    shutil.copytree(made, root)
    shutil.copytree(saved_runs / RUN, root / RUN)
    return root


def named(root: Path, end: str) -> str:
    return next(path.name for path in root.iterdir() if path.name.endswith(end))


def test_probes_are_listed_below_circuits(app, both):
    at = app("runs", both, run=RUN)
    assert set(at.dataframe[0].value["run"]) == {RUN}
    assert set(at.dataframe[1].value["run"]) == {named(both, "last"), named(both, "first")}
    assert labels(at)[-1] == f"Open the circuit of {RUN}"


def test_a_run_of_probes_is_opened_by_its_address(app, both):
    name = named(both, "last")
    at = app("runs", both, probe=name)
    assert "position last" in texts(at.subheader)
    assert "judged | 5 folds" in texts(at.markdown)
    assert labels(at)[-1] == "Look into these probes"
    assert at.session_state["view"].probe == name


def test_only_probes(app, made):
    at = app("runs", made, model=MODEL)
    assert len(at.dataframe) == 1
    assert labels(at)[-1] == "Look into these probes"


def test_a_note_comparing_and_deleting(app, both):
    name, other = named(both, "last"), named(both, "first")
    at = app("runs", both, probe=name, other=other)
    table = at.dataframe[2].value.set_index("")
    assert list(table.columns) == ["this run", "the other"]
    assert table.loc["positions"].tolist() == ["last", "first"]
    at.text_area(key=f"note_{name}").set_value("the *last* word")
    at = settled(at)
    assert notes.read(both / name).text == "the *last* word"
    at.button(key="delete").click()
    at = settled(at)
    assert not at.exception
    assert {path.name for path in both.iterdir()} == {other, RUN}
    assert "probe" not in at.query_params


def test_the_export_holds_everything(app, both):
    name = named(both, "last")
    notes.write(both / name, notes.Notes("<b>not bold</b>"))
    at = app("runs", both, probe=name)
    at.button(key="export").click()
    at = settled(at)
    assert not at.exception
    (button,) = at.get("download_button")
    assert "Download" in button.proto.label
    run = Run.load(both / name)
    with zipfile.ZipFile(io.BytesIO(probe_bundle.bundle(run, name))) as zipped:
        files = {Path(file).name: zipped.read(file).decode(errors="replace") for file in zipped.namelist()}
        assert {Path(file).parts[0] for file in zipped.namelist()} == {name}
    assert {path.name for path in (both / name).iterdir()} <= set(files)
    target = run.target()
    told = next(text for file, text in files.items() if file.startswith("told-1"))
    assert told.splitlines()[0] == "row,fold,true,decision"
    assert len(told.splitlines()) == 1 + len(run.predictions[target].rows)
    assert any(file.endswith(".svg") for file in files)
    report = files["report.html"]
    assert "&lt;b&gt;not bold" in report
    assert "<b>" not in report
    assert "script" not in report.lower()
    best = run.curve(target).score.max()
    assert f"<td>{best:.3f}</td>" in report


def test_unknown_probes_are_refused_with_one_message(app, both):
    at = app("runs", both, probe="../secret")
    assert "is not a known run of probes" in texts(at.warning)
    assert len(at.warning) == 1
    assert "probe" not in at.query_params
