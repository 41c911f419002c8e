"""Ridge regression on standardised features, its penalty chosen by exact leave-one-out.

1. z = (x − mean) / standard deviation; a constant feature becomes 0 and gets no weight.
2. Minimise |y − w z − b|² + α |w|² for each target: `probes.solvers.ridge`, one eigendecomposition for all α.
3. α is the one whose predictions of each row by the fit to all others have the smallest mean square.
4. Weights and intercepts are given in the units of x.

Letters: n rows, d features, k targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from lens.progress import Progress
from probes.estimator import Kind
from probes.problem import Fit, Problem, masks, union
from probes.solvers.design import Design
from probes.solvers.ridge import Question, solve

GRID = tuple(float(a) for a in np.logspace(-2, 6, 20))


class RidgeProbe(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression to one target or several.

    Args:
        alpha: strength of the penalty, of |w|² beside the sum of squares; None: chosen among `alphas`.
        alphas: what is tried by leave-one-out, by default 20 from 0.01 to a million.
        per_target: whether each target has its own alpha; else the mean square over all targets decides.
        device: where it is computed.
    """

    def __init__(
        self, alpha: Any = None, alphas: Any = None, per_target: Any = False, device: Any = "cpu"
    ) -> None:
        self.alpha = alpha
        self.alphas = alphas
        self.per_target = per_target
        self.device = device

    def fit(self, X: Any, y: Any) -> RidgeProbe:
        """Fit to features [n, d] and values [n] or [n, k]: `coef_` [k, d], `intercept_` [k], `alpha_`.

        Raises:
            ValueError: features or values that are not finite, lengths that differ, an alpha that is not positive.
        """
        alphas = _alphas(self.alpha, self.alphas)
        X, y = validate_data(
            self,
            X,
            y,
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2,
        )
        self._flat = np.ndim(y) == 1
        values = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        design = Design(torch.from_numpy(X).to(self.device))
        question = Question(torch.from_numpy(values).to(self.device), None, alphas, bool(self.per_target))
        (answer,) = solve(design, [question])
        self.coef_, self.intercept_ = design.unpack(answer.weights)
        found = answer.alpha.cpu().numpy()
        self.alpha_ = found if self.per_target else float(found[0])
        self.left_out_ = None if answer.left_out is None else answer.left_out.cpu().numpy()
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Values [n, k], or [n] where y was."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        values = X @ self.coef_.T + self.intercept_
        return values[:, 0] if self._flat else values


def _alphas(alpha: Any, alphas: Any) -> tuple[float, ...]:
    if alpha is not None:
        alphas = (alpha,)
    found = tuple(float(a) for a in (GRID if alphas is None else alphas))
    if not found or not all(a > 0 for a in found):
        raise ValueError(f"alpha is {min(found) if found else 'nothing'}; it must be positive")
    return found


def many(x: Tensor, problems: Sequence[Problem], options: dict[str, Any], progress: Progress) -> list[Fit]:
    """Many problems over the same activations [n, d]; `options` are the parameters of `RidgeProbe`."""
    known: dict[str, Any] = {"alpha": None, "alphas": None, "per_target": False} | options
    fitted = masks(problems, len(x), x.device)
    questions = []
    for i, (problem, rows) in enumerate(zip(problems, fitted, strict=True)):
        values = torch.from_numpy(np.array(problem.y, dtype=np.float64).reshape(len(x), -1)).to(x.device)
        if not bool((values if rows is None else values[rows]).isfinite().all()):
            raise ValueError(f"the values of problem {i} have a NaN or an infinity")
        alphas = _alphas(known["alpha"] if problem.penalty is None else problem.penalty, known["alphas"])
        questions.append(Question(values, rows, alphas, bool(known["per_target"])))
    design = Design(x, union(fitted))
    fits = []
    for answer in solve(design, questions, progress):
        coef, intercept = design.unpack(answer.weights)
        fits.append(Fit(coef, intercept, penalty=float(answer.alpha[0])))
    return fits


PROBE = Kind(
    name="ridge",
    summary="ridge regression on standardised features, its penalty by exact leave-one-out",
    target="values",
    new=RidgeProbe,
    penalty="alpha",
    grid=GRID,
    linear=True,
    many=many,
)
