"""What the showcases of probes share: models, activations that are read once, and figures as plain JSON types.

Letters: n rows, d width of a site, f folds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

import probes
from lens.load import load
from lens.model import Transformer
from lens.progress import Progress
from lens.sources.wheel import cache_folder
from probes.floors.random_init import untrained
from probes.manifest import about_data, about_model
from probes.scores import METRICS, Metric, Resamples
from probes.splits import Fold

NAME = "study-probes"
SEED = 0
LAYERS = (*range(0, 30, 2), 29)
EMBEDDED = "blocks.0.hook_resid_pre"  # for the floor of embeddings
STREAM = "resid_post"
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
SETTINGS: dict[str, Any] = {
    "model": "smollm2",
    "encoder": "minilm",
    "seed": SEED,
    "layers": LAYERS,
    "C": PENALTIES,
}
CURVE = ("layer", "score", "low", "high", "penalty", "control", "selectivity", "p_value", "compression")


@cache
def model(name: str = "smollm2") -> Transformer:
    """A model in float32."""
    return load(name)


@cache
def random_model(name: str = "smollm2") -> Transformer:
    """The same architecture with random weights."""
    return untrained(model(name), SEED)


def sites(layers: Sequence[int]) -> list[str]:
    """The residual stream after these layers."""
    return [f"blocks.{layer}.hook_resid_post" for layer in layers]


def activations(
    data: probes.Labelled,
    progress: Progress,
    *,
    of: str = "smollm2",
    layers: Sequence[int] = LAYERS,
    random: bool = False,
    positions: str = "last",
) -> probes.Activations:
    """Embeddings and residual stream at the data's rows; kept in the user's cache folder, so read only once.

    Args:
        random: of the same architecture with random weights.
    """
    ran = random_model(of) if random else model(of)
    asked = [about_model(ran), about_data(data, all_tokens=False), positions, list(layers)]
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    out = cache_folder() / "study-probes" / f"{of}-{'random' if random else 'trained'}-{data.name}-{key}"
    read = [EMBEDDED, *sites(layers)]
    return probes.harvest(ran, data, read, positions=positions, out=out, progress=progress)


def curve(
    found: probes.Sweep,
    target: str | None = None,
    metric: str | None = None,
    value: str = "",
    random: probes.Sweep | None = None,
) -> list[dict[str, Any]]:
    """One metric of a sweep, layer after layer: the score, its interval, its floors and its control.

    Args:
        random: the same sweep of the model with random weights, a floor.
    """
    table = found.curve(target, metric, value)
    if random is not None:
        scores = random.curve(target, metric, value).set_index("site").score
        table["floor_random-init"] = scores.reindex(table.site).to_numpy()
    floors = [name for name in table.columns if name.startswith("floor_")]
    return [plain({name: row[name] for name in (*CURVE, *floors)}) for _, row in table.iterrows()]


def inside(found: probes.Sweep, target: str | None = None) -> dict[str, Any] | None:
    """The score where every fold chose its own layer, and these layers."""
    row = found.inside(target)
    return None if row is None else plain({name: row[name] for name in ("score", "low", "high", "layers")})


def rows_of(labelled: probes.Labelled) -> dict[str, Any]:
    """What the data are."""
    groups = labelled.groups
    return {
        "data": labelled.name, "rows": labelled.n, "texts": len(labelled.texts),
        "groups": None if groups is None else len({name for row in groups for name in row}),
        "fingerprint": labelled.fingerprint, "licence": labelled.licence, "source": labelled.source,
    }  # fmt: skip


def judged(
    metric: str,
    y: np.ndarray,
    decision: np.ndarray,
    fold: np.ndarray,
    groups: Sequence[tuple[str, ...]] | None,
) -> dict[str, float]:
    """A metric of decisions with its bootstrap interval over groups."""
    of: Metric = METRICS[metric]
    low, high = Resamples.of(len(y), groups, seed=SEED).interval(lambda w: of.of(y, decision, fold, w))
    return {"score": float(of.of(y, decision, fold, np.ones((1, len(y))))[0]), "low": low, "high": high}


def folds_of(found: probes.Sweep) -> tuple[Fold, ...]:
    """The folds that judged a sweep."""
    return found.trial().splits.outer


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Without what is not known, as Python's own numbers and words."""
    found = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    return {name: value for name, value in found.items() if value is not None and not _is_nan(value)}


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The layer with the highest score: chosen after the fact."""
    return max(rows, key=lambda row: row["score"])


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
