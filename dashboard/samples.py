"""What is looked at before a person chooses: texts per model, and the presets of the Start page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dashboard.state import View

TEXT = "The quick brown fox jumps over the lazy dog."
PROMPT = "When Mary and John went to the store, John gave a drink to"


@dataclass(frozen=True)
class Texts:
    """A text, its counterfactual, and the second text of a pair."""

    text: str
    other: str = ""
    second: str = ""


TEXTS = {
    "reorder-ed": Texts("reverse h o u s e", "reverse m o u s e"),
    "minilm": Texts("The cat sat on the mat.", "The cat sat on the dog."),
}
SOURCE = Texts("translate English to German: The house is wonderful.")


@dataclass(frozen=True)
class Preset:
    """A question that a page answers of a model, and the address of the answer."""

    question: str
    about: str
    page: str
    view: View


def _of(model: str, page: str, question: str, about: str, **fields: Any) -> Preset:
    return Preset(question, about, page, View(model=model, **fields))


PRESETS = (
    _of(
        "digits-vit", "prompt", "Which patches decide that this is a 3?",
        "A vision transformer reads handwritten digits in 16 patches; one is blanked at a time.", image="38",
    ),
    _of(
        "digits-vit", "heads", "Where does each head look on a digit?",
        "Attention of the class token, or of any patch, drawn over the picture.", image="38", node="a1.h2",
    ),
    _of(
        "reorder-ed", "heads", "Reverse: who looks where?",
        "An encoder–decoder writes letters backwards; cross-attention walks through the source from its end.",
        prompt="reverse h o u s e", corrupt="reverse m o u s e", node="x1.h2",
    ),
    _of(
        "reorder-ed", "head", "Sort: how does it find the next letter?",
        "The same model, asked for the alphabet: attention goes to the letter that comes next, wherever it stands.",
        prompt="sort h o u s e", corrupt="sort m o u s e", node="x1.h2",
    ),
    _of(
        "minilm", "heads", "What do the heads of an encoder look at?",
        "A BERT that makes vectors of sentences reads in both directions.", prompt="The cat sat on the mat.",
        corrupt="The cat sat on the dog.",
    ),
)  # fmt: skip
"""Every question, the model's own first."""
