"""The mean of the values of the rows that a fold fits, whatever the activation."""

from __future__ import annotations

import numpy as np

from probes.crossfit import direct
from probes.floor import Decide, Floor, Place, Setting, never
from probes.trial import Trial


def prepare(setting: Setting) -> Decide:
    """Decisions [n, t]."""

    def decide(trial: Trial, place: Place) -> np.ndarray:
        return direct(trial, lambda fold: np.tile(trial.y[fold.train].mean(0), (len(fold.test), 1)))

    return decide


FLOOR = Floor("the mean of the values", ("values",), never, prepare)
