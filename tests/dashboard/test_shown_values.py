"""What boxes show: a browser that did not hear of a value, because the next run began too early, shows it anyway."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.dashboard.conftest import MODEL, RUN

ADDRESS = {"model": MODEL, "task": "induction", "metric": "log_prob", "example": "3"}
PAGES = {
    "start": ADDRESS,
    "prompt": ADDRESS,
    "heads": {**ADDRESS, "sort": "previous token"},
    "head": {**ADDRESS, "node": "a1.h2", "beside": "a0.h1"},
    "patching": {**ADDRESS, "site": "paths", "over": "8", "node": "a1.h2", "receiver": "a1.h2<q>"},
    "circuit": {"run": RUN, "edges": "3", "example": "2"},
    "evidence": {"run": RUN, "metric": "log_prob"},
    "runs": {"run": RUN, "metric": "log_prob"},
}


@pytest.mark.parametrize("page", PAGES)
def test_every_run_says_what_each_box_shows(app, saved_runs, page):
    at = app(page, saved_runs, **PAGES[page])
    at.run()  # values were set in an earlier run, which a browser may not have heard of
    others = ("prompts_from", "choose_task", "beside", "rank_by")
    seen = set()

    def bound(box: Any) -> bool:
        return box.key is not None and (box.key.startswith("view_") or box.key in others)

    for box in at.selectbox:
        if bound(box):
            seen.add(box.key)
            assert box.index == (box.proto.default if box.proto.HasField("default") else None), box.key
    for box in [*at.slider, *at.text_input, *at.text_area]:
        if bound(box):
            seen.add(box.key)
            default = box.proto.default
            assert box.value == (default if isinstance(default, str) else next(iter(default))), box.key
    for box in at.get("button_group"):
        if bound(box):
            seen.add(box.key)
            assert [box.proto.options[i].content for i in box.proto.default] == [
                box.proto.options[i].content for i in box.indices
            ]
    assert {"prompts_from", "view_model", "view_metric", "view_prompt"} <= seen


def boxes() -> None:
    import streamlit as st

    from dashboard import state

    wanted, chosen = st.session_state.setdefault("wanted", "c"), st.session_state.setdefault("chosen", [])
    st.selectbox("box", ["a", "b", "c"], index=2, **state.shown("box", wanted, chosen.append))
    if not st.session_state.get("cut short"):
        state.told()


def test_a_value_whose_run_was_cut_short_is_set_again():
    at = AppTest.from_function(boxes).run()
    at.session_state["wanted"], at.session_state["cut short"] = "a", True
    at.run()
    assert at.session_state["unheard"] == {"box": ["c"]}
    at.session_state["wanted"] = "a"
    at.selectbox(key="box").set_value("c").run()  # the browser's old value comes back by itself
    assert at.session_state["chosen"] == []
    assert at.selectbox(key="box").value == "a"
    at.selectbox(key="box").set_value("b").run()  # a person's choice counts even then
    assert at.session_state["chosen"] == ["b"]
    del at.session_state["cut short"]
    at.run()
    at.selectbox(key="box").set_value("c").run()
    assert at.session_state["chosen"] == ["b", "c"]
