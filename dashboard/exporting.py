"""The box of the page Runs that makes a zip of a run in the background and then offers it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import streamlit as st

from dashboard import work
from dashboard.plain import plain
from lens.progress import Progress


def show(path: Path | None, name: str, make: Callable[[Progress], bytes]) -> None:
    """A zip of everything, made when it is asked for."""
    assert path is not None
    if st.session_state.get("exporting") != name:
        st.button(
            "Prepare the export", key="export", icon=":material/package_2:", width="stretch",
            on_click=lambda: st.session_state.update(exporting=name),
        )  # fmt: skip
        return
    made = work.result(
        ("export", str(path), state_of(path)), f"Export {name}",
        lambda progress: np.frombuffer(make(progress), dtype=np.uint8), lane="exports",
    )  # fmt: skip
    if made is None:
        return
    st.download_button(
        plain(f"Download {name}.zip ({made.nbytes / 1e6:.1f} MB)"), made.tobytes(), f"{name}.zip", "application/zip",
        key="download", type="primary", icon=":material/download:", width="stretch", on_click="ignore",
    )  # fmt: skip


def state_of(path: Path) -> tuple[tuple[str, int], ...]:
    """When each of the run's files changed last."""
    return tuple((file.name, file.stat().st_mtime_ns) for file in sorted(path.iterdir()) if file.is_file())
