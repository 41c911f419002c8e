"""Every page with every kind of model: the right view, or one line why not and where to go instead."""

from __future__ import annotations

import re

import pytest
from streamlit.testing.v1 import AppTest

import lens
from dashboard import choices, kinds, pages, work
from tests.dashboard import specimens
from tests.dashboard.conftest import APP, MODEL, RUN, settled
from tests.dashboard.specimens import OTHER, SPECIMENS, TEXT
from tests.dashboard.test_pages import labels, texts

PAGES = [name for name in pages.found() if name != "start"]
SHIPPED = {MODEL: kinds.DECODER, "digits-vit": kinds.VISION, "reorder-ed": kinds.SEQ2SEQ}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("models of all kinds")


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    for job in work.runner().jobs():
        work.runner().forget(job)
    choices.typed_models().clear()


def walk(at: AppTest, cfg) -> dict[str, dict]:
    """All pages of a model, one after the other as by the menu: how many pictures each has, and what it says."""
    seen = {}
    for where in PAGES:
        at.switch_page(f"dashboard/pages/{where}.py")
        at = settled(at)
        assert not at.exception, (where, at.exception[0].message)
        assert not at.error, (where, texts(at.error))
        assert at.title, where
        assert labels(at), f"{where} leads nowhere"
        refused = kinds.refusal(where, cfg)
        if refused is not None:
            assert texts(at.info).count(refused.why) == 1, where
            assert labels(at)[-1] == refused.label
            assert not at.main.get("bidi_component"), f"{where} shows a picture all the same"
        seen[where] = {"pictures": len(at.main.get("bidi_component")), "info": texts(at.info)}
    return seen


@pytest.mark.parametrize("name", SPECIMENS)
def test_every_page_with_every_kind(name, folders, monkeypatch, empty_runs):
    specimen = SPECIMENS[name]
    path = specimens.saved(specimen, folders / re.sub(r"\W", "-", name))
    cfg = lens.load(path).cfg
    assert kinds.kind_of(cfg) == specimen.kind
    choices.typed_models().append(path)
    monkeypatch.setattr("sys.argv", ["app.py"])
    monkeypatch.setenv("LENS_RUNS", str(empty_runs))
    at = AppTest.from_file(str(APP), default_timeout=60)
    at.query_params["model"] = path
    if specimen.texts:
        at.query_params["prompt"], at.query_params["corrupt"] = TEXT, OTHER
    at = settled(at)
    assert not at.exception and labels(at)
    seen = walk(at, cfg)
    if specimen.kind in (kinds.READER, kinds.SEQ2SEQ):
        assert all(seen[where]["pictures"] for where in ("prompt", "heads", "head"))
    if specimen.kind == kinds.MIXER:
        assert seen["prompt"]["pictures"], "tokens and the logit lens need no heads"


@pytest.mark.parametrize(("name", "kind"), SHIPPED.items())
def test_every_page_with_the_shipped_models(name, kind, monkeypatch, empty_runs):
    cfg = lens.load(name).cfg
    assert kinds.kind_of(cfg) == kind
    monkeypatch.setattr("sys.argv", ["app.py"])
    monkeypatch.setenv("LENS_RUNS", str(empty_runs))
    at = AppTest.from_file(str(APP), default_timeout=60)
    at.query_params["model"] = name
    at = settled(at)
    assert not at.exception and not at.error and labels(at)
    seen = walk(at, cfg)
    assert all(seen[where]["pictures"] for where in ("prompt", "heads", "head"))


@pytest.mark.model
@pytest.mark.slow
def test_every_page_with_a_real_encoder(minilm, monkeypatch, empty_runs):
    monkeypatch.setattr("sys.argv", ["app.py"])
    monkeypatch.setenv("LENS_RUNS", str(empty_runs))
    at = AppTest.from_file(str(APP), default_timeout=60)
    at.query_params["model"] = "minilm"
    seen = walk(settled(at), minilm.cfg)
    assert all(seen[where]["pictures"] for where in ("prompt", "heads", "head"))


def test_without_a_tokenizer_there_is_one_line(folders, app, empty_runs):
    path = str(folders / "no words")
    lens.save(specimens.ours("bert", "base"), path)
    choices.typed_models().append(path)
    at = app("heads", empty_runs, model=path)
    assert "has no tokenizer" in texts(at.error)


def test_the_start_page_asks_questions_where_no_task_fits(app, empty_runs):
    at = app(None, empty_runs, model="digits-vit")
    assert "Which patches decide that this is a 3?" in labels(at)
    assert "Not in this model" in texts(at.caption)
    assert not [box for box in at.main.get("selectbox") if box.label == "Task"]
    at = app(None, empty_runs, model=MODEL)
    assert "Reverse: who looks where?" in labels(at), "other models' questions are there as well"


@pytest.mark.parametrize("where", ["circuit", "evidence"])
def test_runs_of_other_models_do_not_take_the_place_of_a_refusal(app, saved_runs, where):
    at = app(where, saved_runs, model="digits-vit")
    assert "digits-vit reads images" in texts(at.info)
    assert at.query_params["model"] in ("digits-vit", ["digits-vit"])
    at = app(where, saved_runs, model="digits-vit", run=RUN)
    assert not at.info or "digits-vit" not in texts(at.info), "a run that is asked for is shown"


def test_presets_lead_to_pages_that_follow_every_parameter(app, empty_runs):
    from dashboard.samples import PRESETS

    for preset in PRESETS:
        if preset.view.model == "minilm":
            continue  # a real model, tested where it is known to be here
        at = app(preset.page, empty_runs, **preset.view.params())
        assert not at.warning and not at.error, preset.question
        assert at.main.get("bidi_component"), preset.question
