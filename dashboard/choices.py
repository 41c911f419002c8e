"""Choosing a model, a prompt and a run: the boxes that several pages show, and what they may hold.

An address may only name models that this process knows: the ones `lens` can always load, those of saved runs,
and those a person has typed on the Start page. A foreign link can so not make the server fetch or read
anything else.
"""

from __future__ import annotations

import streamlit as st

from dashboard import runs, state
from dashboard.state import View
from lens.nearest import unknown

FIRST = "induction-2l"
REAL = "smollm2"


@st.cache_data(ttl=20, show_spinner=False)
def known_models() -> dict[str, str]:
    """Models that can be asked for by a plain name, and whether they are on this machine."""
    from lens.sources import known_models

    return {known.name: known.status for known in known_models()}


@st.cache_resource(show_spinner=False)
def typed_models() -> list[str]:
    """Models that a person of this process has typed."""
    return []


def models() -> list[str]:
    """The models to choose from."""
    return list(dict.fromkeys([*known_models(), *runs.models(), *typed_models()]))


def check_model(view: View) -> View:
    """The view without a model that is not to choose from."""
    if view.model is None or view.model in models():
        return view
    why = unknown("model", view.model, models())
    return state.refuse(view, "model", f"{why} (any other is opened by typing it on Start)")


def model_of(view: View) -> str:
    """The model looked at: the address's, the run's, a language model if it is here, or the shipped one."""
    return view.model or runs.model_of(view.run) or (REAL if known_models().get(REAL) == "fetched" else FIRST)


def model_box(view: View, *, new: bool = False) -> str:
    """Choose a model; with `new`, a folder, a .gguf file or a hub id can be typed."""
    name = model_of(view)
    options = list(dict.fromkeys([*models(), name]))
    bound = state.bound("model", name, run=None, probe=None, node=None, query=None, example=None)

    def changed() -> None:
        typed = st.session_state[bound["key"]]
        if typed not in typed_models():
            typed_models().append(typed)
        bound["on_change"]()

    st.selectbox(
        "Model",
        options,
        index=options.index(name),
        accept_new_options=new,
        help="A known model, or type a folder, a .gguf file or a Hugging Face id" if new else None,
        key=bound["key"],
        on_change=changed,
    )
    return name


def usual_task(model: str) -> str:
    """The task that shows most on a model: induction on the shipped one, IOI on language models."""
    return "induction" if model == FIRST else "ioi"
