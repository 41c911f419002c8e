"""Mass-mean probing: the direction from one class's mean to the other's (Marks, Tegmark 2023, arXiv 2310.06824).

A row belongs to the class whose mean is nearest. With two classes that is the difference of the means as a
direction, with the threshold halfway between them; with more, one score per class:

    |x − μ_0|² − |x − μ_1|²  =  2 (μ_1 − μ_0) · x − |μ_1|² + |μ_0|²

The fit is about the mean of all rows, so that squares of a large common offset do not enter.

Letters: n rows, d features, c classes.
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
from probes.solvers.discriminant import Question, class_means


class MassMeanProbe(Linear):
    """Nearest class mean; `centroids_` [c, d] are the means."""

    centroids_: np.ndarray

    def fit(self, X: Any, y: Any) -> MassMeanProbe:
        """Fit to features [n, d] and classes [n].

        Raises:
            ValueError: features that are not finite, lengths that differ, or one class only.
        """
        X, index = self._training_data(X, y)
        design = Design(torch.from_numpy(X))
        question = Question(torch.from_numpy(index), None, len(self.classes_))
        ((_, means),) = class_means(design, [question])
        self.coef_, self.intercept_, self.centroids_ = _probe(design, means)
        return self


def _probe(design: Design, means: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients, intercepts and the means themselves in the units of the activations."""
    apart = design.unscaled(means).cpu().numpy()  # from the mean of all rows
    offsets = -0.5 * (apart**2).sum(1)
    coef, middle = apart, design.mean.cpu().numpy()
    if len(means) == 2:
        coef, offsets = coef[1:] - coef[:1], offsets[1:] - offsets[:1]
    return coef, offsets - coef @ middle, apart + middle


def many(x: Tensor, problems: Sequence[Problem], options: dict[str, Any], progress: Progress) -> list[Fit]:
    """Many problems over the same activations [n, d]."""
    MassMeanProbe(**options)
    design, questions, classes = questions_of(x, problems)
    fits = []
    for (_, means), found in zip(class_means(design, questions), classes, strict=True):
        coef, intercept, _ = _probe(design, means)
        fits.append(Fit(coef, intercept, found))
    return fits


PROBE = Kind(
    name="mass-mean",
    summary="difference of the class means; the nearest mean decides",
    target="classes",
    new=MassMeanProbe,
    linear=True,
    many=many,
)
