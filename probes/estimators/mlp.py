"""A multilayer perceptron with one hidden layer (as in Hewitt, Liang 2019, where it shows what selectivity is for).

1. z = (x − mean) / standard deviation; a constant feature becomes 0.
2. scores = W₂ gelu(W₁ z + b₁) + b₂; minimise the mean cross-entropy + |W₁|² + |W₂|² times `alpha` / 2n.
3. L-BFGS on all rows, from one random start.
4. What is kept is in the units of x: scores = V gelu(U x + a) + e.

Letters: n rows, d features, h hidden units, c classes, k outputs: one for two classes, else c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional

from probes.estimator import Kind
from probes.estimators._descent import descend, one_output, probabilities, seeded, standardisation
from probes.weights import computed


@dataclass(frozen=True, eq=False)
class MLPWeights:
    """Step 4: `hidden` is U and `shift` a, `out` is V and `bias` e."""

    TEXTS: ClassVar[bool] = False

    hidden: Float[Tensor, "h d"]
    shift: Float[Tensor, " h"]
    out: Float[Tensor, "k h"]
    bias: Float[Tensor, " k"]

    def scores(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return functional.gelu(x @ self.hidden.T + self.shift) @ self.out.T + self.bias


class MLPProbe(ClassifierMixin, BaseEstimator):
    """One hidden layer of GELUs; `weights_` is what was fitted.

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
        mean, inverse_scale = standardisation(X)
        z = torch.from_numpy((X - mean) * inverse_scale).float().to(self.device)
        target = torch.from_numpy(index).to(self.device)
        generator = seeded(self.random_state)
        shapes = [(int(self.hidden), X.shape[1]), (int(self.hidden),), (c, int(self.hidden)), (c,)]
        layers = [
            (torch.randn(s, generator=generator) / s[-1] ** 0.5 if len(s) > 1 else torch.zeros(s))
            .to(self.device)
            .requires_grad_(True)
            for s in shapes
        ]

        def loss() -> Tensor:
            size = layers[0].square().sum() + layers[2].square().sum()
            return (
                functional.cross_entropy(MLPWeights(*layers).scores(z), target)
                + self.alpha / (2 * len(z)) * size
            )

        self.n_iter_ = descend(loss, layers, int(self.max_iter), self.tol)
        first, shift, second, bias = (layer.detach().cpu().double() for layer in layers)
        first = first * torch.from_numpy(inverse_scale)
        out = one_output(second, bias)
        self.weights_ = MLPWeights(first, shift - first @ torch.from_numpy(mean), *out)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores: [n] for two classes, the log odds of the second; else [n, c]."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        scores = computed(self.weights_, torch.from_numpy(X).to(self.device)).cpu().numpy()
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, [n, c]."""
        return probabilities(self.decision_function(X))

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
    weights=MLPWeights,
)
