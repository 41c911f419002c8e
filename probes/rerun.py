"""A run's probes once more: on held-out rows, on other data, to erase what they read and to steer along it.

Letters: b rows that are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lens.progress import Progress, silent
from probes import scores, splits, trees
from probes.config import Config
from probes.estimator import directed
from probes.evaluate import evaluate
from probes.labelled import Classes, Heads, Labelled
from probes.plan import regrouped
from probes.probe import Probe
from probes.store import Run
from probes.train import harvested, layers_of

if TYPE_CHECKING:
    import pandas as pd

    from lens.model import Transformer
    from probes.amnesic import Amnesic
    from probes.eraser import Eraser
    from probes.steer import Dose


def held_out(run: Run, target: str) -> pd.DataFrame:
    """Every metric on the rows that folds judged, each by a probe not fitted to it; intervals are in the run's table.

    For classes also the share of each class that was told right.
    """
    import pandas as pd

    found = run.predictions[target]
    rows: list[dict[str, Any]] = []
    known = trees.METRICS if found.reads == "heads" else scores.METRICS
    names = run.table.loc[run.table.target == target, "metric"].unique()
    for metric in (known[name] for name in names):
        value = scores.measured(metric, found.y, found.decision, found.fold)
        rows.append({"what": metric.name, "score": value, "n": len(found.y)})
    if found.reads == "classes":
        right = scores.told(found.decision) == found.y
        for c, name in enumerate(found.names):
            mine = found.y == c
            if mine.any():
                rows.append(
                    {"what": f"recall of {name}", "score": float(right[mine].mean()), "n": int(mine.sum())}
                )
    if found.reads == "values" and len(found.names) > 1:
        for j, name in enumerate(found.names):
            value = scores.measured(scores.METRICS["r2"], found.y[:, [j]], found.decision[:, [j]], found.fold)
            rows.append({"what": f"r2 of {name}", "score": value, "n": len(found.y)})
    return pd.DataFrame(rows).assign(site=found.site)


def evaluated(
    run: Run,
    target: str,
    model: Transformer,
    labelled: Labelled,
    config: Config,
    of: str | None = None,
    layers: str = "best",
    progress: Progress = silent,
) -> pd.DataFrame:
    """The run's probes on other data, at its best layer, at all or at some.

    Args:
        config: the run's settings with other data.
        of: the target of the new data; None: the same name, or their main one.

    Raises:
        ValueError: another model, no such layer, or as for `probes.evaluate`.
    """
    check_model(run, model)
    probes = chosen(run, target, layers)
    if of is None:
        of = target if target in labelled.targets else None
    sites = list(dict.fromkeys(probe.site for probe in probes.values()))
    store = harvested(model, labelled, sites, config, progress)
    return evaluate(
        probes, store, labelled, target=of, seed=config.seed, bootstrap=config.bootstrap, progress=progress
    )


def chosen(run: Run, target: str, layers: str = "best") -> dict[str, Probe]:
    """The probes of a target at "best", "all", or some layers.

    Raises:
        ValueError: no such layer, or a run that keeps no probes.
    """
    best = run.probe(target=target)
    mine = {name: probe for name, probe in run.probes.items() if probe.target == target}
    if layers == "best":
        return {name: probe for name, probe in mine.items() if probe is best}
    if layers == "all":
        return mine
    curve = run.curve(target)
    numbers = curve.layer.fillna(-1).astype(int)
    layer = dict(zip(curve.site, numbers, strict=True))
    wanted = layers_of(layers)
    known = {number for number in layer.values() if number >= 0}
    if lost := sorted(wanted - known):
        raise ValueError(
            f"layer {lost[0]} has no probe in this run; it has {', '.join(map(str, sorted(known)))}"
        )
    return {name: probe for name, probe in mine.items() if layer[probe.site] in wanted}


def check_model(run: Run, model: Transformer) -> None:
    """Raise a ValueError unless this is the model of the run."""
    known = run.record["model"]
    if model.revision != known["revision"]:
        raise ValueError(
            f"the run was made with {known['name']} {known['revision']}; this is {model.name} {model.revision}; "
            "give the run's own with --model"
        )


def erasable(run: Run, target: str, layers: str = "best") -> str:
    """The one site at which what the run's probes read can be erased; known without the model.

    Raises:
        ValueError: several layers, probes that are not linear, dependency trees.
    """
    probes = chosen(run, target, layers)
    sites = {probe.site for probe in probes.values()}
    if len(sites) != 1:
        raise ValueError(f"layers is {layers!r}, which is {len(sites)} sites; one is erased at a time")
    for probe in probes.values():
        if probe.reads == "map":
            raise ValueError("dependency trees are not erased; erase classes or values")
        if not probe.linear:
            raise ValueError(
                f"{probe.estimator} probes are not linear, and erasing takes away what linear ones read: {directed()}"
            )
    return sites.pop()


def steerable(run: Run, target: str, layers: str = "best", name: str | None = None) -> Probe:
    """The one probe along which a run is steered towards a class or value; known without the model.

    Raises:
        ValueError: several layers, or no such direction.
    """
    at = list(chosen(run, target, layers).values())
    if len(at) != 1:
        raise ValueError(f"layers is {layers!r}, which is {len(at)} probes; one is steered along at a time")
    at[0].direction(name)
    return at[0]


def erased(
    run: Run,
    target: str,
    model: Transformer,
    labelled: Labelled,
    *,
    layers: str = "best",
    method: str = "leace",
    draws: int = 5,
    equal_effect: bool = True,
    skip: int = 0,
    progress: Progress = silent,
) -> tuple[Eraser, Amnesic]:
    """An eraser of the run's target at one layer, fitted to half of the rows, and the amnesic test on the other half.

    No group is in both halves; a row that mixes them is in neither.

    Raises:
        ValueError: another model, several layers, dependency trees, or as for `fit_eraser` and `amnesic`.
    """
    from probes.amnesic import amnesic
    from probes.eraser import fit_eraser

    check_model(run, model)
    site = erasable(run, target, layers)
    found = labelled.target(target)
    if isinstance(found, Heads):
        raise ValueError("dependency trees are not erased; erase classes or values")
    grouped = regrouped(labelled, run.config.groups)
    labels = found.labels if isinstance(found, Classes) else None
    half = splits.folds(labelled.n, 2, labels=labels, groups=grouped.groups, seed=run.config.seed)[0]
    store = harvested(model, labelled, [site], run.config.with_(activations=None), progress)
    x = store.take(site, half.train)
    eraser = fit_eraser(method, x, found.take(half.train), site=site)
    test = amnesic(
        model, grouped.subset(half.test), eraser, target=target, positions=run.config.positions, draws=draws,
        equal_effect=equal_effect, skip=skip, prepend_bos=run.config.prepend_bos, seed=run.config.seed,
        batch_size=run.config.batch_size,
        progress=progress,
    )  # fmt: skip
    return eraser, test


def steered(
    run: Run,
    target: str,
    model: Transformer,
    labelled: Labelled,
    doses: Sequence[float],
    *,
    layers: str = "best",
    name: str | None = None,
    words: tuple[str, str] | None = None,
    start: str | int = "all",
    examples: int = 64,
    progress: Progress = silent,
) -> Dose:
    """The dose–response curve of steering some of the run's texts along its probe's direction.

    Args:
        name: the class or value to steer towards; None: the second of two classes, or the only value.
        words: measure log p(first) − log p(second) of these next words; None: the score of the deepest probe of the
            run, at the last token.
        examples: texts, evenly from all.

    Raises:
        ValueError: another model, several layers, no probe below the steered one, or as for `steer`.
    """
    from probes.measures import LogitDifference
    from probes.steer import steer

    check_model(run, model)
    probe = steerable(run, target, layers, name)
    if words is None:
        measure: Any = list(chosen(run, target, "all").values())[-1]
        if measure.site == probe.site:
            raise ValueError(
                f"the run has no probe below {probe.site}; name --words to measure, or steer a layer above"
            )
    else:
        measure = LogitDifference.of(model, *words)
    rows = np.unique(np.linspace(0, len(labelled.texts) - 1, min(examples, len(labelled.texts))).astype(int))
    return steer(
        model, [labelled.texts[i] for i in rows], probe, probe.site, doses, measure, name=name, start=start,
        prepend_bos=run.config.prepend_bos, batch_size=run.config.batch_size, seed=run.config.seed, progress=progress,
    )  # fmt: skip
