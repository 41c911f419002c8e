"""What linear classifiers share: scores and predictions from `coef_` and `intercept_`.

Letters: n rows, d features, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from probes.problem import Problem, classes_of, masks, union
from probes.solvers.design import Design
from probes.solvers.discriminant import Question


class Linear(ClassifierMixin, BaseEstimator):
    """A classifier with scores `X @ coef_.T + intercept_`; subclasses have a `fit` that sets these."""

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores: [n] for two classes, positive for the second; else [n, c].

        Raises:
            ValueError: X is not finite, or has another number of features than the probe.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        scores = X @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row, [n]."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    def _training_data(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Checked features [n, d] in float64, and each row's class as an index into `classes_`."""
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"a probe needs two classes or more; every row has the class {self.classes_.tolist()[0]!r}"
            )
        return X, index


def questions_of(x: Tensor, problems: Sequence[Problem]) -> tuple[Design, list[Question], list[np.ndarray]]:
    """The design of activations [n, d], each problem's question for `probes.solvers.discriminant`, and its classes.

    Raises:
        ValueError: a problem with one class only.
    """
    fitted = masks(problems, len(x), x.device)
    questions, classes = [], []
    for i, (problem, rows) in enumerate(zip(problems, fitted, strict=True)):
        found, index = classes_of(problem, i, len(x))
        questions.append(Question(torch.from_numpy(index).to(x.device), rows, len(found)))
        classes.append(found)
    return Design(x, union(fitted)), questions, classes
