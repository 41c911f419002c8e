"""Discovery as the Start page runs it: settings in, a saved run out, in a job."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from circuits.discover import Settings, discover
from dashboard.jobs import Job, Runner
from dashboard.models import Shelf
from lens.progress import Progress


@dataclass(frozen=True)
class Found:
    """What a discovery job gives: the name of the run's folder."""

    run: str


def folder_name(task: str, model: str, method: str, when: datetime) -> str:
    """A folder name that says what a run is and when it was begun."""
    parts = [re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-.") for part in (task, Path(model).stem, method)]
    return "-".join([*parts, when.strftime("%Y%m%d-%H%M%S")])


def start(runner: Runner, shelf: Shelf, model: str, settings: Settings, runs: Path) -> Job:
    """Queue a discovery of `model`, to be saved in a new folder in `runs`.

    Raises:
        ValueError: a setting does not exist or is out of range.
    """
    settings.check()
    task = settings.loaded_task().name
    out = runs / folder_name(task, model, settings.method, datetime.now())

    def work(progress: Progress) -> Found:
        loaded = shelf.get(model, progress)
        discover(loaded, settings, out=out, progress=progress)
        return Found(out.name)

    label = f"Discover {task} in {model} ({settings.method}, {settings.examples} examples)"
    return runner.submit(label, work, lane=model, key=("discover", out))
