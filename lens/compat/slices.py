"""Slices in TransformerLens's words: an int, (start, stop, step), a list of indices, or None for everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class Slice:
    """A part of one axis. An int takes the axis away, everything else keeps it.

    Raises:
        ValueError: it is none of these.
    """

    def __init__(self, input_slice: Any = None) -> None:
        self.slice: Any
        if input_slice is None:
            self.slice, self.mode = slice(None), "identity"
        elif isinstance(input_slice, slice | tuple):
            self.slice = slice(*input_slice) if isinstance(input_slice, tuple) else input_slice
            self.mode = "slice"
        elif isinstance(input_slice, int) and not isinstance(input_slice, bool):
            self.slice, self.mode = input_slice, "int"
        elif isinstance(input_slice, list | Tensor | np.ndarray):
            self.slice, self.mode = torch.as_tensor(input_slice), "array"
        else:
            raise ValueError(f"a slice is an int, a tuple, a list of indices or None, not {input_slice!r}")

    @classmethod
    def of(cls, given: Any) -> Slice:
        return given if isinstance(given, Slice) else cls(given)

    @classmethod
    def unwrap(cls, slice_input: Any) -> Slice:
        """The same, where an int keeps the axis, of length one."""
        if isinstance(slice_input, Slice):
            return slice_input
        return cls([slice_input] if isinstance(slice_input, int) else slice_input)

    def apply(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """This part of axis `dim`."""
        index: list[Any] = [slice(None)] * tensor.ndim
        index[dim] = self.slice.to(tensor.device) if isinstance(self.slice, Tensor) else self.slice
        return tensor[tuple(index)]

    def indices(self, max_ctx: int | None = None) -> np.ndarray:
        """The positions that this is, of an axis of length `max_ctx`.

        Raises:
            ValueError: the length is needed.
        """
        if self.mode == "int":
            return np.array([self.slice], dtype=np.int64)
        if max_ctx is None:
            raise ValueError("max_ctx is needed unless the slice is an int")
        part = self.slice.cpu().numpy() if isinstance(self.slice, Tensor) else self.slice
        return np.arange(max_ctx, dtype=np.int64)[part]

    def __repr__(self) -> str:
        return f"Slice: {self.slice} Mode: {self.mode}"
