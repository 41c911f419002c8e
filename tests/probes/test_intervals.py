"""Intervals of means against resampling done by hand."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score

from probes.intervals import resampled_means
from probes.refit import balance
from probes.scores import Resamples


def test_balanced_accuracy_is_computed_anew_in_each_resample() -> None:
    """Few rows of one class: fixed weights would give accuracies above 1."""
    rng = np.random.default_rng(0)
    y = np.array([0] * 46 + [1] * 7)
    told = np.where(rng.random(53) < 0.9, y, 1 - y)
    scores = torch.from_numpy((told == y) * balance(y)[y])
    found = resampled_means(scores[:, None], classes=y)[:, 0]
    counts = np.concatenate(list(Resamples.of(53, None, seed=0).weights()))
    by_hand = [balanced_accuracy_score(y, told, sample_weight=c) for c in counts if c[y == 1].sum()]
    both = found.numpy()[counts[:, y == 1].sum(1) > 0]
    np.testing.assert_allclose(both, by_hand, atol=1e-12)
    assert found.max() <= 1 + 1e-12
