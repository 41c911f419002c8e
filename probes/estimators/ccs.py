"""Contrast-consistent search (Burns et al. 2022, Discovering Latent Knowledge, arXiv 2212.03827).

Rows come in contrast pairs x⁺, x⁻: a statement and its negation, a question answered yes and no.

1. Each side is centred on its own mean, so that what tells the sides apart for all pairs alike (the word "not") is
   gone; both sides are divided by the same standard deviation of each feature.
2. p(x) = σ(w · x + b). Without labels, minimise over pairs  (p(x⁺) − (1 − p(x⁻)))² + min(p(x⁺), p(x⁻))²:  the two are
   contraries, and the probe is sure. Several random starts at once, by Adam; the one with the least loss stays.
3. Which end means which class cannot be known without labels: the labels of the fitted rows choose the sign, no more.
4. A single row, of which no side is known, is centred on the mean of both sides. `decide_pairs` averages a pair.

Letters: n rows, d features, p pairs, s starts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from probes.estimator import Kind
from probes.estimators._linear import Linear


class CCSProbe(Linear):
    """Contrast-consistent search over two classes; `loss_` is what was reached.

    Args:
        starts: random starts, of which the best stays.
        steps: of Adam.
        lr: its learning rate.
        weight_decay: of the weights, per step and learning rate.
        random_state: of the starts.
        device: where it is computed.
    """

    def __init__(
        self,
        starts: Any = 10,
        steps: Any = 1000,
        lr: Any = 0.01,
        weight_decay: Any = 0.01,
        random_state: Any = 0,
        device: Any = "cpu",
    ) -> None:
        self.starts = starts
        self.steps = steps
        self.lr = lr
        self.weight_decay = weight_decay
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.poor_score = True  # it does not learn from labels
        return tags

    def fit(self, X: Any, y: Any, pairs: Any = None) -> CCSProbe:
        """Fit to features [n, d], with the classes [n] for the sign.

        Args:
            pairs: int [p, 2], rows that are each other's contrast, the same side first in all; None: rows 0 and 1,
                2 and 3, ….

        Raises:
            ValueError: features that are not finite, lengths that differ, other than two classes, no pairs, a
                pair's row that is not there.
        """
        X, index = self._training_data(X, y)
        if len(self.classes_) != 2:
            raise ValueError(
                f"Only binary classification is supported: CCS tells two classes apart, and y has "
                f"{len(self.classes_)}"
            )
        first, second = _sides(pairs, len(X))
        sides = torch.from_numpy(np.stack([X[first], X[second]])).to(self.device)  # [2, p, d]
        means = sides.mean(1, keepdim=True)
        sides = sides - means
        deviation = sides.square().mean((0, 1)).sqrt()
        scale = torch.where(deviation > 1e-12 * means.abs().amax((0, 1)), deviation, torch.inf)
        w, b = self._search((sides / scale).float())
        coef = (w.double() / scale).cpu().numpy()
        offset = float(b) - coef @ means.mean(0)[0].cpu().numpy()
        self.coef_, self.intercept_ = coef[None], np.array([offset])
        own = np.concatenate([first, second])
        agreed = (self.decision_function(X[own]) > 0) == index[own]
        if agreed.mean() < 0.5:
            self.coef_, self.intercept_ = -self.coef_, -self.intercept_
        return self

    def _search(self, sides: Tensor) -> tuple[Tensor, Tensor]:
        """The best start's weights [d] and bias, for standardised sides [2, p, d]."""
        generator = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
        start = generator.normal(size=(sides.shape[2], int(self.starts)))
        w = torch.tensor(start / np.linalg.norm(start, axis=0), dtype=torch.float32, device=self.device)
        w.requires_grad_(True)
        b = torch.zeros(int(self.starts), device=self.device, requires_grad=True)
        optimiser = torch.optim.AdamW([w, b], lr=self.lr, weight_decay=self.weight_decay)
        loss = torch.zeros(int(self.starts))
        with torch.enable_grad():
            for _ in range(int(self.steps)):
                optimiser.zero_grad()
                loss = _loss(torch.sigmoid(sides @ w + b))
                loss.sum().backward()
                optimiser.step()
            loss = _loss(torch.sigmoid(sides @ w + b)).detach()
        best = int(loss.argmin())
        self.loss_ = float(loss[best])
        return w.detach()[:, best], b.detach()[best]

    def decide_pairs(self, X: Any, pairs: Any) -> np.ndarray:
        """How sure the probe is that the first row of each pair is of the second class, [p] between 0 and 1."""
        first, second = _sides(pairs, len(X))
        p = 1 / (1 + np.exp(-np.clip(self.decision_function(X), -500, 500)))
        return 0.5 * (p[first] + 1 - p[second])


def _loss(p: Tensor) -> Tensor:
    """Of each start, [s], for the probabilities [2, p, s] of both sides."""
    consistent = (p[0] - (1 - p[1])).square()
    sure = torch.minimum(p[0], p[1]).square()
    return (consistent + sure).mean(0)


def _sides(pairs: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    if pairs is None:
        pairs = np.arange(n - n % 2).reshape(-1, 2)
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise ValueError(f"pairs are rows [p, 2], at least one, not {list(pairs.shape)}")
    if pairs.min() < 0 or pairs.max() >= n:
        raise ValueError(f"a pair names row {pairs.max() if pairs.max() >= n else pairs.min()} of {n} rows")
    return pairs[:, 0], pairs[:, 1]


PROBE = Kind(
    name="ccs",
    summary="contrast-consistent search: a direction on which the two of each pair are contraries, without labels",
    target="pairs",
    new=CCSProbe,
    linear=True,
)
