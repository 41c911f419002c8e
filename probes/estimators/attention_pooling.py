"""Attention pooling: a linear probe that learns which tokens of a text to read (Yang et al. 2016).

1. z = (x − mean) / standard deviation over all tokens that are there.
2. Each of `heads` queries q_h weighs the tokens of a text: a_ht = softmax over t of q_h · z_t / √d, masked tokens at 0.
3. scores = Σ_h W_h Σ_t a_ht z_t + b. With q = 0 that is a probe of the mean token, from which the fit starts.
4. Minimise the mean cross-entropy + (|W|² + |q|²) times `alpha` / 2m, by L-BFGS on all texts.
5. What is kept is in the units of x. As attention sums to 1, mean and deviation go into q, W and b; what shifts the
   logits of all tokens alike has no effect and is dropped.

Letters: m texts, t tokens of the longest text, d features, h heads, c classes, k outputs: one for two classes, else c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional

from probes.estimator import Kind
from probes.estimators._descent import descend, one_output, probabilities, seeded, standardisation
from probes.finite import check_finite
from probes.weights import computed


@dataclass(frozen=True, eq=False)
class PoolingWeights:
    """Step 5: scores = Σ_h W_h Σ_t a_ht x_t + b, where a_ht = softmax over t of q_h · x_t."""

    TEXTS: ClassVar[bool] = True

    query: Float[Tensor, "h d"]
    out: Float[Tensor, "k h d"]
    bias: Float[Tensor, " k"]

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """How each head weighs the tokens of each text, [m, h, t]; x [m, t, d] and mask [m, t]."""
        logits = torch.einsum("mtd,hd->mht", x, self.query)
        return logits.masked_fill(~mask[:, None], -torch.inf).softmax(2)

    def scores(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        x = x.masked_fill(~mask[..., None], 0.0)  # padding may hold anything
        pooled = torch.einsum("mht,mtd->mhd", self.attention(x, mask), x)
        return torch.einsum("mhd,khd->mk", pooled, self.out) + self.bias


class AttentionPoolingProbe(ClassifierMixin, BaseEstimator):
    """A linear probe of an attention-weighted mean over the tokens of each text; `weights_` is what was fitted.

    X is [m, t, d] with a mask [m, t] of the tokens that are there; [m, d] is a text of one token each.

    Args:
        heads: how many queries there are.
        alpha: strength of the penalty.
        max_iter: steps of L-BFGS.
        tol: largest gradient of the mean loss at which the fit is done.
        random_state: of the start.
        device: where it is computed.
    """

    def __init__(
        self,
        heads: Any = 1,
        alpha: Any = 1.0,
        max_iter: Any = 300,
        tol: Any = 1e-4,
        random_state: Any = 0,
        device: Any = "cpu",
    ) -> None:
        self.heads = heads
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any, mask: Any = None) -> AttentionPoolingProbe:
        """Fit to texts and the class of each, [m]; warns (`ConvergenceWarning`) where `max_iter` was too few.

        Args:
            mask: bool [m, t]; None: all tokens are there.

        Raises:
            ValueError: features that are not finite, lengths that differ, one class only, a text without tokens.
        """
        if not self.alpha >= 0 or not self.heads >= 1:
            raise ValueError(f"alpha is {self.alpha} and heads {self.heads}; at least 0, and at least 1")
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2, allow_nd=True)
        check_classification_targets(y)
        texts, there = _texts(X, mask)
        if X.ndim == 3:
            delattr(self, "n_features_in_")  # it is t, which may be another for other texts
        self.classes_, index = np.unique(y, return_inverse=True)
        c, d = len(self.classes_), texts.shape[2]
        if c < 2:
            raise ValueError(
                f"a probe needs two classes or more; every row has the class {self.classes_.tolist()[0]!r}"
            )
        mean, inverse_scale = standardisation(texts[there])
        z = torch.from_numpy((texts - mean) * inverse_scale * there[..., None]).float().to(self.device)
        present = torch.from_numpy(there).to(self.device)
        target = torch.from_numpy(index).to(self.device)
        generator = seeded(self.random_state)
        start = [torch.randn(int(self.heads), d, generator=generator) * 0.01]
        start += [torch.zeros(c, int(self.heads), d), torch.zeros(c)]
        layers = [layer.to(self.device).requires_grad_(True) for layer in start]

        def loss() -> Tensor:
            size = layers[0].square().sum() + layers[1].square().sum()
            here = PoolingWeights(layers[0] / d**0.5, layers[1], layers[2])
            fit = functional.cross_entropy(here.scores(z, present), target)
            return fit + self.alpha / (2 * len(z)) * size

        self.n_iter_ = descend(loss, layers, int(self.max_iter), self.tol)
        query, out, bias = (layer.detach().cpu().double() for layer in layers)
        out, bias = one_output(out * torch.from_numpy(inverse_scale), bias)
        query = query / d**0.5 * torch.from_numpy(inverse_scale)
        self.weights_ = PoolingWeights(query, out, bias - out.sum(1) @ torch.from_numpy(mean))
        return self

    def _read(self, X: Any, mask: Any) -> tuple[Tensor, Tensor]:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64, allow_nd=True)
        texts, there = _texts(X, mask)
        width = self.weights_.query.shape[1]
        if texts.shape[2] != width:
            raise ValueError(f"X has {texts.shape[2]} features, and the probe was fitted to {width}")
        return torch.from_numpy(texts).to(self.device), torch.from_numpy(there).to(self.device)

    def attention(self, X: Any, mask: Any = None) -> np.ndarray:
        """How each head weighs the tokens of each text, [m, h, t]."""
        texts, there = self._read(X, mask)
        return self.weights_.attention(texts.cpu(), there.cpu()).numpy()

    def decision_function(self, X: Any, mask: Any = None) -> np.ndarray:
        """Scores: [m] for two classes, the log odds of the second; else [m, c]."""
        texts, there = self._read(X, mask)
        scores = computed(self.weights_, texts, there).cpu().numpy()
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any, mask: Any = None) -> np.ndarray:
        """Probability of each class, [m, c]."""
        return probabilities(self.decision_function(X, mask))

    def predict(self, X: Any, mask: Any = None) -> np.ndarray:
        """The class of each text, [m]."""
        scores = self.decision_function(X, mask)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]


def _texts(X: np.ndarray, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """X as [m, t, d], and the tokens that are there, [m, t]."""
    texts = X[:, None] if X.ndim == 2 else X
    if texts.ndim != 3:
        raise ValueError(f"X is [m, t, d] or [m, d], not {list(X.shape)}")
    there = np.ones(texts.shape[:2], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    check_consistent_length(texts, there)
    if there.shape != texts.shape[:2]:
        raise ValueError(f"the mask is {list(there.shape)}, and X has {list(texts.shape[:2])} tokens")
    if not there.any(1).all():
        raise ValueError(f"text {int(there.any(1).argmin())} has no tokens")
    check_finite(torch.from_numpy(texts), "activations")
    return texts, there


PROBE = Kind(
    name="attention-pooling",
    summary="a linear probe of an attention-weighted mean of each text's tokens",
    target="sequences",
    new=AttentionPoolingProbe,
    penalty="alpha",
    grid=(0.01, 0.1, 1.0, 10.0, 100.0),
    weights=PoolingWeights,
)
