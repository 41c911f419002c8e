"""Can a model do a task? Its own score on a few dozen prompts, one task or all of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from circuits.check import LOW_ACCURACY, Check
from circuits.task import Task
from dashboard import pressed, subject, work
from lens.progress import Progress

EVEN = 0.5


def key(name: str, model: Any, task: Task) -> Hashable:
    """What a check is remembered by."""
    return ("check", model.revision, name, task.name)


def checked(model: Any, task: Task) -> Check | str:
    """The model's score on the task's first pairs, or why there are none for its tokenizer."""
    try:
        pairs = subject.preset(model, task, 0)[0]
    except ValueError as error:
        return str(error)
    return task.check(model, pairs)


def ability(name: str, model: Any, task: Task) -> Check | str | None:
    """The check of one task; None while it is under way."""
    return work.result(
        key(name, model, task),
        f"Can {name} do {task.title}?",
        lambda progress: checked(model, task),
        lane=name,
    )


def can(check: Check) -> bool:
    """Whether the model does the task: mostly right, and surely more often than not."""
    return check.accuracy >= LOW_ACCURACY and check.low > EVEN


def words(check: Check) -> str:
    """`Right on 94% of 32 prompts (95% interval 79% to 98%).`"""
    return f"Right on {check.accuracy:.0%} of {check.n} prompts (95% interval {check.low:.0%} to {check.high:.0%})."


def table(name: str, model: Any, known: Mapping[str, Task]) -> None:
    """All tasks with what is known of them, and a button that checks the others."""
    found = {task.name: _known(key(name, model, task)) for task in known.values()}
    frame = pd.DataFrame(
        [
            {
                "task": task.title,
                "right": result.accuracy if isinstance(result, Check) else None,
                "from": result.low if isinstance(result, Check) else None,
                "to": result.high if isinstance(result, Check) else None,
                "verdict": _verdict(result),
                "what it tests": task.about,
            }
            for task, result in ((task, found[task.name]) for task in known.values())
        ]
    )
    st.dataframe(
        frame, hide_index=True, height=36 * (len(frame) + 1) + 3, key="abilities",
        column_config={
            "right": st.column_config.NumberColumn("right", help="share of prompts", format="percent"),
            "from": st.column_config.NumberColumn("from", help="of the 95% interval", format="percent"),
            "to": st.column_config.NumberColumn("to", help="of the 95% interval", format="percent"),
        },
    )  # fmt: skip
    left = [task for task in known.values() if found[task.name] is None]
    if left and pressed.button(
        f"Check the other {len(left)}", key="check_all", icon=":material/playlist_add_check:"
    ):
        st.session_state["checking"] = (name, model.revision)
    if left and st.session_state.get("checking") == (name, model.revision):
        check_all(name, model, left)


def check_all(name: str, model: Any, left: list[Task]) -> None:
    """Queue the checks that are missing as one job, and show how far it is."""

    def each(progress: Progress) -> dict[str, Check | str]:
        results: dict[str, Check | str] = {}
        for i, task in enumerate(left):
            progress(i, len(left), task.title)
            results[task.name] = checked(model, task)
        return results

    names = tuple(task.name for task in left)
    results = work.result(("checks", model.revision, name, names), f"What {name} can do", each, lane=name)
    if results is None:
        return
    for task in left:
        result = results[task.name]
        work.runner().submit(
            task.title, lambda progress, r=result: r, lane="known", key=key(name, model, task)
        )
    work.runner().wait(5)
    st.session_state["checking"] = None
    st.rerun()


def _known(of: Hashable) -> Check | str | None:
    job = work.runner().find(of)
    return job.result if job is not None and job.state == "done" else None


def _verdict(result: Check | str | None) -> str:
    if result is None:
        return "not checked yet"
    if isinstance(result, str):
        return "no prompts for this model"
    if can(result):
        return "can do it"
    return "too few prompts to tell" if result.accuracy >= LOW_ACCURACY else "cannot do it reliably"
