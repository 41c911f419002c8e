"""The linear chain: every word hangs on the one before it, and the first word is the root."""

from __future__ import annotations

import numpy as np

from probes import trees
from probes.floor import Decide, Floor, Place, Setting, never
from probes.trial import Trial


def prepare(setting: Setting) -> Decide:
    """Points [n, 1]: each word's place in its text."""

    def decide(trial: Trial, place: Place) -> np.ndarray:
        return trees.linear_chain(trial.text)

    return decide


FLOOR = Floor("every word hangs on the word before it", ("heads",), never, prepare)
