"""Iterative nullspace projection (Ravfogel et al. 2020, arXiv 2004.07667, Algorithm 1).

1. A linear classifier is fitted to the activations as they are now.
2. The span of its weights is taken out of them: the next classifier cannot use it.
3. Until `rank` directions are gone; or, where no rank is given, until a classifier no longer beats the largest class
   on rows kept aside, by more than two standard errors of that share.

Every classifier is fitted in the complement of the directions before, so that the directions are orthonormal and the
eraser is one orthogonal projection, around the mean of the rows. Features are divided by their standard deviation for
the fit; the span is that of the weights in the units of the activations.

Letters: n row, d width, c classes, k directions so far.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.eraser import Eraser, Method
from probes.moments import Moments, check_rows, double

KEPT_ASIDE = 0.25


class Inlp:
    """The fitter; it holds all rows.

    Args:
        rank: how many dimensions are taken out; None: as many as it takes.
        max_rank: where None stops at the latest.
        C: inverse strength of the classifiers' regularisation.
        seed: of which rows are kept aside.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(self, rank: int | None = None, max_rank: int = 100, C: float = 1.0, seed: int = 0) -> None:
        for name, value in (("rank", rank), ("max_rank", max_rank)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not C > 0:
            raise ValueError(f"C is {C}; it must be above 0")
        self.rank, self.max_rank, self.C, self.seed = rank, max_rank, C, seed
        self.rows: list[tuple[Tensor, Tensor]] = []

    def update(self, x: Tensor, z: Tensor) -> None:
        """Add rows x [n, d] with their one-hot classes z [n, c]."""
        check_rows(x, z)
        self.rows.append((double(x).cpu(), double(z).cpu()))

    def eraser(self, site: str | None = None) -> Eraser:
        """The eraser of all rows so far.

        Raises:
            ValueError: no rows, or a single class; or a rank above the width of the activations.
        """
        moments = Moments()
        for x, z in self.rows:
            moments.update(x, z)
        moments.standard_xz()  # refuses a single class
        x = torch.cat([x for x, _ in self.rows])
        classes = torch.cat([z for _, z in self.rows]).argmax(1).numpy()
        d = x.shape[1]
        if self.rank is not None and self.rank > d:
            raise ValueError(f"rank is {self.rank} and the activations have {d} dimensions")
        basis, found = self._directions(x - moments.mean_x, classes)
        record = {"rows": moments.n, "C": self.C, "seed": self.seed, "accuracies": found}
        return Eraser.orthogonal("inlp", basis, moments.mean_x, site, record)

    def _directions(self, x: Tensor, classes: np.ndarray) -> tuple[Tensor, list[float]]:
        """The basis [d, k], and the accuracy of each round on the rows kept aside."""
        aside = np.random.default_rng(self.seed).random(len(x)) < KEPT_ASIDE
        fitted = ~aside if self.rank is None else np.ones(len(x), bool)
        judged = aside if self.rank is None else fitted
        if self.rank is None and (len(np.unique(classes[fitted])) < 2 or not aside.any()):
            raise ValueError(f"{len(x)} rows are too few to keep some aside; give a rank")
        share = np.bincount(classes[judged]).max() / judged.sum()
        floor = share + 2 * np.sqrt(share * (1 - share) / judged.sum())
        limit = min(self.max_rank if self.rank is None else self.rank, x.shape[1])
        basis, accuracies = x.new_zeros(x.shape[1], 0), []
        while basis.shape[1] < limit:
            inside = _complement(basis)  # [d, d - k]
            reduced = (x @ inside).numpy()
            sd = reduced[fitted].std(0)
            sd[sd == 0] = 1
            classifier = _fit(reduced[fitted] / sd, classes[fitted], self.C)
            accuracies.append(float((classifier.predict(reduced[judged] / sd) == classes[judged]).mean()))
            if self.rank is None and accuracies[-1] <= floor:
                break
            weights = torch.from_numpy(classifier.coef_ / sd).T  # [d - k, rows of the classifier]
            span, size, _ = torch.linalg.svd(weights, full_matrices=False)
            span = span[:, size > max(1e-10 * float(size[0]), 1e-30)][:, : limit - basis.shape[1]]
            if not span.shape[1]:
                break
            basis = torch.linalg.qr(torch.cat([basis, inside @ span], 1))[0]
        return basis, accuracies


def _complement(basis: Tensor) -> Tensor:
    """An orthonormal basis [d, d - k] of what is orthogonal to the columns of `basis` [d, k]."""
    identity = torch.eye(len(basis), dtype=basis.dtype)
    return torch.linalg.qr(torch.cat([basis, identity], 1))[0][:, basis.shape[1] :]


def _fit(x: np.ndarray, classes: np.ndarray, C: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # any separating direction will do: the next round takes what is left
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=C, max_iter=300).fit(x, classes)


ERASER = Method(
    "iterative nullspace projection: one linear classifier after another", Inlp, classes_only=True
)
