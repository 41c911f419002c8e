"""What probes with a hidden layer or attention share: minimising a smooth loss over few parameters, from one seed;
and what their weights are once they are fitted.

Letters: n rows, d features, c classes, k outputs: one for two classes, else c.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from torch import Tensor

REST = 1e-6  # a step that changes the loss by less, in nats per row, is rest


def seeded(random_state: Any) -> torch.Generator:
    """A generator from what scikit-learn takes for a random state; always on the CPU, so that devices agree."""
    seed = 0 if random_state is None else check_random_state(random_state).randint(2**31 - 1)
    return torch.Generator().manual_seed(int(seed))


def descend(loss: Callable[[], Tensor], parameters: Sequence[Tensor], max_iter: int, tol: float) -> int:
    """L-BFGS with a strong Wolfe line search on the whole batch; the steps taken.

    Warns (`ConvergenceWarning`) where the largest gradient did not come below `tol`, nor the loss to rest.
    """
    optimiser = torch.optim.LBFGS(
        list(parameters),
        max_iter=max_iter,
        max_eval=3 * max_iter,
        tolerance_grad=tol,
        tolerance_change=REST,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(evaluate)
    steps = int(optimiser.state[parameters[0]]["n_iter"])
    if steps >= max_iter:
        warnings.warn(
            f"the fit stopped after max_iter={max_iter} steps, before it came to rest",
            ConvergenceWarning,
            stacklevel=3,
        )
    return max(steps, 1)


def standardisation(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and inverse standard deviation [d] of rows [n, d], 0 where a feature does not vary."""
    mean, deviation = rows.mean(0), rows.std(0)
    varies = deviation > 1e-12 * np.abs(mean)
    return mean, np.where(varies, 1 / np.where(varies, deviation, 1.0), 0.0)


def one_output(rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [c, …] and bias [c] of scores, with those of two classes made one: the log odds of the second."""
    return (rows[1:] - rows[:1], bias[1:] - bias[:1]) if len(rows) == 2 else (rows, bias)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Of each class, [n, c], from scores [n] of two classes or [n, c]."""
    told = torch.from_numpy(scores)
    if told.ndim == 1:
        return torch.stack([torch.sigmoid(-told), torch.sigmoid(told)], 1).numpy()
    return told.softmax(1).numpy()
