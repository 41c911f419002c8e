"""Linear discriminant analysis: classes with means of their own and one covariance (Fisher 1936).

On standardised features, with the covariance shrunk towards a multiple of the identity (Ledoit, Wolf 2004), in closed
form: `probes.solvers.discriminant`. For two classes the direction is S⁻¹ (μ_1 − μ_0), the mass-mean direction
corrected for covariance (Marks, Tegmark 2023).

Letters: n rows, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lens.progress import Progress
from probes.estimator import Kind
from probes.estimators._linear import Linear, questions_of
from probes.problem import Fit, Problem
from probes.solvers.design import Design
from probes.solvers.discriminant import Question, discriminants


class LDAProbe(Linear):
    """Linear discriminant analysis.

    Args:
        shrinkage: between 0 and 1; "auto" for the share of least expected error; None for none. Directions in
            which nothing varies within classes then count for nothing.
    """

    def __init__(self, shrinkage: Any = "auto") -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> LDAProbe:
        """Fit to features [n, d] and classes [n].

        Raises:
            ValueError: features that are not finite, lengths that differ, one class only, an impossible shrinkage.
        """
        _check(self.shrinkage)
        X, index = self._training_data(X, y)
        design = Design(torch.from_numpy(X))
        question = Question(torch.from_numpy(index), None, len(self.classes_))
        (weights,) = discriminants(design, [question], self.shrinkage)
        self.coef_, self.intercept_ = design.unpack(weights)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, [n, c]."""
        scores = torch.from_numpy(self.decision_function(X))
        if scores.ndim == 1:
            return torch.stack([torch.sigmoid(-scores), torch.sigmoid(scores)], 1).numpy()
        return scores.softmax(1).numpy()


def _check(shrinkage: Any) -> None:
    if shrinkage is None or shrinkage == "auto":
        return
    if isinstance(shrinkage, str) or not 0 <= shrinkage <= 1:
        raise ValueError(f'shrinkage is {shrinkage!r}; it is "auto", None or between 0 and 1')


def many(x: Tensor, problems: Sequence[Problem], options: dict[str, Any], progress: Progress) -> list[Fit]:
    """Many problems over the same activations [n, d]."""
    shrinkage = LDAProbe(**options).shrinkage
    _check(shrinkage)
    design, questions, classes = questions_of(x, problems)
    fits = []
    for weights, found in zip(discriminants(design, questions, shrinkage), classes, strict=True):
        fits.append(Fit(*design.unpack(weights), found))
    return fits


PROBE = Kind(
    name="lda",
    summary="linear discriminant analysis with a shrunk covariance",
    target="classes",
    new=LDAProbe,
    linear=True,
    many=many,
)
