"""One activation at a time gets its value from the other prompt; what that does to the metric."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from circuits.graph import Graph
from circuits.node_effects import effect_methods
from circuits.pairs import Pairs
from circuits.places import place, split_port
from dashboard import discovery, estimates, page, patching, refusing, sending, sidebar, state, work
from dashboard.components.grid import grid
from dashboard.figures.grid import grid_payload
from dashboard.page import Page
from dashboard.patching import ESTIMATE, HEADS, PATHS, Cells
from dashboard.plain import plain
from dashboard.state import DIRECTIONS, View
from dashboard.subject import Subject
from lens.nearest import unknown

PAGE = Page(title="Patching", icon=":material/swap_horiz:", order=4)

LISTED = 12
SOME = 8
INTO_CLEAN, INTO_CORRUPT = "counterfactual into clean", "clean into counterfactual"


def show() -> None:
    st.title("Patching")
    st.caption(
        "One activation at a time gets the value it has on the other prompt: what the metric then loses or gains, "
        "that activation was responsible for."
    )
    view, subject = sidebar.show(state.current("patching"))
    if refusing.refused("patching", view, subject) or not isinstance(subject, Subject):
        return
    if subject.pairs is None or subject.batch is None:
        st.info(
            plain(
                f"Patching compares two prompts: {subject.why}. Fill in the sidebar's boxes, or choose a task there."
            ),
            icon=":material/info:",
        )
        page.next_step("heads", f"Look at the heads of {subject.name} on this prompt", view)
        return
    view = check(view, subject)
    kind, pairs, denoise, receiver = controls(view, subject)
    if kind == ESTIMATE:
        estimate(view, subject, pairs)
    else:
        cells = measured(subject, pairs, kind, denoise, receiver)
        if cells is not None:
            picture(view, subject, pairs, kind, cells, receiver)
    known = work.runner().find(patch_key(subject, pairs, HEADS, denoise))
    sent = sending.show(subject, pairs, known.result if known is not None and known.state == "done" else None)
    if sent:
        page.next_step(
            "circuit", "Open the circuit of what was sent", view, run=sent, model=subject.name, **sidebar.AFRESH,
            task=None, other=None, group=None, edges=None,
        )  # fmt: skip
    else:
        label = f"See {view.node} among all heads" if view.node else "Look at all heads"
        page.next_step("heads", label, view)


# ---- what is patched


def check(view: View, subject: Subject) -> View:
    """The view without what this model or these pairs do not have."""
    assert subject.batch is not None
    graph = Graph.of(subject.model.cfg)
    if view.site is not None and view.site not in patching.kinds(subject.model):
        why = unknown("kind of patch", view.site, patching.kinds(subject.model))
        view = state.refuse(view, "site", why)
    if view.over is not None and view.over > len(subject.batch):
        view = state.refuse(view, "over", f"there are {len(subject.batch)} pairs")
    if view.receiver is not None and view.receiver not in graph.receivers:
        why = unknown("input of a node", view.receiver, graph.receivers)
        view = state.refuse(view, "receiver", why)
    if view.node is not None and view.node not in nodes_of(graph):
        why = unknown("node", view.node, nodes_of(graph), of=subject.name)
        view = state.refuse(view, "node", why)
    if view.layer is not None and view.layer >= graph.n_layers:
        view = state.refuse(view, "layer", f"{subject.name} has {graph.n_layers} layers, counted from 0")
    return view


def nodes_of(graph: Graph) -> list[str]:
    """Every name that a selected node can have."""
    return list(dict.fromkeys([*graph.senders, *(split_port(r)[0] for r in graph.receivers)]))


def controls(view: View, subject: Subject) -> tuple[str, Pairs, bool, str]:
    """What is patched, on which pairs, in which direction, and where paths end."""
    assert subject.pairs is not None
    assert subject.batch is not None
    known = patching.kinds(subject.model)
    kind = view.site or HEADS
    st.segmented_control(
        "What is patched", list(known), format_func=known.__getitem__, required=True,
        default=kind, **state.bound("site", kind, layer=None),
    )  # fmt: skip
    row = st.container(horizontal=True, gap="medium", vertical_alignment="bottom")
    n = len(subject.batch)
    over, denoise, receiver = view.over or 1, False, view.receiver or "logits"
    if n > 1:
        sizes = sorted({1, min(SOME, n), n, over})
        with row:
            st.segmented_control(
                "On", sizes, default=over, required=True, **state.bound("over", over),
                format_func=lambda k: "this pair" if k == 1 else f"all {n} pairs" if k == n else f"{k} pairs",
                help="The mean over several pairs says more of the behaviour, and takes as many times as long",
            )  # fmt: skip
    if kind == PATHS:
        names = receivers(Graph.of(subject.model.cfg), view.node, receiver)
        with row:
            st.selectbox(
                "Paths end at", names, index=names.index(receiver), **state.bound("receiver", receiver),
                help="Direct paths from every node to this input. Select a node to choose one of its inputs",
            )  # fmt: skip
    elif kind != ESTIMATE:
        with row:
            now = view.direction or DIRECTIONS[0]
            st.segmented_control(
                "Direction", DIRECTIONS, default=now, required=True, **state.bound("direction", now),
                format_func=dict(zip(DIRECTIONS, (INTO_CLEAN, INTO_CORRUPT), strict=True)).__getitem__,
                help="Into the clean run: what is broken. Into the counterfactual run: what is restored",
            )  # fmt: skip
        denoise = now == "denoise"
    return kind, subject.pairs if over == 1 else subject.batch[:over], denoise, receiver


def receivers(graph: Graph, node: str | None, chosen: str) -> list[str]:
    """The logits, the inputs of the selected node, and what is chosen."""
    found = ["logits"]
    if node is not None:
        at = place(node)
        mine = {node}
        if at.kind == "head" and at.head is not None:
            mine.add(f"a{at.layer}.kv{at.head * graph.n_kv_heads // graph.n_heads}")
        found += [r for r in graph.receivers if split_port(r)[0] in mine]
    return list(dict.fromkeys([*found, chosen]))


def measured(subject: Subject, pairs: Pairs, kind: str, denoise: bool, receiver: str) -> Cells | None:
    """The effects, computed once per pairs, kind and direction."""
    receiver = receiver if kind == PATHS else ""
    what = patching.kinds(subject.model)[kind] + (f" to {receiver}" if receiver else "")
    return work.result(
        patch_key(subject, pairs, kind, denoise, receiver),
        f"{what}, {len(pairs)} pair{'s' * (len(pairs) != 1)}",
        lambda progress: patching.measure(
            subject.model, pairs, kind, subject.metric, receiver=receiver or "logits", denoise=denoise,
            progress=progress,
        ),
        lane=subject.name,
    )  # fmt: skip


def patch_key(
    subject: Subject, pairs: Pairs, kind: str, denoise: bool, receiver: str = ""
) -> tuple[Hashable, ...]:
    """What effects are remembered by."""
    about = (subject.model.revision, subject.name, pairs.digest, subject.metric)
    return ("patch", *about, kind, denoise, receiver)


# ---- what came out


def picture(view: View, subject: Subject, pairs: Pairs, kind: str, cells: Cells, receiver: str) -> None:
    """The grid, and beside it the selected cell and the strongest ones."""
    graph, metric = Graph.of(subject.model.cfg), subject.metric.replace("_", " ")
    by_position = kind in patching.BY_POSITION
    rows = [f"L{layer}" for layer in range(graph.n_layers)]
    if by_position:
        columns = patching.places_of(subject.model, pairs)
    else:
        columns = [f"h{h}" for h in range(graph.n_heads)] + (["MLP"] if graph.mlp else [])
    at = selected(view, kind, cells)

    def pick(row: int, column: int) -> None:
        node = cells.nodes[row * len(columns) + column]
        if by_position:
            state.put(layer=row, query=column, node=node or view.node)
        else:
            state.put(node=node)

    verb = "change" if not cells.denoise else "gain"
    ends = "" if kind != PATHS else f" by direct paths to {receiver}"
    title = f"{verb.capitalize()} of the {metric}{ends}"
    left, right = st.columns([9, 5], gap="medium")
    with left:
        clean, corrupt = cells.clean.mean(), cells.corrupt.mean()
        st.caption(
            plain(
                f"{metric.capitalize()}: {clean:.2f} clean, {corrupt:.2f} counterfactual. Blue supports the behaviour, "
                "orange works against it."
            )
        )
        grid(
            grid_payload(
                cells.effect, rows, columns, title=title, unit=f"{verb} of {metric}", flip=cells.denoise,
                bound=None if by_position else bound_of(cells, graph.n_heads),
                about=cells.nodes if any(cells.nodes) and by_position else (),
            ),
            key=f"grid_{kind}",
            selected=at,
            largest=(60, 30),
            on_pick=pick,
        )  # fmt: skip
    with right:
        labels = [
            cells.nodes[r * len(columns) + c] if not by_position else f"{rows[r]} · {columns[c]}"
            for r in range(len(rows))
            for c in range(len(columns))
        ]
        if at is not None:
            one_cell(labels[at[0] * len(columns) + at[1]], cells, at, metric)
        strongest(labels, cells, kind, pick)


def bound_of(cells: Cells, n_heads: int) -> float | None:
    """The value of the strongest colour: the strongest head's, since an MLP may be many times as strong."""
    sizes = np.nan_to_num(np.abs(cells.effect[:, :n_heads]), nan=0.0)
    return float(sizes.max()) or None


def selected(view: View, kind: str, cells: Cells) -> tuple[int, int] | None:
    """The cell of the address, if this picture has it."""
    rows, columns = cells.each.shape[:2]
    if kind in patching.BY_POSITION:
        there = view.layer is not None and view.query is not None and view.query < columns
        return (view.layer or 0, view.query or 0) if there and (view.layer or 0) < rows else None
    return divmod(cells.nodes.index(view.node), columns) if view.node in cells.nodes else None


def one_cell(label: str, cells: Cells, at: tuple[int, int], metric: str) -> None:
    """One patch in numbers."""
    each = cells.each[at]
    effect = float(each.mean())
    st.subheader(plain(label))
    if math.isnan(effect):
        st.caption("No direct path leads from here to there.")
        return
    share = effect / cells.whole if cells.whole else float("nan")
    a, b = st.columns(2)
    a.metric("Change", f"{effect:+.3f}", help=f"Of the mean {metric}")
    b.metric(
        "Share", "–" if math.isnan(share) else f"{round(100 * share) + 0:d}%",
        help="Of the behaviour: 100% where this patch alone does what all would do together",
    )  # fmt: skip
    interval = cells.interval(*at)
    if interval is not None:
        same = int((each * effect > 0).sum())
        st.caption(
            f"95% interval {interval[0]:+.3f} to {interval[1]:+.3f} over resampled pairs; the same sign on {same} of "
            f"{len(each)} pairs."
        )


def strongest(labels: list[str], cells: Cells, kind: str, pick: Any) -> None:
    """The strongest cells; a click on a row selects one."""
    found, columns = cells.strongest(LISTED), cells.each.shape[1]
    if not found:
        st.caption("No patch changes anything here.")
        return
    st.caption(f"The {len(found)} strongest; a click selects")
    effect = cells.effect
    whole = cells.whole or 1.0
    values = [
        (labels[r * columns + c], float(effect[r, c]), round(100 * float(effect[r, c]) / whole) + 0.0)
        for r, c in found
    ]

    def choose(picked: list[Any]) -> None:
        pick(*found[picked[0][0]])

    st.dataframe(
        pd.DataFrame(values, columns=["patch", "effect", "share"]),
        hide_index=True,
        row_height=28,
        **state.selecting(f"strongest_{kind}", "cells", choose),
        selection_mode="single-cell",
        column_config={
            "effect": st.column_config.NumberColumn("effect", format="%+.3f"),
            "share": st.column_config.NumberColumn("share", format="%.0f%%", help="Of the whole change"),
        },
    )
    if cells.beside:
        others = ", ".join(
            f"{name} {round(float(each.mean()), 3) + 0.0:+.3f}" for name, each in cells.beside.items()
        )
        st.caption(plain(f"Beside the grid: {others}"))


# ---- estimates


def estimate(view: View, subject: Subject, pairs: Pairs) -> None:
    """Every node's estimate beside its exact effect."""
    known = [name for name in effect_methods() if name != "exact"]
    left, right = st.columns([9, 5], gap="medium")
    with right:
        method = st.selectbox(
            "Estimate by", known, index=known.index(discovery.METHOD), key="estimate_by",
            help="How all effects are estimated at once by gradients",
        )  # fmt: skip
    found = work.result(
        ("agreement", subject.model.revision, subject.name, pairs.digest, subject.metric, method),
        f"{method} beside exact patches, {len(pairs)} pair{'s' * (len(pairs) != 1)}",
        lambda progress: patching.compared(subject.model, pairs, method, subject.metric, progress).to_dict(),
        lane=subject.name,
    )
    if found is None:
        return
    with left:
        estimates.scatter(found, "scatter", view.node)
    with right:
        estimates.table(found)


if __name__ == "__main__":
    show()
