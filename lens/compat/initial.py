"""First weights of a model that is made from a configuration, as TransformerLens draws them.

Letters: i inputs of a map, o outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lens.compat.config import INIT_MODES, HookedTransformerConfig
from lens.compat.entries import Entry
from lens.compat.layout import entries
from lens.config import ModelConfig
from lens.nearest import unknown
from lens.parameters import aliases_of, shapes_of
from lens.processing import State


def initial_weights(cfg: ModelConfig, c: HookedTransformerConfig) -> State:
    """Random matrices, norms that are the identity and biases of zero, under our names.

    "gpt2": normal with standard deviation `initializer_range`. "xavier_…" (√(6 / (i + o)) uniform, √(2 / (i + o))
    normal) and "kaiming_…" (√(6 / i), √(2 / i)) are times `initializer_range`. With `seed`, the numbers are those of
    TransformerLens on a CPU; without, they come from torch's random state.

    Raises:
        ValueError: there is no such `init_mode`.
    """
    if c.init_mode not in INIT_MODES:
        raise ValueError(unknown("init_mode", c.init_mode, INIT_MODES))
    generator = None if c.seed is None else torch.Generator().manual_seed(c.seed)
    shapes, found = shapes_of(cfg), State()
    for entry in sorted(entries(cfg), key=_place):
        if entry.ours not in shapes:
            continue
        shape = shapes[entry.ours]
        if not _random(entry):
            found[entry.ours] = torch.zeros(shape) if entry.ours.endswith(".bias") else torch.ones(shape)
        else:
            theirs = torch.empty(entry.there(torch.empty(shape)).shape, dtype=c.dtype)
            found[entry.ours] = entry.here(_drawn(theirs, c, generator))
    found |= {name: found[same] for name, same in aliases_of(cfg).items() if same in found}
    return {name: x.to(c.dtype) for name, x in found.items()}


def _random(entry: Entry) -> bool:
    """Is this a matrix, rather than a bias or a part of a norm?"""
    name = entry.theirs.rsplit(".", 1)[-1]
    matrix = name.lstrip("_").startswith("W") or "rel_pos_bias" in entry.theirs
    return matrix and not entry.norm and not entry.ours.endswith(".bias")


def _place(entry: Entry) -> tuple[int, ...]:
    """Where TransformerLens draws a weight: by layer, and W_O before keys."""
    parts = entry.theirs.split(".")
    if parts[0] != "blocks":
        return (-1, 0, 0) if "embed" in parts[0] and parts[0] != "unembed" else (10**6, 0, 0)
    order = (
        ("W_Q", "W_O", "_W_K", "_W_V", "W_K", "W_V") if parts[2] == "attn" else ("W_in", "W_out", "W_gate")
    )
    rank = order.index(parts[-1]) if parts[-1] in order else len(order)
    return (int(parts[1]), parts[2] == "mlp", rank)


def _drawn(x: Tensor, c: HookedTransformerConfig, generator: torch.Generator | None) -> Tensor:
    gain, (i, o) = c.initializer_range, fans(x.shape)
    if c.init_mode == "gpt2":
        return x.normal_(0, gain, generator=generator)
    scheme, kind = c.init_mode.split("_")
    variance = gain**2 * (2 / (i + o) if scheme == "xavier" else 2 / i)
    if kind == "normal":
        return x.normal_(0, math.sqrt(variance), generator=generator)
    bound = math.sqrt(3 * variance)
    return x.uniform_(-bound, bound, generator=generator)


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Inputs and outputs of a map [i, o], of heads [h, i, o], or of a vector."""
    if len(shape) < 2:
        return 1, shape[0]
    if len(shape) == 2:
        return shape[0], shape[1]
    return shape[-2], shape[-1] * shape[0]
