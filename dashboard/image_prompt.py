"""The Prompt page of an image: its classes, layer by layer, which patches decide, and which parts write the answer."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard import image_reading, outcomes, state, work, writers
from dashboard.components.grid import grid
from dashboard.components.picture import picture
from dashboard.components.short_table import short_tables
from dashboard.figures.grid import grid_payload
from dashboard.figures.lens import stream_names
from dashboard.figures.picture import signed_payload
from dashboard.figures.short_table import short_table
from dashboard.outcomes import judged
from dashboard.plain import plain
from dashboard.scene import Scene
from dashboard.state import View

CLASSES = 10
BLANKED, CORRUPT = "blanked", "the counterfactual's"


def show(view: View, scene: Scene) -> None:
    """Classes and patches side by side, then layers, then parts."""
    if not scene.classes:
        st.info(plain(f"{scene.model.name} has no classifier: see its heads."), icon=":material/info:")
        return
    left, right = st.columns([5, 6], gap="medium")
    with left:
        classes(scene)
    with right:
        patches(view, scene)
    why = image_reading.why_not(scene.model)
    if why:
        st.info(plain(f"No reading by layers and parts: {why}."), icon=":material/info:")
        return
    by_layer(view, scene)
    parts(view, scene)


def classes(scene: Scene) -> None:
    """The probabilities of the likeliest classes."""
    st.subheader("What does it see?", divider=False)
    st.caption(plain(scene.title))
    found = work.look(
        scene.key("classes"),
        f"What {scene.name} sees",
        lambda progress: outcomes.outcome(scene),
        lane=scene.name,
    )
    if found is None:
        return
    order = np.argsort(-found.parts, kind="stable")[:CLASSES].tolist()
    role = {scene.answer: "answer", scene.wrong: "instead of"}
    columns = {
        "class": [scene.classes[i] for i in order],
        "probability": [float(found.parts[i]) for i in order],
        "": [role.get(i, "") for i in order],
    }
    short_tables(
        short_table(columns, {"probability": ".4f"}, title="The likeliest classes", bar="probability"),
        key="classes",
    )


def patches(view: View, scene: Scene) -> None:
    """What is lost when one patch is blanked, over the picture."""
    st.subheader("Which patches decide?", divider=False)
    options = [BLANKED, *([CORRUPT] if scene.other is not None else [])]
    by = st.segmented_control(
        "Each patch once", options, default=BLANKED, key=f"occlude_{len(options)}", required=True
    )
    assert scene.picture is not None
    found = work.look(
        scene.key("occlusion", by),
        "One patch after the other",
        lambda progress: image_reading.occlusion(
            scene, image_reading.BLANK if by == BLANKED else outcomes.COUNTERFACTUAL
        ),
        lane=scene.name,
    )
    if found is None:
        return
    total = judged(scene).total
    picture(
        signed_payload(scene.picture, found, title=f"Change of the {total} by patch", unit="change"),
        key="patches", largest=230, query=view.query, on_query=lambda at: state.put(query=at),
    )  # fmt: skip
    st.caption(
        plain(
            f"Change of the {total} when that patch is {by}: blue patches speak for the answer, orange against it."
        )
    )


def by_layer(view: View, scene: Scene) -> None:
    """The classifier applied to every stream of the class token."""
    st.subheader("Logit lens: what would it see after each layer?", divider=False)
    found = work.look(
        scene.key("class lens"), "The classes after each layer",
        lambda progress: image_reading.class_lens(scene), lane=scene.name,
    )  # fmt: skip
    if found is None:
        return
    order = list(range(len(scene.classes)))
    if len(order) > 2 * CLASSES:
        order = np.argsort(-found[-1], kind="stable")[: 2 * CLASSES].tolist()
    values, answer, selected = found[:, order], scene.answer, None
    if view.layer is not None and view.layer < len(found) - 1 and answer is not None and answer in order:
        selected = (view.layer + 1, order.index(answer))
    grid(
        grid_payload(
            values, stream_names(len(found)), [scene.classes[i] for i in order],
            title="Probability of each class after each layer", unit="probability", diverging=False, bound=1.0,
            texts=[f"{p:.2f}" for p in values.ravel()],
        ),
        key="class_lens", largest=(58, 26),
        selected=selected,
        on_pick=lambda r, c: state.put(layer=r - 1 if r else None),
    )  # fmt: skip
    st.caption("The classifier reads the class token's stream before the first layer (embed) and after each.")


def parts(view: View, scene: Scene) -> None:
    """What heads and MLPs themselves write to the answer, at the class token."""
    st.subheader("Which parts write the answer?", divider=False)
    found = work.look(
        scene.key("attribution"), "Direct logit attribution",
        lambda progress: image_reading.class_attribution(scene), lane=scene.name,
    )  # fmt: skip
    if found is None:
        return
    cfg = scene.model.cfg
    against = "mean of all" if scene.wrong is None else f"logit of {scene.classes[scene.wrong]}"
    st.caption(
        plain(
            f"Each part's own contribution at the class token to the logit of {scene.classes[scene.answer or 0]} above "
            f"the {against}, through the final norm; together {sum(found.values()):+.3f} logits."
        )
    )
    writers.drawn(found, cfg, selected=view.node, key="scene_")
