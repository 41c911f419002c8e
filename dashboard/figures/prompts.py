"""One prompt, or a clean one beside its counterfactual, to columns of tokens that can be clicked.

Letters: p position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Side(TypedDict):
    """One prompt: its tokens, and how probable the model held each before it was there (None: the first)."""

    label: str
    tokens: list[str]
    expected: list[float | None]


AFTER = "Click a position to see what the model expects after it"


class PromptsPayload(TypedDict):
    """What `components/prompts` draws. `differs`: positions at which the sides differ, in order. `hint`: what a click
    does; "" where positions cannot be clicked."""

    title: str
    hint: str
    sides: list[Side]
    differs: list[int]


def side(label: str, tokens: Sequence[str], expected: NDArray[np.floating]) -> Side:
    """One row of tokens with the probability [p] of each.

    Raises:
        ValueError: there is not one probability per token.
    """
    if len(expected) != len(tokens):
        raise ValueError(f"{len(expected)} probabilities do not fit {len(tokens)} tokens")
    return {
        "label": label,
        "tokens": list(tokens),
        "expected": [None if np.isnan(p) else round(float(p), 5) for p in expected],
    }


def prompts_payload(
    sides: Sequence[Side], differs: Sequence[int] = (), *, title: str, hint: str = AFTER
) -> PromptsPayload:
    """The picture of one or two prompts of equally many tokens.

    Raises:
        ValueError: the sides have different numbers of tokens.
    """
    lengths = {len(one["tokens"]) for one in sides}
    if len(lengths) != 1:
        raise ValueError(
            f"prompts of {' and '.join(map(str, sorted(lengths)))} tokens do not stand side by side"
        )
    return {"title": title, "hint": hint, "sides": list(sides), "differs": list(differs)}
