"""From labelled texts to probes with their evidence: the whole line on one page."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lens.progress import Progress, silent
from probes.estimator import get_estimator
from probes.evaluate import evaluate, split
from probes.harvest import harvest
from probes.reading import probed_sites
from probes.store import Trained, directions
from probes.texts import Labelled

if TYPE_CHECKING:
    from lens.model import Transformer

PACKAGE = "lens-workbench"


def train(
    model: Transformer,
    labelled: Labelled,
    site: str = "resid_post",
    *,
    position: str = "last",
    estimator: str = "logistic",
    folds: int = 5,
    seed: int = 0,
    shuffles: int = 5,
    batch_size: int = 32,
    source: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> Trained:
    """Harvest a site (every layer, for a shorthand such as "resid_post"), judge a probe at each, fit it to all texts.

    Args:
        source: where the texts are from, for the record.

    The other arguments are those of `probes.harvest` and `probes.evaluate`.

    Raises:
        ValueError: as for these two; what can be known before the model runs is told before.
    """
    kind = get_estimator(estimator)
    split(labelled, folds, seed)
    sites = probed_sites(model, site)
    store = harvest(
        model, labelled.texts, sites, positions=position, batch_size=batch_size, progress=progress
    )
    activations = {name: store[name] for name in store.sites}
    rows = evaluate(
        activations, labelled, estimator, folds=folds, seed=seed, shuffles=shuffles, progress=progress
    )
    labels = np.asarray(labelled.labels)
    coef, intercept = {}, {}
    for done, (name, x) in enumerate(activations.items()):
        progress(done, len(sites), "fitting to all texts")
        coef[name], intercept[name] = directions(kind.new().fit(x.double().numpy(), labels))
    progress(len(sites), len(sites), "fitting to all texts")
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {"name": model.name, "revision": model.revision, "origin": model.origin},
        "data": {
            **(source or {}),
            "texts": len(labels),
            "per_class": {labelled.classes[c]: n for c, n in sorted(labelled.counts.items())},
            "groups": None if labelled.groups is None else len(set(labelled.groups)),
        },
        "site": site,
        "position": position,
        "estimator": {"name": estimator.replace("_", "-"), **kind.new().get_params()},
        "folds": folds,
        "seed": seed,
        "shuffles": shuffles,
        "versions": {
            PACKAGE: _version(PACKAGE),
            "torch": str(torch.__version__),
            "scikit-learn": _version("scikit-learn"),
            "python": platform.python_version(),
        },
    }
    return Trained(coef, intercept, labelled.classes, tuple(rows), record)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
