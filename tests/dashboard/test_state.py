"""The address of a page: reading, refusing, writing."""

from __future__ import annotations

import pytest

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
