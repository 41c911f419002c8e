"""The structural probe of distance (Hewitt, Manning 2019, A Structural Probe for Finding Syntax, equations 1 and 2).

The squared distance between two words' points, |B (x_i − x_j)|², stands for the number of edges between them in the
dependency tree. Minimise its mean absolute error over the pairs of each text, texts counting alike.

Letters: b texts, w words, r rank.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from probes.estimator import Kind
from probes.estimators._structural import Structural
from probes.trees import tree_distances


class StructuralDistanceProbe(Structural):
    """`transform` gives points whose squared distances are tree distances; parameters as in `Structural`."""

    def distances(self, X: np.ndarray) -> np.ndarray:
        """Squared distances between all rows of one text [w, d], [w, w]."""
        points = self.transform(X)
        return ((points[:, None] - points[None]) ** 2).sum(-1)

    def _gold(self, heads: np.ndarray) -> np.ndarray:
        return tree_distances(heads).astype(np.float32)

    def _loss(self, points: Tensor, there: Tensor, gold: Tensor) -> Tensor:
        square = points.square().sum(-1)
        told = square[:, :, None] + square[:, None] - 2 * points @ points.transpose(1, 2)
        both = there[:, :, None] & there[:, None]
        error = (told - gold).abs() * both
        return (error.sum((1, 2)) / both.sum((1, 2))).mean()


PROBE = Kind(
    name="structural-distance",
    summary="a low-rank map in which squared distances are distances in the dependency tree",
    target="heads",
    new=StructuralDistanceProbe,
    linear=True,
)
