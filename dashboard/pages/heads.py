"""All heads of a model on one prompt; one head's attention; what kind of head each is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from circuits.places import head_name, place
from dashboard import page, sidebar, state, survey, work
from dashboard.components.attention import attention
from dashboard.components.gallery import gallery
from dashboard.figures.attention import attention_payload
from dashboard.figures.head_kinds import KINDS, TELLING, strongest_kind
from dashboard.figures.montage import gallery_payload
from dashboard.page import Page
from dashboard.state import View
from dashboard.survey import Survey

PAGE = Page(title="Heads", icon=":material/grid_view:", order=2)

ON_PROMPT, ON_REPEATS = "this prompt", "random tokens, repeated"


def show() -> None:
    st.title("Heads")
    view, subject = sidebar.show(state.current("heads"))
    if subject is None:
        return
    model, name, ids = subject.model, subject.name, subject.ids
    if len(ids) > survey.LONGEST:
        st.error(f"The prompt has {len(ids)} tokens; the pictures show at most {survey.LONGEST}.")
        return
    found = surveyed(model, name, ids)
    if found is None:
        page.next_step("start", f"Find a circuit in {name}", view, model=name)
        return
    view, at = chosen_head(view, model, found)
    gallery_and_head(view, model, name, ids, found, at)
    table(model, name, found, at)
    head = head_name(*at)
    if view.run:
        page.next_step("circuit", f"See {head} in the circuit of {view.run}", view, node=head)
    else:
        page.next_step("start", f"Find a circuit that uses {head} of {name}", view, model=name, node=head)


def surveyed(model: Any, name: str, ids: list[int]) -> Survey | None:
    """All heads on these tokens, computed once per model and tokens."""
    return work.result(
        ("survey", model.revision, name, tuple(ids)),
        f"Attention of all heads on {len(ids)} tokens",
        lambda progress: survey.survey(model, ids, progress),
        lane=name,
    )


def chosen_head(view: View, model: Any, found: Survey) -> tuple[View, tuple[int, int]]:
    """The head of the address, or else the one with the most telling pattern."""
    layers, heads = model.cfg.n_layers, model.cfg.n_heads
    if view.node is not None:
        node = place(view.node)
        if node.kind == "head" and node.layer is not None and node.head is not None:
            if node.layer < layers and node.head < heads:
                return view, (node.layer, node.head)
            why = f"{view.node} is not a head of {model.name}, which has a0.h0 to a{layers - 1}.h{heads - 1}"
            view = state.refuse(view, "node", why)
    telling = np.nan_to_num(found.scores[..., :TELLING], nan=0.0).max(-1)
    layer, head = np.unravel_index(int(telling.argmax()), telling.shape)
    return view, (int(layer), int(head))


def gallery_and_head(
    view: View, model: Any, name: str, ids: list[int], found: Survey, at: tuple[int, int]
) -> None:
    layers, heads = found.scores.shape[:2]
    about = [
        "\n".join(filter(None, [head_name(l, h), strongest_kind(found.scores[l, h])]))
        for l in range(layers)
        for h in range(heads)
    ]
    left, right = st.columns([11, 9], gap="medium")
    with left:
        st.subheader("All heads", divider=False)
        payload = gallery_payload(
            found.tiles, len(ids), about, title=f"Attention of all {layers * heads} heads of {model.name}"
        )
        gallery(payload, key="gallery", selected=at, on_pick=lambda node: state.put(node=node, query=None))
    with right:
        kind = strongest_kind(found.scores[at])
        st.subheader(f"{head_name(*at)}" + (f" · {kind}" if kind else ""), divider=False)
        one_head(view, model, name, ids, at)


def one_head(view: View, model: Any, name: str, ids: list[int], at: tuple[int, int]) -> None:
    """One head's attention over the text of the prompt."""
    layer, head = at
    patterns = work.result(
        ("patterns", model.revision, name, tuple(ids), layer),
        f"Attention of layer {layer}",
        lambda progress: survey.layer_patterns(model, ids, layer),
        lane=name,
    )
    if patterns is None:
        return
    tokens = model.to_str_tokens(ids)
    query = view.query if view.query is None or view.query < len(ids) else None
    attention(
        attention_payload(
            patterns[head], tokens, title=f"Attention of {head_name(*at)}", causal=model.cfg.stack.causal
        ),
        key="attention",
        query=query,
        on_query=lambda position: state.put(query=position),
    )


def table(model: Any, name: str, found: Survey, at: tuple[int, int]) -> None:
    """Every head with its scores, best induction heads first; columns sort, a row selects its head."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.subheader("What kind of head?", divider=False)
    with right:
        measured = st.segmented_control(
            "Measured on", [ON_PROMPT, ON_REPEATS], default=ON_PROMPT, key="measured", required=True
        )
    scores = found.scores
    if measured == ON_REPEATS:
        repeats = surveyed(model, name, survey.repeated_ids(model))
        if repeats is None:
            return
        scores = repeats.scores
    if np.isnan(scores[..., 2]).all():
        st.caption("This prompt repeats no token, so it says nothing about duplicates and induction.")
    layers, heads = scores.shape[:2]
    frame = pd.DataFrame(scores.reshape(-1, len(KINDS)), columns=[kind.title for kind in KINDS])
    frame.insert(0, "head", [head_name(l, h) for l in range(layers) for h in range(heads)])
    frame = frame.sort_values([KINDS[2].title, KINDS[0].title], ascending=False, ignore_index=True)
    rows = {head: row for row, head in enumerate(frame["head"])}
    key = table_key(rows, head_name(*at))

    def pick() -> None:
        chosen = st.session_state[key]["selection"]["rows"]
        if chosen:
            state.put(node=frame["head"][chosen[0]], query=None)

    st.dataframe(
        frame,
        key=key,
        hide_index=True,
        height=388,
        on_select=pick,
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [rows[head_name(*at)]]}},
        column_config={
            "head": st.column_config.TextColumn("head", pinned=True),
            **{
                kind.title: st.column_config.ProgressColumn(
                    kind.title, help=kind.about, min_value=0, max_value=1, format="%.2f"
                )
                for kind in KINDS
            },
        },
    )


def table_key(rows: dict[str, int], selected: str) -> str:
    """The table's identity: a new one where its rows change, or where a head was selected elsewhere.

    A table keeps its own selection as long as it is the same table, and would go on showing that one.
    """
    drawn = st.session_state.get("table", ("", 0))
    order = " ".join(rows)
    known = st.session_state.get(f"table_{drawn[1]}")
    chosen = known["selection"]["rows"] if known else []
    if drawn[0] != order or (chosen and chosen != [rows[selected]]):
        drawn = (order, drawn[1] + 1)
        st.session_state["table"] = drawn
    return f"table_{drawn[1]}"


if __name__ == "__main__":
    show()
