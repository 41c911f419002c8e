"""The Start page: tasks and whether the model can do them, own files, the model library, discovery, saved runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from circuits.check import Check
from circuits.tasks import tasks
from dashboard import able, choices, library, uploads, work
from lens.checkpoint import Known
from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import labels, texts


@pytest.fixture(autouse=True)
def nothing_left():
    """Uploads, typed models and ended jobs belong to the process."""
    yield
    for job in work.runner().jobs():
        work.runner().forget(job)
    uploads.tasks().clear()
    choices.typed_models().clear()


# ---- runs and discovery


def test_without_runs_it_says_so_and_leads_to_the_prompt(app, empty_runs):
    at = app(None, empty_runs, model=MODEL)
    assert "Find out how a model does it" in texts(at.title)
    assert "No runs in" in texts(at.info)
    assert labels(at)[-1] == f"See what {MODEL} makes of a prompt"


def test_runs_are_listed_with_what_they_found(app, saved_runs):
    at = app(None, saved_runs)
    assert any(label.startswith(f"induction · {MODEL} · eap") for label in labels(at))
    assert "4 examples" in texts(at.caption)


def test_more_runs_than_are_shown_are_a_link_away(app, saved_runs, tmp_path):
    for i in range(8):
        shutil.copytree(saved_runs / RUN, tmp_path / f"run {i}")
    at = app(None, tmp_path, model=MODEL)
    assert "All 8 runs" in labels(at)


def test_a_discovery_leads_to_its_circuit(app, tmp_path):
    at = app(None, tmp_path, model=MODEL, task="induction")
    at.number_input(key="examples_False").set_value(2)
    at.button(key="discover").click()
    at = settled(at)
    assert not texts(at.error)
    (found,) = tmp_path.iterdir()
    assert json.loads((found / "run.json").read_text())["examples"] == 2
    assert "done in" in texts(at.success)
    assert labels(at)[-1] == f"Open the circuit that was found: {found.name}"


def test_what_a_discovery_cannot_do_is_told(app, tmp_path):
    at = app(None, tmp_path, model=MODEL, task="induction")
    at.number_input(key="examples_False").set_value(2)
    at.number_input(key="edges").set_value(9_999_999)
    at.button(key="discover").click()
    at = settled(at)
    assert "9999999 edges were asked for" in texts(at.error)
    assert not any(tmp_path.iterdir())
    at.button(key="dismiss").click()
    assert not settled(at).error


# ---- tasks


def test_the_task_says_what_it_tests_and_whether_the_model_can(app, empty_runs):
    at = app(None, empty_runs, model=MODEL)
    assert at.selectbox(key="choose_task").value == at.selectbox(key="prompts_from").value == "induction"
    assert "Corrupt prompts:" in texts(at.caption)
    assert "Right on 100% of 32 prompts (95% interval 89% to 100%)" in texts(at.success)


def test_start_and_sidebar_choose_the_same_task(app, empty_runs):
    at = app(None, empty_runs, model=MODEL, prompt="the ship moved so the ship")
    assert at.selectbox(key="choose_task").value is None
    assert "your own prompts" in texts(at.caption)
    assert at.button(key="discover").disabled
    at.selectbox(key="choose_task").set_value("induction")
    at = settled(at)
    assert at.query_params["task"] == "induction"
    assert "prompt" not in at.query_params
    assert at.selectbox(key="prompts_from").value == "induction"
    at.selectbox(key="prompts_from").set_value("My own prompts")
    at = settled(at)
    assert at.selectbox(key="choose_task").value is None


def test_a_task_without_words_for_the_model_says_so(app, empty_runs):
    at = app(None, empty_runs, model=MODEL, task="docstring")
    assert at.selectbox(key="choose_task").value == "docstring"
    assert at.error, "the tokenizer of the shipped model has no words for it"
    assert not at.success


def test_all_tasks_are_checked_at_once(app, empty_runs):
    at = app(None, empty_runs, model=MODEL, task="induction")
    at.button(key="check_all").click()
    at = settled(at)
    assert not at.exception
    frame = next(d.value for d in at.dataframe if "verdict" in d.value.columns)
    assert len(frame) == len(tasks())
    assert "not checked yet" not in set(frame["verdict"])
    assert frame[frame["task"] == "Induction"]["verdict"].item() == "can do it"
    assert "no prompts for this model" in set(frame["verdict"])


def test_a_task_that_does_not_exist_is_refused(app, empty_runs):
    at = app(None, empty_runs, task="inductoin")
    assert "did you mean 'induction'" in texts(at.warning)
    assert len(at.warning) == 1
    assert "task" not in at.query_params


def test_mostly_right_is_not_enough_where_it_may_be_chance():
    few = Check(task="t", metric="m", n=4, mean=1.0, accuracy=0.75, low=0.30, high=0.95)
    assert not able.can(few)
    assert able.can(Check(task="t", metric="m", n=100, mean=1.0, accuracy=0.75, low=0.66, high=0.82))
    assert able.words(few) == "Right on 75% of 4 prompts (95% interval 30% to 95%)."


# ---- own files


def test_an_uploaded_file_is_a_task_everywhere(app, empty_runs, induction, tmp_path):
    path = tmp_path / "mine.csv"
    tasks()["induction"].pairs(induction, 3).to_csv(path, induction)
    name = uploads.add("mine.csv", path.read_bytes())
    at = app(None, empty_runs, model=MODEL, task=name)
    assert not texts(at.error)
    assert at.selectbox(key="choose_task").value == name
    assert "Right on 100% of 3 prompts" in texts(at.warning)
    assert "too few prompts to be sure" in texts(at.warning)
    assert "3 pairs in the layout plain" in texts(at.caption)
    at.switch_page("dashboard/pages/prompt.py")
    at = settled(at)
    assert not at.exception
    assert at.text_area(key="view_prompt").value == induction.to_string(
        tasks()["induction"].pairs(induction, 3).clean[0, 1:].tolist()
    )


def test_a_forgotten_upload_is_refused(app, empty_runs):
    at = app(None, empty_runs, model=MODEL, task="upload-0123456789ab")
    assert "is not a known task" in texts(at.warning)


# ---- models


def test_the_library_lists_models_with_licences(app, empty_runs):
    at = app(None, empty_runs, model=MODEL)
    frame = next(d.value for d in at.dataframe if "licence" in d.value.columns)
    assert frame[frame["model"] == MODEL][""].item() == "looked at"
    assert set(frame["model"]) >= {MODEL, "smollm2"}


def test_a_folder_can_be_opened(app, empty_runs, induction, tmp_path):
    import lens

    lens.save(induction, tmp_path / "a model")
    at = app(None, empty_runs, model=MODEL)
    at.text_input(key="open_model").set_value(str(tmp_path / "a model")).run()
    at.button(key="open_model_now").click()
    at = settled(at)
    assert not texts(at.error)
    assert at.query_params["model"] == str(tmp_path / "a model")


def test_what_is_no_model_is_one_clear_line(app, empty_runs, tmp_path):
    at = app(None, empty_runs, model=MODEL)
    at.text_input(key="open_model").set_value(str(tmp_path)).run()
    at.button(key="open_model_now").click()
    at = settled(at)
    (said,) = {texts([error]) for error in at.error}
    assert "config.json" in said and "\n" not in said


def test_a_model_that_is_not_here_can_be_fetched(app, empty_runs, monkeypatch):
    fetched: list[str] = []
    status = ["not fetched"]

    def fetch(name, progress):
        fetched.append(name)
        status[0] = "fetched"
        return Path("/somewhere")

    monkeypatch.setattr(library, "fetch", fetch)
    monkeypatch.setattr(
        "lens.sources.known_models",
        lambda: [Known("far", status[0], "an index", 5_000_000, "MIT", "far away")],
    )
    library.models.clear()
    choices.known_models.clear()
    at = app(None, empty_runs)
    at.button(key="fetch_far").click()
    at = settled(at)
    assert not at.exception
    assert fetched == ["far"]
    assert not [button for button in at.button if button.key == "fetch_far"]
    library.models.clear()
    choices.known_models.clear()
