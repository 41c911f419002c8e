"""What one probe is fitted to, and what comes of it.

Letters: n rows, d features, k outputs of a probe, c classes, p pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.weights import Linear, Weights


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
        classes: [c], which output stands for which class (two classes have one output, positive for the second).
        penalty: what the probe was fitted with, given or chosen.
        estimator: the fitted estimator, for kinds that are fitted one by one.
        converged: whether the fit reached its tolerance.
        steps: of the solver, where it has any.
    """

    coef: np.ndarray | None
    intercept: np.ndarray | None
    classes: np.ndarray | None = None
    penalty: float | None = None
    estimator: Any = None
    converged: bool = True
    steps: int | None = None

    @property
    def weights(self) -> Weights:
        """What is frozen of it."""
        if self.coef is None:
            return self.estimator.weights_
        coef = torch.from_numpy(np.array(self.coef, dtype=np.float64))
        return Linear(coef, torch.from_numpy(np.array(self.intercept, dtype=np.float64)).reshape(-1))


def masks(problems: Sequence[Problem], n: int, device: torch.device) -> list[Tensor | None]:
    """The fitted rows of each problem as a mask [n], None for all; the same rows are the same object."""
    known: dict[bytes, Tensor | None] = {}
    found = []
    for problem in problems:
        mask = np.zeros(n, dtype=bool)
        mask[problem.chosen(n)] = True
        key = np.packbits(mask).tobytes()
        if key not in known:
            known[key] = None if mask.all() else torch.from_numpy(mask).to(device)
        found.append(known[key])
    return found


def union(fitted: Sequence[Tensor | None]) -> Tensor | None:
    """Rows that any problem is fitted to, None for all."""
    total: Tensor | None = None
    for mask in {id(m): m for m in fitted}.values():
        if mask is None:
            return None
        total = mask if total is None else total | mask
    return None if total is None or bool(total.all()) else total


def classes_of(problem: Problem, i: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes among a problem's fitted rows, sorted, and each row's index among them (0 for others), int64 [n].

    Raises:
        ValueError: one class only.
    """
    y = np.asarray(problem.y)
    classes = np.unique(y[problem.chosen(n)])
    if len(classes) < 2:
        raise ValueError(
            f"a probe needs two classes or more; every fitted row of problem {i} has the class {classes.tolist()[0]!r}"
        )
    index = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    return classes, np.where(classes[index] == y, index, 0)
