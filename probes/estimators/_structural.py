"""What the two structural probes share: a low-rank map fitted to trees, text by text.

1. z = (x − mean) / standard deviation; a feature that does not vary becomes 0.
2. A map B [r, d] takes each word to a point B z; texts are padded to batches.
3. Adam on the loss of the probe, over batches of texts in an order drawn anew each epoch; the learning rate falls to 0
   along a half cosine.

Letters: n rows (words), d features, r rank, b texts of a batch, w words of the longest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from probes.estimators._descent import seeded, standardisation


class Structural(TransformerMixin, BaseEstimator):
    """A map of words to points, `coef_` [r, d] and `intercept_` [r] in the units of the activations.

    Args:
        rank: of the map.
        epochs: passes over all texts.
        batch_size: texts per step.
        lr: the learning rate of Adam at the start.
        random_state: of the start and of the order of texts.
        device: where it is computed.
    """

    coef_: np.ndarray
    intercept_: np.ndarray

    def __init__(
        self,
        rank: Any = 64,
        epochs: Any = 30,
        batch_size: Any = 20,
        lr: Any = 0.003,
        random_state: Any = 0,
        device: Any = "cpu",
    ) -> None:
        self.rank = rank
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def fit(self, X: Any, y: Any) -> Any:
        """Fit to words [n, d] and for each the row of its syntactic head, −1 for a root, int [n].

        Rows of a text follow each other; each tree is a text of its own.

        Raises:
            ValueError: features that are not finite, lengths that differ, a head that is no row, heads in a circle.
        """
        if not self.rank >= 1 or not self.epochs >= 1 or not self.batch_size >= 1:
            raise ValueError(
                f"rank is {self.rank}, epochs {self.epochs}, batch_size {self.batch_size}; all must be 1 or more"
            )
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        heads = np.asarray(y)
        texts = trees(heads)
        gold = [self._gold(np.searchsorted(t, heads[t]) - (heads[t] < 0)) for t in texts]
        mean, inverse_scale = standardisation(X)
        z = torch.from_numpy((X - mean) * inverse_scale).float().to(self.device)
        generator = seeded(self.random_state)
        rank = min(int(self.rank), X.shape[1])
        start = (torch.rand(rank, X.shape[1], generator=generator) - 0.5) * 0.1
        b = start.to(self.device).requires_grad_(True)
        optimiser = torch.optim.Adam([b], lr=self.lr)
        batches = -(-len(texts) // int(self.batch_size))
        total = int(self.epochs) * batches
        with torch.enable_grad():
            for epoch in range(int(self.epochs)):
                order = torch.randperm(len(texts), generator=generator).tolist()
                for i in range(batches):
                    step = epoch * batches + i
                    optimiser.param_groups[0]["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * step / total))
                    chosen = order[i * int(self.batch_size) : (i + 1) * int(self.batch_size)]
                    rows, there = _padded([texts[j] for j in chosen])
                    target = torch.zeros(len(chosen), *[rows.shape[1]] * gold[0].ndim)
                    for j, one in enumerate(chosen):
                        target[(j, *[slice(len(gold[one]))] * gold[one].ndim)] = torch.from_numpy(gold[one])
                    optimiser.zero_grad()
                    points = z[rows.to(z.device)] @ b.T
                    loss = self._loss(points, there.to(z.device), target.to(z.device))
                    loss.backward()
                    optimiser.step()
        self.coef_ = b.detach().double().cpu().numpy() * inverse_scale
        self.intercept_ = -self.coef_ @ mean
        return self

    def _gold(self, heads: np.ndarray) -> np.ndarray:
        """What the points of one tree should tell, of heads [w] given as places, −1 for the root."""
        raise NotImplementedError

    def _loss(self, points: Tensor, there: Tensor, gold: Tensor) -> Tensor:
        """Of points [b, w, r]; `there` [b, w] tells words from padding; `gold` is padded alike."""
        raise NotImplementedError

    def transform(self, X: Any) -> np.ndarray:
        """The points of words [n, d], [n, r]."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return X @ self.coef_.T + self.intercept_


def trees(heads: Any) -> list[np.ndarray]:
    """The rows of each tree, in order, of heads [n] given as rows, −1 for a root.

    Raises:
        ValueError: a head that is no row, or heads in a circle.
    """
    heads = np.asarray(heads)
    n = len(heads)
    if not np.issubdtype(heads.dtype, np.integer) or ((heads < -1) | (heads >= n)).any():
        raise ValueError(f"a head is the row of another word, 0 to {n - 1}, or -1 for a root")
    root = np.where(heads < 0, np.arange(n), heads)
    for _ in range(max(n, 2).bit_length()):
        root = root[root]
    if (heads[root] >= 0).any():
        raise ValueError(f"the heads from row {int(np.flatnonzero(heads[root] >= 0)[0])} go in a circle")
    order = np.argsort(root, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(root[order])) + 1)
    return sorted(parts, key=lambda rows: int(rows[0]))


def _padded(texts: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Rows [b, w] and which of them are there."""
    rows = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    there = np.zeros(rows.shape, dtype=bool)
    for i, text in enumerate(texts):
        rows[i, : len(text)], there[i, : len(text)] = text, True
    return torch.from_numpy(rows), torch.from_numpy(there)
