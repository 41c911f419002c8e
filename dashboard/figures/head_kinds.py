"""What kind of head is it? The scores of `lens.head_scores` in the words of the pages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Kind:
    """A kind of head: its score's name in `lens.head_scores.SCORES`, and what the score is."""

    score: str
    title: str
    about: str
    share: bool = True  # whether it is a share of attention, from 0 to 1


KINDS = (
    Kind("previous_token", "previous token", "attention to the token just before the query"),
    Kind("duplicate_token", "duplicate token", "attention to earlier occurrences of the query's token"),
    Kind("induction", "induction", "attention to what followed earlier occurrences of the query's token"),
    Kind("first_token", "first-token sink", "attention to the first token, BOS where there is one"),
    Kind("entropy", "entropy", "how spread the attention is, in nats: 0 looks at one token", share=False),
)
TELLING = 3  # of these, the first say what a head does
CLEAR = 0.3


def strongest_kind(scores: NDArray[np.floating]) -> str:
    """A phrase for the largest of a head's scores (in the order of `KINDS`), "" where none is clear."""
    known = np.nan_to_num(scores[: TELLING + 1], nan=-1.0)
    best = int(known.argmax())
    return f"{KINDS[best].title} {known[best]:.2f}" if known[best] >= CLEAR else ""
