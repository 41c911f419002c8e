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

FAST = {"floors": ["majority"], "bootstrap": 50, "C": 0.01}


@pytest.fixture(scope="module")
def probe_folder(tmp_path_factory, induction) -> Path:
    """Two runs that differ in their position, as the page makes them, and one of values."""
    folder = tmp_path_factory.mktemp("probes")
    shelf, runner = Shelf(lambda name, progress: induction), Runner()
    settings = Config.of({"dataset": probing.REPEATS, "model": MODEL, **FAST})
    source = probing.Source(probing.REPEATS)
    job = probing.start(runner, shelf, source, 80, settings, ["last", "first"], folder)
    assert job.wait(120), "still training"
    assert job.state == "done", job.error
    return folder


@pytest.fixture(scope="module")
def last(probe_folder) -> str:
    return next(path.name for path in probe_folder.iterdir() if path.name.endswith("last"))


@pytest.fixture(scope="module")
def places(probe_folder, induction, last) -> str:
    """A run of two values, of rows that lie in the run's folder."""
    from probes.labelled import Labelled
    from probes.train import train

    words = probing.repeats(induction, 60).decode().splitlines()[1:]
    lines = [f"{line.split(',')[0]},{i % 60 - 30},{7 * i % 90}" for i, line in enumerate(words)]
    table = probe_folder / "places.csv"
    table.write_text("\n".join(["text,latitude,longitude", *lines]))
    options = {"label": "", "values": ["latitude", "longitude"], "unit": "degrees"}
    labelled = Labelled.read(table, **options)
    settings = {"dataset": "places.csv", "dataset_options": options, "model": MODEL, "estimator": "ridge"}
    run = train(induction, labelled, Config.of({**settings, "floors": ["mean"], "bootstrap": 50}))
    run.save(probe_folder / "places")
    table.rename(probe_folder / "places" / "places.csv")
    return "places"


def test_a_run_with_its_scores_failures_plane_and_steering(app, probe_folder, last):
    at = app("probes", probe_folder, model=MODEL, probe=last)
    assert [m.label for m in at.metric] == ["Accuracy", "Best floor"]
    assert len(at.get("bidi_component")) == 2, "scores and confusion"
    shown = [s.value for s in at.subheader]
    assert shown[:2] == ["Where can it be read?", "What does it get wrong?"]
    assert shown[2].startswith("How do the rows lie in layer")
    assert "told wrong" in texts(at.caption)
    assert "not steered" in texts(at.markdown)
    wrong = at.dataframe[0].value
    assert (wrong["true"] != wrong["told"]).all()
    assert wrong["error"].is_monotonic_decreasing
    assert f"Open “{wrong['text'][0]}” on Prompt" in labels(at)
    assert labels(at)[-1] == "See what the model makes of the chosen text"


def test_a_link_selects_run_layer_and_target(app, probe_folder, last):
    at = app("probes", probe_folder, model=MODEL, probe=last, layer="0", target="label")
    assert any(s.value == "How do the rows lie in layer 0?" for s in at.subheader)
    assert not at.warning
    at.button(key="dose").click()
    at = settled(at)
    assert not at.exception
    assert "rank correlation with the dose" in texts(at.caption)


def test_values_are_shown_as_a_map(app, probe_folder, places):
    at = app("probes", probe_folder, model=MODEL, probe=places)
    assert "latitude, longitude in degrees" in texts(at.caption)
    table = at.dataframe[0].value
    assert table["error (km)"].is_monotonic_decreasing
    assert len(table) == 60
    assert at.segmented_control(key="projection_value").value == "longitude"
    assert at.selectbox(key="steer_to_values_2").value == "longitude"
    said = texts(at.markdown)
    assert "lower longitude" in said and "higher longitude" in said


@pytest.mark.parametrize("kind", ["mlp", "attention-pooling"])
def test_probes_that_are_not_linear_are_shown_and_offer_no_steering(app, tmp_path, induction, kind):
    shelf, runner = Shelf(lambda name, progress: induction), Runner()
    asked = {
        "dataset": probing.REPEATS,
        "model": MODEL,
        "estimator": kind,
        "floors": ["majority"],
        "bootstrap": 20,
    }
    job = probing.start(
        runner, shelf, probing.Source(probing.REPEATS), 40, Config.of(asked), ["last"], tmp_path
    )
    assert job.wait(120) and job.state == "done", job.error
    (run,) = tmp_path.iterdir()
    at = app("probes", tmp_path, model=MODEL, probe=run.name)
    assert not at.exception and not at.error
    assert [m.label for m in at.metric] == ["Accuracy", "Best floor"]
    assert f"{kind} on resid_post" in texts(at.caption)
    assert any(s.value.startswith("How do the rows lie in layer") for s in at.subheader)
    assert f"{kind} probes have no direction to steer along; ccs, k-sparse" in texts(at.info)
    assert not [box for box in at.selectbox if str(box.key).startswith("steer_to")]


def test_probes_without_their_rows_still_show_scores(app, probe_folder, last, tmp_path):
    shutil.copytree(probe_folder / last, tmp_path / last)
    (tmp_path / last / probing.TABLE).unlink()
    at = app("probes", tmp_path, probe=last)
    assert [m.label for m in at.metric] == ["Accuracy", "Best floor"]
    assert "copy 'words that come again' into its folder" in texts(at.error)
    assert labels(at)[-1] == "Look at a prompt of this model"


def test_without_runs_there_is_a_form_that_trains_one(app, empty_runs):
    at = app("probes", empty_runs, model=MODEL)
    assert "No probes of induction-2l yet" in texts(at.info)
    assert at.selectbox(key="probe_data").value == probing.REPEATS, "the only data that its words can say"
    assert "mlp_out" not in at.selectbox(key="probe_site").options
    at.number_input(key="probe_rows").set_value(60)
    at.selectbox(key="probe_kind_classes").set_value("mass-mean")
    at.button(key="probe_train").click()
    at = settled(at)
    assert not at.exception
    (run,) = empty_runs.iterdir()
    assert at.query_params["probe"] == run.name
    assert "mass-mean on resid_post" in texts(at.caption)


def test_what_cannot_be_trained_is_said_in_one_line(app, empty_runs):
    at = app("probes", empty_runs, model=MODEL)
    at.selectbox(key="probe_data").set_value("truth")
    at = settled(at)
    at.multiselect(key="probe_positions").set_value([])
    at.button(key="probe_train").click()
    at = settled(at)
    assert "no position is chosen" in texts(at.error)


def test_another_model_has_no_probes_here(app, probe_folder):
    at = app("probes", probe_folder, model="planted-ioi-easy-0")
    assert "model" not in at.query_params, "refused: it is not a model to choose from"
    assert at.metric, "the newest run is shown"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ({"probe": "../secret"}, "is not a known run of probes"),
        ({"layer": "7"}, "layer 7 has no probe in this run; it has 0, 1"),
        ({"target": "lable"}, "did you mean 'label'"),
        ({"layer": "-1"}, "not a whole number"),
    ],
)
def test_a_wrong_address_is_refused_with_one_message(app, probe_folder, last, address, message):
    at = app("probes", probe_folder, **{"model": MODEL, "probe": last, **address})
    assert message in texts(at.warning)
    assert len(at.warning) == 1
    assert not set(address) & set(at.query_params) or at.query_params["probe"] == [last]


def test_circuits_and_probes_share_a_folder(saved_runs, probe_folder, last, tmp_path):
    shutil.copytree(saved_runs / RUN, tmp_path / RUN)
    shutil.copytree(probe_folder / last, tmp_path / last)
    (tmp_path / "link").symlink_to(probe_folder / last)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text('{"format": "probes.run", "config": [')
    assert [run.path.name for run in list_runs(tmp_path)] == [RUN]
    assert list(probe_runs.folders(tmp_path)) == [last]
