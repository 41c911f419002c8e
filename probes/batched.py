"""Many probes of one site at once: labels × regularisation × folds × controls.

1. Kinds that have a batched solver (`Kind.many`) share one standardisation, Gram matrix and eigendecomposition; other
   kinds are fitted one by one.
2. Features are standardised over all rows that any problem is fitted to, once, not anew for each fold.
3. The scores of left-out rows are one product for all problems that leave out the same rows.

Letters: n rows, d features, k outputs of a probe, c classes, m texts, t tokens of the longest text.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lens.progress import Progress, silent
from probes import given
from probes.estimator import Kind, get_estimator
from probes.finite import check_finite
from probes.problem import Fit, Problem

ELEMENTS = 2**24  # scores that are computed in one product


class Fits(Sequence[Fit]):
    """The probes of `fit_many`, in the order of its problems; `warnings` names those that did not converge."""

    def __init__(
        self,
        kind: Kind,
        x: Tensor,
        problems: Sequence[Problem],
        fits: Sequence[Fit],
        warnings: tuple[str, ...] = (),
        mask: Tensor | None = None,
    ) -> None:
        self.kind, self.problems, self.warnings = kind, tuple(problems), warnings
        self._x, self._mask, self._fits = x, mask, tuple(fits)
        self._rows = [problem.chosen(len(x)) for problem in problems]
        self._keys = [rows.tobytes() for rows in self._rows]
        self._scored: dict[int, np.ndarray] = {}
        self._mean = None if x.ndim > 2 else x.mean(0, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self._fits)

    def __getitem__(self, i: int) -> Fit:  # type: ignore[override]
        return self._fits[i]

    def __iter__(self) -> Iterator[Fit]:
        return iter(self._fits)

    def decision(self, i: int, x: Tensor, mask: Tensor | None = None) -> np.ndarray:
        """Scores of rows x [n, d] (texts [m, t, d] for sequences), float64.

        [n] for two classes, positive for the second; [n, c] for more; [n, k] for values; for heads the rows in
        the probe's space, [n, rank].
        """
        fit = self[i]
        if fit.coef is None:
            return _decision(self.kind, fit.estimator, x, mask)
        assert fit.intercept is not None
        scores = x.detach().cpu().double().numpy() @ fit.coef.T + fit.intercept
        return scores[:, 0] if fit.classes is not None and scores.shape[1] == 1 else scores

    def predict(self, i: int, x: Tensor, mask: Tensor | None = None) -> np.ndarray:
        """The class of each row, [n], as an element of the problem's y; or values, float [n, k]."""
        return self.told(i, self.decision(i, x, mask))

    def told(self, i: int, decision: np.ndarray) -> np.ndarray:
        """What the scores of `decision` or `left_out` say: classes [n] or values [n, k]."""
        classes = self[i].classes
        if classes is None:
            return decision
        return classes[(decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(1)]

    def left_out(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows that problem i was not fitted to, int [n'], and its scores of these, as `decision` gives them."""
        rows = np.setdiff1d(np.arange(len(self._x)), self._rows[i], assume_unique=True)
        if self[i].coef is None:
            return rows, self.decision(i, self._x[rows], None if self._mask is None else self._mask[rows])
        if i not in self._scored:
            self._scored = self._score(i, rows)
        return rows, self._scored[i]

    def _score(self, i: int, rows: np.ndarray) -> dict[int, np.ndarray]:
        """Scores of the left-out rows by problem i and those after it that leave out the same, in one product."""
        chosen, columns = [], 0
        for j in [*range(i, len(self)), *range(i)]:
            coef = self._fits[j].coef
            if coef is None or self._keys[j] != self._keys[i]:
                continue
            if chosen and (columns + len(coef)) * len(rows) > ELEMENTS:
                break
            chosen.append(j)
            columns += len(coef)
        assert self._mean is not None
        mean = self._mean.cpu().numpy()
        coef = np.concatenate([self._coef(j) for j in chosen])
        shift = coef @ mean + np.concatenate([self._intercept(j) for j in chosen])
        x = (self._x[torch.from_numpy(rows).to(self._x.device)] - self._mean.to(self._x.dtype)).float()
        scores = (x @ torch.from_numpy(coef).float().to(x.device).T).double().cpu().numpy() + shift
        parts = np.split(scores, np.cumsum([len(self._coef(j)) for j in chosen])[:-1], axis=1)
        return {
            j: part[:, 0] if self._fits[j].classes is not None and part.shape[1] == 1 else part
            for j, part in zip(chosen, parts, strict=True)
        }

    def _coef(self, i: int) -> np.ndarray:
        coef = self._fits[i].coef
        assert coef is not None
        return coef

    def _intercept(self, i: int) -> np.ndarray:
        intercept = self._fits[i].intercept
        assert intercept is not None
        return intercept


def fit_many(
    kind: Kind | str,
    x: Tensor | np.ndarray,
    problems: Sequence[Problem],
    *,
    mask: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    progress: Progress = silent,
) -> Fits:
    """Fit every problem to the same activations.

    Args:
        kind: an entry of `probes.estimators`, or its name.
        x: activations [n, d]; texts [m, t, d] for sequences.
        mask: bool [m, t], which tokens of each text are there; for sequences only.
        options: further parameters of the estimator.
        device: where the products are computed; None: where x is.

    Raises:
        ValueError: activations that are not finite (the row is named), a y of another length, one class only.
    """
    kind = kind if isinstance(kind, Kind) else get_estimator(kind)
    kind.check_options(options)
    x = given.activations(x, "x")
    check_finite(x)
    if not isinstance(problems, Sequence):
        raise ValueError(f"problems are {given.sort(problems)}; they must be a list of probes.Problem(y)")
    for i, problem in enumerate(problems):
        if not isinstance(problem, Problem):
            raise ValueError(f"problem {i} is {given.sort(problem)}; it must be a probes.Problem(y)")
        if len(problem.y) != len(x):
            raise ValueError(f"y of problem {i} has {len(problem.y)} rows and the activations {len(x)}")
    label = f"fitting {kind.name} probes"
    if kind.many is not None:
        moved = x if x.dtype in (torch.float32, torch.float64) else x.float()
        fits = kind.many(moved.detach().to(device), problems, dict(options or {}), progress)
        told = [
            f"problem {i} did not converge in {fit.steps} steps"
            for i, fit in enumerate(fits)
            if not fit.converged
        ]
        progress(len(problems), len(problems), label)
        return Fits(kind, moved, problems, fits, tuple(told), mask)
    fits, told = [], []
    for i, problem in enumerate(problems):
        progress(i, len(problems), label)
        fit, warned = _one(kind, x, problem, mask, dict(options or {}))
        fits.append(fit)
        told += [f"problem {i}: {text}" for text in warned]
    progress(len(problems), len(problems), label)
    return Fits(kind, x, problems, fits, tuple(told), mask)


def _one(
    kind: Kind, x: Tensor, problem: Problem, mask: Tensor | None, options: dict[str, Any]
) -> tuple[Fit, list[str]]:
    """Fit a single estimator."""
    from sklearn.exceptions import ConvergenceWarning

    y = np.asarray(problem.y)
    rows = problem.chosen(len(x))
    if problem.penalty is not None and kind.penalty is not None:
        options[kind.penalty] = problem.penalty
    extra: dict[str, Any] = {}
    if kind.target == "pairs" and problem.pairs is not None:
        extra["pairs"] = np.searchsorted(rows, problem.pairs[np.isin(problem.pairs, rows).all(1)])
    if kind.target == "sequences" and mask is not None:
        extra["mask"] = mask[rows].cpu().numpy()
    if kind.target == "heads":
        if not np.isin(y[rows][y[rows] >= 0], rows).all():
            raise ValueError("a row is fitted and its head is not; choose rows by whole texts")
        y = np.where(y < 0, -1, np.searchsorted(rows, y))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        fitted = kind.new(**options).fit(x[rows].detach().cpu().numpy(), y[rows], **extra)
    stalled = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    return (
        Fit(
            coef=fitted.coef_ if kind.linear else None,
            intercept=fitted.intercept_ if kind.linear else None,
            classes=getattr(fitted, "classes_", None),
            penalty=_penalty(kind, fitted),
            estimator=fitted,
            converged=not stalled,
        ),
        stalled,
    )


def _penalty(kind: Kind, fitted: Any) -> float | None:
    """What it was fitted with, given or its default."""
    value = None if kind.penalty is None else fitted.get_params()[kind.penalty]
    return None if value is None else float(value)


def _decision(kind: Kind, fitted: Any, x: Tensor, mask: Tensor | None) -> np.ndarray:
    values = x.detach().cpu().numpy()
    if kind.target == "heads":
        return fitted.transform(values)
    if kind.target == "values":
        return fitted.predict(values)
    if kind.target == "sequences" and mask is not None:
        return fitted.decision_function(values, mask=mask.cpu().numpy())
    return fitted.decision_function(values)
