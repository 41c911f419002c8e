"""What a linear probe can still learn: it is fitted anew to the activations as they are, and judged on rows it has
not seen.

1. Folds keep groups together; all variants of the activations have the same folds.
2. Classes: a row's score is n / (c nₖ) where its class k is told, else 0: the mean is the balanced accuracy, whose
   floor is 1 / c whatever the shares of the classes.
3. Values: a row's score is 1 − (y − ŷ)² / var(y), averaged over the values; the mean is R², its floor 0.

Letters: v variant, n row, j judged row, d width, t values, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lens.progress import Progress, silent
from probes import given
from probes.batched import Problem, fit_many
from probes.labelled import Labelled
from probes.splits import Fold, folds
from probes.targets import Classes, Values


@dataclass(frozen=True)
class Refit:
    """The task of a probe that is fitted anew.

    Args:
        site: where it reads; None: the deepest erased site.
        estimator: a name of `probes.estimators`, linear; None: logistic for classes, ridge for values.
        penalty: its C or alpha; None: its own.
        folds: of the cross-validation.
        seed: of the folds.
    """

    site: str | None = None
    estimator: str | None = None
    penalty: float | None = None
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        given.check_whole(2, folds=self.folds)
        given.check_whole(0, seed=self.seed)


@dataclass(frozen=True, eq=False)
class Judge:
    """A task, ready to judge activations of these rows.

    Args:
        y: classes [n] or values [n, t].
        floor: the score without information.
        judged: the rows that have a score, sorted.
    """

    task: Refit
    y: np.ndarray
    outer: tuple[Fold, ...]
    floor: float

    @classmethod
    def of(cls, task: Refit, labelled: Labelled, target: str | None = None) -> Judge:
        """Folds for these labels.

        Raises:
            ValueError: a target of another kind, or as for `probes.splits.folds`.
        """
        found = labelled.target(target)
        if isinstance(found, Classes):
            y, names = np.array(found.labels), found.names
        elif isinstance(found, Values):
            y, names = np.array(found.values), ()
        else:
            raise ValueError("the labels are syntactic heads; erasure is judged on classes or values")
        labels = y if isinstance(found, Classes) else None
        outer = folds(
            labelled.n, task.folds, labels=labels, groups=labelled.groups, seed=task.seed, names=names
        )
        judged = np.unique(np.concatenate([fold.test for fold in outer]))
        floor = 0.0 if labels is None else 1 / len(np.unique(labels[judged]))
        return cls(task, y, outer, floor)

    @property
    def judged(self) -> np.ndarray:
        return np.unique(np.concatenate([fold.test for fold in self.outer]))

    @property
    def metric(self) -> str:
        return "balanced accuracy" if self.y.ndim == 1 else "R²"

    @property
    def estimator(self) -> str:
        return self.task.estimator or ("logistic" if self.y.ndim == 1 else "ridge")

    def scores(self, features: Float[Tensor, "v n d"], progress: Progress = silent) -> Float[Tensor, "v j"]:
        """Each judged row's score under each variant, float64."""
        judged = self.judged
        found = torch.full((len(features), len(self.y)), torch.nan, dtype=torch.float64)
        for v, x in enumerate(features):
            progress(v, len(features), "fitting probes to what is left")
            problems = [Problem(self.y, fold.train, self.task.penalty) for fold in self.outer]
            fits = fit_many(self.estimator, x, problems)
            for i, fold in enumerate(self.outer):
                told = fits.predict(i, x[torch.as_tensor(fold.test)])
                found[v, fold.test] = torch.as_tensor(self._score(fold.test, told))
        return found[:, judged]

    def _score(self, rows: np.ndarray, told: np.ndarray) -> np.ndarray:
        if self.y.ndim == 1:
            return (told == self.y[rows]) * balance(self.y[self.judged])[self.y[rows]]
        spread = self.y[self.judged].var(0)
        told = told.reshape(len(rows), -1)
        return (1 - (self.y[rows] - told) ** 2 / spread).mean(1)


def balance(labels: np.ndarray) -> np.ndarray:
    """What a row of each class counts, so that every class counts the same and the mean row counts 1, [c]."""
    counts = np.bincount(labels)
    return np.divide(len(labels) / (counts > 0).sum(), counts, out=np.zeros(len(counts)), where=counts > 0)
