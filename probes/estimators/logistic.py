"""Logistic regression with an L2 penalty, on standardised features.

1. z = (x − mean) / standard deviation; a constant feature becomes 0 and gets no weight.
2. Minimise  Σ −log p(y | z) + |w|² / (2 C)  over weights w and intercept: a sigmoid for two classes, a softmax for
   more. Strictly convex in w, the objective of scikit-learn's `LogisticRegression(C=C)` on z.
3. By `probes.solvers.logistic`: preconditioned L-BFGS, Newton's method in float64 at the end.
4. Weights and intercept are given in the units of x.

Letters: n rows, d features, c classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from lens.progress import Progress
from probes.estimator import Kind
from probes.estimators._linear import Linear
from probes.problem import Fit, Problem, classes_of, masks, union
from probes.solvers.design import Design
from probes.solvers.logistic import Question, solve

TOL = 1e-6  # of many fits at once


class LogisticProbe(Linear):
    """Logistic regression, binary or multinomial.

    Args:
        C: inverse strength of the penalty, as in scikit-learn.
        max_iter: at most so many steps.
        tol: how far the objective may end above its minimum, in nats per row, estimated by the Newton decrement.
        device: where it is computed.
    """

    def __init__(self, C: Any = 1.0, max_iter: Any = 1000, tol: Any = 1e-10, device: Any = "cpu") -> None:
        # scikit-learn's contract: anything is taken here, and judged in `fit`
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.device = device

    def fit(self, X: Any, y: Any) -> LogisticProbe:
        """Fit to features [n, d] and classes [n]; warns (`ConvergenceWarning`) where `tol` was not reached.

        Raises:
            ValueError: features that are not finite, lengths that differ, one class only, C or `tol` not positive,
                `max_iter` below one.
        """
        _check(self.C, self.tol, self.max_iter)
        X, index = self._training_data(X, y)
        design = Design(torch.from_numpy(X).to(self.device))
        label = torch.from_numpy(index).to(self.device)
        question = Question(label, None, len(self.classes_), float(self.C))
        (answer,) = solve(design, [question], self.tol, self.max_iter)
        self.coef_, self.intercept_ = design.unpack(answer.weights)
        self.n_iter_ = max(answer.steps, 1)
        self.excess_ = answer.excess
        if not answer.excess <= self.tol:
            warnings.warn(
                f"logistic regression stopped after {self.n_iter_} steps, {answer.excess:.1e} nats per row above "
                f"its minimum; tol is {self.tol:.1e}",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, [n, c]."""
        scores = torch.from_numpy(self.decision_function(X))
        if scores.ndim == 1:
            return torch.stack([torch.sigmoid(-scores), torch.sigmoid(scores)], 1).numpy()
        return scores.softmax(1).numpy()


def _check(C: Any, tol: Any, max_iter: Any) -> None:
    if not C > 0:
        raise ValueError(f"C is {C}; it must be positive")
    if not tol > 0 or not max_iter >= 1:
        raise ValueError(f"tol is {tol} and max_iter {max_iter}; tol is positive, max_iter 1 or more")


def many(x: Tensor, problems: Sequence[Problem], options: dict[str, Any], progress: Progress) -> list[Fit]:
    """Many problems over the same activations [n, d]; `options` are the parameters of `LogisticProbe`."""
    known = {"C": 1.0, "tol": TOL, "max_iter": 1000, "device": x.device} | options
    _check(known["C"], known["tol"], known["max_iter"])
    n = len(x)
    fitted = masks(problems, n, x.device)
    labels: dict[bytes, int] = {}
    questions, classes = [], []
    for i, (problem, rows) in enumerate(zip(problems, fitted, strict=True)):
        C = known["C"] if problem.penalty is None else problem.penalty
        _check(C, known["tol"], known["max_iter"])
        found, index = classes_of(problem, i, n)
        chain = labels.setdefault(np.asarray(problem.y).tobytes(), len(labels))
        label = torch.from_numpy(index).to(x.device)
        questions.append(Question(label, rows, len(found), float(C), chain))
        classes.append(found)
    design = Design(x, union(fitted))
    fits = []
    answers = solve(design, questions, known["tol"], known["max_iter"], progress)
    for question, answer, found in zip(questions, answers, classes, strict=True):
        coef, intercept = design.unpack(answer.weights)
        done = answer.excess <= known["tol"]
        fits.append(Fit(coef, intercept, found, question.C, converged=done, steps=answer.steps))
    return fits


PROBE = Kind(
    name="logistic",
    summary="logistic regression with an L2 penalty, on standardised features",
    target="classes",
    new=LogisticProbe,
    penalty="C",
    grid=tuple(float(f"{10.0**e:g}") for e in range(-5, 5)),
    linear=True,
    many=many,
)
