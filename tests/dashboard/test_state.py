"""The address of a page: reading, refusing, writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dashboard import state
from dashboard.state import LONGEST, View, read


def test_an_address_and_a_view_are_two_forms_of_one_thing():
    view = View(model="smollm2", prompt="When Mary & John", node="a9.h2", edges=200, example=0, query=13)
    assert read(view.params()) == (view, {})
    assert "run" not in view.params()
    assert view.params(run="ioi-1", node=None)["run"] == "ioi-1"
    assert "node" not in view.params(node=None)


def test_an_empty_prompt_is_left_to_the_page():
    assert read({"prompt": " "}) == (View(prompt=" "), {})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("node", "a9.x2", "names look like a9.h2"),
        ("node", "<script>", "names look like a9.h2"),
        ("edges", "many", "not a whole number from 1 on"),
        ("edges", "0", "not a whole number from 1 on"),
        ("edges", "-3", "not a whole number from 1 on"),
        ("example", "²", "not a whole number from 0 on"),
        ("query", "99999999999999", "not a whole number from 0 on"),
        ("model", "  ", "model is empty"),
        ("prompt", "x" * (LONGEST + 1), "at most 8000 fit"),
        ("nodes", "a9.h2", "did you mean 'node'"),
    ],
)
def test_what_is_not_valid_is_refused_and_the_rest_stays(name, value, message):
    view, refused = read({name: value, "task": "ioi"})
    assert view == View(task="ioi")
    assert list(refused) == [name]
    assert message in refused[name]


def test_only_a_new_selection_is_a_choice(monkeypatch):
    """What a browser tells again, of a table that is gone or from the start, takes nothing back."""
    session: dict[str, Any] = {}
    monkeypatch.setattr("streamlit.session_state", session)
    picked: list[list[int]] = []

    def drawn(selected: list[int]) -> Callable[[], None]:
        return state.selecting("table", "rows", picked.append, selected)["on_select"]

    def says(rows: list[int]) -> None:
        session["table"] = {"selection": {"rows": rows, "columns": []}}

    changed = drawn([2])
    says([2])
    changed()
    assert picked == [], "it was selected from the start"
    says([5])
    changed()
    assert picked == [[5]]
    changed = drawn([2])
    changed()
    assert picked == [[5]], "it was told before"
    del session["table"]  # the table is gone, and then the browser tells of it once more
    says([5])
    changed()
    assert picked == [[5]]
    del session["table"]
    changed = drawn([])  # another table in its place
    says([5])
    changed()
    assert picked == [[5], [5]]
    says([])
    changed()
    assert picked == [[5], [5]]
