"""How frequent each word is: a control that many labels go along with.

Counted in the CoNLL-U file itself, or in another. Forms are groups: a probe is judged on words that it was not fitted
to.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from probes.conllu import read_conllu
from probes.dataset import Dataset
from probes.labelled import Labelled, Values
from probes.treebank import LICENCE, read_words


def build(
    path: str | Path,
    n: int | None = 500,
    seed: int = 0,
    max_words: int = 60,
    counted_in: str | Path | None = None,
) -> Labelled:
    """Words of letters only, with the logarithm of their frequency.

    Args:
        path: a CoNLL-U file, for its sentences.
        n: how many sentences; None: all there are.
        max_words: longer sentences are left out.
        counted_in: the CoNLL-U file whose words are counted, each once more than it occurs; None: `path`.
    """
    found = read_words("word frequency", path, n, seed, most=max_words, keep=lambda word: word.form.isalpha())
    counts = Counter(word.form.lower() for s in read_conllu(counted_in or path) for word in s.words)
    total = counts.total()
    per_million = [1e6 * (counts[word.form.lower()] + 1) / total for word in found.words]
    frequency = Values.of(np.log10(per_million), "frequency", "log10 per million words")
    return found.labelled("word-frequency", {"frequency": frequency}, lambda word, _: word.form.lower())


DATASET = Dataset(
    summary="log frequency of each word of a CoNLL-U file", target="values", licence=LICENCE, build=build
)
