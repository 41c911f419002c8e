"""What a frozen probe computes: tensors, and how they make scores of activations.

A kind that is not linear says in its own file what its weights are: a frozen dataclass, each field a tensor annotated
with its axes, and a method that makes scores. Weights are in the units of the activations: standardisation is folded
into them, so that no scaler has to be kept beside them. On disk they lie tensor by tensor, under the fields' names.

Letters: n rows, m texts, t tokens of the longest text, d width of the site, k outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, get_type_hints, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Weights(Protocol):
    """The tensors of a fitted probe, float64 on the CPU. Of their axes `d` is the site's width and `k` the outputs.

    Two classes have one output, positive for the second; more have one each, and the largest wins.
    """

    TEXTS: ClassVar[bool]
    """Whether it reads whole texts [m, t, d] with a mask [m, t] of the tokens that are there, or else rows [*n, d]."""

    def scores(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[*n, k], or [m, k] of texts; x has the type and the device of the weights."""
        ...


@dataclass(frozen=True, eq=False)
class Linear:
    """x coefᵀ + intercept."""

    TEXTS: ClassVar[bool] = False

    coef: Float[Tensor, "k d"]
    intercept: Float[Tensor, " k"]

    def scores(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x @ self.coef.T + self.intercept


def axes_of(kind: type[Any]) -> dict[str, tuple[str, ...]]:
    """The tensors of a sort of weights, and the letters of their axes."""
    hints = get_type_hints(kind)
    return {field.name: tuple(hints[field.name].dim_str.split()) for field in fields(kind)}


def tensors_of(weights: Weights) -> dict[str, Tensor]:
    """The tensors by name."""
    return {name: getattr(weights, name) for name in axes_of(type(weights))}


def sizes_of(kind: type[Any], tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The size of every letter.

    Raises:
        ValueError: a tensor that is not there or not floating, or axes that are not those of `kind`; it is named.
    """
    sizes: dict[str, int] = {}
    for name, axes in axes_of(kind).items():
        if name not in tensors:
            raise ValueError(f"there is no tensor {name!r}")
        x = tensors[name]
        if not x.is_floating_point() or x.ndim != len(axes):
            raise ValueError(f"{name} is {x.dtype} {list(x.shape)}, and not floating [{' '.join(axes)}]")
        for letter, size in zip(axes, x.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                told = ", ".join(f"{one} is {sizes[one]}" for one in axes)
                raise ValueError(f"{name} is {list(x.shape)}, and not [{' '.join(axes)}], where {told}")
    return sizes


def built(kind: type[Any], tensors: Mapping[str, Tensor]) -> Weights:
    """Weights of that sort from their tensors by name.

    Raises:
        ValueError: as for `sizes_of`.
    """
    sizes_of(kind, tensors)
    return kind(**{name: tensors[name] for name in axes_of(kind)})


def computed(weights: Weights, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The scores of activations, in float64 on the device of x (float32 where that has none, such as mps)."""
    dtype = torch.float32 if x.device.type == "mps" else torch.float64
    here = type(weights)(**{name: part.to(x.device, dtype) for name, part in tensors_of(weights).items()})
    return here.scores(x.to(dtype), None if mask is None else mask.to(x.device))
