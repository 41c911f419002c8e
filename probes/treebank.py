"""Sentences of a CoNLL-U file as labelled words.

1. Sentences without a part of speech, or with fewer or more words than wanted, are left out.
2. `n` of them are drawn, and stand in the order of the file.
3. Every word becomes a row, with its lower-cased form as type. A word's groups are its document, or its sentence where
   the file names no documents.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.conllu import Sentence, Word, read_conllu
from probes.dataset import at_least, enough
from probes.labelled import Labelled, Target

LICENCE = "that of the file (Universal Dependencies' English Web Treebank: CC BY-SA 4.0)"


@dataclass(frozen=True)
class Words:
    """The drawn words of a file: row i is word `index[i]` of `sentences[text[i]]`."""

    path: Path
    sentences: list[Sentence]
    text: list[int]
    index: list[int]
    words: list[Word]

    def labelled(
        self, name: str, targets: dict[str, Target], groups: Callable[[Word, Sentence], str] | None = None
    ) -> Labelled:
        """Rows with these targets; grouped by document or sentence unless `groups` says otherwise."""
        chosen = groups or (lambda _, sentence: sentence.document or sentence.id)
        pairs = [(word, self.sentences[i]) for word, i in zip(self.words, self.text, strict=True)]
        return Labelled(
            name,
            tuple(sentence.text for sentence in self.sentences),
            np.array(self.text),
            np.array([[word.start, word.end] for word in self.words]),
            targets,
            groups=tuple((chosen(word, sentence),) for word, sentence in pairs),
            types=tuple(word.form.lower() for word in self.words),
            columns={
                "upos": np.array([word.upos for word in self.words]),
                "relation": np.array([word.relation for word in self.words]),
                "lemma": np.array([word.lemma for word in self.words]),
                "index": np.array(self.index),
                "sentence": np.array([sentence.id for _, sentence in pairs]),
            },
            licence=LICENCE,
            source=self.path.name,
        )


def read_words(
    name: str,
    path: str | Path,
    n: int | None,
    seed: int,
    *,
    least: int = 1,
    most: int,
    keep: Callable[[Word], bool] = lambda _: True,
) -> Words:
    """Words of `n` sentences (None: all) that have `least` to `most` words; of these, those to keep.

    Raises:
        ValueError: the file is not CoNLL-U, or has fewer such sentences.
    """
    at_least(least, most=most)
    found = [
        s for s in read_conllu(path) if least <= len(s.words) <= most and all(w.upos != "_" for w in s.words)
    ]
    if n is not None:
        at_least(1, n=n)
    enough(len(found), n or 1, f"sentences of {least} to {most} tagged words in {str(path)!r}")
    if n is not None:
        rng = random.Random(f"{name} {seed}")
        found = [found[i] for i in sorted(rng.sample(range(len(found)), n))]
    found = [sentence for sentence in found if any(map(keep, sentence.words))]
    rows = [(i, j, w) for i, s in enumerate(found) for j, w in enumerate(s.words) if keep(w)]
    enough(len(rows), 1, f"words to keep in {str(path)!r}")
    return Words(Path(path), found, [i for i, _, _ in rows], [j for _, j, _ in rows], [w for _, _, w in rows])
