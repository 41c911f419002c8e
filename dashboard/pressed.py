"""Buttons whose clicks are not lost while a page runs again and again.

Streamlit gives a click to one run of the script. Where bars of progress make the page run anew, that run may be given
up before it draws the button, and what the button gives is then never seen. Callbacks are always called, but know the
values of the last drawn page only. So the callback takes a note, and the next run that reaches the button acts on it.
"""

from __future__ import annotations

import time
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

FRESH = 60.0  # seconds; a note that no run has come to read since is of a page that was left


def button(label: str, *, key: str, place: DeltaGenerator | None = None, **options: Any) -> bool:
    """Draw a button, in `place` if given; whether it has been clicked and nobody has acted on it yet."""
    note = f"{key}_pressed"

    def pressed() -> None:
        st.session_state[note] = time.monotonic()

    (st if place is None else place).button(label, key=key, on_click=pressed, **options)
    when = st.session_state.pop(note, None)
    return when is not None and time.monotonic() - when < FRESH
