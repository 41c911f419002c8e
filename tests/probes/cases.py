"""Problems on which batched solvers and scikit-learn are compared."""

from __future__ import annotations

import numpy as np

NAMES = ("well", "ill", "separable", "wide", "constant", "unbalanced")


def features(name: str, seed: int = 0) -> np.ndarray:
    """Activations [n, d] in their own units: offsets and scales of all sizes."""
    rng = np.random.default_rng(seed)
    n, d = (60, 90) if name == "wide" else (240, 24)
    x = rng.normal(size=(n, d))
    if name == "ill":  # correlated features: the standardised Gram matrix has a condition of about 1e8
        x = x @ np.diag(np.logspace(0, -4, d)) @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    if name == "constant":
        x[:, 3] = 0.1
        x[:, 7] = -1e6
    return x * rng.uniform(0.01, 100, d) * (1 if name != "ill" else 1.0) + rng.normal(size=d) * 50


def labels(name: str, x: np.ndarray, classes: int = 2, seed: int = 1) -> np.ndarray:
    """Classes [n] that the features tell in part (wholly, where separable)."""
    rng = np.random.default_rng(seed)
    z = standardised(x)
    scores = z @ rng.normal(size=(z.shape[1], classes)) / np.sqrt(z.shape[1])
    if name != "separable":
        scores = scores + rng.normal(size=scores.shape)
    if name == "unbalanced":
        scores[:, 0] += 2.2
    return scores.argmax(1)


def standardised(x: np.ndarray) -> np.ndarray:
    """What probes are fitted to."""
    deviation = x.std(0)
    varies = deviation > 1e-12 * np.abs(x.mean(0))
    return np.where(varies, (x - x.mean(0)) / np.where(varies, deviation, 1.0), 0.0)
