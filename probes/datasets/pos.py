"""Part of speech of each word, from any CoNLL-U file: the universal tags (UPOS)."""

from __future__ import annotations

from pathlib import Path

from probes.dataset import Dataset
from probes.labelled import Classes, Labelled
from probes.treebank import LICENCE, read_words


def build(path: str | Path, n: int | None = 500, seed: int = 0, max_words: int = 60) -> Labelled:
    """Words.

    Args:
        path: a CoNLL-U file.
        n: how many sentences; None: all there are.
        max_words: longer sentences are left out.
    """
    found = read_words("pos", path, n, seed, most=max_words)
    return found.labelled("pos", {"upos": Classes.of([word.upos for word in found.words])})


DATASET = Dataset(
    summary="part of speech of each word of a CoNLL-U file", target="classes", licence=LICENCE, build=build
)
