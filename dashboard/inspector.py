"""One node of a run's circuit, beside the graph: role, attention, edges, what is lost without it, pins, groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from circuits.graph import Graph
from circuits.layout import Edge
from circuits.places import Place, head_name, place, split_port
from dashboard import interventions, notes, page, state, survey, work
from dashboard.components.attention import attention
from dashboard.figures.attention import attention_payload
from dashboard.figures.verdicts import share
from dashboard.interventions import Without
from dashboard.notes import Notes
from dashboard.opened import Opened
from dashboard.plain import plain

LISTED = 8
TABLE_WIDTH = 168


def show(found: Opened, edges: list[Edge], written: Notes, known: dict[str, Any] | None) -> None:
    """The selected node of the address. `known`: the roles of all heads, once somebody asked for them."""
    node = place(found.view.node or "")
    effect = found.run.scores.nodes().get(node.name)
    title, pin = st.columns([5, 2], vertical_alignment="center")
    title.subheader(node.name + (f" · effect {effect:+.3f}" if effect is not None else ""))
    pinned = node.name in written.pins
    pin.button(
        "Unpin" if pinned else "Pin", key="pin", width="stretch",
        help="Pinned nodes stay in the graph and are kept with the run",
        on_click=change, args=(found, lambda old: old.pinned(node.name, not pinned)),
    )  # fmt: skip
    role(found, node, known)
    if node.kind in ("head", "kv"):
        attention_of(found, node)
    strongest(node, edges, found.name)
    if node.kind != "logits":
        ablate(found, (node.name,), "ablate")
    grouping(found, node.name, written)
    if node.kind == "head":
        page.link("head", f"Look closer at {node.name}", found.view, icon=":material/center_focus_strong:")


def change(found: Opened, how: Callable[[Notes], Notes]) -> None:
    """Change what is kept with the run; what cannot be kept is said once."""
    path = found.run.path
    assert path is not None
    try:
        notes.write(path, how(notes.read(path)))
    except (ValueError, OSError) as error:
        st.session_state["notes_error"] = str(error)


def key_of(found: Opened, *more: Any) -> tuple[Any, ...]:
    """What results about a run are remembered by."""
    return (*more[:1], str(found.run.path), str(found.run.info.get("created")), *more[1:])


# ---- roles


def role(found: Opened, node: Place, known: dict[str, Any] | None) -> None:
    """What the head does, once the roles are known; a button finds those of all heads."""
    if node.kind != "head":
        return
    if known is None:
        if not st.session_state.get(f"roles_{found.name}"):
            st.button(
                "What role does it play?", key="find_roles", icon=":material/badge:",
                help="Classes of all heads by what they attend to, copy and write to the answer",
                on_click=lambda: st.session_state.update({f"roles_{found.name}": True}),
            )  # fmt: skip
        return
    mine = interventions.roles_of(known, node.name)
    for name, about in mine:
        st.markdown(f":material/badge: **{plain(name)}**: {plain(about)}")
    if not mine:
        st.caption("None of the known roles fits this head.")


def roles(found: Opened) -> dict[str, Any] | None:
    """The roles of all heads, once they are known, or if somebody asked for them; shows how far they are."""
    there = work.known(key_of(found, "roles"))
    if there is not None:
        return there
    if not st.session_state.get(f"roles_{found.name}"):
        return None
    model = found.model()
    if model is None:
        return None
    return work.result(
        key_of(found, "roles"), f"Roles of the heads in {found.name}",
        lambda progress: interventions.roles(model, found.run, progress), lane=found.model_name,
    )  # fmt: skip


# ---- attention


def attention_of(found: Opened, node: Place) -> None:
    """The attention of a head, or of one of the heads that share a key/value head, on the sidebar's pair."""
    run, view = found.run, found.view
    number = min(view.example or 0, len(run.pairs) - 1)
    prompt = st.segmented_control("Prompt", ["clean", "corrupt"], default="clean", key="side", required=True)
    head = node.head or 0
    if node.kind == "kv":
        graph: Graph = run.circuit.graph
        group = graph.n_heads // graph.n_kv_heads
        heads = [head_name(node.layer or 0, h) for h in range(head * group, (head + 1) * group)]
        chosen = st.segmented_control(
            "Head of the group", heads, default=heads[0], key="member", required=True
        )
        head = place(chosen or heads[0]).head or 0
    model = found.model()
    if model is None:
        return
    tokens = run.pairs.clean if prompt == "clean" else run.pairs.corrupt
    ids = tokens[number][run.pairs.mask[number]].tolist()
    layer = node.layer or 0
    patterns = work.look(
        ("patterns", model.revision, found.model_name, tuple(ids), layer),
        f"Attention of layer {layer}",
        lambda progress: survey.layer_patterns(model, ids, layer),
        lane=found.model_name,
    )
    if patterns is None:
        return
    query = view.query if view.query is not None and view.query < len(ids) else None
    attention(
        attention_payload(
            patterns[head],
            model.to_str_tokens(ids),
            title=f"Attention of {head_name(layer, head)}",
            causal=model.cfg.stack.causal,
        ),
        key="attention",
        query=query,
        largest=18,
        on_query=lambda position: state.put(query=position),
    )


# ---- edges


def strongest(node: Place, edges: list[Edge], name: str) -> None:
    """The strongest shown edges into and out of a node; a click on one selects the node at its other end."""
    into = [(s, split_port(r)[1], score) for s, r, score in edges if split_port(r)[0] == node.name]
    out = [(*split_port(r), score) for s, r, score in edges if s == node.name]
    with st.container(horizontal=True, gap="small"):  # below each other where there is no room
        for word, found in (("from", into), ("to", out)):
            with st.container(width=TABLE_WIDTH, gap="small"):
                edge_table(word, found, name)


def edge_table(word: str, found: list[tuple[str, str, float]], run: str) -> None:
    """Edges `from` or `to` other nodes: (other node, port, score), strongest first."""
    side = "in" if word == "from" else "out"
    st.caption(
        f"Edges {side}" + (f": {LISTED} of {len(found)}" if len(found) > LISTED else f": {len(found)}")
    )
    rows = found[:LISTED]
    if not rows:
        return

    def pick(cells: list[Any]) -> None:
        state.put(run=run, node=rows[cells[0][0]][0], query=None)

    st.dataframe(
        pd.DataFrame(rows, columns=[word, "as", "score"]),
        hide_index=True,
        row_height=28,
        **state.selecting(f"edges_{side}", "cells", pick),
        selection_mode="single-cell",
        column_config={
            "as": st.column_config.TextColumn("as", width=30, help="The input that reads it: q, k or v"),
            "score": st.column_config.NumberColumn("score", format="%+.3f", help="Negative: supports"),
        },
    )


# ---- without it


def ablate(found: Opened, nodes: tuple[str, ...], key: str) -> None:
    """A button that takes nodes away, and then the metric with and without them."""
    asked = key_of(found, "without", nodes, key)
    what = nodes[0] if len(nodes) == 1 else f"these {len(nodes)} nodes"
    if work.runner().find(asked) is None and st.session_state.get(f"{key}_now") != asked:
        st.button(
            f"Ablate {what}", key=key, icon=":material/content_cut:",
            help="Everything that is sent from here gets its ablated value, on all pairs of the run",
            on_click=lambda: st.session_state.update({f"{key}_now": asked}),
        )  # fmt: skip
        return
    result: Without | None = work.known(asked)
    if result is None:
        model = found.model()
        if model is None:
            return
        result = work.result(
            asked, f"{found.name} without {', '.join(nodes)[:60]}",
            lambda progress: interventions.without(model, found.run, nodes, progress), lane=found.model_name,
        )  # fmt: skip
    if result is not None:
        effect_of(result, what, str(found.run.info["metric"]).replace("_", " "))


def effect_of(found: Without, what: str, metric: str) -> None:
    """The metric of model and circuit, with and without nodes."""
    st.caption(plain(f"Mean {metric} without {what}, and its change"))
    for column, title, whole, cut in zip(
        st.columns(2), ("In the model", "In the circuit"), (found.model, found.circuit),
        (found.model_without, found.circuit_without), strict=True,
    ):  # fmt: skip
        lost = found.share(cut - whole)
        column.metric(
            title, f"{cut:.3f}", f"{cut - whole:+.3f}", delta_color="off",
            help=f"{whole:.3f} with it; the change is {share(lost)} of the behaviour",
        )  # fmt: skip


# ---- groups


def grouping(found: Opened, node: str, written: Notes) -> None:
    """Put the node into a named group, or take it out."""
    with st.popover("Groups", icon=":material/workspaces:", width="stretch"):
        for i, (name, members) in enumerate(written.groups.items()):
            inside = node in members
            after = tuple(m for m in members if m != node) if inside else (*members, node)
            st.button(
                plain(f"Take {node} out of {name}" if inside else f"Put {node} into {name}"),
                key=f"group_{i}", width="stretch", on_click=change,
                args=(found, lambda old, name=name, after=after: old.grouped(name, after)),
            )  # fmt: skip
        name = st.text_input(
            "New group", max_chars=notes.LONGEST_NAME, key="new_group", placeholder="name movers"
        )

        def add() -> None:
            named = st.session_state["new_group"].strip()
            change(found, lambda old: old.grouped(named, (*old.groups.get(named, ()), node)))
            st.session_state["new_group"] = ""
            if named:
                state.put(run=found.name, group=named)

        st.button(f"Begin it with {node}", key="begin_group", disabled=not name.strip(), on_click=add)
