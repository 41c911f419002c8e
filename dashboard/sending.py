"""A circuit of the strongest heads or edges of what was patched: the box that asks for it, and how it comes along."""

from __future__ import annotations

import streamlit as st

from circuits.graph import Graph
from circuits.pairs import Pairs
from dashboard import discovery, options, pressed, runs, work
from dashboard.patching import Cells
from dashboard.plain import plain
from dashboard.subject import Subject

MOST_EDGES = 2000
HEADS, EDGES = "heads", "edges"


def show(subject: Subject, pairs: Pairs, cells: Cells | None) -> str | None:
    """The box; gives the run that was made last, if it is there. `cells`: the heads' effects, where they are known."""
    st.subheader("Send the strongest to a circuit", divider=False)
    a, b, c = st.columns([5, 2, 3], vertical_alignment="bottom")
    how = a.segmented_control(
        "Made of", [HEADS, EDGES], default=HEADS, key="send_what", required=True,
        format_func=lambda what: f"strongest {what}",
        help="Heads: all edges between them, the embedding, all MLPs and the logits. Edges: twice as many are "
        "estimated by EAP-IG and then measured exactly. Both are scored and evaluated on all pairs",
    )  # fmt: skip
    graph = Graph.of(subject.model.cfg)
    most = graph.n_layers * graph.n_heads if how == HEADS else min(graph.n_edges, MOST_EDGES)
    usual = min((most + 1) // 2, 10) if how == HEADS else max(10, min(200, graph.n_edges // 10))
    k = b.number_input("How many", 1, most, usual, key=f"send_{how}_{most}")
    if pressed.button(
        "Send to a circuit", place=c, key="send", type="primary", icon=":material/hub:", width="stretch"
    ):
        root = options.given().runs
        try:
            if how == EDGES:
                job = discovery.send_edges(work.runner(), subject, int(k), root)
            else:
                job = discovery.send_heads(work.runner(), subject, pairs, int(k), root, cells)
        except ValueError as error:
            st.error(plain(str(error)))
        else:
            st.session_state["sent"] = job.id
    return sent()


def sent() -> str | None:
    """How the work of this session is coming along; gives its run once that is there."""
    job = work.runner().get(st.session_state.get("sent", 0))
    if job is None:
        return None
    if job.active:
        work.watch(job.id)
    elif job.state != "done":
        work.ended(job, again=False)
    elif job.result.run in runs.folders():
        st.success(plain(f"{job.label}: saved as {job.result.run}."))
        return job.result.run
    return None
