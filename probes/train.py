"""From settings to a run: model and data, activations, sweep, probes, on one page.

1. The settings are checked as far as they can be without the model: estimator, penalties, folds, floors.
2. Activations are harvested, or taken from the folder that the settings name if it was made by this model from
   these data.
3. The sweep judges probes at every site, and the run keeps what it found.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from lens.progress import Progress, silent
from probes import given
from probes.activations import Activations
from probes.config import Config
from probes.estimator import get_estimator
from probes.floor import Answers, get_floor
from probes.given_rows import check_labelled
from probes.harvest import check_folder, harvest
from probes.labelled import Labelled
from probes.plan import check_whole_texts, regrouped, resolve_penalties
from probes.store import Run, predictions_of
from probes.sweep import sweep
from probes.trial import Trial

if TYPE_CHECKING:
    from lens.model import Transformer

PACKAGE = "lens-workbench"


def train(
    model: Transformer,
    labelled: Labelled,
    config: Config | Mapping[str, Any] | None = None,
    *,
    source: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Run:
    """Judge probes at every layer and keep those that are fitted to all rows.

    Args:
        config: the settings, or some of them by name; None: those of `settings`, by the names of `probes.Config`
            (`site="mlp_out"`, …). `model` and `dataset` are only recorded: the model and the rows are those given.
        source: further words about the data, for the record.

    Raises:
        ValueError: what cannot be done, in one line; as far as possible before the model runs.
        Cancelled: the watcher asked for it.
    """
    given.check_model(model)
    check_labelled(labelled)
    if isinstance(config, Mapping):
        config, settings = None, {**config, **settings}
    if config is None:
        config = Config.of({"dataset": labelled.name, "model": model.name, **settings})
    elif settings:
        config = config.with_(**settings)
    check(labelled, config)
    config = _with_penalties(config)
    sites = sites_of(model, config.site, config.layers)
    begun = datetime.now(UTC)
    store = harvested(model, labelled, sites, config, progress)
    found = sweep(
        store, labelled, config.estimator, sites=sites, targets=config.targets, C=config.C, alpha=config.alpha,
        cv=config.cv, groups=config.groups, controls=config.controls, permutations=config.permutations,
        mdl=config.mdl, floors=config.floors, metrics=config.metrics, model=model, answers=answers_of(config),
        seed=config.seed, bootstrap=config.bootstrap, options=config.options, batch_size=config.batch_size,
        progress=progress,
    )  # fmt: skip
    record = {
        "created": begun.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - begun).total_seconds(), 1),
        "model": {"name": model.name, "revision": model.revision, "origin": model.origin},
        "source": dict(source or {}),
        "config": asdict(config),
        "sweep": dict(found.record),
        "versions": {
            PACKAGE: _version(PACKAGE),
            "torch": str(torch.__version__),
            "scikit-learn": _version("scikit-learn"),
            "python": platform.python_version(),
        },
    }
    probes = {
        f"{target} {site} {position}": probe for (target, site, position), probe in found.probes.items()
    }
    return Run(record, config, found.table, probes, predictions_of(found))


def _with_penalties(config: Config) -> Config:
    """Where no penalty is named: the kind's grid, if its fits share their work and there are folds to choose on.

    Kinds that choose by leave-one-out on the rows that they fit (ridge) do that.
    """
    kind = get_estimator(config.estimator)
    free = config.C is None and config.alpha is None and not {"C", "alpha"} & set(config.options)
    return config.with_(C="grid") if free and kind.penalty == "C" and kind.many and config.cv > 2 else config


def check(labelled: Labelled, config: Config) -> None:
    """What can be known without the model: layers, folder, estimator, penalties, targets, groups, folds, floors.

    Raises:
        ValueError: what cannot be done.
    """
    kind = get_estimator(config.estimator)
    check_whole_texts(kind, labelled, config.positions == "all")
    if config.layers != "all":
        layers_of(str(config.layers))
    if config.activations is not None:
        check_folder(config.activations)
    penalties = resolve_penalties(kind, {"C": config.C, "alpha": config.alpha})
    grouped = regrouped(labelled, config.groups)
    for name in config.floors or ():
        get_floor(name)
    for target in config.targets or [None]:
        Trial.of(
            grouped, target, kind, cv=config.cv, seed=config.seed, metrics=config.metrics, bootstrap=1,
            inside=len(penalties) > 1,
        )  # fmt: skip


def sites_of(model: Transformer, site: str, layers: str | int = "all") -> list[str]:
    """The full names of a site at some layers: "all", or numbers and ranges such as "0-5,11".

    Raises:
        ValueError: no such site or layer, or a site without a vector per position.
    """
    from probes.reading import probed_sites

    names = probed_sites(model, site)
    if layers == "all":
        return names
    wanted = layers_of(str(layers))
    known = {model.sites[name].layer: name for name in names}
    for layer in wanted:
        if layer not in known:
            last = max((l for l in known if l is not None), default=None)
            raise ValueError(f"layer {layer} of {site!r} is not in this model: it has layers 0 to {last}")
    return [name for name in names if model.sites[name].layer in wanted]


def harvested(
    model: Transformer, labelled: Labelled, sites: list[str], config: Config, progress: Progress
) -> Activations:
    """Step 2.

    Raises:
        ValueError: the folder is of another model, of other data, or lacks a site.
    """
    return harvest(
        model, labelled, sites, positions=config.positions, dtype=config.keep, out=config.activations,
        prepend_bos=config.prepend_bos, batch_size=config.batch_size, progress=progress,
    )  # fmt: skip


def answers_of(config: Config) -> Answers | None:
    """How the model is asked."""
    if config.answers is None:
        return None
    return Answers(config.answers["words"], config.answers.get("template", "{text}"))


def layers_of(text: str) -> set[int]:
    """The layers of "0-5,11".

    Raises:
        ValueError: it is written otherwise.
    """
    wanted: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not found or (found[2] and int(found[2]) < int(found[1])):
            raise ValueError(f"layers is {text!r}; it is all, or numbers and ranges such as 0-5,11")
        wanted |= set(range(int(found[1]), int(found[2] or found[1]) + 1))
    return wanted


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
