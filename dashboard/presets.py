"""Questions to begin with, where tasks of prompts do not fit the model; each is a link to the page that answers it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import page
from dashboard.kinds import OTHER, PYTHON, kind_of
from dashboard.plain import plain
from dashboard.samples import PRESETS, Preset

ICONS = {
    "prompt": ":material/short_text:",
    "heads": ":material/grid_view:",
    "head": ":material/center_focus_strong:",
}


def instead_of_tasks(name: str, model: Any) -> None:
    """The questions about a model that no task fits, or what it can be looked at with."""
    st.subheader("Questions to begin with", divider=False)
    own = [preset for preset in PRESETS if preset.view.model == name]
    for preset in own:
        link(preset, named=False)
    if kind_of(model.cfg) == OTHER:
        st.info(plain(f"The dashboard has no views for {name}: {PYTHON}."), icon=":material/info:")
    elif not own:
        st.caption(plain(f"Choose what {name} reads in the sidebar, then follow the button below."))
    others(name)


def others(name: str) -> None:
    """The questions about other shipped models of these kinds."""
    rest = [preset for preset in PRESETS if preset.view.model != name]
    if rest:
        with st.expander("Images, encoders, encoder–decoders", icon=":material/category:"):
            for preset in rest:
                link(preset)


def link(preset: Preset, *, named: bool = True) -> None:
    """A question, what it is about, and of which model."""
    with st.container(gap=None):
        page.link(preset.page, preset.question, preset.view, icon=ICONS[preset.page])
        st.caption(plain(f"{preset.about} ({preset.view.model})" if named else preset.about))
