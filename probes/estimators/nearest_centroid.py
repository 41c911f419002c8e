"""Nearest shrunken centroids (Tibshirani et al. 2002, PNAS 99, 6567).

1. s_j: the pooled standard deviation of feature j within classes; s_0, their median, keeps quiet features from
   deciding. Distances are in units of s_j + s_0.
2. d_cj = (μ_cj − μ_j) / (m_c (s_j + s_0)), with m_c = √(1/n_c − 1/n), is moved towards 0 by `threshold` and no further
   than 0: features that do not tell classes apart drop out.
3. Each row belongs to the class with the smallest Σ_j ((x_j − μ'_cj) / (s_j + s_0))² − 2 log π_c: linear scores.

Letters: n rows, d features, c classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.estimator import Kind
from probes.estimators._linear import Linear


class NearestCentroidProbe(Linear):
    """Nearest shrunken centroid; `centroids_` [c, d] are the shrunken means.

    Args:
        threshold: how far standardised centroids are moved towards the mean of all rows, 0 or more.
    """

    centroids_: np.ndarray

    def __init__(self, threshold: Any = 0.0) -> None:
        self.threshold = threshold

    def fit(self, X: Any, y: Any) -> NearestCentroidProbe:
        """Fit to features [n, d] and classes [n].

        Raises:
            ValueError: features that are not finite, lengths that differ, one class only, a negative threshold.
        """
        if not self.threshold >= 0:
            raise ValueError(f"threshold is {self.threshold}; it must be 0 or more")
        X, index = self._training_data(X, y)
        n, c = len(X), len(self.classes_)
        middle = X.mean(0)
        x = X - middle
        count = np.bincount(index, minlength=c)
        means = np.stack([x[index == i].mean(0) for i in range(c)])
        within = np.sqrt(((x - means[index]) ** 2).sum(0) / max(n - c, 1))
        scale = within + np.median(within)
        varies = scale > 1e-12 * (np.abs(middle) + np.abs(means).max(0))
        inverse = np.where(varies, 1 / np.where(varies, scale, 1.0), 0.0)
        spread = np.sqrt(np.maximum(1 / count - 1 / n, 1e-300))[:, None]
        apart = means * inverse / spread
        shrunk = (
            np.sign(apart) * np.maximum(np.abs(apart) - self.threshold, 0) * spread
        )  # [c, d], standardised
        coef = shrunk * inverse
        offsets = np.log(count / n) - 0.5 * (shrunk**2).sum(1)
        self.centroids_ = np.where(varies, shrunk * scale, means) + middle
        if c == 2:
            coef, offsets = coef[1:] - coef[:1], offsets[1:] - offsets[:1]
        self.coef_, self.intercept_ = coef, offsets - coef @ middle
        return self


PROBE = Kind(
    name="nearest-centroid",
    summary="nearest class mean in units of each feature's deviation within classes, shrunken if asked",
    target="classes",
    new=NearestCentroidProbe,
    linear=True,
)
