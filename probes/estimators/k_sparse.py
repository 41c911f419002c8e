"""k-sparse probing: how few features suffice (Gurnee et al. 2023, Finding Neurons in a Haystack, arXiv 2305.01610).

1. Features are ranked. "mean-difference": by the distance between class means, in standard deviations (for more than
   two classes by its root mean square over classes). "adaptive": a logistic probe is fitted to all that are left, those
   with the smallest weights are dropped, a third each time, until k are left.
2. A logistic probe is fitted to the k features that remain; all others have no weight.

Letters: n rows, d features, k features that are kept, c classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lens.nearest import unknown
from probes.estimator import Kind
from probes.estimators._linear import Linear
from probes.estimators.logistic import LogisticProbe

RANKINGS = ("mean-difference", "adaptive")
DROPPED = 1 / 3


class KSparseProbe(Linear):
    """A logistic probe of k features; `features_` [k] are their places, in increasing order.

    Args:
        k: how many features are kept (all of them where there are fewer).
        ranking: "mean-difference" or "adaptive".
        C: inverse strength of the penalty, as in `LogisticProbe`.
    """

    def __init__(self, k: Any = 16, ranking: Any = "mean-difference", C: Any = 1.0) -> None:
        self.k = k
        self.ranking = ranking
        self.C = C

    def fit(self, X: Any, y: Any) -> KSparseProbe:
        """Fit to features [n, d] and classes [n].

        Raises:
            ValueError: features that are not finite, lengths that differ, one class only, k below 1, an unknown
                ranking, C not positive.
        """
        if not self.k >= 1:
            raise ValueError(f"k is {self.k}; it must be 1 or more")
        if self.ranking not in RANKINGS:
            raise ValueError(unknown("ranking", str(self.ranking), RANKINGS))
        X, index = self._training_data(X, y)
        left = np.arange(X.shape[1])
        if self.ranking == "mean-difference":
            left = np.sort(np.argsort(-_apart(X, index), kind="stable")[: self.k])
        probe = LogisticProbe(C=self.C)
        while len(left) > self.k:
            probe.fit(X[:, left], index)
            size = np.sqrt((probe.coef_**2).sum(0)) * X[:, left].std(0)
            keep = max(int(self.k), int(len(left) * (1 - DROPPED)))
            left = np.sort(left[np.argsort(-size, kind="stable")[:keep]])
        probe.fit(X[:, left], index)
        self.features_ = left
        self.coef_ = np.zeros((len(probe.coef_), X.shape[1]))
        self.coef_[:, left] = probe.coef_
        self.intercept_ = probe.intercept_
        self.n_iter_ = probe.n_iter_
        return self


def _apart(X: np.ndarray, index: np.ndarray) -> np.ndarray:
    """How far the class means of each feature are apart, in standard deviations, [d]."""
    middle, deviation = X.mean(0), X.std(0)
    means = np.stack([X[index == c].mean(0) - middle for c in range(index.max() + 1)])
    varies = deviation > 1e-12 * np.abs(middle)
    return np.where(varies, np.sqrt((means**2).mean(0)) / np.where(varies, deviation, 1.0), 0.0)


PROBE = Kind(
    name="k-sparse",
    summary="logistic regression on the k features that tell most",
    target="classes",
    new=KSparseProbe,
    penalty="C",
    grid=tuple(float(f"{10.0**e:g}") for e in range(-5, 5)),
    linear=True,
)
