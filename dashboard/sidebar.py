"""The sidebar of every page: model, prompts, answers, metric, the selected node, work under way, a link to copy."""

from __future__ import annotations

from typing import Any

import streamlit as st

from circuits.metrics import metric_name
from circuits.task import Task
from circuits.tasks import tasks
from dashboard import choices, library, runs, samples, scene_sidebar, state, subject, uploads, work
from dashboard.head_groups import refusal as not_a_head
from dashboard.kinds import OTHER, SCENES, VISION, kind_of, no_pairs
from dashboard.plain import plain
from dashboard.scene import Scene
from dashboard.state import View
from dashboard.subject import Subject, Words
from lens.description import in_words, n_parameters
from lens.nearest import unknown

OWN = "My own prompts"
NO_TEXTS: dict[str, Any] = {"prompt": None, "corrupt": None, "answer": None, "wrong": None}
AFRESH: dict[str, Any] = {**NO_TEXTS, "example": None, "query": None, "metric": None}


def show(view: View, *, new_models: bool = False) -> tuple[View, Subject | Scene | None]:
    """Draw the sidebar; gives the view without what it refused, and what is looked at: prompts, or a scene.

    None where there is nothing to look at: the model is being loaded, the pages have no view of its kind
    (`refusing.py`), or the prompt cannot be read, which has been said then.
    """
    view = choices.check_model(view)
    view = check_task(view)
    with st.sidebar:
        name = choices.model_box(view, new=new_models)
        card = st.container()
    model = work.model(name)
    found: Subject | Scene | None = None
    if model is not None:
        view = check_node(view, model)
        kind = kind_of(model.cfg)
        with st.sidebar:
            with card:
                model_card(name, model)
            if kind in SCENES:
                view, found = scene_sidebar.boxes(view, name, model)
            elif kind != OTHER:
                view, found = prompts(view, name, model)
    with st.sidebar:
        selected(view)
        under_way()
        copy_link()
    return view, found


def check_task(view: View) -> View:
    """The view without a task or a run that does not exist."""
    if view.task is not None and view.task not in known_tasks():
        view = state.refuse(view, "task", unknown("task", view.task, known_tasks()))
    if view.run is not None and view.run not in runs.folders():
        why = unknown("saved run", view.run, runs.folders()) if runs.folders() else "there is no saved run"
        view = state.refuse(view, "run", why)
    return view


def check_node(view: View, model: Any) -> View:
    """The view without a head that the model does not have."""
    why = "" if view.node is None else not_a_head(view.node, model.cfg)
    return state.refuse(view, "node", why) if why else view


def known_tasks() -> dict[str, Task]:
    """The project's tasks, and the files of pairs that were uploaded."""
    return {**tasks(), **uploads.tasks()}


def model_card(name: str, model: Any) -> None:
    """The model in a line, and all that is known of it on hovering."""
    cfg = model.cfg
    layers = (
        f"{cfg.n_layers} layers"
        if cfg.source is None
        else f"{cfg.source.stack.n_layers} + {cfg.n_layers} layers"
    )
    parts = [
        f"{layers} × {cfg.n_heads} heads" if cfg.n_heads else layers,
        f"d_model {cfg.d_model}",
        f"context {cfg.n_ctx:,}",
    ]
    if kind_of(cfg) == VISION and cfg.embed.patches is not None:
        parts[-1] = "{} × {} patches".format(*cfg.embed.patches.grid)
    known = next((known for known in library.models() if known.name == name), None)
    lines = [
        *([known.description, f"Licence: {known.licence}"] if known is not None else []),
        f"{n_parameters(cfg):,} parameters; {', '.join(in_words(cfg))}",
        f"From: {model.origin or 'unknown'}",
        f"Revision: {model.revision or 'unknown'}",
    ]
    st.caption(plain(" · ".join(parts)), help="\n\n".join(plain(line) for line in lines))


def prompts(view: View, name: str, model: Any) -> tuple[View, Subject | None]:
    """Where the prompts come from, and the boxes that show and change them."""
    paired = not no_pairs(model.cfg)
    from_run = f"run {view.run}" if view.run and paired else None
    known = known_tasks() if paired else {}
    options = [*([from_run] if from_run else []), *known, OWN]
    now = source(view, name, model)
    found, why = _found(view, name, model, now)

    def change(to: str) -> None:
        if to == OWN:
            words = found.words if found is not None else Words("")
            state.put(prompt=words.clean, corrupt=words.corrupt, answer=words.answer, wrong=words.wrong)
        elif to == from_run:
            state.put(**AFRESH)
        else:
            state.put(**AFRESH, task=to, run=None)

    st.selectbox(
        "Prompts", options, index=options.index(now), **state.shown("prompts_from", now, change),
        format_func=lambda option: known[option].title if option in known else option,
        help="A task's pairs, a saved run's, or your own texts: edit any box below",
    )  # fmt: skip
    if found is None:
        say = st.caption if now == from_run else st.error  # a page that opens the run says it as well
        say(plain(why))
    elif now != OWN and found.batch is not None and len(found.batch) > 1:
        last = len(found.batch) - 1
        example = min(view.example or 0, last)
        st.slider(
            "Pair", 0, last, example, **state.bound("example", example, query=None),
            help="Which of the pairs is looked at",
        )  # fmt: skip
    words = found.words if found is not None else _typed(view)
    _texts(view, words)
    if found is not None and paired:
        names = subject.metrics()
        st.selectbox(
            "Metric", names, index=names.index(found.metric), **state.bound("metric", found.metric),
            format_func=lambda metric: metric.replace("_", " "),
            help="What patches, ablations and circuits are judged by",
        )  # fmt: skip
        if found.why and (found.words.corrupt or found.words.answer):
            st.caption(f":material/info: {plain(f'No patching with these texts: {found.why}.')}")
    return view, found


def source(view: View, name: str, model: Any) -> str:
    """Where the prompts come from: `OWN`, a run (its name after `run `), or a task's name."""
    if subject.own(view) or no_pairs(model.cfg):
        return OWN
    return f"run {view.run}" if view.run else view.task or usual_source(name, model)


def usual_source(name: str, model: Any) -> str:
    """The task that shows most on a model, or the first that its tokenizer has the words for, or own texts."""
    known = tasks()
    for task in dict.fromkeys([choices.usual_task(name), "ioi", *known]):
        try:
            drawn(model, known[task], 0)
        except ValueError:
            continue  # another task may suit it
        return task
    return OWN


def _found(view: View, name: str, model: Any, of: str) -> tuple[Subject | None, str]:
    """The subject, or why there is none."""
    try:
        if of == OWN:
            words = _typed(view) if subject.own(view) or not no_pairs(model.cfg) else Words(samples.PROMPT)
            return subject.of_words(name, model, words, view.metric), ""
        if view.run and of == f"run {view.run}":
            run = runs.open_run(view.run)
            example = min(view.example or 0, len(run.pairs) - 1)
            metric = view.metric or metric_name(str(run.info["metric"]))
            return subject.of_pairs(name, model, run.pairs, example, metric, view.run), ""
        task = known_tasks()[of]
        pairs, example = drawn(model, task, view.example or 0)
        return subject.of_pairs(name, model, pairs, example, view.metric or task.metric, task.title), ""
    except (ValueError, OSError) as error:
        return None, str(error)


def drawn(model: Any, task: Task, example: int) -> tuple[Any, int]:
    """A task's pairs for a model, drawn once per session, and which of them is looked at."""
    memory = st.session_state.setdefault("drawn", {})
    key = (model.revision, task.name, id(task))
    if key not in memory:
        memory.clear()
        memory[key] = subject.preset(model, task, 0)[0]
    return memory[key], min(example, len(memory[key]) - 1)


def _typed(view: View) -> Words:
    return Words(view.prompt or "", view.corrupt or "", view.answer or "", view.wrong or "")


def _texts(view: View, words: Words) -> None:
    """Four boxes; a change of any makes the texts a person's own."""
    shown = {"prompt": words.clean, "corrupt": words.corrupt, "answer": words.answer, "wrong": words.wrong}

    def box(name: str) -> dict[str, Any]:
        others = {key: text for key, text in shown.items() if key != name}
        return {"value": shown[name], **state.bound(name, shown[name], **others, query=None)}

    limit: dict[str, Any] = {"max_chars": state.LONGEST}
    st.text_area("Clean prompt", height=90, help="Ctrl + Enter takes it over", **box("prompt"), **limit)
    st.text_area(
        "Counterfactual prompt", height=90, placeholder="as many tokens as the clean prompt",
        help="A prompt for which the answer is another; patches bring its activations in",
        **box("corrupt"), **limit,
    )  # fmt: skip
    left, right = st.columns(2, gap="small")
    left.text_input("Answer", help="One token, or several between |", **box("answer"), **limit)
    right.text_input("Instead of", help="Wrong answers, for differences", **box("wrong"), **limit)


def selected(view: View) -> None:
    """The node that is the thread through all pages."""
    if view.node is None:
        st.caption(
            "No node is chosen: pages that show one begin with one of their own. Click one in any picture."
        )
        return
    left, right = st.columns([3, 2], vertical_alignment="center")
    left.markdown(f"Selected **{plain(view.node)}**")
    right.button("Clear", key="clear_node", on_click=lambda: state.put(node=None), width="stretch")


def under_way() -> None:
    """Work of all sessions that is queued or running."""
    if any(job.active for job in work.runner().jobs()):
        _jobs()


@st.fragment(run_every=work.TICK)
def _jobs() -> None:
    active = [job for job in work.runner().jobs() if job.active]
    for job in active:
        work.row(job)


def copy_link() -> None:
    """The address that shows another person this very page."""
    with st.popover("Copy link", icon=":material/link:", width="stretch"):
        st.caption("Everything that is looked at is in the address.")
        st.code(state.address(), language=None, wrap_lines=True)
