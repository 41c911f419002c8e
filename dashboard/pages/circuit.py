"""The circuit of a saved run: its graph, the attention of a node, how faithful it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from circuits.graph import Graph
from circuits.layout import Edge, graph_payload
from circuits.places import Place, head_name, place, split_port
from circuits.store import Run
from circuits.tasks import tasks
from dashboard import page, runs, sidebar, state, survey, work
from dashboard.components.attention import attention
from dashboard.components.circuit_graph import circuit_graph
from dashboard.figures import charts
from dashboard.figures.attention import attention_payload
from dashboard.page import Page
from dashboard.plain import plain
from dashboard.state import View
from lens.nearest import unknown

PAGE = Page(title="Circuit", icon=":material/hub:", order=5)

FIRST_SHOWN = 200
LISTED = 8
TOP_NODES = 15


def show() -> None:
    view, known = state.current("circuit"), runs.folders()
    if view.run is None and known:
        view = replace(view, run=next(iter(known)))
    view, _ = sidebar.show(view)
    if not known:
        st.title("Circuit")
        st.info("There is no saved run to show yet: discover a circuit first.", icon=":material/info:")
        page.next_step("start", "Discover a circuit", view)
        return
    name = view.run or next(iter(known))
    heading, middle, chooser = st.columns([5, 3, 4], vertical_alignment="bottom", gap="medium")
    with chooser:
        st.selectbox("Run", list(known), **state.bound("run", name, node=None, query=None, example=None))
    try:
        run = runs.open_run(name)
    except (ValueError, OSError) as error:
        heading.title("Circuit")
        st.error(plain(str(error)))
        page.next_step("start", "Discover another circuit", view, run=None)
        return
    with heading:
        st.title(plain(f"{task_title(run)} in {run.info['model']['name']}"))
    view = check(view, run)
    edges = run.circuit.edges()
    shown = min(view.edges or FIRST_SHOWN, len(edges))
    if len(edges) > 1:
        middle.slider("Edges shown, strongest first", 1, len(edges), **state.bound("edges", shown))
    summary(run)
    graph_and_node(view, run, name, edges[:shown])
    evidence(run)
    example = min(view.example or 0, len(run.pairs) - 1)
    text = run.pairs.clean_text[example] if run.pairs.clean_text else None
    page.next_step(
        "heads", "See all heads on this prompt", view,
        model=runs.model_name(run.info), run=name, prompt=text, query=None,
    )  # fmt: skip


def task_title(run: Run) -> str:
    """What people call the run's task; its name where this program does not know it."""
    name = str(run.info["task"])
    return tasks()[name].title if name in tasks() else name


def check(view: View, run: Run) -> View:
    """The view without a node or an example that this run does not have."""
    graph = run.circuit.graph
    names = {split_port(r)[0] for r in graph.receivers} | set(graph.senders)
    if view.node is not None and view.node not in names:
        view = state.refuse(view, "node", unknown("node", view.node, names, of="this model"))
    if view.example is not None and view.example >= len(run.pairs):
        view = state.refuse(view, "example", f"the run has {len(run.pairs)} examples, counted from 0")
    return view


def summary(run: Run) -> None:
    """The numbers of the run, and what the task's check had to say."""
    found, metric = run.summary, run.info["metric"].replace("_", " ")
    cells = [
        (f"Model's {metric}", f"{found['metric_model']:.2f}", "On clean prompts, mean over the examples"),
        ("On corrupt prompts", f"{found['metric_corrupt']:.2f}", "The same metric where the clue is gone"),
    ]
    for circuit in found["circuits"]:
        random = circuit["random"]["faithfulness"]
        floor = f" (random {_share(random)})" if circuit["random"]["sets"] else ""
        cells.append(
            (
                f"Faithfulness, {circuit['n_edges']:,} edges",
                _share(circuit["faithfulness"]) + floor,
                "Share of the model's behaviour that is left when all other edges carry their corrupt value; "
                "in brackets random edge sets of the same size",
            )
        )
    for column, (label, value, text) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(plain(label), value, help=text)
    if found.get("warning"):
        st.warning(
            plain(found["warning"][:1].upper() + found["warning"][1:] + "."), icon=":material/warning:"
        )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{round(100 * value) + 0:d}%"


def graph_and_node(view: View, run: Run, name: str, edges: list[Edge]) -> None:
    """The graph of `edges`, and beside it the selected node or an overview."""
    left, right = st.columns([9, 5], gap="medium")
    with left:
        title = f"Circuit of {run.info['task']} in {run.info['model']['name']}, {len(edges)} edges"
        payload = graph_payload(run.circuit.graph, edges, title=title)
        if view.node is not None and view.node not in {node["id"] for node in payload["nodes"]}:
            st.caption(f"{view.node} touches none of the {len(edges)} strongest edges.")
        circuit_graph(
            payload,
            key="graph",
            selected=view.node,
            on_pick=lambda node: state.put(run=name, node=node or None, query=None),
        )
    with right:
        if view.node is None:
            overview(run, name)
        else:
            node_panel(view, run, name, edges)


def overview(run: Run, name: str) -> None:
    """The strongest heads and MLPs. The embedding is left out: everything passes through it."""
    st.subheader("Strongest heads and MLPs")
    st.caption("Estimated change of the metric when a node's output is given its corrupt value.")
    nodes = {node: effect for node, effect in run.scores.nodes().items() if node != "embed"}

    def pick() -> None:
        points = st.session_state["bars"]["selection"]["points"]
        if points:
            state.put(run=name, node=points[0]["y"], query=None)

    st.plotly_chart(
        charts.node_bars(nodes, top=TOP_NODES),
        key="bars",
        on_select=pick,
        selection_mode="points",
        config={"displayModeBar": False},
    )
    st.caption("Click a bar, or a node of the graph, to see its attention and its edges.")


def node_panel(view: View, run: Run, name: str, edges: list[Edge]) -> None:
    """One node: its effect, its attention on an example, its strongest edges."""
    node = place(view.node or "")
    effect = run.scores.nodes().get(node.name)
    title, clear = st.columns([4, 1], vertical_alignment="center")
    title.subheader(node.name + (f" · effect {effect:+.3f}" if effect is not None else ""))
    clear.button(
        "Clear", key="clear", width="stretch", on_click=lambda: state.put(run=name, node=None, query=None)
    )
    if node.kind in ("head", "kv"):
        attention_of(view, run, node)
    strongest(node, edges, name)


def attention_of(view: View, run: Run, node: Place) -> None:
    """The attention of a head, or of one of the heads that share a key/value head, on the sidebar's pair."""
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
    model_name = runs.model_name(run.info)
    model = work.model(model_name)
    if model is None:
        return
    if model.revision != run.info["model"]["revision"]:
        st.warning(plain(f"{model_name} here is not of the revision that the run was made with."))
    tokens = run.pairs.clean if prompt == "clean" else run.pairs.corrupt
    ids = tokens[number][run.pairs.mask[number]].tolist()
    layer = node.layer or 0
    patterns = work.result(
        ("patterns", model.revision, model_name, tuple(ids), layer),
        f"Attention of layer {layer}",
        lambda progress: survey.layer_patterns(model, ids, layer),
        lane=model_name,
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


def strongest(node: Place, edges: list[Edge], name: str) -> None:
    """The strongest shown edges into and out of a node; a click on one selects the node at its other end."""
    into = [(s, split_port(r)[1], score) for s, r, score in edges if split_port(r)[0] == node.name]
    out = [(*split_port(r), score) for s, r, score in edges if s == node.name]
    left, right = st.columns(2, gap="small")
    for column, word, found in ((left, "from", into), (right, "to", out)):
        with column:
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

    def pick() -> None:
        cells = st.session_state[f"edges_{side}"]["selection"]["cells"]
        if cells:
            state.put(run=run, node=rows[cells[0][0]][0], query=None)

    st.dataframe(
        pd.DataFrame(rows, columns=[word, "as", "score"]),
        key=f"edges_{side}",
        hide_index=True,
        row_height=28,
        on_select=pick,
        selection_mode="single-cell",
        column_config={
            "as": st.column_config.TextColumn("as", width=30, help="The input that reads it: q, k or v"),
            "score": st.column_config.NumberColumn("score", format="%+.3f", help="Negative: supports"),
        },
    )


def evidence(run: Run) -> None:
    """Figures behind the graph, and where the run comes from."""
    faithful, heads, origin = st.tabs(["Faithfulness", "All heads", "Where it comes from"])
    with faithful:
        found = run.summary["circuits"]
        random = [[v for v in c["random"]["each"] if v is not None] for c in found]
        figure = charts.faithfulness_curve(
            [c["n_edges"] for c in found],
            [c["faithfulness"] if c["faithfulness"] is not None else float("nan") for c in found],
            random if all(random) else (),
        )
        st.plotly_chart(figure, config={"displayModeBar": False})
    with heads:
        nodes, graph = run.scores.nodes(), run.circuit.graph
        values = [[nodes[head_name(l, h)] for h in range(graph.n_heads)] for l in range(graph.n_layers)]
        st.plotly_chart(charts.head_heatmap(np.array(values)), config={"displayModeBar": False})
    with origin:
        st.json(dict(run.info), expanded=2)
        st.caption(plain(f"Saved in {run.path}"))


if __name__ == "__main__":
    show()
