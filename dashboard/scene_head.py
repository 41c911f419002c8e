"""The Head page of a scene: one head large, what kind it is, and what is lost without it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import streamlit as st

from dashboard import outcomes, page, scene_views, state, work
from dashboard.figures.token_table import visible
from dashboard.group_survey import GroupSurvey, scores_of
from dashboard.head_groups import find
from dashboard.outcomes import Outcome, judged
from dashboard.plain import plain
from dashboard.scene import Scene
from dashboard.scene_views import At
from dashboard.state import View

NOTHING, CORRUPT = "nothing", "counterfactual"
LISTED = 12


def show(view: View, scene: Scene) -> None:
    """All of the page below its title."""
    found = scene_views.surveyed(scene)
    if found is None:
        page.next_step("heads", "See all heads", view)
        return
    view, at = scene_views.chosen(view, scene, found)
    view = scene_views.check_query(view, scene, at[0])
    view, beside = choose(view, scene, at)
    looks(view, scene, found, at, beside)
    without(scene, at)
    page.next_step("heads", "See all heads beside it", view, node=at[0].name(*at[1:]))


def choose(view: View, scene: Scene, at: At) -> tuple[View, bool]:
    """The head, and whether the counterfactual stands beside it."""
    names = [name for group in scene.groups for name in group.names]
    options = [NOTHING, *([CORRUPT] if scene.other is not None else [])]
    if view.beside is not None and view.beside not in options[1:]:
        why = f"{view.beside!r} cannot stand beside a head here; {scene.why or 'the counterfactual can'}"
        view = state.refuse(view, "beside", why)
    left, right, _ = st.columns([2, 4, 4], vertical_alignment="bottom")
    name, now = at[0].name(*at[1:]), view.beside or NOTHING

    def put(to: str) -> None:
        group = find(to, scene.groups)
        same = group is not None and group[0].queries == at[0].queries
        state.put(node=to, **({} if same else {"query": None}))

    left.selectbox("Head", names, index=names.index(name), **state.shown("scene_node", name, put))
    right.selectbox(
        "Beside it", options, index=options.index(now),
        **state.shown("beside", now, lambda to: state.put(beside=None if to == NOTHING else to)),
        format_func=lambda o: "the same head on the counterfactual" if o == CORRUPT else o,
    )  # fmt: skip
    return view, now == CORRUPT


def looks(view: View, scene: Scene, found: Mapping[str, GroupSurvey], at: At, beside: bool) -> None:
    """The head's attention, large; beside it the counterfactual's, or what kind of head it is."""
    values = st.toggle(
        "Weight by what is written", key="scene_by_values",
        help="Each weight times the size of what the head writes for that key: looking at a key whose value is small "
        "does little",
    )  # fmt: skip
    columns = st.columns([6, 5] if not beside else 2, gap="medium")
    name = at[0].name(*at[1:])
    kind = scene_views.telling(scene, at, found)
    for column, other in zip(columns, (False, True), strict=True):
        if other and not beside:
            break
        with column:
            on = f" on the {CORRUPT}" if other else f" · {kind}" if kind else ""
            st.subheader(f"{name}{on}", divider=False)
            if other or scene.picture is not None or len(scene.groups) > 1:
                what = at[0].title if len(scene.groups) > 1 else scene.title
                st.caption(plain("The same place looks, in the counterfactual" if other else what))
            scene_views.head_attention(
                scene, at, key=f"scene_large_{other}", query=view.query, other=other, by_values=values, largest=300,
                on_query=lambda position: state.put(query=position), matrix=not beside,
            )  # fmt: skip
    if not beside:
        with columns[1]:
            numbers(scene, found, at)


def numbers(scene: Scene, found: Mapping[str, GroupSurvey], at: At) -> None:
    """The head's scores, and where it stands in its group."""
    group, layer, head = at
    st.subheader("What kind of head?", divider=False)
    scores = found[group.letter].scores
    flat, rows, words = scores.reshape(-1, scores.shape[-1]), [], []
    for i, score in enumerate(scores_of(scene, group)):
        value = float(scores[layer, head, i])
        if not math.isnan(value):
            rows.append((score.title, value, f"{int((flat[:, i] > value).sum()) + 1} of {len(flat)}"))
            words.append(f"**{plain(score.title)}**: {plain(score.about)}")
    st.dataframe(
        pd.DataFrame(rows, columns=["score", "value", "rank"]), hide_index=True, key="scene_numbers",
        column_config={"value": st.column_config.NumberColumn("value", format="%.3f")},
    )  # fmt: skip
    st.caption("  \n".join(words))


def without(scene: Scene, at: At) -> None:
    """The head taken away: the outcome and its parts."""
    group, layer, head = at
    name, words = group.name(layer, head), judged(scene)
    st.subheader(f"Without {name}", divider=False)
    kind = scene_views.ablation_kind(scene, f"Replace the output of {name} by", "scene_ablate")
    result: tuple[Outcome, Outcome] | None = work.look(
        scene.key("ablate", name, kind),
        f"{scene.name} without {name}",
        lambda progress: outcomes.ablate(scene, group, layer, head, kind),
        lane=scene.name,
    )
    if result is None:
        return
    before, after = result
    left, right = st.columns([3, 7], gap="medium")
    change = after.total - before.total
    left.metric(plain(words.total[:1].upper() + words.total[1:]), _number(after.total), _number(change, "+"))
    left.caption(f"With the head: {_number(before.total)}")
    frame = pd.DataFrame(
        {
            words.part: [visible(name) for name in before.names],
            "with": before.parts.astype(float),
            "without": after.parts.astype(float),
            "change": (after.parts - before.parts).astype(float),
        }
    )
    if words.probability and len(frame) > LISTED:
        frame = frame.reindex(
            frame[["with", "without"]].max(axis=1).sort_values(ascending=False).index[:LISTED]
        )
    if words.probability:
        bar = {"min_value": 0, "max_value": 1, "format": "%.4f", "color": "blue"}
        columns = {side: st.column_config.ProgressColumn(side, **bar) for side in ("with", "without")}
    else:
        columns = {side: st.column_config.NumberColumn(side, format="%.4f") for side in ("with", "without")}
    with right:
        st.caption(
            plain(f"The {words.parts} of each {words.part}" if len(frame) > 2 else words.parts.capitalize())
        )
        st.dataframe(
            frame, hide_index=True, key="scene_without", height=36 * (len(frame) + 1),
            column_config={**columns, "change": st.column_config.NumberColumn("change", format="%+.4f")},
        )  # fmt: skip


def _number(value: float, sign: str = "") -> str:
    """With three decimals, or where that would be nothing as a power of ten."""
    return format(value, f"{sign}.3f" if value == 0 or abs(value) >= 0.001 else f"{sign}.1e")
