"""Frozen probes on other data: other texts, another source, another template.

Nothing is fitted: the scores of each probe at its own site, under the metrics and intervals of a sweep, next to the
majority (the mean) of the new data.

Letters: n rows, k outputs, t values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lens.nearest import unknown
from lens.progress import Progress, silent
from probes import given, scores, trees
from probes.activations import Activations
from probes.given_rows import check_labelled
from probes.labelled import Classes, Heads, Labelled, Values
from probes.plan import whole_texts
from probes.probe import Probe

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("site", "layer", "target", "value", "estimator", "metric", "score", "low", "high", "n", "floor")
READS = {Classes: "classes", Values: "values", Heads: "map"}


def evaluate(
    probes: Mapping[str, Probe] | Sequence[Probe] | Probe,
    store: Activations | Mapping[str, Tensor | np.ndarray],
    labelled: Labelled,
    *,
    target: str | None = None,
    position: str = "last",
    seed: int = 0,
    bootstrap: int = 1000,
    progress: Progress = silent,
) -> pd.DataFrame:
    """One row per probe and metric: score, interval, and what the majority or the mean of these data would score.

    Args:
        probes: one, several, or several by name, such as those of a run.
        store: activations of the labelled rows at the probes' sites.
        target: of the labelled rows; None: the main one.
        position: which token of each row, for a store of all tokens; probes of whole texts read them all.

    Raises:
        ValueError: no probes, a target of another sort, a class that the probes do not know, values of other names,
            or activations of another width or that are not finite.
    """
    import pandas as pd

    probes = _by_name(probes)
    check_labelled(labelled)
    store = store if isinstance(store, Activations) else Activations.of(store)
    rows = store.rows_of(labelled, position) if store.offsets is not None else None
    if rows is None:
        store.rows_of(labelled)
    found = labelled.target(target)
    prepared = {name: _labels(probe, found, labelled) for name, probe in probes.items()}
    for probe in probes.values():
        _check(probe, store, labelled)
    groups = labelled.groups
    if groups is None and isinstance(found, Heads):
        groups = tuple((str(text),) for text in labelled.text.tolist())
    resamples = scores.Resamples.of(labelled.n, groups, count=bootstrap, seed=seed)
    table: list[dict[str, Any]] = []
    for done, (name, probe) in enumerate(probes.items()):
        progress(done, len(probes), "evaluating probes")
        y, floor, metrics = prepared[name]
        read = whole_texts(store, probe.site, labelled.n) if probe.texts else (store.take(probe.site, rows),)
        decision = probe.scores(*read).numpy()
        decision = decision[:, 0] if probe.reads == "classes" and decision.shape[1] == 1 else decision
        values = ["", *(probe.names if probe.reads == "values" and len(probe.names) > 1 else ())]
        layer = store.layer(probe.site)
        table += [
            _row(probe, layer, metric, value, y, decision, floor, resamples)
            for metric in metrics
            for value in values
        ]
    progress(len(probes), len(probes), "evaluating probes")
    return pd.DataFrame(table, columns=list(COLUMNS)).astype({"layer": "Int64"})


def _by_name(probes: Any) -> dict[str, Probe]:
    if isinstance(probes, Probe):
        probes = [probes]
    if isinstance(probes, list | tuple):
        probes = {str(i): probe for i, probe in enumerate(probes)}
    if not isinstance(probes, Mapping):
        raise ValueError(
            f"the probes are {given.sort(probes)}; they must be a Probe, a list of them, or probes by name"
        )
    if not probes:
        raise ValueError("there are no probes to evaluate")
    for name, probe in probes.items():
        if not isinstance(probe, Probe):
            raise ValueError(f"the probe {name!r} is {given.sort(probe)}, not a Probe")
    return dict(probes)


def _check(probe: Probe, store: Activations, labelled: Labelled) -> None:
    if (width := store.width(probe.site)) != probe.width:
        raise ValueError(f"the probe of {probe.site!r} reads {probe.width} features, and there are {width}")
    if probe.texts and (store.offsets is None or labelled.spans is not None):
        raise ValueError(
            f"the probe of {probe.site!r} reads all tokens of whole texts: harvest with positions='all'"
        )


def _row(
    probe: Probe, layer: int | None, metric: scores.Metric, value: str, y: np.ndarray, decision: np.ndarray,
    floor: np.ndarray, resamples: scores.Resamples,
) -> dict[str, Any]:  # fmt: skip
    if value:
        column = [probe.names.index(value)]
        y, decision, floor = y[:, column], decision[:, column], floor[:, column]
    fold = np.zeros(len(y), dtype=int)
    low, high = resamples.interval(lambda weights: metric.of(y, decision, fold, weights))
    return {
        "site": probe.site, "layer": layer, "target": probe.target, "value": value, "estimator": probe.estimator,
        "metric": metric.name, "score": scores.measured(metric, y, decision, fold), "low": low, "high": high,
        "n": len(y), "floor": scores.measured(metric, y, floor, fold),
    }  # fmt: skip


def _labels(
    probe: Probe, target: Classes | Values | Heads, labelled: Labelled
) -> tuple[np.ndarray, np.ndarray, tuple[scores.Metric, ...]]:
    """Labels in the probe's order, the floor's decisions, and the metrics."""
    reads = READS[type(target)]
    if reads != probe.reads:
        raise ValueError(f"the probe of {probe.site!r} reads {probe.reads}, and the data have {reads}")
    if isinstance(target, Heads):
        y = np.stack([trees.offsets(target.heads), labelled.text], 1)
        of = "depth" if "depth" in probe.estimator else "distance"
        return y, trees.linear_chain(labelled.text), tuple(trees.METRICS[name] for name in trees.USUAL[of])
    if isinstance(target, Values):
        for name in target.names:
            if name not in probe.names:
                raise ValueError(unknown("value", name, probe.names, of="these probes"))
        if lost := [name for name in probe.names if name not in target.names]:
            raise ValueError(f"the data lack the value {lost[0]!r} that the probes read")
        y = target.values[:, [target.names.index(name) for name in probe.names]]
        return y, np.tile(y.mean(0), (len(y), 1)), scores.metrics_of("values")
    present = [name for name, count in target.counts.items() if count]
    for name in present:
        if name not in probe.names:
            raise ValueError(unknown("class", name, probe.names, of="these probes"))
    y = np.array([probe.names.index(target.names[label]) for label in target.labels.tolist()])
    c = len(probe.names)
    most = int(np.bincount(y, minlength=c).argmax())
    floor = np.full(len(y), 1.0 if most else -1.0) if c == 2 else np.tile(np.eye(c)[most], (len(y), 1))
    return y, floor, scores.metrics_of("classes")
