"""All heads of a scene at a glance: their patterns, small, and what each looks at in a few numbers. No Streamlit.

Letters: l layer, h head, q query position, k key position, s score, r, c rows and columns of a small picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from lens.progress import Progress, silent

if TYPE_CHECKING:
    from dashboard.head_groups import Group
    from dashboard.scene import Scene

Weights = NDArray[np.floating]


@dataclass(frozen=True)
class Score:
    """A number per head: its title and what it is. `to(scene, group)` gives the places [q, k] whose attention counts,
    as a mean over the queries that have any; without, it is the entropy."""

    title: str
    about: str
    to: Callable[[Scene, Group], Weights] | None = None


def _shifted(by: int) -> Callable[[Scene, Group], Weights]:
    return lambda scene, group: np.eye(len(scene.rows[group.queries]), k=by)


def _first(scene: Scene, group: Group) -> Weights:
    queries, keys = (len(row) for row in scene.labels(group))
    found = np.zeros((queries, keys))
    found[0 if group.crosses else 1 :, 0] = 1
    return found


def _same(scene: Scene, group: Group) -> Weights:
    ids = np.array(scene.ids[group.queries])
    found = ids[:, None] == ids[None]
    return np.where(np.eye(len(ids), dtype=bool), False, found).astype(float)


def _said(scene: Scene, group: Group) -> Weights:
    return (np.array(scene.said)[:, None] == np.array(scene.ids[group.keys])[None]).astype(float)


def _read(scene: Scene, group: Group) -> Weights:
    return (np.array(scene.ids[group.queries])[:, None] == np.array(scene.ids[group.keys])[None]).astype(
        float
    )


def _around(scene: Scene, group: Group) -> Weights:
    picture = scene.picture
    assert picture is not None
    n = picture.rows * picture.columns
    rows, columns = np.divmod(np.arange(n), picture.columns)
    near = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) == 1
    return np.pad(near.astype(float), ((picture.first, 0), (picture.first, 0)))


ENTROPY = Score("entropy", "how spread the attention is, in nats: 0 looks at one place")
TEXT = (
    Score("previous", "attention to the position before", _shifted(-1)),
    Score("itself", "attention to the query's own position", _shifted(0)),
    Score("next", "attention to the position after", _shifted(1)),
    Score("same token", "attention to other occurrences of the query's token", _same),
    Score("first", "attention to the first position, from those after it", _first),
    ENTROPY,
)
ACROSS = (
    Score("said next", "attention to places of the source that hold the token that is said next", _said),
    Score("just said", "attention to places of the source that hold the token that was said last", _read),
    Score("first", "attention to the first token of the source", _first),
    ENTROPY,
)
IMAGE = (
    Score("itself", "attention to the query's own patch", _shifted(0)),
    Score("around", "attention of patches to the eight around them", _around),
    Score("class token", "attention of patches to the class token", _first),
    ENTROPY,
)


def scores_of(scene: Scene, group: Group) -> tuple[Score, ...]:
    """What heads of a group are told apart by."""
    if scene.picture is not None:
        return IMAGE if scene.picture.first else tuple(s for s in IMAGE if s.title != "class token")
    return ACROSS if group.crosses else TEXT


def scored(patterns: Weights, scores: Sequence[Score], scene: Scene, group: Group) -> Weights:
    """Scores [h, s] of one layer's patterns [h, q, k]; NaN where no query can be asked."""
    found = []
    for score in scores:
        if score.to is None:
            sizes = np.where(patterns > 0, patterns, 1.0)
            found.append(-(sizes * np.log(sizes)).sum(-1).mean(-1))
            continue
        places = score.to(scene, group)
        asked = places.any(-1)
        on = (patterns * places).sum(-1)
        found.append(on[:, asked].mean(-1) if asked.any() else np.full(len(patterns), np.nan))
    return np.stack(found, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class GroupSurvey:
    """The heads of one group: `patterns` float32 [l, h, q, k], `scores` [l, h, s] in the order of `scores_of`."""

    patterns: NDArray[np.float32]
    scores: NDArray[np.float32]


@torch.no_grad()
def survey(scene: Scene, progress: Progress = silent) -> Mapping[str, GroupSurvey]:
    """All groups by letter, from one run per layer of what the scene reads."""
    found, done = {}, 0
    every = sum(group.layers for group in scene.groups)
    for group in scene.groups:
        patterns, scores = [], []
        for layer in range(group.layers):
            progress(done, every, "layer")
            one = pattern_of_layer(scene, group, layer)
            patterns.append(one)
            scores.append(scored(one, scores_of(scene, group), scene, group))
            done += 1
        found[group.letter] = GroupSurvey(np.stack(patterns), np.stack(scores))
    return found


def pattern_of_layer(scene: Scene, group: Group, layer: int, *, other: bool = False) -> NDArray[np.float32]:
    """The patterns [h, q, k] of one layer of a group; of the counterfactual with `other`."""
    site = group.site(layer, "hook_pattern")
    inputs = scene.other if other else scene.inputs
    assert inputs is not None
    return scene.model.activations(inputs, [site])[site][0].float().cpu().numpy()


@torch.no_grad()
def value_sizes(scene: Scene, group: Group, layer: int) -> NDArray[np.float32]:
    """The norm of what each head would write if it looked at one key only, ‖v W_O‖ [h, k]."""
    model = scene.model
    stack = model.encoder.stack if group.letter == "e" and model.encoder is not None else model.stack
    attn = getattr(stack.blocks[layer], group.part)
    values = model.activations(scene.inputs, [attn.hook_v])[attn.hook_v][0]  # [k, kv head, e]
    values = values.repeat_interleave(group.heads // values.shape[1], 1)
    return torch.einsum("khe,hed->hkd", values, attn.W_O).float().norm(dim=-1).cpu().numpy()
