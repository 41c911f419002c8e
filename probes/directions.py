"""Directions of the residual stream: a plain vector, or whatever a probe says its direction is.

Letters: d width.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Directed(Protocol):
    """Has a direction, as a fitted probe has."""

    def direction(self, name: str | None = None) -> Tensor: ...


def unit(direction: Any, width: int, name: str | None = None) -> Float[Tensor, " d"]:
    """The unit vector [d] of a direction, float64 on the CPU.

    Args:
        direction: a vector [d] of any length, or something that has `.direction(name)`.
        width: d of the site that it is for.
        name: which of a probe's directions; None where it has one.

    Raises:
        ValueError: neither of these, another width, zero, or not finite.
    """
    if isinstance(direction, Directed):
        vector = direction.direction(name)
    elif isinstance(direction, Tensor) and name is None:
        vector = direction
    else:
        raise ValueError(
            f"a direction is a vector [{width}] or a probe, not {type(direction).__name__}"
            + (f" with the name {name!r}" if isinstance(direction, Tensor) else "")
        )
    vector = vector.detach().cpu().double()
    if vector.shape != (width,):
        raise ValueError(f"the direction is {list(vector.shape)}, and the site {width} wide")
    length = vector.norm()
    if not bool(torch.isfinite(length)) or float(length) == 0:
        raise ValueError("the direction is zero or not finite")
    return vector / length
