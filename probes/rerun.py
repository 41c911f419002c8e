"""A run's probes once more: on the rows that its folds held out, and on other data.

Letters: b rows that are judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lens.progress import Progress, silent
from probes import scores, trees
from probes.config import Config
from probes.evaluate import evaluate
from probes.labelled import Labelled
from probes.probe import Probe
from probes.store import Run
from probes.train import harvested, layers_of

if TYPE_CHECKING:
    import pandas as pd

    from lens.model import Transformer


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
        ValueError: no such layer, or a run without directions.
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
