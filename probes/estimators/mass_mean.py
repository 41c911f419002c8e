"""Mass-mean probing: the direction from one class's mean to the other's (Marks, Tegmark 2023, arXiv 2310.06824).

A row belongs to the class whose mean is nearest. With two classes that is the difference of the means as a
direction, with the threshold halfway between them; with more, one score per class:

    |x − μ_0|² − |x − μ_1|²  =  2 (μ_1 − μ_0) · x − |μ_1|² + |μ_0|²

The fit is about the mean of all rows, so that squares of a large common offset do not enter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.estimator import Kind
from probes.estimators._linear import Linear


class MassMeanProbe(Linear):
    """Nearest class mean; `centroids_` [c, d] are the means."""

    centroids_: np.ndarray

    def fit(self, X: Any, y: Any) -> MassMeanProbe:
        """Fit to features [n, d] and classes [n].

        Raises:
            ValueError: features that are not finite, lengths that differ, or one class only.
        """
        X, index = self._training_data(X, y)
        middle = X.mean(0)
        means = np.stack([(X[index == c] - middle).mean(0) for c in range(len(self.classes_))])
        offsets = -0.5 * (means**2).sum(1)
        if len(means) == 2:
            means, offsets, self.centroids_ = means[1:] - means[:1], offsets[1:] - offsets[:1], means + middle
        else:
            self.centroids_ = means + middle
        self.coef_ = means
        self.intercept_ = offsets - means @ middle
        return self


PROBE = Kind(
    name="mass-mean",
    summary="difference of the class means; the nearest mean decides",
    target="classes",
    new=MassMeanProbe,
    linear=True,
)
