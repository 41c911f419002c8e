"""Part of speech of the words of a treebank: accuracy, selectivity against a control task, codelength.

1. Documents are kept together. Tags with fewer than `LEAST` words are left out.
2. The control task gives every word type a tag at random; it can only be learned by remembering words.
3. The online code sends the tags with probes fitted to ever more of the words.

Letters: n rows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

import probes
from benchmarks.study.probes.setting import SEED, STREAM, activations, curve, inside, rows_of
from lens.progress import Progress

SENTENCES, LEAST, PENALTY = 250, 30, 0.01
LAYERS = (0, 4, 8, 12, 16, 20, 24, 29)


def study(path: str | Path, progress: Progress) -> dict[str, Any]:
    """Words of a CoNLL-U file."""
    data = kept(probes.load_dataset("pos", path=path, n=SENTENCES, seed=SEED))
    store = activations(data, progress, layers=LAYERS)
    random = activations(data, progress, layers=LAYERS, random=True)
    asked: dict[str, Any] = {
        "sites": STREAM, "C": PENALTY, "metrics": ["accuracy", "macro_f1"], "seed": SEED, "progress": progress,
    }  # fmt: skip
    swept = probes.sweep(store, data, "logistic", controls=1, mdl=True, floors=["majority", "surface", "layer-0"],
                         **asked)  # fmt: skip
    floor = probes.sweep(random, data, "logistic", controls=0, floors=[], **asked)
    return {
        "about": rows_of(data)
        | about(path)
        | {"tags": swept.record["targets"]["upos"]["per_class"], "C": PENALTY},
        "curve": curve(swept, random=floor),
        "inside": inside(swept),
    }


def kept(data: probes.Labelled) -> probes.Labelled:
    """Without rare tags."""
    target = data.target()
    assert isinstance(target, probes.Classes)
    counts = np.bincount(target.labels, minlength=len(target.names))
    return data.subset(counts[target.labels] >= LEAST)


def about(path: str | Path) -> dict[str, str]:
    """The file by its name and hash."""
    return {"file": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
