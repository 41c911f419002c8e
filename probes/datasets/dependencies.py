"""Dependency trees from any CoNLL-U file: each word's head, for structural probes, and its depth below the root.

Hewitt and Manning, "A structural probe for finding syntax in word representations", NAACL 2019.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from probes.dataset import Dataset
from probes.labelled import Heads, Labelled, Values
from probes.treebank import LICENCE, read_words


def build(
    path: str | Path, n: int | None = 500, seed: int = 0, min_words: int = 3, max_words: int = 40
) -> Labelled:
    """Words of whole sentences, punctuation included (`upos` is "PUNCT").

    Args:
        path: a CoNLL-U file.
        n: how many sentences; None: all there are.
        min_words, max_words: shorter and longer sentences are left out.
    """
    found = read_words("dependencies", path, n, seed, least=min_words, most=max_words)
    firsts = np.searchsorted(found.text, found.text)  # the row where each row's sentence begins
    heads = np.array([word.head for word in found.words])
    trees = Heads(np.where(heads < 0, -1, heads + firsts))
    return found.labelled(
        "dependencies", {"heads": trees, "depth": Values.of(trees.depths, "depth", "edges below the root")}
    )


DATASET = Dataset(
    summary="dependency trees of a CoNLL-U file: heads and depth of each word",
    target="heads",
    licence=LICENCE,
    build=build,
)
