"""What a person waits for in the dashboard: clicks and page switches in a real browser, and what is sent to it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measuring import Row
from lens.progress import Progress, silent

TITLE = "The dashboard"
GOALS = {"head click while another session's job runs": 1000}
CLICKS, ROUNDS = 30, 5
ABOUT = (
    "SmolLM2 (30 × 9 heads) and an IOI prompt in headless Chromium, `python -m tests.dashboard.clicks`: from a click "
    "until what was asked for is drawn, when everything else is cached; the job beside it patches all layers × "
    "positions exactly. These are seconds of a wall clock, browser included, on a machine with other work, whose load "
    "average stands below. Sizes are what the data of the pictures take as JSON."
)


def measure(*, quick: bool = False, progress: Progress = silent) -> list[Row]:
    """Medians and 95th percentiles; none where there is no Chromium."""
    if shutil.which("chromium") is None:
        return []
    import lens
    from circuits.discover import discover
    from tests.dashboard.clicks import timed

    progress(0, 2, "discover a circuit to look at")
    folder = Path(tempfile.mkdtemp()) / "ioi-smollm2"
    discover(
        lens.load("smollm2"), task="ioi", method="eap", examples=8, edges=1000, random_sets=1, source="smollm2",
        out=folder,
    )  # fmt: skip
    progress(1, 2, "click")
    found = timed(folder, 8 if quick else CLICKS, 2 if quick else ROUNDS)
    progress(2, 2, "click")
    rows = []
    for what, times in found.times.items():
        middle, high = (float(value) for value in np.percentile(times, [50, 95]))
        rows += [
            Row("dashboard", what, "median", round(middle, 1), "ms", GOALS.get(what), min(times), max(times)),
            Row("dashboard", what, "95th percentile", round(high, 1), "ms"),
        ]
    for what, size in found.sizes.items():
        rows.append(Row("dashboard", "sent", what, round(size, 1), "KB"))
    cores = f"load average on {os.cpu_count()} cores"
    return [*rows, Row("dashboard", "meanwhile", "others and this", round(found.load, 1), cores)]
