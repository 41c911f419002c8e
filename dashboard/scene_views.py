"""What the pages Heads and Head share of a scene: all heads surveyed, the one looked at, its attention drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard import group_survey, outcomes, state, work
from dashboard.components.attention import attention
from dashboard.components.picture import picture
from dashboard.figures.attention import attention_payload, weighted_by
from dashboard.figures.picture import picture_payload
from dashboard.group_survey import GroupSurvey, scores_of
from dashboard.head_groups import Group, find, known_heads
from dashboard.kinds import READER, SEQ2SEQ
from dashboard.scene import Scene
from dashboard.state import View

At = tuple[Group, int, int]
FIRST_SHOWN = "x", "a"
TELLING_SHARE = 0.3


def surveyed(scene: Scene) -> Mapping[str, GroupSurvey] | None:
    """All heads on what the scene reads, computed once."""
    return work.look(
        scene.key("survey"),
        f"Attention of all heads of {scene.name}",
        lambda progress: group_survey.survey(scene, progress),
        lane=scene.name,
    )


def chosen(view: View, scene: Scene, found: Mapping[str, GroupSurvey]) -> tuple[View, At]:
    """The head of the address, or else the most telling: of cross-attention, of an image's last layer, or of all."""
    if view.node is not None:
        at = find(view.node, scene.groups)
        if at is not None:
            return view, at
        why = f"{view.node} is not a head of {scene.model.name}, which has {known_heads(scene.groups)}"
        view = state.refuse(view, "node", why)
    group = next(g for letter in FIRST_SHOWN for g in scene.groups if g.letter == letter)
    if scene.picture is not None:  # what the class token, or the first patch, reads at the end
        last = found[group.letter].patterns[-1, :, 0]
        return view, (group, group.layers - 1, int(np.square(last).sum(-1).argmax()))
    shares = [i for i, score in enumerate(scores_of(scene, group)) if score.to is not None]
    telling = np.nan_to_num(found[group.letter].scores[..., shares], nan=0.0)
    best = telling[..., 0] if group.crosses else telling.max(-1)
    layer, head = np.unravel_index(int(best.argmax()), best.shape)
    return view, (group, int(layer), int(head))


def check_query(view: View, scene: Scene, group: Group) -> View:
    """The view without a position that the head's queries do not have."""
    n = len(scene.rows[group.queries])
    if view.query is not None and view.query >= n:
        return state.refuse(view, "query", f"there are {n} positions to look from, counted from 0")
    return view


def telling(scene: Scene, at: At, found: Mapping[str, GroupSurvey]) -> str:
    """A phrase for the largest share of a head's attention, "" where none is clear."""
    group, layer, head = at
    scores = scores_of(scene, group)
    values = [
        -1.0 if s.to is None else v
        for s, v in zip(scores, found[group.letter].scores[layer, head], strict=True)
    ]
    best = int(np.nan_to_num(values, nan=-1.0).argmax())
    return f"{scores[best].title} {values[best]:.2f}" if values[best] >= TELLING_SHARE else ""


def pattern_of(
    scene: Scene, at: At, *, other: bool = False, by_values: bool = False
) -> NDArray[np.floating] | None:
    """A head's pattern [q, k] on the scene or its counterfactual; `by_values`: each weight times the size of what the
    head writes for that key."""
    group, layer, head = at
    patterns = work.look(
        scene.key("pattern", group.letter, layer, other),
        f"Attention of layer {layer}",
        lambda progress: group_survey.pattern_of_layer(scene, group, layer, other=other),
        lane=scene.name,
    )
    if patterns is None or not by_values:
        return None if patterns is None else patterns[head]
    assert scene.other is not None or not other
    read = replace(scene, inputs=scene.other) if other and scene.other is not None else scene
    sizes = work.look(
        scene.key("value sizes", group.letter, layer, other),
        f"Values of layer {layer}",
        lambda progress: group_survey.value_sizes(read, group, layer),
        lane=scene.name,
    )
    return None if sizes is None else weighted_by(patterns[head], sizes[head])


def labels_of(scene: Scene, group: Group, *, other: bool = False) -> tuple[list[str], list[str]]:
    """The names of queries and keys, of the scene or of its counterfactual."""
    queries, keys = scene.labels(group)
    if not other or scene.other is None or scene.picture is not None:
        return queries, keys
    source = scene.other.source if scene.kind == SEQ2SEQ else scene.other
    ids = getattr(source, "ids", None)
    if ids is None:
        return queries, keys
    row = "source" if scene.kind == SEQ2SEQ else "target"
    spelled = scene.model.to_str_tokens(ids[0].tolist())
    return (
        spelled if group.queries == row else queries,
        spelled if group.keys == row else keys,
    )


def head_attention(
    scene: Scene,
    at: At,
    *,
    key: str,
    query: int | None,
    on_query: Callable[[int], None],
    other: bool = False,
    by_values: bool = False,
    largest: int = 230,
    matrix: bool = True,
) -> None:
    """One head's attention: over the picture and as a matrix, or over texts."""
    pattern = pattern_of(scene, at, other=other, by_values=by_values)
    if pattern is None:
        return
    group, layer, head = at
    name = group.name(layer, head)
    title = f"Attention of {name}" + (", weighted by what is written" if by_values else "")
    shown = scene.other_picture if other else scene.picture
    if shown is not None:
        payload = picture_payload(shown, pattern, title=title)
        picture(payload, key=f"{key}_picture", query=query, largest=largest, on_query=on_query)
        if not matrix:
            return
    matrix_of(scene, at, pattern, key=key, query=query, on_query=on_query, other=other)


def matrix_of(
    scene: Scene,
    at: At,
    pattern: NDArray[np.floating],
    *,
    key: str,
    query: int | None,
    on_query: Callable[[int], None],
    other: bool = False,
) -> None:
    """A pattern as a matrix; beside texts also over these."""
    group, image = at[0], scene.picture is not None
    queries, keys = labels_of(scene, group, other=other)
    if query is None and scene.kind != READER:
        query = 0  # the class token, or what is read first
    attention(
        attention_payload(
            pattern, queries, title=f"Attention of {group.name(*at[1:])}" + (", as a matrix" if image else ""),
            causal=group.causal, keys=keys if group.crosses else None, listed=not image,
            names=(group.queries, group.keys) if group.crosses else ("query", "key"),
        ),
        key=f"{key}_{group.letter}", query=query, on_query=on_query,
        largest=16 if image else 30 if scene.kind == READER else 40,
    )  # fmt: skip


def ablation_kind(scene: Scene, label: str, key: str) -> str:
    """What a head's output is replaced by."""
    options = outcomes.kinds(scene)
    chosen = st.segmented_control(
        label, options, default=options[0], key=f"{key}_{len(options)}", required=True,
        format_func={
            "counterfactual": "its counterfactual value", "mean": "its mean over positions", "zero": "zero",
        }.__getitem__,
    )  # fmt: skip
    return chosen or options[0]


def effects(scene: Scene, kind: str) -> Mapping[str, NDArray[Any]] | None:
    """What every head does for the outcome."""
    return work.result(
        scene.key("effects", kind),
        f"Every head of {scene.name} taken away once",
        lambda progress: outcomes.effects(scene, kind, progress),
        lane=scene.name,
    )
