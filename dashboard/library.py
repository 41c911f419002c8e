"""The model library of the Start page: what is on this machine, what can be fetched, and folders of one's own."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import choices, pressed, state, work
from dashboard.plain import plain
from lens.checkpoint import Known
from lens.sources import fetch

AFRESH = dict.fromkeys(("run", "node", "query", "layer", "example"))


@st.cache_data(ttl=20, show_spinner=False)
def models() -> list[Known]:
    """Models that can be asked for by a plain name."""
    from lens.sources import known_models

    return known_models()


def show(now: str) -> None:
    """Known models with their size and licence; fetching those that are not here; opening anything else."""
    with st.expander("Model library", icon=":material/deployed_code:"):
        found = models()
        frame = pd.DataFrame(
            [
                {
                    "model": known.name,
                    "": "looked at" if known.name == now else known.status,
                    "MB": known.size / 1e6,
                    "licence": known.licence,
                    "what it is": known.description,
                }
                for known in found
            ]
        )
        size = st.column_config.NumberColumn("MB", format="%.1f")
        st.dataframe(frame, hide_index=True, key="library", column_config={"MB": size})
        missing = [known.name for known in found if known.status == "not fetched"]
        if missing:
            fetching(missing)
        opening()


def fetching(missing: list[str]) -> None:
    """A button per model that is not here; progress while one is fetched."""
    for name in missing:
        key = ("fetch", name)
        if pressed.button(f"Fetch {plain(name)}", key=f"fetch_{name}", icon=":material/download:"):
            st.session_state["fetching"] = name
        job = work.runner().find(key)
        if st.session_state.get("fetching") == name or (job is not None and job.active):
            done = work.result(
                key,
                f"Fetch {name}",
                lambda progress, name=name: str(fetch(name, progress)),
                lane=f"fetch {name}",
            )
            if done is not None:
                st.session_state["fetching"] = None
                models.clear()
                choices.known_models.clear()
                st.rerun()


def opening() -> None:
    """A box for anything that is not in the list."""
    typed = st.text_input(
        "Open another", key="open_model", max_chars=400,
        placeholder="a folder, a .gguf file, or a Hugging Face id such as org/name",
        help="Folders are those of this machine: safetensors weights beside a config.json; pickles are not read",
    )  # fmt: skip
    st.button(
        "Open", key="open_model_now", icon=":material/folder_open:", disabled=not (typed or "").strip(),
        on_click=open_typed,
    )  # fmt: skip


def open_typed() -> None:
    """Look at the model that was typed; loading it says what is wrong with it."""
    name = st.session_state["open_model"].strip()
    if not name:
        return
    if name not in choices.typed_models():
        choices.typed_models().append(name)
    state.put(**AFRESH, model=name)
