"""The Heads page of a scene: every group of heads as small pictures, the selected head, a table of them all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from dashboard import page, scene_views, state
from dashboard.components.gallery import gallery
from dashboard.figures.montage import gallery_payload, pool
from dashboard.figures.picture import over_picture, png
from dashboard.group_survey import GroupSurvey, scores_of
from dashboard.head_groups import Group
from dashboard.outcomes import judged
from dashboard.plain import plain
from dashboard.scene import Scene
from dashboard.scene_views import At
from dashboard.state import View

OVER, AS_PATTERNS = "over the picture", "as patterns"
EFFECT = "without it"
SMALL = 0.005  # below it, three decimals say next to nothing
QUICK = 64  # heads that are all taken away without being asked to
LARGEST = 1024


def show(view: View, scene: Scene) -> None:
    """All of the page below its title."""
    if max(len(row) for row in scene.rows.values()) > LARGEST:
        st.error(f"There are more than {LARGEST:,} positions, which the pictures cannot show.")
        return
    found = scene_views.surveyed(scene)
    if found is None:
        page.next_step("prompt", f"See what {scene.name} makes of it", view)
        return
    view, at = scene_views.chosen(view, scene, found)
    view = scene_views.check_query(view, scene, at[0])
    as_patterns, changed = controls(scene)
    left, right = st.columns([11, 9], gap="medium")
    with left:
        galleries(view, scene, found, at, as_patterns, changed)
        if scene.picture is not None:
            as_matrix(view, scene, at)
    with right:
        kind = scene_views.telling(scene, at, found)
        name = at[0].name(*at[1:])
        st.subheader(f"{name}" + (f" · {kind}" if kind else ""), divider=False)
        if len(scene.groups) > 1:
            st.caption(at[0].title)
        scene_views.head_attention(
            scene, at, key="scene", query=view.query, on_query=lambda position: state.put(query=position),
            matrix=False, largest=260,
        )  # fmt: skip
    table(scene, found, at, changed)
    page.next_step("head", f"Take {name} apart", view, node=name)


def controls(scene: Scene) -> tuple[bool, Mapping[str, NDArray[Any]] | None]:
    """Whether heads are drawn as matrices, and what is lost without each."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    as_patterns = scene.picture is None
    n = sum(g.layers * g.heads for g in scene.groups)
    with row:
        if scene.picture is not None:
            drawn = st.segmented_control(
                "Heads", [OVER, AS_PATTERNS], default=OVER, key="scene_drawn", required=True
            )
            as_patterns = drawn == AS_PATTERNS
        kind = scene_views.ablation_kind(scene, "Without a head: its output becomes", "scene_effects_of")
        asked = st.toggle(
            "Take every head away", value=n <= QUICK, key=f"scene_effects_{n <= QUICK}",
            help=plain(f"Runs the model once without each of its {n} heads: the change of the {judged(scene).total}"),
        )  # fmt: skip
    return as_patterns, scene_views.effects(scene, kind) if asked else None


def galleries(
    view: View,
    scene: Scene,
    found: Mapping[str, GroupSurvey],
    at: At,
    as_patterns: bool,
    changed: Mapping[str, NDArray[Any]] | None,
) -> None:
    """One gallery per group; those of an encoder–decoder stand in the order in which they run."""
    several = len(scene.groups) > 1
    if scene.picture is not None:
        place = scene.picture.place(view.query or 0)
        place = f"the {place}" if place == scene.picture.CLASS_TOKEN else place
        st.subheader("All heads" if as_patterns else f"What {place} looks at in each head", divider=False)
    for i, group in enumerate(scene.groups):
        if scene.picture is None:
            st.subheader(group.title, divider=False)
        patterns, options = found[group.letter].patterns, dict[str, Any]()
        if scene.picture is not None and not as_patterns:
            tiles, most = over_picture(patterns, scene.picture, view.query or 0)
            patch = (view.query or 0) - scene.picture.first
            options = {"backdrop": png(scene.picture.pixels), "most": most, "patch": patch}
        else:
            tiles = np.stack([pool(layer) for layer in patterns])
        n, largest = len(scene.rows[group.queries]), 72 if several else 150 if options else 110
        gallery(
            gallery_payload(
                tiles, n, about(scene, found, group, changed), letter=group.letter,
                title=f"{group.title}: {group.layers * group.heads} heads of {scene.model.name}",
                largest=largest, legend=i == 0, hint=i == len(scene.groups) - 1, **options,
            ),
            key=f"gallery_{group.letter}{'_over' if options else ''}",
            selected=at[1:] if group == at[0] else None,
            on_pick=lambda node, group=group: state.put(
                node=node, **({} if group.queries == at[0].queries else {"query": None})
            ),
        )  # fmt: skip


def as_matrix(view: View, scene: Scene, at: At) -> None:
    """The selected head's pattern over an image, as other heads' are drawn."""
    pattern = scene_views.pattern_of(scene, at)
    if pattern is None:
        return
    st.subheader(f"{at[0].name(*at[1:])} as a matrix", divider=False)
    scene_views.matrix_of(
        scene, at, pattern, key="scene", query=view.query, on_query=lambda position: state.put(query=position)
    )


def about(
    scene: Scene,
    found: Mapping[str, GroupSurvey],
    group: Group,
    changed: Mapping[str, NDArray[Any]] | None,
) -> list[str]:
    """What a gallery says of each of its heads."""
    lines = []
    for layer, head in np.ndindex(group.layers, group.heads):
        kind = scene_views.telling(scene, (group, layer, head), found)
        lost = "" if changed is None else f"{EFFECT}: {changed[group.letter][layer, head]:+.3f}"
        lines.append("\n".join(filter(None, [group.name(layer, head), kind, lost])))
    return lines


def signed(values: NDArray[Any]) -> str:
    """How changes are written such that the largest is not a zero."""
    return "%+.3f" if np.nanmax(np.abs(values), initial=0.0) >= SMALL else "%+.1e"


def table(
    scene: Scene, found: Mapping[str, GroupSurvey], at: At, changed: Mapping[str, NDArray[Any]] | None
) -> None:
    """All heads with their scores, and what is lost without them; a click on a row selects a head."""
    st.subheader("What do they look at, and what is lost without them?", divider=False)
    shown = judged(scene)
    titles: dict[str, str] = {}
    rows = []
    for group in scene.groups:
        scores = scores_of(scene, group)
        titles |= {score.title: score.about for score in scores}
        for layer, head in np.ndindex(group.layers, group.heads):
            row: dict[str, Any] = {"head": group.name(layer, head)}
            if changed is not None:
                row[EFFECT] = float(changed[group.letter][layer, head])
            values = found[group.letter].scores[layer, head]
            row |= {score.title: float(v) for score, v in zip(scores, values, strict=True)}
            rows.append(row)
    asked = [title for title in titles if any(not math.isnan(row.get(title, math.nan)) for row in rows)]
    frame = pd.DataFrame(rows, columns=["head", *([EFFECT] if changed is not None else []), *asked])
    if changed is not None:
        frame = frame.iloc[np.argsort(-frame[EFFECT].abs().to_numpy(), kind="stable")]
    names = frame["head"].tolist()
    selected = at[0].name(*at[1:])
    key = f"scene_table_{selected}_{'_'.join(names[:3])}"

    default = [names.index(selected)]

    def pick(picked: list[int]) -> None:
        state.put(node=names[picked[0]], query=None)

    st.dataframe(
        frame, hide_index=True, height=min(388, 35 * (len(frame) + 1) + 3),
        **state.selecting(key, "rows", pick, default), selection_mode="single-row",
        selection_default={"selection": {"rows": default}},
        column_config={
            "head": st.column_config.TextColumn("head", pinned=True),
            EFFECT: st.column_config.NumberColumn(
                EFFECT, format=signed(frame[EFFECT].to_numpy()) if changed is not None else None,
                help=plain(f"Change of the {shown.total} when the head's output is replaced"),
            ),
            **{
                title: st.column_config.NumberColumn(title, format="%.2f", help=text) if title == "entropy"
                else st.column_config.ProgressColumn(title, format="%.2f", help=text, min_value=0, max_value=1)
                for title, text in titles.items()
            },
        },
    )  # fmt: skip
    if changed is not None:
        st.caption(
            plain(f"{EFFECT}: change of the {shown.total} when that head's output is replaced, exactly.")
        )
