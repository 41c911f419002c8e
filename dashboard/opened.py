"""What pages about a saved run begin with: the sidebar, the title, which run, and the run itself or why not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from circuits.places import split_port
from circuits.store import Run
from circuits.tasks import tasks
from dashboard import choices, kinds, page, refusing, runs, sidebar, state, work
from dashboard.plain import plain
from dashboard.state import View
from dashboard.subject import Subject
from lens.nearest import unknown

ANEW: dict[str, Any] = {
    "model": None, "node": None, "query": None, "example": None, "edges": None, "group": None, "other": None,
    "prompt": None, "corrupt": None, "answer": None, "wrong": None, "metric": None, "task": None,
}  # fmt: skip
"""What another run is not looked at with."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A run on a page. `model_name`: what its model is loaded as; `subject`: the prompts, if they can be read."""

    view: View
    name: str
    run: Run
    model_name: str
    subject: Subject | None

    def model(self) -> Any | None:
        """The run's model; None while it is being loaded, which the sidebar shows, or where it has other weights."""
        model = work.shelf().loaded(self.model_name)
        if model is not None and model.revision != self.run.info["model"]["revision"]:
            return None
        return model


def show(where: str, title: str) -> Opened | None:
    """Draw the top of the page; None where there is no run to show, which the page has then said."""
    view, known = state.current(where), runs.folders()
    if view.run is None and view.model is not None and view.model not in map(runs.model_of, known):
        loaded = work.shelf().loaded(view.model)
        here = choices.known_models().get(view.model) in ("shipped", "fetched")
        if (loaded is None and here) or (loaded is not None and kinds.refusal(where, loaded.cfg) is not None):
            st.title(title)
            view, _ = sidebar.show(view)  # which loads the model, and then the page runs again
            refusing.refused(where, view)
            return None
    if view.run is None and known:
        view = replace(view, run=usual_run(view.model, list(known)))
    if view.run in known:
        view = replace(view, model=runs.model_of(view.run))
    view, subject = sidebar.show(view)
    if not known:
        st.title(title)
        if refusing.refused(where, view):
            return None
        st.info("There is no saved run to show yet: discover a circuit first.", icon=":material/info:")
        page.next_step("start", "Discover a circuit", view)
        return None
    name = view.run or next(iter(known))
    heading, chooser = st.columns([8, 4], vertical_alignment="bottom", gap="medium")
    with chooser:
        names = list(known)
        st.selectbox(
            "Run",
            names,
            index=names.index(name),
            label_visibility="collapsed",
            **state.bound("run", name, **ANEW),
        )
    try:
        run = runs.open_run(name)
    except (ValueError, OSError) as error:
        heading.title(title)
        st.error(plain(str(error)))
        page.next_step("start", "Discover another circuit", view, run=None)
        return None
    heading.title(plain(f"{task_title(run)} in {run.info['model']['name']}") if title == "Circuit" else title)
    view = replace(check(view, run), run=name)
    loaded = work.shelf().loaded(runs.model_name(run.info))
    if loaded is not None and loaded.revision != run.info["model"]["revision"]:
        st.warning(
            plain(f"{runs.model_name(run.info)} here is not of the revision that the run was made with.")
        )
    pair = subject if isinstance(subject, Subject) else None
    return Opened(view, name, run, runs.model_name(run.info), pair)


def usual_run(model: str | None, known: list[str]) -> str:
    """The newest run of the model that is looked at, or else the newest."""
    return next((name for name in known if model is not None and runs.model_of(name) == model), known[0])


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
