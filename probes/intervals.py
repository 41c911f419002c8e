"""Means and their bootstrap intervals over rows or groups.

Letters: n row, r resample; `...` any further axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from probes.scores import LEVEL, Resamples


def resampled_means(
    values: Tensor,
    groups: Sequence[tuple[str, ...]] | None = None,
    *,
    weight: Tensor | None = None,
    classes: np.ndarray | None = None,
    seed: int = 0,
) -> Tensor:
    """Means over the first axis of [n, ...] in each resample, float64 [r, ...].

    Args:
        weight: what each row counts [n], such as its tokens.
        classes: of each row [n]: in every resample each class has the weight that it has in all rows. So a mean of
            rows that count by class (balanced accuracy) stays one.
    """
    plain = values.detach().double().cpu().reshape(len(values), -1)
    scale = torch.ones(len(plain), dtype=torch.float64) if weight is None else weight.double().cpu()
    found = []
    for block in Resamples.of(len(plain), groups, seed=seed).weights():
        counts = torch.from_numpy(block) * scale
        for own in [] if classes is None else [torch.from_numpy(classes == k) for k in np.unique(classes)]:
            drawn = counts[:, own].sum(1, keepdim=True)
            counts[:, own] *= torch.where(drawn > 0, scale[own].sum() / drawn, 0)
        found.append(counts @ plain / counts.sum(1, keepdim=True))
    return torch.cat(found).view(-1, *values.shape[1:])


def percentiles(resamples: Tensor, level: float = LEVEL) -> tuple[Tensor, Tensor]:
    """The ends of the central interval over the first axis of [r, ...]."""
    low, high = np.quantile(resamples.numpy(), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return torch.as_tensor(low), torch.as_tensor(high)


def mean_interval(
    values: Tensor,
    groups: Sequence[tuple[str, ...]] | None = None,
    *,
    weight: Tensor | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """The 95% interval of the mean over the first axis of [n, ...], over groups where there are any."""
    return percentiles(resampled_means(values, groups, weight=weight, seed=seed))
