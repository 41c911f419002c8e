"""The structural probe of depth (Hewitt, Manning 2019, section 3.2).

The squared length of a word's point, |B x|², stands for how many edges it is below the root of its dependency tree.
Minimise its mean absolute error over the words of each text, texts counting alike. Features are standardised first,
so lengths are taken from the mean of all words.

Letters: b texts, w words, r rank.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from probes.estimator import Kind
from probes.estimators._structural import Structural


class StructuralDepthProbe(Structural):
    """`transform` gives points whose squared lengths are depths; parameters as in `Structural`."""

    def depths(self, X: np.ndarray) -> np.ndarray:
        """Depths of words [n, d], [n]."""
        return (self.transform(X) ** 2).sum(-1)

    def _gold(self, heads: np.ndarray) -> np.ndarray:
        depth, at = np.zeros(len(heads), dtype=np.float32), heads
        while (at >= 0).any():
            depth += at >= 0
            at = np.where(at >= 0, heads[at], -1)
        return depth

    def _loss(self, points: Tensor, there: Tensor, gold: Tensor) -> Tensor:
        error = (points.square().sum(-1) - gold).abs() * there
        return (error.sum(1) / there.sum(1)).mean()


PROBE = Kind(
    name="structural-depth",
    summary="a low-rank map in which squared lengths are depths in the dependency tree",
    target="heads",
    new=StructuralDepthProbe,
    linear=True,
)
