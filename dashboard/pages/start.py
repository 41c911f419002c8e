"""Choose a model and a task, see whether the model can do it, discover a circuit, open a saved run."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import streamlit as st

from circuits.attribute import get_method, methods
from circuits.check import Check
from circuits.discover import Settings
from circuits.select import algorithms, get_algorithm
from circuits.store import Listed
from circuits.task import Task
from dashboard import (
    able,
    choices,
    discovery,
    library,
    options,
    page,
    presets,
    pressed,
    runs,
    sidebar,
    state,
    uploads,
    work,
)
from dashboard.jobs import Job
from dashboard.kinds import SCENES, kind_of, no_pairs
from dashboard.page import Page
from dashboard.plain import plain
from dashboard.state import View

PAGE = Page(title="Start", icon=":material/home:", order=0)

SHOWN = 4


def show() -> None:
    st.title("Find out how a model does it")
    st.caption(
        "Choose a task or type your own prompts in the sidebar; then follow the button at the end of each page."
    )
    view, subject = sidebar.show(state.current("start"), new_models=True)
    name = choices.model_of(view)
    model, loaded = None if subject is None else subject.model, work.shelf().loaded(name)
    left, right = st.columns([5, 6], gap="large")
    with left:
        if loaded is not None and no_pairs(loaded.cfg):
            chosen = presets.instead_of_tasks(name, loaded)
        else:
            chosen = task_box(view, name, model)
            own_file()
            presets.others(name)
        library.show(name)
    with right:
        if loaded is not None and no_pairs(loaded.cfg):
            st.subheader("Discover the circuit")
            st.caption(plain(f"Not in this model: {no_pairs(loaded.cfg)}."))
        else:
            discover_box(name, chosen)
        queue()
        saved(view)
    latest = finished()
    if latest:
        page.next_step("circuit", f"Open the circuit that was found: {latest}", view, run=latest, edges=None)
    else:
        what = "its input" if loaded is not None and kind_of(loaded.cfg) in SCENES else "a prompt"
        page.next_step("prompt", f"See what {name} makes of {what}", view, model=name, node=None)


# ---- the task


def task_box(view: View, name: str, model: Any | None) -> str | None:
    """Choose a task; what it tests, and whether this model can do it. None: own prompts, or a run's."""
    known = sidebar.known_tasks()
    now = sidebar.source(view, name, model) if model is not None else view.task or choices.usual_task(name)
    shown = now if now in known else None
    names = list(known)
    st.selectbox(
        "Task", names, index=None if shown is None else names.index(shown),
        format_func=lambda key: known[key].title,
        **state.shown("choose_task", shown, lambda to: state.put(**sidebar.AFRESH, task=to, run=None)),
        placeholder="Your own prompts" if now == sidebar.OWN else f"The pairs of {now}",
    )  # fmt: skip
    if now not in known:
        st.caption(
            plain(f"The sidebar shows {'your own prompts' if now == sidebar.OWN else f'the pairs of {now}'}.")
        )
        return None
    about(known[now])
    if model is not None:
        badge(name, model, known[now])
        with st.expander("What can this model do?", icon=":material/checklist:"):
            able.table(name, model, known)
    return now


def about(task: Task) -> None:
    corruption = next(iter(task.corruptions.values()))
    st.caption(plain(f"{task.about} Corrupt prompts: {corruption}. {task.source}."))


def badge(name: str, model: Any, task: Task) -> None:
    """Whether the model can do the chosen task, on a few dozen prompts."""
    result = able.ability(name, model, task)
    if result is None:
        return
    if isinstance(result, str):
        st.error(plain(result), icon=":material/block:")
        return
    say, icon = (st.success, ":material/check:") if able.can(result) else (st.warning, ":material/warning:")
    say(plain(f"{able.words(result)} {explained(result)}"), icon=icon)


def explained(check: Check) -> str:
    """The rest of what a check says."""
    first = f"An answer is the very first choice on {check.top1:.0%}. " if not math.isnan(check.top1) else ""
    mean = f"Mean {check.metric.replace('_', ' ')} {check.mean:.2f} ± {check.se:.2f} (standard error)."
    if check.accuracy >= able.LOW_ACCURACY and not able.can(check):
        return f"{first}{mean} These are too few prompts to be sure that it is not chance."
    if not able.can(check):
        return f"{first}{mean} What a circuit for it would show means little."
    return first + mean


def own_file() -> None:
    """Take in a file of pairs, which is then a task like any other."""
    with st.expander("Your own prompts", icon=":material/upload_file:"):
        st.caption(
            "One pair: type into the boxes of the sidebar. Many: a CSV file with the columns below, or JSONL with "
            "these fields; the clean and the corrupt prompt of a row have equally many tokens."
        )
        st.code(uploads.SAMPLE, language=None, wrap_lines=True)
        st.download_button(
            "Download this sample", uploads.SAMPLE, "pairs.csv", "text/csv", icon=":material/download:"
        )
        given = st.file_uploader("File of pairs", type=["csv", "jsonl"], key="upload", on_change=take_in)
        if given is not None and (why := st.session_state.get("upload_error")):
            st.error(plain(why))


def take_in() -> None:
    """An uploaded file becomes the task that is looked at; or the reason is remembered why it cannot."""
    given = st.session_state["upload"]
    st.session_state["upload_error"] = None
    if given is None:
        return
    try:
        name = uploads.add(given.name, given.getvalue())
    except ValueError as error:
        st.session_state["upload_error"] = str(error)
    else:
        state.put(**sidebar.AFRESH, task=name, run=None)


# ---- discovery


def discover_box(model: str, task: str | None) -> None:
    """Settings of a discovery, and the button that starts it."""
    st.subheader("Discover the circuit")
    if choices.known_models().get(model) == "not fetched":
        st.caption(f"{plain(model)} is not on this machine yet: it is fetched from the package index first.")
    method = st.selectbox(
        "Method", methods(), index=_at(methods(), "eap-ig"), key="method",
        format_func=lambda key: f"{key}: {get_method(key).summary}", help="How edges are scored",
    )  # fmt: skip
    sized = [key for key in algorithms() if "n_edges" in get_algorithm(key).takes]
    algorithm = st.selectbox(
        "Algorithm", sized, index=_at(sized, "top-n"), key="algorithm",
        format_func=lambda key: f"{key}: {get_algorithm(key).summary}",
        help="How the circuit is chosen; learned masks take minutes",
    )  # fmt: skip
    a, b, c = st.columns(3)
    chosen = sidebar.known_tasks().get(task or "")
    finite = chosen is not None and chosen.finite
    examples = a.number_input(
        "Examples", 1, 1024, None if finite else 32, key=f"examples_{finite}",
        help="Pairs of a clean and a corrupt prompt", placeholder="all" if finite else None,
    )  # fmt: skip
    edges = b.number_input(
        "Edges", 1, 10_000_000, None, placeholder="as usual", key="edges",
        help="Size of the circuit; as usual: 1,000, or a tenth of a small model's edges",
    )  # fmt: skip
    seed = c.number_input("Seed", 0, 2**31 - 1, 0, key="seed")
    if chosen is None:
        st.caption("A discovery needs a task or a file of pairs. For one pair of your own, see Patching.")
    asked = pressed.button(
        "Discover", key="discover", type="primary", icon=":material/search:", width="stretch",
        disabled=chosen is None,
    )  # fmt: skip
    if asked and chosen is not None:
        settings = Settings(
            task=chosen, method=method, algorithm=algorithm, examples=examples, edges=edges, seed=seed
        )
        try:
            discovery.start(work.runner(), work.shelf(), model, settings, options.given().runs)
        except ValueError as error:
            st.error(plain(str(error)))
        else:
            st.rerun()


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
    """Discoveries under way, and how the latest ended; the sidebar shows all other work."""
    active = any(job.active for job in discoveries())
    if not discoveries():
        return
    st.subheader("Under way" if active else "Last discovery")
    if active:
        follow()
    elif (job := discoveries()[0]).state == "done":
        st.success(plain(f"{job.label}: done in {job.seconds:.0f} s."))
        page.link("circuit", "Open its circuit", View(run=job.result.run), icon=":material/hub:")
    else:
        work.ended(job, again=False)
        st.button("Dismiss", key="dismiss", on_click=work.runner().forget, args=(job,))


@st.fragment(run_every=work.TICK)
def follow() -> None:
    """The active discoveries, renewed until none is left; then the page runs again."""
    active = [job for job in discoveries() if job.active]
    if not active:
        st.rerun()
    for job in active:
        work.progress_bar(job)


# ---- saved runs


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
        with st.container(gap=None):
            one(run)
    if len(found) > SHOWN:
        page.link("runs", f"All {len(found)} runs", view, icon=":material/inventory_2:")


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
