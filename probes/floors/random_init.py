"""A randomly initialised model: the same probe at the same site of the same architecture with fresh weights.

What such a model's activations tell is told by the words, their neighbours and the architecture's own mixing; it has
learned nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probes.floor import Decide, Floor, Place, Setting
from probes.trial import Trial

if TYPE_CHECKING:
    from lens.model import Transformer


def untrained(model: Transformer, seed: int = 0) -> Transformer:
    """A model of the same architecture and tokenizer with random weights (`lens.train.fresh`), on the same device."""
    from lens.train import fresh

    made = fresh(model.cfg, seed, tokenizer=model.tokenizer)
    return made.to(device=model.device, dtype=next(model.parameters()).dtype)


def missing(setting: Setting) -> str | None:
    """There is no model whose architecture could be copied."""
    if setting.kind.target == "sequences":
        return "it is not computed for probes of sequences"
    return None if setting.model is not None else "there is no model whose architecture could be taken"


def prepare(setting: Setting) -> Decide:
    """Decisions as the probe's, at each site."""
    assert setting.model is not None
    store = setting.harvested["random-init"] = setting.harvest(
        untrained(setting.model, setting.seed), setting.sites
    )

    def decide(trial: Trial, place: Place) -> np.ndarray:
        return setting.probed(trial, store.take(place.site, place.rows))

    return decide


FLOOR = Floor(
    "the same probe on the same architecture with random weights", ("classes", "values", "heads"), missing,
    prepare, per_site=True,
)  # fmt: skip
