"""Dependency trees: a structural probe of an encoder, beside the tree in which every word hangs on the one before.

1. Words at the mean of their pieces. One part of the documents is held out and judged, all others are fitted.
2. Judged by the share of edges that the minimum spanning tree of the probe's distances has (UUAS), punctuation
   included, and by the rank correlation of distances.

Letters: n rows, r rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import probes
from benchmarks.study.probes.part_of_speech import about
from benchmarks.study.probes.setting import EMBEDDED, SEED, activations, rows_of
from lens.progress import Progress
from probes import trees
from probes.scores import Resamples
from probes.splits import folds, together

SENTENCES, PARTS, LONGEST = 1200, 6, 30
LAYERS, RANDOM = range(6), (0, 2, 4)
OPTIONS: dict[str, Any] = {"rank": 64, "epochs": 20}


def study(path: str | Path, progress: Progress) -> dict[str, Any]:
    """Sentences of a CoNLL-U file."""
    data = probes.load_dataset("dependencies", path=path, n=SENTENCES, seed=SEED, max_words=LONGEST).only(
        "heads"
    )
    texts = together(data.groups, [f"text {i}" for i in data.text.tolist()])
    fold = folds(data.n, PARTS, groups=texts, seed=SEED)[0]
    store, random = (
        activations(data, progress, random=which, of="minilm", layers=LAYERS, positions="mean")
        for which in (False, True)
    )

    def probed(of: probes.Activations, site: str) -> dict[str, Any]:
        x = of.take(site)
        problem = probes.Problem(data.target().heads, fold.train)  # type: ignore[union-attr]
        fits = probes.fit_many("structural-distance", x, [problem], options=OPTIONS, progress=progress)
        return judged(data, fold.test, fits.decision(0, x[fold.test]))

    layers = []
    for layer in LAYERS:
        site = f"blocks.{layer}.hook_resid_post"
        row = {"layer": layer, **probed(store, site)}
        if layer in RANDOM:
            row["random-init"] = probed(random, site)
        layers.append(row)
    return {
        "about": rows_of(data)
        | about(path)
        | {"fitted": len(fold.train), "judged": len(fold.test), **OPTIONS},
        "layers": layers,
        "embeddings": probed(store, EMBEDDED),
        "linear chain": judged(data, fold.test, trees.linear_chain(data.text)[fold.test]),
    }


def judged(data: probes.Labelled, rows: np.ndarray, points: np.ndarray) -> dict[str, Any]:
    """UUAS and rank correlation of points [n, r] of these rows, with intervals over documents."""
    target = data.target()
    assert isinstance(target, probes.Heads) and data.groups is not None
    y = np.stack([trees.offsets(target.heads), data.text], 1)[rows]
    fold = np.zeros(len(rows), dtype=int)
    resamples = Resamples.of(len(rows), [data.groups[i] for i in rows.tolist()], count=300, seed=SEED)
    found = {}
    for name in ("uuas", "distance_spearman"):
        metric = trees.METRICS[name]
        low, high = resamples.interval(lambda w, m=metric: m.of(y, points, fold, w))
        found[name] = {
            "score": float(metric.of(y, points, fold, np.ones((1, len(y))))[0]),
            "low": low,
            "high": high,
        }
    return found
