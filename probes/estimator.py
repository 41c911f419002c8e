"""Estimators: how a probe is fitted. Each is a scikit-learn classifier whose answer is linear in the activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lens.registry import Registry


class LinearClassifier(Protocol):
    """scikit-learn's contract (`sklearn.utils.estimator_checks.check_estimator` passes), with linear scores.

    Scores are `X @ coef_.T + intercept_` in the units of the activations: one row of `coef_` [1, d] for two
    classes, positive for the second; one row per class [c, d] for more, the largest wins.
    """

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray

    def fit(self, X: Any, y: Any) -> Any: ...

    def predict(self, X: Any) -> np.ndarray: ...

    def get_params(self, deep: bool = True) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Estimator:
    """An entry of the registry `probes/estimators/`: what it is in one line, and how to make an unfitted one."""

    summary: str
    new: Callable[[], LinearClassifier]


ESTIMATORS = Registry("probes.estimators", "PROBE", Estimator, "estimator")


def estimators() -> list[str]:
    """The names of all estimators."""
    return ESTIMATORS.names()


def get_estimator(name: str) -> Estimator:
    """An estimator by name, `mass-mean` or `mass_mean`.

    Raises:
        ValueError: there is none of that name; the message gives the nearest.
    """
    return ESTIMATORS.get(name)
