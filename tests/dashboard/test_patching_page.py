"""The Patching page as Streamlit runs it."""

from __future__ import annotations

import pytest

from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import labels, texts


def test_the_default_shows_all_heads_of_the_pair(app, empty_runs):
    at = app("patching", empty_runs, model=MODEL)
    assert "Patching" in texts(at.title)
    assert len(at.get("bidi_component")) == 1
    frame = at.dataframe[0].value
    assert frame["patch"].iloc[0].startswith("a")
    assert frame["effect"].abs().is_monotonic_decreasing
    assert labels(at)[-1] == "Look at all heads"


def test_a_link_selects_kind_pairs_and_cell(app, saved_runs):
    at = app("patching", saved_runs, model=MODEL, run=RUN, site="resid_pre", over="4", layer="1", query="2")
    assert any(s.value.startswith("L1 · 2") for s in at.subheader)
    assert "resampled pairs" in texts(at.caption)
    assert at.session_state["view_over"] == 4


def test_the_direction_is_in_the_address(app, empty_runs):
    at = app("patching", empty_runs, model=MODEL, task="induction", direction="denoise")
    assert at.button_group(key="view_direction").value == "denoise"
    restored = at.dataframe[0].value
    assert restored["effect"].iloc[0] > 0, "clean values restore the behaviour"
    at.button_group(key="view_direction").set_value("noise")
    at = settled(at)
    assert at.session_state["view"].direction == "noise"
    assert at.dataframe[0].value["effect"].iloc[0] < 0


def test_paths_end_at_an_input_of_the_selected_node(app, empty_runs):
    at = app("patching", empty_runs, model=MODEL, site="paths", node="a1.h2", receiver="a1.h2<k>")
    box = at.selectbox(key="view_receiver")
    assert box.value == "a1.h2<k>"
    assert box.options == ["logits", "a1.h2<q>", "a1.h2<k>", "a1.h2<v>"]
    assert "No direct path" in texts(at.caption)
    assert set(at.dataframe[0].value["patch"]) <= {f"a0.h{h}" for h in range(4)}


def test_estimates_beside_exact_effects(app, empty_runs):
    at = app("patching", empty_runs, model=MODEL, site="estimate", node="a0.h2")
    table = at.dataframe[0].value.set_index("")
    assert float(table.loc["Pearson", "all"]) > 0.5
    assert table.loc["nodes", "head"] == "8"
    assert "a0.h2: estimate" in texts(at.caption)


@pytest.mark.parametrize("what", ["heads", "edges"])
def test_what_is_sent_becomes_a_run_that_the_next_step_opens(app, tmp_path, what):
    at = app("patching", tmp_path, model=MODEL, task="induction")
    if what == "edges":
        at.button_group(key="send_what").set_value("edges")
        at = settled(at)
    at.number_input[0].set_value(3)
    at.button(key="send").click()
    at = settled(at)
    assert not at.exception
    (run,) = tmp_path.iterdir()
    assert f"saved as {run.name}" in texts(at.success)
    assert labels(at)[-1] == "Open the circuit of what was sent"


def test_without_a_pair_it_says_what_is_missing(app, empty_runs):
    at = app("patching", empty_runs, model=MODEL, prompt="the ship saw the")
    assert "no counterfactual prompt yet" in texts(at.info)
    assert not at.get("bidi_component")
    assert labels(at)[-1].startswith("Look at the heads")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ({"site": "resid_pree"}, "did you mean 'resid_pre'"),
        ({"site": "mlp_out"}, "'mlp_out' is not a known kind of patch"),
        ({"over": "33"}, "there are 32 pairs"),
        ({"over": "0"}, "over='0' is not a whole number from 1 on"),
        ({"receiver": "a1.h2<z>"}, "'a1.h2<z>' is not a known input"),
        ({"direction": "denoised"}, "'denoised' is not a known direction; did you mean 'denoise'"),
        ({"node": "a7.h0"}, "a7.h0 is not a head of induction-2l"),
        ({"layer": "2"}, "has 2 layers"),
    ],
)
def test_a_wrong_address_is_refused_with_one_message(app, empty_runs, address, message):
    at = app("patching", empty_runs, **{"model": MODEL, "task": "induction", **address})
    assert message in texts(at.warning)
    assert len(at.warning) == 1
    assert not set(address) & set(at.query_params)
