"""The Prompt page of a scene: an image and its classes, a source and what is said to it, a text and its vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from dashboard import image_prompt, page, state, text_reading, work
from dashboard.components.prompts import prompts
from dashboard.components.short_table import short_tables
from dashboard.figures.prompts import prompts_payload, side
from dashboard.figures.short_table import short_table
from dashboard.figures.token_table import visible
from dashboard.kinds import SEQ2SEQ, VISION
from dashboard.plain import plain
from dashboard.scene import Scene
from dashboard.state import View
from dashboard.text_reading import Said
from lens.inputs import ModelInputs

CLEAN, CORRUPT = "clean", "counterfactual"


def show(view: View, scene: Scene) -> None:
    """All of the page below its title."""
    draw = {VISION: image_prompt.show, SEQ2SEQ: source_and_target}.get(scene.kind, text)
    draw(view, scene)
    page.next_step("heads", "See what all heads look at here", view)


THERE = "Click a token to see what the model expects in its place"


def _tokens(
    scene: Scene, key: str, title: str, other: list[int] | None, ids: list[int], **options: Any
) -> None:
    """A row of tokens, above the counterfactual's where there are any; to click where `options` say what for."""
    rows = [(CLEAN, ids), *([] if other is None else [(CORRUPT, other)])]
    differs = [i for i, (a, b) in enumerate(zip(ids, other or ids, strict=True)) if a != b]
    expected = options.pop("expected", np.full(len(ids), np.nan))
    sides = [side(label, scene.model.to_str_tokens(row), expected) for label, row in rows]
    hint = options.pop("hint", "")
    prompts(prompts_payload(sides, differs, title=title, hint=hint), key=key, **options)


def _ids(inputs: ModelInputs | None) -> list[int] | None:
    return None if inputs is None or inputs.ids is None else inputs.ids[0].tolist()


def check(view: View, n: int) -> View:
    """The view without a position that is not there."""
    if view.query is not None and view.query >= n:
        return state.refuse(view, "query", f"there are {n} positions, counted from 0")
    return view


# ---- a source and its target


def source_and_target(view: View, scene: Scene) -> None:
    """Both rows of tokens, what is about to be said at the chosen place, and what the model says by itself."""
    view = check(view, len(scene.said))
    model = scene.model
    found: Said | None = work.look(
        scene.key("said"), f"What {scene.name} is about to say", lambda progress: text_reading.said(scene),
        lane=scene.name,
    )  # fmt: skip
    if found is None:
        return
    spelled, at = model.to_str_tokens(list(scene.said)), 0 if view.query is None else view.query
    other = None if scene.other is None else scene.other.source
    st.subheader("The source, which the encoder reads", divider=False)
    _tokens(
        scene,
        "source",
        "The source",
        _ids(other if isinstance(other, ModelInputs) else None),
        scene.ids["source"],
    )
    st.subheader("The target, which the decoder says", divider=False)
    _tokens(
        scene, "target", "The target", None, list(scene.said), expected=found.expected, hint=THERE, position=at,
        on_position=lambda at: state.put(query=at),
    )  # fmt: skip
    says(scene)
    st.subheader("What is said next?", divider=False)
    before = " ".join(text.strip() for text in spelled[:at]) or "nothing yet"
    st.caption(
        plain(f"Having said: {before} (position {at} of {len(spelled)}; click a target token for another)")
    )
    sides = [(CLEAN, False), *([(CORRUPT, True)] if scene.other is not None else [])]
    for column, (label, other) in zip(st.columns(2, gap="medium"), sides, strict=False):
        one: Said | None = found
        if other:
            one = work.look(
                scene.key("said", "other"), "What it is about to say to the counterfactual",
                lambda progress: text_reading.said(scene, other=True), lane=scene.name,
            )  # fmt: skip
        if one is None:
            continue
        with column:
            st.caption(f"To the {label} source")
            columns = {
                "token": [visible(text) for text in model.to_str_tokens(one.top[at].tolist())],
                "probability": one.probs[at].tolist(),
                "": ["target" if token == scene.said[at] else "" for token in one.top[at].tolist()],
            }
            table = short_table(
                columns, {"probability": ".3f"}, title="The likeliest next tokens", bar="probability"
            )
            short_tables(table, key=f"said_{label}")


def says(scene: Scene) -> None:
    """What the model says by itself, to the source and to the counterfactual."""
    texts = work.look(
        scene.key("generation"), f"What {scene.name} says",
        lambda progress: [
            text_reading.generation(scene, other=other)
            for other in ((False, True) if scene.other is not None else (False,))
        ],
        lane=scene.name,
    )  # fmt: skip
    if texts is None:
        return
    sources = [scene.text, scene.other_text]
    short_tables(
        short_table(
            {"source": sources[: len(texts)], "the model says": texts}, title="What the model itself says"
        ),
        key="generation",
    )


# ---- a text


def text(view: View, scene: Scene) -> None:
    """The tokens, what stands where one is masked, or how near the counterfactual's vector is."""
    tokens = scene.rows["target"]
    view = check(view, len(tokens))
    model = scene.model
    fills = model.cfg.unembed is not None
    at = hidden_at(view, scene) if fills else None
    _tokens(
        scene, "text", "The text", _ids(scene.other), scene.ids["target"], position=at, hint=THERE if fills else "",
        on_position=lambda at: state.put(query=at),
    )  # fmt: skip
    if at is not None:
        masked(scene, at)
    st.subheader("How near are the vectors of the two texts?", divider=False)
    try:
        near = text_reading.similarity(scene)
    except ValueError as error:
        st.info(plain(f"This needs a counterfactual text in the sidebar: {error}."), icon=":material/info:")
        return
    pooled = model.cfg.pooler is not None and model.cfg.pooler.at in ("token", "highest")
    how = "the model's own vector of a text" if pooled else "the mean of the last stream over all tokens"
    st.metric("Cosine", f"{near:.3f}", help="1: the same direction; 0: at right angles")
    st.caption(f"Of {how}. {plain(model.name)} predicts no next token: vectors are what it makes of texts.")


def hidden_at(view: View, scene: Scene) -> int:
    """Which token is masked: the chosen one, the one that is a mask already, or one in the middle."""
    ids, tokenizer = scene.ids["target"], scene.model.tokenizer
    mask = None if tokenizer is None else tokenizer.mask_id
    usual = ids.index(mask) if mask in ids else len(ids) // 2
    return usual if view.query is None else view.query


def masked(scene: Scene, at: int) -> None:
    """What the model expects where the chosen token is masked."""
    model, tokens = scene.model, scene.rows["target"]
    mask = None if model.tokenizer is None else model.tokenizer.mask_id
    st.subheader("What stands behind the mask?", divider=False)
    if mask is None:
        st.info(plain(f"The tokenizer of {model.name} has no mask."), icon=":material/info:")
        return
    found = work.look(
        scene.key("masked", at), "What stands behind the mask", lambda progress: text_reading.masked(scene, at),
        lane=scene.name,
    )  # fmt: skip
    if found is None:
        return
    top, probs, rank = found
    here = visible(tokens[at])
    st.caption(
        plain(f"With “{here}” (position {at}) masked, which is choice {rank + 1:,}. Click another token.")
    )
    columns = {
        "token": [visible(text) for text in model.to_str_tokens(top.tolist())],
        "probability": probs.tolist(),
    }
    short_tables(
        short_table(columns, {"probability": ".3f"}, title="The likeliest tokens there", bar="probability"),
        key="masked",
    )
