"""Between pages and the job runner: ask for a result, and show how it is coming along until it is there."""

from __future__ import annotations

import atexit
from collections.abc import Hashable
from typing import Any

import streamlit as st
from streamlit.runtime import exists, get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.jobs import Job, Runner, Work
from dashboard.models import Shelf
from dashboard.plain import plain
from lens.progress import Progress

PATIENCE = 0.35
TICK = 0.5
LEAVE = 10.0  # seconds that a job has at the end of the process
COUNTED = 10_000  # of more pieces than this (bytes, pairs in many circuits) a share says more than a count
LOOKED = ", looked at"


@st.cache_resource(show_spinner=False)
def runner() -> Runner:
    """The job runner of this process; a job's owners are the browser sessions that asked for it.

    At the end of the process its jobs are stopped: a thread that is cut off in the middle of torch aborts it.
    """
    made = Runner(who=session)
    atexit.register(made.stop, LEAVE)
    return made


def session() -> str | None:
    """The browser session whose page is being run, if this is such a thread."""
    context = get_script_run_ctx(suppress_warning=True)
    return None if context is None else context.session_id


def given_up(job: Job) -> bool:
    """Whether somebody cancelled it."""
    return job.stopping or job.state == "cancelled"


def mine(job: Job) -> bool:
    """Whether this session asked for the job, or nobody who did is there any more."""
    if session() in job.owners:
        return True
    here = get_instance() if exists() else None
    return not any(here is not None and here.is_active_session(owner) for owner in job.owners)


@st.cache_resource(show_spinner=False)
def shelf() -> Shelf:
    """The loaded models of this process."""
    import lens
    from dashboard import truth

    def load(name: str, progress: Progress) -> Any:
        planted = truth.planted(name)
        return planted.model if planted is not None else lens.load(name, progress=progress)

    return Shelf(load, in_use=in_use)


def in_use() -> set[str]:
    """The models on which there is work, queued or running: the lanes that have some."""
    return {job.lane.removesuffix(LOOKED) for job in runner().jobs() if job.active}


def model(name: str) -> Any | None:
    """The model `name`, or None after showing that it is being loaded or why it cannot be."""
    shelved, key = shelf(), ("model", name)
    if shelved.loaded(name) is None:
        job = runner().find(key)
        if job is not None and job.state == "done":
            runner().forget(job)  # it has left the shelf since
        result(
            key, f"Load {name}", lambda progress: shelved.get(name, progress) and None, lane=f"load {name}"
        )
    return shelved.loaded(name)


def result(key: Hashable, label: str, work: Work, *, lane: str) -> Any | None:
    """The result of `work`, computed once per `key`; None after showing progress, or why it failed.

    What this session asked for and somebody cancelled is not begun anew until it is asked for again.
    """
    job = runner().find(key)
    if job is None or not (given_up(job) and session() in job.owners):
        job = runner().submit(label, work, lane=lane, key=key)
    job.wait(PATIENCE)
    if job.state == "done":
        return job.result
    if job.active:
        watch(job.id)
    else:
        ended(job)
    return None


def look(key: Hashable, label: str, work: Work, *, lane: str) -> Any | None:
    """As `result`, for a run or two of the model on what is looked at: it does not wait for heavy work in `lane`.

    Models never change and hooks belong to a thread, so both may run at once; looks come one at a time as well.
    """
    return result(key, label, work, lane=lane + LOOKED)


def known(key: Hashable) -> Any | None:
    """The result for `key` if it is there already: it needs no model, and no work."""
    job = runner().find(key)
    return job.result if job is not None and job.state == "done" else None


@st.fragment(run_every=TICK)
def watch(id: int) -> None:
    """A job's progress, renewed until it is over; then the page runs again."""
    job = runner().get(id)
    if job is None or not job.active:
        st.rerun()
    else:
        progress_bar(job)


def progress_bar(job: Job) -> None:
    """One active job: how far it is, and a button to stop it."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(job.fraction, text=plain(describe(job)))
        # a callback: it is called even where the run that the click asked for never comes to draw this button again
        st.button(
            "Cancel", key=f"cancel_{job.id}", disabled=job.stopping, width="content", on_click=job.cancel
        )


def row(job: Job) -> None:
    """One active job in the list of all; a small button stops it if it is one's own."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"row_{job.id}"):
        st.progress(job.fraction, text=plain(describe(job)))
        if mine(job):
            st.button(
                f"Cancel {plain(job.label)}", icon=":material/close:", key=f"stop_{job.id}", type="tertiary",
                disabled=job.stopping, width="content", on_click=job.cancel,
            )  # fmt: skip


def describe(job: Job) -> str:
    """Where an active job is, in one line."""
    if job.stopping:
        return f"{job.label}: stopping"
    if job.state == "queued":
        ahead = runner().ahead(job)
        return f"{job.label}: waiting for {ahead} other job{'s' * (ahead != 1)} on this model"
    how_far = f" {job.done:,}/{job.total:,}" if 1 < job.total <= COUNTED else ""
    if job.total > COUNTED:
        how_far = f" {job.fraction:.0%}"
    step = f": {job.step}{how_far}" if job.step else ""
    left = "" if job.left is None else f", this step about {duration(job.left)} more"
    return f"{job.label}{step} ({duration(job.seconds)}{left})"


def duration(seconds: float) -> str:
    """A time for people: `45 s`, `3 min`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def ended(job: Job, *, again: bool = True) -> None:
    """Why there is no result, and a way to try again."""
    if job.state == "cancelled":
        st.info(plain(f"{job.label}: cancelled."))
    else:
        st.error(plain(job.error or f"{job.label} failed."))
    if again:
        st.button("Try again", key=f"again_{job.id}", on_click=runner().forget, args=(job,))
