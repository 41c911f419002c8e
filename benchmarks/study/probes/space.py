"""Space: latitude and longitude of cities at the last token of their names.

1. Folds of cities at random, and folds of whole countries: the first can be passed by knowing countries only, as the
   floor of country means tells.
2. The map: every city where a probe puts it that has seen no city of its country.

Letters: n rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import probes
from benchmarks.report import ROOT
from benchmarks.study.probes.setting import SEED, STREAM, activations, best, curve, inside, rows_of
from lens import atomic
from lens.progress import Progress
from probes.drawing import scatter
from probes.store import Predictions

N, DRAWN = 1000, 450
PICTURE = ROOT / "docs" / "images" / "probes-map.svg"
SPLITS = {"random cities": False, "held-out countries": None}


def study(progress: Progress) -> dict[str, Any]:
    """Both sorts of folds, and the map."""
    data = probes.load_dataset("cities", n=N, seed=SEED).only("coordinates")
    store, random = activations(data, progress), activations(data, progress, random=True)
    found: dict[str, Any] = {"about": rows_of(data)}
    for name, groups in SPLITS.items():
        floors = ["mean", "surface", "layer-0"] + (["group-mean:country"] if groups is False else [])
        asked: dict[str, Any] = {"sites": STREAM, "groups": groups, "seed": SEED, "progress": progress}
        swept = probes.sweep(store, data, "ridge", floors=floors, **asked)
        floor = probes.sweep(random, data, "ridge", floors=[], **asked)
        found[name] = {"curve": curve(swept, random=floor), "inside": inside(swept)}
        for value in swept.trial().names:
            found[name][value] = curve(swept, value=value, random=floor)
        found[name]["median_km"] = distances(swept, found[name]["curve"])
        if groups is None:
            draw(swept, found[name]["curve"])
    return found


def told(swept: probes.Sweep, layer: int) -> np.ndarray:
    """What was said of each city at a layer, degrees [n, 2]."""
    return swept.decisions["coordinates", f"blocks.{layer}.hook_resid_post", "last"]


def distances(swept: probes.Sweep, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Median kilometres between told and true places at the best layer, and from the mean of all cities."""
    y = swept.trial().y
    centre = np.broadcast_to(y.mean(0), y.shape)
    return {
        "probe": float(np.median(kilometres(y, told(swept, best(rows)["layer"])))),
        "mean": float(np.median(kilometres(y, centre))),
    }


def kilometres(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Great-circle distances of places [n, 2] in degrees of latitude and longitude."""
    (lat_a, lon_a), (lat_b, lon_b) = np.radians(a).T, np.radians(b).T
    half = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    return 2 * 6371.0 * np.arcsin(np.sqrt(half.clip(0, 1)))


def draw(swept: probes.Sweep, rows: list[dict[str, Any]]) -> None:
    """The map of some cities at the best layer."""
    trial, row = swept.trial(), best(rows)
    chosen = np.sort(np.random.default_rng(SEED).choice(trial.n, min(DRAWN, trial.n), replace=False))
    shown = Predictions(
        f"blocks.{row['layer']}.hook_resid_post", chosen, trial.y[chosen], told(swept, row["layer"])[chosen],
        trial.fold[chosen], trial.names, "values",
    )  # fmt: skip
    note = (
        f"ridge on layer {row['layer']} of SmolLM2-135M, by probes that saw no city of the country: "
        f"R² {row['score']:.2f} ({row['low']:.2f} to {row['high']:.2f}); {len(chosen)} of {trial.n} cities drawn"
    )
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(
        PICTURE, scatter.draw(shown, "cities: where they are told to be", note, "degrees").encode()
    )
