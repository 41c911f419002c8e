"""Sentiment: words of a lexicon, sentences of four sources, and probes that go from one to another.

1. Words at their last token, sentences at theirs; each judged by cross-validation among its own kind.
2. Transfer: fitted to all words and judged on all sentences, the other way round, and fitted to three sources of
   sentences and judged on the fourth. Penalty and layer are chosen among the fitted rows.

Letters: n rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import probes
from benchmarks.study.probes.setting import PENALTIES, SEED, STREAM, activations, curve, inside, rows_of
from lens.progress import Progress
from probes.splits import Fold

WORDS, SENTENCES = 800, 320
LAYERS = (0, 4, 8, 12, 16, 20, 24, 29)


def study(progress: Progress) -> dict[str, Any]:
    """Words, sentences, transfer."""
    kinds = {
        "words": probes.load_dataset("sentiment-words", n=WORDS, seed=SEED).only("sentiment"),
        "sentences": probes.load_dataset("sentiment-sentences", n=SENTENCES, seed=SEED).only("sentiment"),
    }
    stores = {name: activations(data, progress, layers=LAYERS) for name, data in kinds.items()}
    asked: dict[str, Any] = {
        "sites": STREAM, "C": PENALTIES, "metrics": ["auroc", "accuracy"], "seed": SEED, "progress": progress,
    }  # fmt: skip
    found: dict[str, Any] = {"about": {name: rows_of(data) for name, data in kinds.items()}}
    for name, data in kinds.items():
        random = activations(data, progress, layers=LAYERS, random=True)
        swept = probes.sweep(stores[name], data, "logistic", floors=["surface", "layer-0"], **asked)
        floor = probes.sweep(random, data, "logistic", floors=[], **asked)
        found[name] = {"curve": curve(swept, random=floor), "inside": inside(swept)}
    data, store = joined(kinds, stores)
    found["transfer"] = {}
    for name, fold in transfers(data).items():
        swept = probes.sweep(store, data, "logistic", cv=[fold], floors=["surface"], **asked)
        found["transfer"][name] = {
            "fitted": len(fold.train), "judged": len(fold.test), "curve": curve(swept), "inside": inside(swept),
        }  # fmt: skip
    return found


def joined(
    kinds: dict[str, probes.Labelled], stores: dict[str, probes.Activations]
) -> tuple[probes.Labelled, probes.Activations]:
    """Words and sentences as one data set, with their activations."""
    words, sentences = kinds["words"], kinds["sentences"]
    assert words.spans is not None and words.groups is not None and sentences.groups is not None
    whole = np.array([[0, len(text)] for text in sentences.texts])
    labels = [data.target() for data in (words, sentences)]
    assert all(isinstance(each, probes.Classes) for each in labels)
    data = probes.Labelled(
        "sentiment",
        (*words.texts, *sentences.texts),
        np.arange(words.n + sentences.n),
        np.concatenate([words.spans, whole]),
        {"sentiment": probes.Classes(np.concatenate([x.labels for x in labels]), labels[0].names)},  # type: ignore[union-attr]
        groups=(*words.groups, *sentences.groups),
        columns={"source": np.concatenate([np.full(words.n, "words"), sentences.column("source")])},
    )
    sites = stores["words"].resolve(STREAM)
    x = {site: torch.cat([stores[name].take(site) for name in ("words", "sentences")]) for site in sites}
    return data, probes.Activations.of(x)


def transfers(data: probes.Labelled) -> dict[str, Fold]:
    """What is fitted and what is judged, by name."""
    source = data.column("source")
    word = source == "words"
    found = {
        "words → sentences": Fold(np.flatnonzero(word), np.flatnonzero(~word)),
        "sentences → words": Fold(np.flatnonzero(~word), np.flatnonzero(word)),
    }
    for name in sorted(set(source[~word].tolist())):
        fold = Fold(np.flatnonzero(~word & (source != name)), np.flatnonzero(source == name))
        found[f"other sentences → {name}"] = fold
    return found
