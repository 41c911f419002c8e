"""Words of good and bad feeling from VADER's lexicon, read at the word.

Words that begin alike ("abandon", "abandoned") are one group, so that a probe is judged on words whose kin it has not
seen.
"""

from __future__ import annotations

import random

import numpy as np

from probes import vader
from probes.dataset import Dataset, at_least, enough
from probes.labelled import Classes, Labelled, Values

HEAD, TAIL = "The word ", " was used"


def build(n: int | None = 1000, seed: int = 0, least: float | int = 1.0) -> Labelled:
    """Words, as many positive as negative.

    Args:
        n: how many, a multiple of 2; None: all there are.
        least: how far from neutral a word's valence is, of 4.
    """
    if not 0 < least < 4:
        raise ValueError(f"least is {least!r}; it must be between 0 and 4, the ends of the scale")
    rng = random.Random(f"sentiment words {seed}")
    words = vader.lexicon()
    sides = [[w for w in words if sign * w.valence >= least] for sign in (-1, 1)]
    each = min(map(len, sides))
    if n is not None:
        at_least(2, n=n)
        enough(2 * each, n, f"words of valence {least} or more")
        each = n // 2
    drawn = [word for side in sides for word in rng.sample(side, each)]
    rng.shuffle(drawn)
    return Labelled(
        "sentiment-words",
        tuple(f"{HEAD}{word.text}{TAIL}" for word in drawn),
        np.arange(len(drawn)),
        np.array([[len(HEAD), len(HEAD) + len(word.text)] for word in drawn]),
        {
            "sentiment": Classes(
                np.array([word.valence > 0 for word in drawn], dtype=np.int64), ("negative", "positive")
            ),
            "valence": Values.of([word.valence for word in drawn], "valence", "ratings from −4 to 4"),
        },
        groups=tuple((word.group,) for word in drawn),
        columns={
            "word": np.array([word.text for word in drawn]),
            "spread": np.array([word.spread for word in drawn]),
            "length": np.array([len(word.text) for word in drawn]),
        },
        licence=vader.LICENCE,
        source=vader.SOURCE,
    )


DATASET = Dataset(
    summary="positive and negative words of VADER's lexicon, with their valence",
    target="classes",
    licence=vader.LICENCE,
    build=build,
)
