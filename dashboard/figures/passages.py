"""Windows of a text in which a head is active, to passages whose tokens are shaded by what is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

from lens.head_examples import Example


class Passage(TypedDict):
    """One window: tokens, the weight of each, the position that looks and the one looked at most, and a label."""

    label: str
    tokens: list[str]
    weights: list[float]
    query: int
    key: int


class PassagesPayload(TypedDict):
    """What `components/passages` draws."""

    title: str
    passages: list[Passage]


def passages_payload(
    examples: Sequence[Example], spell: Callable[[list[int]], list[str]], *, title: str, unit: str
) -> PassagesPayload:
    """The passages of `examples`, in their order; `unit` says what they are ordered by."""
    return {
        "title": title,
        "passages": [
            {
                "label": f"{unit} {example.value:.3f}",
                "tokens": spell(list(example.ids)),
                "weights": [round(weight, 4) for weight in example.attention],
                "query": example.query,
                "key": example.key,
            }
            for example in examples
        ],
    }
