"""Clicks that come while a page runs anew are acted on, once, and not much later."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import pressed


def interrupted() -> None:
    """A page that is run anew before it comes to its buttons, when it is told so."""
    import streamlit as st

    from dashboard import pressed

    if st.session_state.pop("interrupt", False):
        st.rerun()
    for name, clicked in (
        ("sure", pressed.button("Sure", key="sure")),
        ("lost", st.button("Lost", key="lost")),
    ):
        if clicked:
            st.session_state[f"{name}_done"] = st.session_state.get(f"{name}_done", 0) + 1


def count(at: AppTest, name: str) -> int:
    key = f"{name}_done"
    return at.session_state[key] if key in at.session_state else 0  # noqa: SIM401 -- it has no `get`


@pytest.fixture
def at() -> AppTest:
    return AppTest.from_function(interrupted, default_timeout=30).run()


def test_a_click_is_acted_on_once(at):
    at.button(key="sure").click().run()
    assert count(at, "sure") == 1
    at.run()
    assert count(at, "sure") == 1


def test_a_click_outlives_the_run_it_was_given_to(at):
    for name, expected in (("sure", 1), ("lost", 0)):
        at.session_state["interrupt"] = True
        at.button(key=name).click().run()
        at.run()
        assert count(at, name) == expected, "Streamlit's own button loses it" if name == "lost" else name


def test_a_click_of_long_ago_is_forgotten(at, monkeypatch):
    monkeypatch.setattr(pressed, "FRESH", -1.0)
    at.button(key="sure").click().run()
    assert count(at, "sure") == 0
