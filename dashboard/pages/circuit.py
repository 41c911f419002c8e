"""The circuit of a saved run: its graph, how much fewer edges keep, its nodes, another circuit beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from circuits.compare import Comparison
from circuits.layout import Edge
from circuits.places import head_name
from circuits.select import algorithms, get_algorithm
from circuits.store import Run
from dashboard import (
    discovery,
    inspector,
    interventions,
    notes,
    opened,
    options,
    page,
    pressed,
    runs,
    state,
    work,
)
from dashboard.components.circuit_graph import circuit_graph
from dashboard.components.grid import grid
from dashboard.figures import charts, circuit_edges, evidence
from dashboard.figures.grid import grid_payload
from dashboard.figures.verdicts import share
from dashboard.interventions import Kept
from dashboard.notes import Notes
from dashboard.opened import Opened
from dashboard.page import Page
from dashboard.plain import plain
from lens.nearest import unknown

PAGE = Page(title="Circuit", icon=":material/hub:", order=5)

FIRST_SHOWN = 200
TOP_NODES = 15


def show() -> None:
    found = opened.show("circuit", "Circuit")
    if found is None:
        return
    run = found.run
    written = notes_of(found)
    found = check(found, written)
    other = compared_with(found)
    edges = run.circuit.edges()
    most = max(len(edges), 0 if other is None else other.circuit.n_edges)
    shown = min(found.view.edges or FIRST_SHOWN, most)
    a, b, c = st.columns([6, 3, 3], vertical_alignment="bottom", gap="medium")
    if most > 1:
        a.slider("Edges shown, strongest first", 1, most, shown, **state.bound("edges", shown))
    with b:
        beside(found)
    with c:
        algorithm(found)
    summary(found, shown)
    graph_and_node(found, other, edges[:shown], shown, written)
    below(found, shown)
    page.next_step("evidence", "How sure can one be of this circuit?", found.view)


# ---- what is looked at


def notes_of(found: Opened) -> Notes:
    """The pins and groups that are kept with the run."""
    problem = st.session_state.pop("notes_error", None)
    if problem:
        st.error(plain(problem))
    try:
        return notes.read(found.run.path)
    except ValueError as error:
        st.error(plain(str(error)))
        return Notes()


def check(found: Opened, written: Notes) -> Opened:
    """The view without a group or a second run that does not exist."""
    view = found.view
    if view.group is not None and view.group not in written.groups:
        known = (
            unknown("group of this run", view.group, written.groups)
            if written.groups
            else "the run has no groups"
        )
        view = state.refuse(view, "group", known)
    others = [name for name in runs.folders() if name != found.name]
    if view.other is not None and view.other not in others:
        why = unknown("other run", view.other, others) if others else "there is no other run"
        view = state.refuse(view, "other", why)
    return replace(found, view=replace(view, run=found.name))


def beside(found: Opened) -> None:
    """Which other run is drawn in the same graph."""
    others = [name for name in runs.folders() if name != found.name]
    if others:
        names, now = ["", *others], found.view.other or ""
        st.selectbox(
            "Compare with", names, index=names.index(now),
            **state.shown("view_other", now, lambda to: state.put(run=found.name, other=to or None)),
            format_func=lambda name: name or "no other circuit",
        )  # fmt: skip


def compared_with(found: Opened) -> Run | None:
    """The second run, if it is of the same graph."""
    if found.view.other is None:
        return None
    try:
        other = runs.open_run(found.view.other)
    except (ValueError, OSError) as error:
        st.error(plain(str(error)))
        return None
    if other.circuit.graph != found.run.circuit.graph:
        st.warning(
            plain(f"{found.view.other} is of a model of other sizes, and cannot be drawn in this graph.")
        )
        return None
    return other


def algorithm(found: Opened) -> None:
    """Choose edges anew by another algorithm, as a new run."""
    with st.popover("Algorithm", icon=":material/alt_route:", width="stretch"):
        run = found.run
        sized = [name for name in algorithms() if "n_edges" in get_algorithm(name).takes]
        now = str(run.info.get("algorithm", ""))
        first = next((name for name in ("greedy", *sized) if name in sized and name != now), sized[0])
        name = st.selectbox(
            "Algorithm", sized, index=sized.index(first), key="algorithm",
            format_func=lambda key: f"{key}: {get_algorithm(key).summary}",
        )  # fmt: skip
        limit = run.scores.graph.n_edges
        n = st.number_input("Edges", 1, limit, min(run.circuit.n_edges, limit), key="algorithm_edges")
        takes = (
            "by the run's scores"
            if get_algorithm(name).needs_scores
            else "by learning masks, which takes minutes"
        )
        st.caption(f"Chosen {takes}, evaluated on the run's pairs, and kept as a new run.")
        if pressed.button("Choose", key="choose", type="primary", width="stretch"):
            try:
                job = discovery.choose_again(
                    work.runner(), work.shelf(), found.model_name, run, name, int(n), options.given().runs
                )
            except ValueError as error:
                st.error(plain(str(error)))
            else:
                st.session_state["chosen"] = job.id
    job = work.runner().get(st.session_state.get("chosen", 0))
    if job is None:
        return
    if job.active:
        work.watch(job.id)
    elif job.state != "done":
        work.ended(job, again=False)
    elif job.result.run in runs.folders() and job.result.run not in (found.name, found.view.other):
        page.link(
            "circuit", "See what it changed", found.view, icon=":material/difference:", run=found.name,
            other=job.result.run,
        )  # fmt: skip


# ---- how much is kept


def summary(found: Opened, shown: int) -> None:
    """The numbers of the run and of the edges shown, and what the task's check had to say."""
    run = found.run
    numbers, metric = run.summary, run.info["metric"].replace("_", " ")
    cells: list[tuple[str, str, str | None, str]] = [
        (
            f"Model's {metric}",
            f"{numbers['metric_model']:.2f}",
            None,
            "On clean prompts, mean over the examples",
        ),
        ("On corrupt prompts", f"{numbers['metric_corrupt']:.2f}", None, "The same where the clue is gone"),
    ]
    for circuit in numbers["circuits"]:
        n, random = circuit["n_edges"], circuit["random"]["faithfulness"]
        cells.append(
            (
                f"Faithfulness, {n:,} edge{'s' * (n != 1)}",
                share(circuit["faithfulness"]),
                f"random edges {share(random)}" if circuit["random"]["sets"] else None,
                "Share of the model's behaviour that is left when all other edges carry their corrupt value; "
                "below it random edge sets of the same size",
            )
        )
    live = shown <= run.circuit.n_edges and shown not in [c["n_edges"] for c in numbers["circuits"]]
    columns = st.columns(len(cells) + live)
    for column, (label, value, below_it, text) in zip(columns, cells, strict=False):
        column.metric(plain(label), value, below_it, delta_color="off", delta_arrow="off", help=text)
    if live:
        with columns[-1]:
            kept = kept_by(found, shown)
            if kept is not None:
                st.metric(
                    f"Faithfulness, {shown:,} shown", share(kept.faithfulness),
                    help="Evaluated now, on the run's pairs",
                )  # fmt: skip
    if numbers.get("warning"):
        st.warning(
            plain(numbers["warning"][:1].upper() + numbers["warning"][1:] + "."), icon=":material/warning:"
        )


def kept_by(found: Opened, n: int) -> Kept | None:
    """What the `n` strongest edges keep: evaluated once, remembered with the sizes that were looked at."""
    key = inspector.key_of(found, "kept", n)
    result: Kept | None = work.known(key)
    if result is None:
        model = found.model()
        if model is None:
            return None
        result = work.result(
            key, f"Faithfulness of {n:,} edges",
            lambda progress: interventions.kept(model, found.run, n, progress), lane=found.model_name,
        )  # fmt: skip
    if result is not None:
        tried = st.session_state.setdefault("tried", {})
        tried.setdefault(found.name, {})[n] = result.faithfulness
    return result


def below(found: Opened, shown: int) -> None:
    """Figures behind the graph: faithfulness by size, all heads."""
    run = found.run
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Faithfulness by size", divider=False)
        circuits = run.summary["circuits"]
        points = {c["n_edges"]: c["faithfulness"] for c in circuits if c["faithfulness"] is not None}
        points |= st.session_state.get("tried", {}).get(found.name, {})
        random = {c["n_edges"]: [v for v in c["random"]["each"] if v is not None] for c in circuits}
        st.plotly_chart(
            evidence.kept_curve(points, random, shown=shown), config={"displayModeBar": False}, key="kept"
        )
        st.caption("Move the slider: every size that is looked at is evaluated and joins the curve.")
    with right:
        st.subheader("All heads", divider=False)
        nodes, graph = run.scores.nodes(), run.circuit.graph
        names = [[head_name(layer, h) for h in range(graph.n_heads)] for layer in range(graph.n_layers)]
        values = np.array([[nodes[name] for name in row] for row in names])
        flat = [name for row in names for name in row]
        at = divmod(flat.index(found.view.node), graph.n_heads) if found.view.node in flat else None
        grid(
            grid_payload(
                values, [f"L{layer}" for layer in range(graph.n_layers)], [f"h{h}" for h in range(graph.n_heads)],
                title="Estimated effect of every head", unit="estimated effect",
            ),
            key="all_heads", selected=at, largest=(52, 26),
            on_pick=lambda row, column: state.put(run=found.name, node=names[row][column], query=None),
        )  # fmt: skip


# ---- the graph


def graph_and_node(found: Opened, other: Run | None, edges: list[Edge], shown: int, written: Notes) -> None:
    """The graph, and beside it the selected node or an overview."""
    run, view = found.run, found.view
    members = written.groups.get(view.group or "", ())
    known = {*run.circuit.graph.senders, "logits"}
    marks: dict[str, Any] = {
        "pins": [node for node in written.pins if node in known],
        "members": [node for node in members if node in known],
    }
    left, right = st.columns([9, 5], gap="medium")
    with left:
        roles = inspector.roles(found)
        title = f"Circuit of {run.info['task']} in {run.info['model']['name']}, {len(edges)} edges"
        if other is None:
            names = (
                {} if roles is None else {h: r["role"] for r in reversed(roles["roles"]) for h in r["heads"]}
            )
            payload = circuit_edges.one(run.circuit, edges, title=title, roles=names, **marks)
        else:
            compared = Comparison(
                interventions.strongest(run.circuit, shown), interventions.strongest(other.circuit, shown)
            )
            payload = circuit_edges.two(
                compared, (found.name, view.other or ""), title=f"{found.name} and {view.other}", **marks
            )
            st.caption(
                f"{compared.shared.n_edges:,} edges in both, {compared.only_a.n_edges:,} only in the first, "
                f"{compared.only_b.n_edges:,} only in the second; Jaccard {compared.jaccard:.2f}."
            )
        if view.node is not None and view.node not in {node["id"] for node in payload["nodes"]}:
            st.caption(f"{view.node} touches none of the {len(edges)} strongest edges.")
        circuit_graph(
            payload,
            key="graph",
            selected=view.node,
            on_pick=lambda node: state.put(run=found.name, node=node or None, query=None),
        )
        groups(found, written)
    with right:
        if view.node is None:
            overview(found)
        else:
            inspector.show(found, edges, written, roles)


def groups(found: Opened, written: Notes) -> None:
    """The named groups: choosing one marks its nodes, and it can be ablated as a whole."""
    if not written.groups:
        return
    names = list(written.groups)
    st.pills(
        "Groups", names, format_func=plain, default=found.view.group,
        **state.bound("group", found.view.group, run=found.name),
        help="Begin a group from a selected node",
    )  # fmt: skip
    chosen = written.groups.get(found.view.group or "")
    if chosen:
        st.caption(plain(", ".join(chosen)))
        inspector.ablate(found, tuple(node for node in chosen if node != "logits"), "ablate_group")


def overview(found: Opened) -> None:
    """The strongest heads and MLPs. The embedding is left out: everything passes through it."""
    st.subheader("Strongest heads and MLPs")
    st.caption("Estimated change of the metric when a node's output is given its corrupt value.")
    nodes = {node: effect for node, effect in found.run.scores.nodes().items() if node != "embed"}

    def pick(points: list[Any]) -> None:
        state.put(run=found.name, node=points[0]["y"], query=None)

    st.plotly_chart(
        charts.node_bars(nodes, top=TOP_NODES),
        **state.selecting("bars", "points", pick),
        selection_mode="points",
        config={"displayModeBar": False},
    )
    st.caption("Click a bar, or a node of the graph, to see its attention and its edges.")
    page.link("heads", "See all heads on this prompt", found.view, icon=":material/grid_view:", query=None)


if __name__ == "__main__":
    show()
