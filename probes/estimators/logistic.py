"""Logistic regression with an L2 penalty, on standardised features.

1. z = (x − mean) / standard deviation; a constant feature becomes 0 and gets no weight.
2. Minimise  Σ −log p(y | z) / n + |w|² / (2 C n)  over weights w and intercept: a sigmoid for two classes, a
   softmax for more. Strictly convex in w, the objective of scikit-learn's `LogisticRegression(C=C)` on z.
3. The minimum lies in the span of the rows. Coordinates: the principal axes of z, each divided by the square root
   of an upper bound of its curvature (Böhning 1992: the Hessian is at most zᵀz / 4n + 1 / C n, for two classes).
   L-BFGS (Liu, Nocedal 1989) in these, with a strong Wolfe line search, in float64.
4. Weights and intercept are given in the units of x.

Letters: n rows, d features, k columns of weights (1 for two classes, else one per class), r = min(n, d).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional

from probes.estimator import Kind
from probes.estimators._linear import Linear

CONSTANT = 1e-12  # a standard deviation below this share of the mean is rounding


class LogisticProbe(Linear):
    """Logistic regression, binary or multinomial.

    Args:
        C: inverse strength of the penalty, as in scikit-learn.
        max_iter: steps of L-BFGS.
        tol: largest gradient of the mean loss, in the coordinates of step 3, at which the fit is done.
    """

    def __init__(self, C: Any = 1.0, max_iter: Any = 1000, tol: Any = 1e-7) -> None:
        # scikit-learn's contract: anything is taken here, and judged in `fit`
        self.C = C
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any) -> LogisticProbe:
        """Fit to features [n, d] and classes [n]; warns (`ConvergenceWarning`) where `tol` was not reached.

        Raises:
            ValueError: features that are not finite, lengths that differ, one class only, C or `tol` not positive,
                `max_iter` below one.
        """
        if not self.C > 0:
            raise ValueError(f"C is {self.C}; it must be positive")
        if not self.tol > 0 or not self.max_iter >= 1:
            raise ValueError(
                f"tol is {self.tol} and max_iter {self.max_iter}; tol is positive, max_iter 1 or more"
            )
        X, index = self._training_data(X, y)
        mean, scale = _standardisation(X)
        z = torch.from_numpy((X - mean) / scale)
        k = 1 if len(self.classes_) == 2 else len(self.classes_)
        weights, intercept = self._minimise(z, torch.from_numpy(index), k)
        self.coef_ = weights.numpy() / scale
        self.intercept_ = intercept.numpy() - self.coef_ @ mean
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, [n, c]."""
        scores = torch.from_numpy(self.decision_function(X))
        if scores.ndim == 1:
            return torch.stack([torch.sigmoid(-scores), torch.sigmoid(scores)], 1).numpy()
        return scores.softmax(1).numpy()

    def _minimise(self, z: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Weights [k, d] and intercepts [k] for standardised features z [n, d]."""
        penalty = 1 / (self.C * len(z))
        axes = _preconditioner(z, penalty)  # [d, r]
        z = z @ axes
        parameters = torch.zeros(k, axes.shape[1] + 1, dtype=torch.float64, requires_grad=True)
        target = index.double() if k == 1 else index
        optimiser = torch.optim.LBFGS(
            [parameters],
            max_iter=self.max_iter,
            max_eval=4 * self.max_iter,
            tolerance_grad=self.tol,
            tolerance_change=0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )
        lengths = axes.square().sum(0)  # the axes are orthogonal, so |w|² is a sum over them

        def loss() -> Tensor:
            optimiser.zero_grad()
            weights, intercept = parameters[:, :-1], parameters[:, -1]
            scores = z @ weights.T + intercept
            if k == 1:
                fit = functional.binary_cross_entropy_with_logits(scores[:, 0], target)
            else:
                fit = functional.cross_entropy(scores, target)
            value = fit + penalty / 2 * (weights.square() * lengths).sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimiser.step(loss)
            loss()
        self.n_iter_ = max(int(optimiser.state[parameters]["n_iter"]), 1)
        assert parameters.grad is not None
        steepest = float(parameters.grad.abs().max())
        if steepest > self.tol:
            warnings.warn(
                f"logistic regression stopped after {self.n_iter_} steps with a gradient of {steepest:.1e}, "
                f"above tol={self.tol:.1e}",
                ConvergenceWarning,
                stacklevel=3,
            )
        solution = parameters.detach()
        return solution[:, :-1] @ axes.T, solution[:, -1]


def _preconditioner(z: Tensor, penalty: float) -> Tensor:
    """Orthogonal axes [d, min(n, d)] that span the rows of z and along which the curvature is at most about 1."""
    basis = torch.linalg.qr(z.T).Q if z.shape[0] < z.shape[1] else None
    spanned = z if basis is None else z @ basis
    values, vectors = torch.linalg.eigh(spanned.T @ spanned / len(z))
    axes = vectors if basis is None else basis @ vectors
    return axes / (values.clamp(min=0) / 4 + penalty).sqrt()


def _standardisation(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = X.mean(0), X.std(0)
    return mean, np.where(deviation > CONSTANT * np.abs(mean), deviation, 1.0)


PROBE = Kind(
    name="logistic",
    summary="logistic regression with an L2 penalty, on standardised features",
    target="classes",
    new=LogisticProbe,
    penalty="C",
    grid=tuple(10.0**e for e in range(-5, 5)),
    linear=True,
)
