"""What a model reads, in one value: token ids with their padding and types.

Letters: b batch, p position, k cached and new positions, d d_model. Shapes are checked when a run begins
(`lens.arguments`), so that what is wrong is named there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """Inputs of one run; `Transformer.to_inputs` makes them, and every way of running takes them.

    Either `ids`, or the `stream` that a run starts from. `mask`: True (1) where a token is real, over cached
    and new positions; None where all are. `types`: 0 for the first text of a pair, 1 for the second; None
    where all are 0. `global_tokens`: True at tokens that see all others and are seen by all (Longformer).
    """

    ids: Tensor | None = None  # [b, p]
    stream: Tensor | None = None  # [b, p, d]
    mask: Tensor | None = None  # [b, k]
    types: Tensor | None = None  # [b, p]
    global_tokens: Tensor | None = None  # [b, p]

    @property
    def n_rows(self) -> int:
        return self._given.shape[0]

    @property
    def n(self) -> int:
        """How many positions there are."""
        return self._given.shape[1]

    @property
    def _given(self) -> Tensor:
        given = self.ids if self.stream is None else self.stream
        if given is None:
            raise ValueError("inputs need token ids or a residual stream")
        return given

    def to(self, device: torch.device | str) -> ModelInputs:
        """The same on `device`."""
        tensors = {name: getattr(self, name) for name in TENSORS}
        return ModelInputs(**{name: None if t is None else t.to(device) for name, t in tensors.items()})


TENSORS = ("ids", "stream", "mask", "types", "global_tokens")
