"""Layer 0: the same probe on what enters the first block, the embeddings of the tokens that are read."""

from __future__ import annotations

import numpy as np

from probes.floor import Decide, Floor, Place, Setting
from probes.trial import Trial

SITES = ("blocks.0.hook_resid_pre", "hook_embed")


def _in_store(setting: Setting) -> str | None:
    return next((site for site in SITES if site in setting.store), None)


def missing(setting: Setting) -> str | None:
    """Neither is it in the store, nor can the model be run."""
    if setting.kind.target == "sequences":
        return "it is not computed for probes of sequences"
    if _in_store(setting) is not None or setting.model is not None:
        return None
    return f"{SITES[0]} was not harvested, and there is no model to run"


def prepare(setting: Setting) -> Decide:
    """Decisions as the probe's; those of one target and position are computed once."""
    site, store = _in_store(setting), setting.store
    if site is None:
        assert setting.model is not None
        site, store = SITES[0], setting.harvest(setting.model, [SITES[0]])
    known: dict[tuple[str, str], np.ndarray] = {}

    def decide(trial: Trial, place: Place) -> np.ndarray:
        key = (trial.target, place.position)
        if key not in known:
            known[key] = setting.probed(trial, store.take(site, place.rows))
        return known[key]

    return decide


FLOOR = Floor(
    "the same probe on the embeddings", ("classes", "values", "heads"), missing, prepare, per_site=True
)
