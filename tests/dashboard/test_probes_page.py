"""The Probes page as Streamlit runs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from circuits.store import list_runs
from dashboard import probe_runs, probing
from dashboard.jobs import Runner
from dashboard.models import Shelf
from probes.config import Config
from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import labels, texts


@pytest.fixture(scope="session")
def probe_folder(tmp_path_factory, induction) -> Path:
    """Two runs that differ in their position, as the page makes them."""
    folder = tmp_path_factory.mktemp("probes")
    settings = Config.of({"dataset": probing.REPEATS, "model": MODEL, "floors": ["majority"], "bootstrap": 50})
    shelf = Shelf(lambda name, progress: induction)
    source = probing.Source(probing.REPEATS)
    job = probing.start(Runner(), shelf, source, 80, settings, ["last", "first"], folder)
    assert job.wait(120), "still training"
    assert job.state == "done", job.error
    return folder


@pytest.fixture(scope="session")
def last(probe_folder) -> str:
    return next(path.name for path in probe_folder.iterdir() if path.name.endswith("last"))


def test_the_newest_run_of_the_model_is_shown(app, probe_folder, last):
    at = app("probes", probe_folder, model=MODEL, probe=last)
    assert [m.label for m in at.metric][:2] == ["Accuracy", "Best floor"]
    assert len(at.get("bidi_component")) == 2, "scores and confusion"
    assert "rows are told wrong" in texts(at.caption)
    assert [s.value for s in at.subheader][:2] == ["Where can it be read?", "What does it get wrong?"]
    assert any("how the rows lie" in s.value.lower() or "rows lie" in s.value for s in at.subheader)
    assert labels(at)[-1] == "See what the model makes of the chosen text"
