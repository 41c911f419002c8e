"""What two kinds of saved runs show alike on the page Runs: where one comes from, and which other stands beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.plain import plain
from dashboard.state import View
from lens.nearest import unknown


def origin(settings: Mapping[str, Any]) -> None:
    """A run's settings as a table; those without a value are left out."""
    st.caption("Where it comes from")
    rows = [f"| {plain(key)} | {plain(str(value))} |" for key, value in settings.items() if value]
    st.markdown("\n".join(["| setting | value |", "|---|---|", *rows]))


def other_run(view: View, others: Sequence[str], **changes: str) -> str | None:
    """Choose another run to compare with, kept in the address together with `changes`; None: none is chosen."""
    st.markdown("**Compare**")
    if view.other is not None and view.other not in others:
        why = unknown("other run", view.other, others) if others else "there is no other run"
        view = state.refuse(view, "other", why)
    if not others:
        st.caption("There is no other run to compare with.")
        return None
    names = ["", *others]
    st.selectbox(
        "With", names, index=names.index(view.other or ""), format_func=lambda name: name or "no other run",
        **state.shown("view_other", view.other or "", lambda to: state.put(**changes, other=to or None)),
    )  # fmt: skip
    return view.other
