"""Kinds of probes: how each is fitted, and what it is fitted to. Every kind is a scikit-learn estimator, torch inside.

Letters: n rows, d features, m texts, t tokens of the longest text, k outputs of a probe, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, Protocol

from lens.nearest import unknown
from lens.registry import Registry
from probes.weights import Linear, Weights

LINEAR = "linear"
"""What the weights of all linear kinds are saved as."""

Target = Literal["classes", "values", "pairs", "heads", "sequences"]


class Estimator(Protocol):
    """scikit-learn's contract: `fit` returns the estimator itself, parameters are those of `__init__`.

    Structural probes have `transform`, all others `predict`.
    """

    def fit(self, X: Any, y: Any) -> Any: ...

    def get_params(self, deep: bool = True) -> dict[str, Any]: ...

    def set_params(self, **params: Any) -> Any: ...


@dataclass(frozen=True)
class Kind:
    """An entry of the registry `probes/estimators/`.

    Args:
        name: the file's name, with `-` for `_`.
        summary: what it is, in one line.
        target: what `fit(X, y)` takes as y.
            "classes": the class of each row, [n]. "values": numbers, [n] or [n, k].
            "pairs": the class of each row, and `fit(X, y, pairs=[k, 2])`, rows that are each other's contrast.
            "heads": for each row the row of its syntactic head, −1 for a root, [n].
            "sequences": the class of each text; X is [m, t, d] with `fit(X, y, mask=[m, t])`.
        new: makes an unfitted estimator; its keywords are the estimator's parameters.
        penalty: the parameter that regularises it: "C" (inverse strength), "alpha" (strength) or None.
        grid: values of that parameter worth trying, in increasing order.
        many: fits many problems to the same activations at once: (x [n, d], problems, options, progress) → a
            `probes.problem.Fit` each. None: they are fitted one by one.
        linear: the fitted probe is `X @ coef_.T + intercept_`, with `coef_` [k, d] in the units of X.
        weights: of kinds that are not linear, what the fitted estimator has as `weights_`: a sort of
            `probes.weights.Weights`.
    """

    name: str
    summary: str
    target: Target
    new: Callable[..., Any]
    penalty: Literal["C", "alpha"] | None = None
    grid: tuple[float, ...] = ()
    linear: bool = False
    many: Callable[..., list[Any]] | None = None
    weights: type[Any] | None = None

    def __post_init__(self) -> None:
        assert self.linear == (self.weights is None), f"{self.name} is linear, or says what its weights are"

    @property
    def directed(self) -> bool:
        """Whether its probes have a direction in activation space: linear ones, but for low-rank maps."""
        return self.linear and self.target != "heads"

    def check_options(self, options: Mapping[str, Any] | None) -> None:
        """Raise a ValueError that names the nearest unless every option is a parameter of the estimator."""
        known = [name for name in signature(self.new).parameters if name != "self"]
        for name in options or {}:
            if name not in known:
                raise ValueError(unknown("option", name, known, of=f"{self.name} probes"))


ESTIMATORS = Registry("probes.estimators", "PROBE", Kind, "estimator")


def estimators() -> list[str]:
    """The names of all kinds."""
    return ESTIMATORS.names()


def get_estimator(name: str) -> Kind:
    """A kind by name, `mass-mean` or `mass_mean`.

    Raises:
        ValueError: there is none of that name; the message gives the nearest.
    """
    return ESTIMATORS.get(name)


def directed() -> str:
    """The kinds whose probes have a direction, for messages: "ccs, k-sparse, …"."""
    return ", ".join(name for name in estimators() if get_estimator(name).directed)


def sort_of_weights(name: str) -> type[Any]:
    """What a saved probe computes: "linear", or the kind that says so in its file.

    Raises:
        ValueError: there is no such kind, or it is linear.
    """
    known = {LINEAR: Linear} | {
        kind.name: kind.weights for kind in map(get_estimator, estimators()) if kind.weights is not None
    }
    if name not in known:
        raise ValueError(unknown("sort of weights", name, known))
    return known[name]


def name_of_weights(weights: Weights) -> str:
    """What `sort_of_weights` takes.

    Raises:
        ValueError: weights of no kind in `probes/estimators/`, which could not be read again.
    """
    for name in (LINEAR, *(name for name in estimators() if get_estimator(name).weights is not None)):
        if isinstance(weights, sort_of_weights(name)):
            return name
    raise ValueError(f"{type(weights).__name__} is the weights of no kind of probes.estimators")
