"""Sparse attention: which keys a query may look at (Sparse Transformers, Child et al. 2019, arXiv 1904.10509, §4).

A pattern has a near part, of neighbours, and a far one, of positions spread over the text; a layer has one of them or
both. What is said here holds in both directions, and a causal mask comes on top. Every position sees itself.

Letters: b batch, p query position, k key position, both counted in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Part = Literal["both", "near", "far"]


@dataclass(frozen=True, kw_only=True)
class Strided:
    """Near: up to `stride` positions away. Far: all that are a multiple of `stride` away (§4.3)."""

    stride: int
    part: Part = "both"
    kind: Literal["strided"] = "strided"

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f"a stride is at least 1, not {self.stride}")

    def sees(self, q: Int[Tensor, "b p 1"], k: Int[Tensor, "b 1 k"]) -> Bool[Tensor, "b p k"]:
        """True where the query looks at the key."""
        apart = q - k
        return _chosen(self.part, apart.abs() <= self.stride, apart % self.stride == 0) | (apart == 0)

    @property
    def words(self) -> str:
        near, far = f"{self.stride} positions around", f"every {self.stride} positions"
        return _words(self.part, near, far)


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Near: the same block of `block` positions. Far: the last `summary` ones of every block (§4.3).

    With the near part alone, attention is local to blocks.
    """

    block: int
    summary: int = 1
    part: Part = "both"
    kind: Literal["fixed"] = "fixed"

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"a block has at least 1 position, not {self.block}")
        if not 1 <= self.summary <= self.block:
            raise ValueError(
                f"a block of {self.block} ends with 1 to {self.block} of them, not {self.summary}"
            )

    def sees(self, q: Int[Tensor, "b p 1"], k: Int[Tensor, "b 1 k"]) -> Bool[Tensor, "b p k"]:
        """True where the query looks at the key."""
        same = q // self.block == k // self.block
        last = (k % self.block >= self.block - self.summary).expand_as(same)
        return _chosen(self.part, same, last) | (q == k)

    @property
    def words(self) -> str:
        last = "the last" if self.summary == 1 else f"the last {self.summary}"
        return _words(self.part, f"their block of {self.block}", f"{last} of every block of {self.block}")


Sparsity = Strided | Fixed


def _chosen(part: Part, near: Tensor, far: Tensor) -> Tensor:
    return near if part == "near" else far if part == "far" else torch.logical_or(near, far)


def _words(part: Part, near: str, far: str) -> str:
    return near if part == "near" else far if part == "far" else f"{near} and {far}"
