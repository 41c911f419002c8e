"""Many probes of one site at once: labels × regularisation × folds × controls.

Letters: n rows, d features, k outputs of a probe, c classes, m texts, t tokens of the longest text.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lens.progress import Progress, silent
from probes.estimator import Kind, get_estimator


@dataclass(frozen=True, eq=False)
class Problem:
    """What one probe is fitted to.

    Args:
        y: for every row of x, fitted or not: classes, int [n]; values, float [n] or [n, k]; heads, int [n].
        rows: those that are fitted, a mask [n] or indices; None: all.
        penalty: the kind's `C` or `alpha`; None: its default, or chosen by leave-one-out where the kind does so.
        pairs: rows that are each other's contrast, int [p, 2], for kinds whose target is "pairs".
    """

    y: np.ndarray
    rows: np.ndarray | None = None
    penalty: float | None = None
    pairs: np.ndarray | None = None

    def chosen(self, n: int) -> np.ndarray:
        """The fitted rows as sorted indices.

        Raises:
            ValueError: a mask of another length, an index outside the n rows, or no rows.
        """
        if self.rows is None:
            return np.arange(n)
        rows = np.asarray(self.rows)
        if rows.dtype == bool:
            if rows.shape != (n,):
                raise ValueError(f"the mask of rows is {list(rows.shape)}, and there are {n} rows")
            rows = np.flatnonzero(rows)
        rows = np.unique(rows)
        if not len(rows):
            raise ValueError("a problem has no rows to fit")
        if rows[0] < 0 or rows[-1] >= n:
            raise ValueError(f"row {rows[0] if rows[0] < 0 else rows[-1]} is outside the {n} rows")
        return rows


@dataclass(frozen=True, eq=False)
class Fit:
    """One fitted probe.

    Args:
        coef: [k, d] in the units of the activations; None for kinds that are not linear.
        intercept: [k].
        classes: int [c], which output stands for which class (two classes have one output, positive for the second).
        penalty: what the probe was fitted with, given or chosen.
        estimator: the fitted estimator, for kinds that are fitted one by one.
        converged: whether the fit reached its tolerance.
    """

    coef: np.ndarray | None
    intercept: np.ndarray | None
    classes: np.ndarray | None = None
    penalty: float | None = None
    estimator: Any = None
    converged: bool = True


class Fits(Sequence[Fit]):
    """The probes of `fit_many`, in the order of its problems."""

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
        """The class of each row, int [n], as an element of the problem's y; or values, float [n, k]."""
        return self.told(i, self.decision(i, x, mask))

    def told(self, i: int, decision: np.ndarray) -> np.ndarray:
        """What the scores of `decision` or `left_out` say: classes [n] or values [n, k]."""
        classes = self[i].classes
        if classes is None:
            return decision
        return classes[(decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(1)]

    def left_out(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows that problem i was not fitted to, int [n'], and its scores of these, as `decision` gives them."""
        n = len(self._x)
        rows = np.setdiff1d(np.arange(n), self.problems[i].chosen(n))
        return rows, self.decision(i, self._x[rows], None if self._mask is None else self._mask[rows])


def fit_many(
    kind: Kind | str,
    x: Tensor,
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
    kind = get_estimator(kind) if isinstance(kind, str) else kind
    check_finite(x)
    fits: list[Fit] = []
    told: list[str] = []
    for i, problem in enumerate(problems):
        progress(i, len(problems), f"fitting {kind.name} probes")
        fit, warned = _one(kind, x, problem, mask, dict(options or {}))
        fits.append(fit)
        told += [f"problem {i}: {text}" for text in warned]
    progress(len(problems), len(problems), f"fitting {kind.name} probes")
    return Fits(kind, x, problems, fits, tuple(told), mask)


def check_finite(x: Tensor, what: str = "activations") -> None:
    """Raise a ValueError that names the first row of x that has a NaN or an infinity."""
    finite = x.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        kind = "NaN" if bool(x[row].isnan().any()) else "an infinity"
        raise ValueError(f"row {row} of the {what} has {kind}")


def _one(
    kind: Kind, x: Tensor, problem: Problem, mask: Tensor | None, options: dict[str, Any]
) -> tuple[Fit, list[str]]:
    """Fit a single estimator."""
    from sklearn.exceptions import ConvergenceWarning

    n = len(x)
    y = np.asarray(problem.y)
    if len(y) != n:
        raise ValueError(f"y has {len(y)} rows and the activations {n}")
    rows = problem.chosen(n)
    if problem.penalty is not None and kind.penalty is not None:
        options[kind.penalty] = problem.penalty
    extra: dict[str, Any] = {}
    if kind.target == "pairs" and problem.pairs is not None:
        extra["pairs"] = np.searchsorted(rows, problem.pairs[np.isin(problem.pairs, rows).all(1)])
    if kind.target == "sequences" and mask is not None:
        extra["mask"] = mask[rows].numpy()
    if kind.target == "heads":
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
            penalty=problem.penalty,
            estimator=fitted,
            converged=not stalled,
        ),
        stalled,
    )


def _decision(kind: Kind, fitted: Any, x: Tensor, mask: Tensor | None) -> np.ndarray:
    values = x.detach().cpu().numpy()
    if kind.target == "heads":
        return fitted.transform(values)
    if kind.target == "values":
        return fitted.predict(values)
    if kind.target == "sequences" and mask is not None:
        return fitted.decision_function(values, mask=mask.cpu().numpy())
    return fitted.decision_function(values)
