"""The probes' part of `docs/results.md`. Sentences follow from the figures; nothing is said that they do "
"not say."""

from __future__ import annotations

from typing import Any

from benchmarks.study.probes import causal_page, encoded_page, treebank_page
from benchmarks.study.probes.setting import NAME, SETTINGS

__all__ = ["NAME", "section"]


def section(held: dict[str, Any]) -> list[str]:
    """All showcases that there are."""
    lines = [
        "## Probes: what linear probes find, beside their floors",
        "",
        f"`python -m benchmarks.study probes --treebank FILE`, seed {SETTINGS['seed']}, five folds unless "
        "another number "
        "is named. Square brackets: 95% bootstrap intervals over groups (countries, word families, "
        "documents). The best "
        "layer is chosen after the fact and its score biased upwards; *chosen inside* is the score where "
        "each fold took "
        "the layer that its inner folds scored best. Logistic probes choose C among "
        f"{', '.join(f'{c:g}' for c in held['settings']['C'])} inside their folds. *Random weights*: the "
        "same probe on the "
        "same architecture, untrained. *n-grams*: characters of the text, no model. *Embeddings*: the same "
        "probe on what "
        "enters the first block.",
        "",
    ]
    for name, part in PARTS.items():
        if name in held["pieces"]:
            lines += part(held["pieces"][name])
    return lines


PARTS = {
    "truth": encoded_page.truth,
    "space": encoded_page.space,
    "sentiment": encoded_page.sentiment,
    "part-of-speech": treebank_page.part_of_speech,
    "structural": treebank_page.structural,
    "causal": causal_page.causal,
}
