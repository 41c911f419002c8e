"""Sentences of good and bad feeling from several sources, read at their last token.

VADER's evaluation data, rated by twenty people each: tweets, snippets of film reviews, product reviews and newspaper
editorials. A further source, "made", puts words of VADER's lexicon into templates; it needs nothing but the package.
The column `source` is for transfer: a probe that is fitted to one and judged on another.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lens.nearest import unknown
from probes import vader
from probes.dataset import Dataset, at_least, enough
from probes.labelled import Classes, Labelled, Values

LICENCE = (
    f"{vader.LICENCE}; the sentences are quoted from Twitter, Rotten Tomatoes, Amazon and the New York Times"
)
MADE = "made"
TEMPLATES = (
    "All that I remember of it is one word: {}.",
    "When they asked me about it, I said {}.",
    "In the end it all came down to {}.",
    "She wrote to us about it, and her letter began with {}.",
)


def build(
    n: int | None = 2000,
    seed: int = 0,
    sources: Sequence[str] = ("movies", "tweets", "products", "news"),
    least: float | int = 1.0,
    archive: str | Path | None = None,
) -> Labelled:
    """Sentences, as many positive as negative from each source.

    Args:
        n: how many at most, shared evenly between the sources; None: all there are.
        sources: some of movies, tweets, products, news, made.
        least: how far from neutral a sentence's valence is, of 4.
        archive: of VADER's sentences, or the folder that holds them; None: fetched once into the user's cache.
    """
    known = (*vader.FILES, MADE)
    sources = [sources] if isinstance(sources, str) else list(sources)
    for source in sources:
        if source not in known:
            raise ValueError(unknown("source of sentences", source, known))
    if not sources or len(set(sources)) < len(sources):
        raise ValueError(f"sources are some of {', '.join(known)}, each once")
    if not 0 < least < 4:
        raise ValueError(f"least is {least!r}; it must be between 0 and 4, the ends of the scale")
    if n is not None:
        at_least(2 * len(sources), n=n)
    rng = random.Random(f"sentiment sentences {seed}")
    drawn: list[tuple[str, vader.Rated]] = []
    for source in sources:
        rated = _made(rng) if source == MADE else vader.sentences(source, archive)
        sides = [[s for s in rated if sign * s.valence >= least] for sign in (-1, 1)]
        each = min(map(len, sides))
        enough(each, 1, f"sentences of valence ±{least} from {source!r} on each side")
        each = each if n is None else min(each, n // (2 * len(sources)))
        drawn += [(source, sentence) for side in sides for sentence in rng.sample(side, each)]
    rng.shuffle(drawn)
    rated = [sentence for _, sentence in drawn]
    return Labelled(
        "sentiment-sentences",
        tuple(sentence.text for sentence in rated),
        np.arange(len(rated)),
        None,
        {
            "sentiment": Classes(
                np.array([s.valence > 0 for s in rated], dtype=np.int64), ("negative", "positive")
            ),
            "valence": Values.of([s.valence for s in rated], "valence", "ratings from −4 to 4"),
        },
        groups=tuple((sentence.group,) for sentence in rated),
        columns={"source": np.array([source for source, _ in drawn])},
        licence=LICENCE,
        source=vader.SOURCE,
    )


def _made(rng: random.Random) -> list[vader.Rated]:
    return [
        vader.Rated(
            rng.choice(TEMPLATES).format(word.text), word.valence, word.spread, f"{MADE} {word.group}"
        )
        for word in vader.lexicon()
    ]


DATASET = Dataset(
    summary="positive and negative sentences: tweets, film and product reviews, news, or made of the lexicon",
    target="classes",
    licence=LICENCE,
    build=build,
)
