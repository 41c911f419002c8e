"""The mean of a row's group: what is known from the group alone, such as a city's country.

1. The group is a column of the data (`group-mean:country`), or the data's own groups.
2. Told is the mean value (the shares of the classes) of the fitted rows with the same group, or of all fitted rows
   where a group has none: on held-out groups this floor is the mean.
"""

from __future__ import annotations

import numpy as np

from lens.nearest import unknown
from probes.crossfit import direct
from probes.floor import Decide, Floor, Place, Setting
from probes.splits import Fold
from probes.trial import Trial


def missing(setting: Setting) -> str | None:
    """There is neither such a column nor groups, or the folds hold these groups out."""
    data = setting.original
    if setting.argument:
        known = setting.argument in data.columns
        return None if known else unknown("column", setting.argument, data.columns, of=data.name)
    if data.groups is None:
        return "the data have no groups; name a column, as in group-mean:country"
    held = setting.labelled.groups == data.groups
    return "the folds hold the data's groups out; name a column, as in group-mean:country" if held else None


def prepare(setting: Setting) -> Decide:
    """Decisions [n, t]; for classes the shares, [n] (of class 1 less a half) or [n, c]."""
    data = setting.original
    names = data.groups if not setting.argument else data.column(setting.argument).tolist()
    assert names is not None
    index = np.unique([repr(name) for name in names], return_inverse=True)[1]

    def decide(trial: Trial, place: Place) -> np.ndarray:
        c = len(trial.names)
        y = np.eye(c)[trial.y] if trial.reads == "classes" else trial.y

        def of(fold: Fold) -> np.ndarray:
            g = int(index.max()) + 1
            count = np.bincount(index[fold.train], minlength=g)
            total = np.zeros((g, y.shape[1]))
            np.add.at(total, index[fold.train], y[fold.train])
            means = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], y[fold.train].mean(0))
            told = means[index[fold.test]]
            return told[:, 1] - 0.5 if trial.reads == "classes" and c == 2 else told

        return direct(trial, of)

    return decide


FLOOR = Floor("the mean of the row's group, such as its country", ("classes", "values"), missing, prepare)
