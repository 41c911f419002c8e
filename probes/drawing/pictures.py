"""The pictures of a run: the layer curve of each metric's first value, and what was told against what is true."""

from __future__ import annotations

import re
from pathlib import Path

from lens import atomic
from lens.nearest import unknown
from probes.drawing import confusion, curve, scatter
from probes.store import Run
from probes.swept import INSIDE

MOST_CLASSES = 30


def pictures(run: Run, target: str | None = None, metric: str | None = None) -> dict[str, str]:
    """Name → SVG text: `curve`, and `confusion` for classes or `map` (two values) or `values`.

    Raises:
        ValueError: no such target or metric.
    """
    target = run.target(target)
    about = run.targets[target]
    metric = str(metric or about["metric"])
    known = set(run.table.loc[run.table.target == target, "metric"])
    if metric not in known:
        raise ValueError(unknown("metric", metric, known, of="this run"))
    c, data = run.config, run.record["sweep"]["data"]
    note = f"{c.estimator} on {c.site} of {run.record['model']['name']}, {c.cv} folds, {about['judged']} rows judged"
    if about["groups"]:
        note += f", {about['groups']} groups kept together"
    title = target if data["name"] == target else f"{data['name']}: {target}"
    found = {"curve": curve.draw(run.curve(target, metric), run.inside(target, metric), title, note)}
    told = run.predictions[target]
    where = "at the layer each fold chose" if told.site == INSIDE else f"at {told.site}"
    rows = f"{c.estimator} {where}; every row by a probe that was not fitted to it"
    if told.reads == "classes" and len(told.names) <= MOST_CLASSES:
        found["confusion"] = confusion.draw(told, title, rows)
    if told.reads == "values":
        name = "map" if len(told.names) == 2 else "values"
        found[name] = scatter.draw(told, title, rows, about["unit"])
    return found


def written(
    run: Run, folder: str | Path, *, target: str | None = None, metric: str | None = None
) -> list[Path]:
    """Write the pictures into a folder; one that is there is replaced. Gives their paths.

    Raises:
        ValueError: no such target or metric.
        OSError: they cannot be written.
    """
    folder, stem = Path(folder), re.sub(r"[^A-Za-z0-9_-]+", "-", run.target(target))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in pictures(run, target, metric).items():
        of = f"-{metric}" if metric and name == "curve" else ""
        paths.append(folder / f"{stem}-{name}{of}.svg")
        atomic.write_bytes(paths[-1], text.encode())
    return paths
