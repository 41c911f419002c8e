"""How many letters each word has: a control, easy to see in the text and of little use to a language model.

Forms are groups: a probe is judged on words that it was not fitted to.
"""

from __future__ import annotations

from pathlib import Path

from probes.dataset import Dataset
from probes.labelled import Labelled, Values
from probes.treebank import LICENCE, read_words


def build(path: str | Path, n: int | None = 500, seed: int = 0, max_words: int = 60) -> Labelled:
    """Words of letters only.

    Args:
        path: a CoNLL-U file, for its sentences.
        n: how many sentences; None: all there are.
        max_words: longer sentences are left out.
    """
    found = read_words("word length", path, n, seed, most=max_words, keep=lambda word: word.form.isalpha())
    lengths = Values.of([len(word.form) for word in found.words], "length", "letters")
    return found.labelled("word-length", {"length": lengths}, lambda word, _: word.form.lower())


DATASET = Dataset(
    summary="number of letters of each word of a CoNLL-U file", target="values", licence=LICENCE, build=build
)
