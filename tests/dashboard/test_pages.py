"""The three pages, run as Streamlit runs them: by default, by a link, with bad input, with nothing saved."""

from __future__ import annotations

import re

import pytest

from dashboard import pages
from dashboard.figures.head_kinds import KINDS
from tests.dashboard.conftest import MODEL, RUN, settled


def texts(elements) -> str:
    """What a person reads: Markdown without its backslashes."""
    return re.sub(r"\\(.)", r"\1", "\n".join(str(element.value) for element in elements))


def labels(at) -> list[str]:
    """The labels of the page's links, and before them of those that change the page itself."""
    found = [button.label for button in at.button if (button.key or "").startswith("here_")]
    found += [link.proto.label for link in at.get("page_link")]
    return [re.sub(r"\\(.)", r"\1", label) for label in found]


def test_every_page_has_a_place_in_the_menu():
    found = pages.found()
    assert [name for name in found if name in ("start", "heads", "circuit")] == ["start", "heads", "circuit"]
    assert len({page.order for page in found.values()}) == len(found)


# ---- Heads


def test_heads_of_the_default_prompt(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL)
    assert len(at.get("bidi_component")) == 2, "the gallery and one head"
    frame = at.dataframe[0].value
    assert list(frame.columns) == ["head", *(kind.title for kind in KINDS)]
    assert len(frame) == 8
    assert frame["induction"].max() > 0.4, "the model has a clear induction head"
    assert labels(at)[-1].startswith("Take a")


def test_a_link_selects_prompt_and_head(app, saved_runs):
    at = app("heads", saved_runs, model=MODEL, run=RUN, node="a1.h3")
    assert any(heading.startswith("a1.h3") for heading in [s.value for s in at.subheader])
    assert at.text_area[0].value
    assert labels(at)[-1] == "Take a1.h3 apart"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ({"node": "a99.h0"}, "a99.h0 is not a head of induction-2l, which has a0.h0 to a1.h3."),
        ({"node": "nonsense"}, "'nonsense' is not the name of a node"),
        ({"model": "no/such"}, "'no/such' is not a known model"),
        ({"query": "x"}, "query='x' is not a whole number"),
        ({"node": "a0.kv9"}, "a0.kv9 is not a head of induction-2l, which has a0.kv0 to a1.kv3."),
        ({"nodes": "a1.h0"}, "did you mean 'node' or 'model' or 'edges'?"),
    ],
)
def test_heads_refuse_a_wrong_address_with_one_message(app, empty_runs, address, message):
    at = app("heads", empty_runs, **{"model": MODEL, **address})
    assert message in texts(at.warning)
    assert len(at.warning) == 1
    assert not texts(at.warning).endswith("?.")
    assert "Selected" not in texts(at.sidebar.markdown), "nor called selected beside it"
    assert not set(address) & set(at.query_params)
    at.text_area[0].set_value("a new prompt")
    at = settled(at)
    assert not at.warning, "gone once the person does something"


def test_heads_refuse_a_prompt_longer_than_the_context(app, empty_runs, induction):
    words = induction.to_string([20] * (induction.cfg.n_ctx + 9))
    at = app("heads", empty_runs, model=MODEL, prompt=words)
    assert f"reads at most {induction.cfg.n_ctx}" in texts(at.error)
    assert not at.get("bidi_component")


def test_heads_refuse_an_empty_prompt(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL)
    at.text_area[0].set_value("  ")
    at = settled(at)
    assert "The prompt is empty" in texts(at.error)
    assert "The prompt is empty" in texts(at.info), "on the page as well"
    assert labels(at)[-1] == "Begin with a question"


def test_heads_measured_on_repeated_random_tokens(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL)
    before = at.dataframe[0].value
    next(group for group in at.button_group if group.key == "measured").set_value("repeated random tokens")
    at = settled(at)
    assert not at.exception
    assert not at.dataframe[0].value.equals(before)


# ---- between pages


def test_the_menu_keeps_the_state(app, saved_runs):
    at = app("circuit", saved_runs, run=RUN, node="a1.h2")
    at.query_params.clear()
    at.switch_page("dashboard/pages/heads.py")
    at = settled(at)
    assert at.query_params["node"] == "a1.h2"
    assert at.query_params["run"] == RUN


def test_a_run_given_on_the_command_line_is_opened(app, saved_runs, empty_runs, monkeypatch):
    monkeypatch.setattr("sys.argv", ["app.py", "--run", str(saved_runs / RUN)])
    at = app(None, empty_runs)
    assert "Induction in induction-2l" in texts(at.title)


def test_a_path_that_is_no_page_is_said_once(app, empty_runs, monkeypatch):
    import streamlit

    monkeypatch.setattr(type(streamlit.context), "url", property(lambda _: "http://localhost:1/zzz"))
    at = app(None, empty_runs, model=MODEL)
    assert texts(at.warning) == "There is no page 'zzz': this one is shown instead."
    at.switch_page("dashboard/pages/heads.py")
    at = settled(at)
    assert not at.warning, "gone on the next page"
