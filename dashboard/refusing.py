"""Pages that can show nothing of a kind of model say so in one line, and lead to the page that can."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import choices, page, sidebar, subject, work
from dashboard.kinds import SCENES, Refusal, kind_of, refusal
from dashboard.plain import plain
from dashboard.state import View


def refused(where: str, view: View, looked_at: object = True) -> bool:
    """Whether page `where` shows nothing of the model, or there is nothing to be `looked_at`; then it has been said."""
    model = work.shelf().loaded(choices.model_of(view))
    found, changes = None if model is None else refusal(where, model.cfg), dict[str, Any]()
    if found is None and model is not None and looked_at is None and kind_of(model.cfg) in SCENES:
        found = Refusal("There is nothing to look at yet: see the sidebar.", "start", "Begin with a question")
    if found is None and model is not None and looked_at is None:
        blank = subject.own(view) and not (view.prompt or "").strip()
        why = subject.EMPTY if blank else "These prompts cannot be read: the sidebar says why."
        found, changes = Refusal(why, "start", "Begin with a question"), sidebar.AFRESH
    if found is None:
        return False
    st.info(plain(found.why), icon=":material/info:")
    page.next_step(found.page, found.label, view, run=None, **changes)
    return True
