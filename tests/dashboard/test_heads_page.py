"""The Heads page: ranking, filters and effects; the numbers behind them, against the plain way."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from circuits.head_table import head_table
from circuits.patch import patch
from circuits.places import head_name
from circuits.tasks import tasks
from dashboard import interventions
from dashboard.figures.head_kinds import KINDS
from dashboard.figures.montage import gallery_payload
from dashboard.figures.ranking import rank_labels, ranking
from dashboard.head_effects import EFFECTS, head_effects
from dashboard.head_roles import BUTTON, MOST_PAIRS
from dashboard.plain import plain
from tests.dashboard.conftest import MODEL, RUN, settled
from tests.dashboard.test_pages import texts

VALUES = np.array([[0.1, -0.9], [np.nan, 0.5], [0.4, 0.2]])
NO_ROLES = {"roles": [{"role": "induction", "heads": [], "description": ""}], "heads": {}}


def listing(at: AppTest) -> dict[str, list[str]]:
    """The heads of each role, as the table of roles shows them."""
    table = next(m.value for m in at.markdown if m.value.startswith("| role | heads, strongest first |"))
    rows = [line.replace("\\", "").strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {role: heads.split(", ") for role, heads, _ in rows}


# ---- the page


def test_heads_ranked_by_a_score(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL, sort="induction")
    assert any(s.value == "8 heads by induction" for s in at.subheader)
    frame = at.dataframe[0].value
    assert frame["induction"].is_monotonic_decreasing
    at.slider(key="least_induction").set_value(float(frame["induction"][2]) - 0.01)
    at = settled(at)
    shown = at.dataframe[0].value
    assert shown["head"].tolist() == frame["head"].tolist()[: len(shown)]
    assert 3 <= len(shown) < 8


def test_the_order_is_in_the_address(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL)
    assert "sort" not in at.query_params
    at.selectbox(key="rank_by").set_value("entropy")
    at = settled(at)
    assert at.query_params["sort"] == "entropy"
    assert at.dataframe[0].value["entropy"].is_monotonic_decreasing
    at.selectbox(key="rank_by").set_value("layer")
    at = settled(at)
    assert "sort" not in at.query_params


def test_heads_ranked_by_what_they_do(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL, sort="ablation effect", over="2")
    frame = at.dataframe[0].value
    assert {effect.title for effect in EFFECTS} <= set(frame.columns)
    assert frame["ablation effect"].abs().is_monotonic_decreasing
    assert at.toggle(key="effects_True").disabled


def test_effects_beside_the_gallery(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL)
    assert "direct effect" not in at.dataframe[0].value.columns
    at.toggle(key="effects_False").set_value(True)
    at = settled(at)
    assert "direct effect" in at.dataframe[0].value.columns


def test_effects_need_a_pair(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL, prompt="the ship moved so the ship", sort="direct effect")
    assert "needs a counterfactual prompt and an answer" in texts(at.info)
    assert len(at.get("bidi_component")) == 2, "the gallery is still there"


def test_an_order_that_does_not_exist_is_refused(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL, sort="inductoin")
    assert "did you mean 'induction'" in texts(at.warning)
    assert "sort" not in at.query_params


def test_the_sink_can_be_hidden(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL)
    at.toggle(key="hide_sink").set_value(True)
    at = settled(at)
    assert not at.exception
    assert len(at.get("bidi_component")) == 2


def test_the_roles_of_heads_are_named_where_heads_are(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL, task="induction")
    assert at.button(key="name_roles").label == BUTTON
    assert "role" not in at.dataframe[0].value.columns
    at.button(key="name_roles").click()
    at = settled(at)
    assert not at.exception and not at.error
    assert not [b for b in at.button if b.key == "name_roles"]
    listed, scores = listing(at), at.dataframe[-1].value
    named = dict(zip(scores["head"], scores["role"], strict=True))
    for role, heads in listed.items():
        for head in heads:
            assert role in named[head].split(", ")
    assert "induction" in listed
    assert f"on {MOST_PAIRS} pairs of" in texts(at.caption)


def test_the_gallery_shows_the_heads_of_a_chosen_role(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL, task="induction")
    at.button(key="name_roles").click()
    at = settled(at)
    listed, rules = listing(at), at.dataframe[0].value
    mine = listed["induction"]
    assert rules["role"].tolist() == list(listed) and rules["a head has it if"].str.len().min() > 5
    only = next(group for group in at.button_group if str(group.key).startswith("only_role"))
    only.set_value("induction")
    at = settled(at)
    assert not at.exception
    assert any(s.value == plain(f"induction: {len(mine)} heads") for s in at.subheader)
    shown = at.dataframe[-1].value["head"].tolist()
    assert shown == mine
    assert any(s.value.startswith(mine[0]) for s in at.subheader), "the strongest is looked at"
    at.query_params["node"] = mine[0]
    at.switch_page("dashboard/pages/head.py")
    at = settled(at)
    assert any(mine[0] in s.value and "induction" in s.value for s in at.subheader)


def test_the_roles_of_a_run_are_those_of_its_circuit_page(app, saved_runs, tmp_path, monkeypatch):
    runs = shutil.copytree(saved_runs, tmp_path / "runs")  # of which nobody has asked before
    asked = []
    monkeypatch.setattr(
        interventions, "roles", lambda _, run, progress: asked.append(run.path.name) or NO_ROLES
    )
    at = app("heads", runs, model=MODEL, run=RUN, node="a1.h0")
    at.button(key="name_roles").click()
    at = settled(at)
    assert asked == [RUN]
    assert "None of the 1 known roles fits a head" in texts(at.caption)
    at.switch_page("dashboard/pages/circuit.py")
    at = settled(at)
    assert not [b for b in at.button if b.key == "find_roles"], "known there as well"


def test_roles_are_not_offered_without_a_pair(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL, prompt="the ship moved so the ship")
    assert at.button(key="name_roles").disabled
    assert "no counterfactual prompt" in at.button(key="name_roles").help


def test_the_table_says_its_order_and_keeps_the_selected_head(app, empty_runs):
    at = app("heads", empty_runs, model=MODEL, task="induction")
    assert "Rows: most induction first, then most previous token" in texts(at.caption)
    assert "so a head's shares of attention are not of the same positions" in texts(at.caption)
    worst = app("heads", empty_runs, model=MODEL, task="induction", sort="induction").dataframe[0].value
    last = worst["head"].iloc[-1]
    at = app("heads", empty_runs, model=MODEL, task="induction", sort="induction", node=last)
    assert f"Rows: by induction, largest first. {last} is selected: row 8 of 8." in texts(at.caption)
    at.slider(key="least_induction").set_value(0.3)
    at = settled(at)
    frame = at.dataframe[0].value
    assert frame["head"].iloc[-1] == last and frame["induction"].iloc[-1] < 0.3
    assert frame["induction"].iloc[:-1].min() >= 0.3
    assert f"{last} is selected: below them, left out by the filter." in texts(at.caption)


# ---- numbers and figures


def test_effects_are_those_of_the_packages(induction):
    pairs = tasks()["induction"].pairs(induction, 3)
    found = head_effects(induction, pairs, "logit_diff")
    table = head_table(induction, pairs)
    assert np.allclose(found.ablation, patch(induction, pairs, "z").effect.numpy())
    assert np.allclose(found.direct, table.features["direct"].numpy(), atol=1e-4)
    assert np.allclose(found.mover, table.features["END→answer"].numpy(), equal_nan=True)


def test_effects_without_wrong_answers(induction):
    from circuits.pairs import Pairs

    pairs = Pairs.from_tokens(induction, [[1, 20, 30, 40]], [[1, 21, 30, 40]], [50])
    found = head_effects(induction, pairs, "log_prob")
    assert np.isnan(found.mover).all()
    assert not np.isnan(found.ablation).any() and not np.isnan(found.direct).any()


def test_the_order_of_a_score():
    assert ranking(VALUES) == [3, 4, 5, 0]
    assert ranking(VALUES, by_size=True) == [1, 3, 4, 5, 0]
    assert ranking(VALUES, least=0.3) == [3, 4]
    assert ranking(VALUES, layers=(2, 2)) == [4, 5]
    assert rank_labels(VALUES, [1, 3]) == ["a0.h1 -0.90", "a1.h1 0.50"]
    assert rank_labels(VALUES, [3], signed=True) == ["a1.h1 +0.50"]


def test_a_ranked_gallery_says_which_heads_it_shows():
    tiles = np.zeros((3, 2, 4, 4), np.uint8)
    about = [head_name(l, h) for l in range(3) for h in range(2)]
    payload = gallery_payload(tiles, 4, about, title="t", order=[3, 0], labels=["x", "y"])
    assert payload["ranked"] and payload["order"] == [3, 0] and payload["labels"] == ["x", "y"]
    assert not gallery_payload(tiles, 4, about, title="t")["ranked"]
    with pytest.raises(ValueError, match="0 labels do not fit 1 heads"):
        gallery_payload(tiles, 4, about, title="t", order=[1])


def test_columns_have_their_own_names():
    names = [*(kind.title for kind in KINDS), *(effect.title for effect in EFFECTS)]
    assert len(set(names)) == len(names)
