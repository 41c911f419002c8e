"""A multilayer perceptron with one hidden layer (as in Hewitt, Liang 2019, where it shows what selectivity is for).

1. z = (x − mean) / standard deviation; a constant feature becomes 0.
2. scores = W₂ gelu(W₁ z + b₁) + b₂; minimise the mean cross-entropy + |W₁|² + |W₂|² times `alpha` / 2n.
3. L-BFGS on all rows, from one random start.

Letters: n rows, d features, h hidden units, c classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional

from probes.estimator import Kind
from probes.estimators._descent import descend, seeded, standardisation


class MLPProbe(ClassifierMixin, BaseEstimator):
    """One hidden layer of GELUs.

    Args:
        hidden: its width.
        alpha: strength of the penalty.
        max_iter: steps of L-BFGS.
        tol: largest gradient of the mean loss at which the fit is done.
        random_state: of the start.
        device: where it is computed.
    """

    def __init__(
        self,
        hidden: Any = 64,
        alpha: Any = 1.0,
        max_iter: Any = 300,
        tol: Any = 1e-4,
        random_state: Any = 0,
        device: Any = "cpu",
    ) -> None:
        self.hidden = hidden
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> MLPProbe:
        """Fit to features [n, d] and classes [n]; warns (`ConvergenceWarning`) where `max_iter` was too few.

        Raises:
            ValueError: features that are not finite, lengths that differ, one class only, a negative alpha.
        """
        if not self.alpha >= 0 or not self.hidden >= 1:
            raise ValueError(f"alpha is {self.alpha} and hidden {self.hidden}; at least 0, and at least 1")
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        c = len(self.classes_)
        if c < 2:
            raise ValueError(
                f"a probe needs two classes or more; every row has the class {self.classes_.tolist()[0]!r}"
            )
        self.mean_, self.inverse_scale_ = standardisation(X)
        z = torch.from_numpy((X - self.mean_) * self.inverse_scale_).float().to(self.device)
        target = torch.from_numpy(index).to(self.device)
        generator = seeded(self.random_state)
        shapes = [(int(self.hidden), X.shape[1]), (int(self.hidden),), (c, int(self.hidden)), (c,)]
        self.layers_ = [
            (torch.randn(s, generator=generator) / s[-1] ** 0.5 if len(s) > 1 else torch.zeros(s))
            .to(self.device)
            .requires_grad_(True)
            for s in shapes
        ]

        def loss() -> Tensor:
            size = self.layers_[0].square().sum() + self.layers_[2].square().sum()
            return functional.cross_entropy(self._scores(z), target) + self.alpha / (2 * len(z)) * size

        self.n_iter_ = descend(loss, self.layers_, int(self.max_iter), self.tol)
        self.layers_ = [layer.detach().double() for layer in self.layers_]
        return self

    def _scores(self, z: Tensor) -> Tensor:
        first, shift, second, bias = self.layers_
        return functional.gelu(z @ first.T + shift) @ second.T + bias

    def _every_score(self, X: Any) -> Tensor:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        z = torch.from_numpy((X - self.mean_) * self.inverse_scale_).to(self.device)
        return self._scores(z).cpu()

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores: [n] for two classes, the log odds of the second; else [n, c]."""
        scores = self._every_score(X)
        return (scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores).numpy()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, [n, c]."""
        return self._every_score(X).softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row, [n]."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]


PROBE = Kind(
    name="mlp",
    summary="one hidden layer: more than a direction, so look at its selectivity",
    target="classes",
    new=MLPProbe,
    penalty="alpha",
    grid=(0.01, 0.1, 1.0, 10.0, 100.0),
)
