"""Reading a component's files and handing them to Streamlit.

Every component gets `shared.css` and `shared.js` in front of its own files, so that tooltips, theme and the
spoken line behave alike. Nothing is fetched from anywhere: the files ship with the package.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@functools.cache
def mount(name: str) -> Callable[..., Any]:
    """The mounting command of the component in folder `name`, registered with Streamlit on first use."""
    from streamlit.components.v2 import component

    folder = HERE / name
    return component(
        f"workbench.{name}",
        html=(folder / "view.html").read_text("utf-8"),
        css=(HERE / "shared.css").read_text("utf-8") + (folder / "view.css").read_text("utf-8"),
        js=(HERE / "shared.js").read_text("utf-8") + (folder / "view.js").read_text("utf-8"),
    )


def forward(key: str, trigger: str, on_pick: Callable[[Any], None] | None) -> Callable[[], None]:
    """A Streamlit callback that passes the value of `trigger` of the component `key` to `on_pick`."""

    def callback() -> None:
        import streamlit as st

        value = st.session_state[key][trigger]
        if on_pick is not None and value is not None:
            on_pick(value)

    return callback
