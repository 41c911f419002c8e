"""What a run was asked for, checked before anything runs. Every message names the operand and what would do.

Letters: b batch, p position, k cached and new positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lens import text
from lens.config import ModelConfig
from lens.kv import KeyValues
from lens.sites import NamesFilter, Site, resolve

if TYPE_CHECKING:
    from lens.model import Transformer


def span(cfg: ModelConfig, start: int, stop: int | None) -> tuple[int, int]:
    """The first layer to run and the one after the last."""
    n = cfg.n_layers
    last = n if stop is None else stop + n if stop < 0 else stop
    if not 0 <= start <= n:
        raise ValueError(f"start_at_layer is {start} and {cfg.name} has layers 0 to {n - 1}")
    if not start <= last <= n:
        raise ValueError(f"stop_at_layer is {stop}; from layer {start} on it can be {start} to {n}")
    return start, last


def fires(site: Site, start: int, stop: int, n_layers: int) -> bool:
    """Can this site fire in a run of layers `start` to `stop`?"""
    if site.layer is not None:
        return start <= site.layer < stop
    return start == 0 if site.name in ("hook_embed", "hook_pos_embed") else stop == n_layers


def check_sites(model: Transformer, names: Iterable[str], start: int, stop: int) -> None:
    """Raise unless every name is a site of the model that can fire between these layers."""
    for name in names:
        if name not in model.sites:
            resolve([name], model.sites)  # raises with the nearest names
            raise ValueError(f"{name!r} is a shorthand; taps take full site names")
        if not fires(model.sites[name], start, stop, model.cfg.n_layers):
            raise ValueError(f"{name!r} cannot fire in a run of layers {start} to {stop - 1}")


def reads(model: Transformer, names_filter: NamesFilter, start: int, stop: int) -> list[str]:
    """The sites a filter stands for, less those that a shorthand or function chose and this run does not reach."""
    named = names_filter if isinstance(names_filter, list | tuple | set | frozenset) else [names_filter]
    return [
        name
        for name in resolve(names_filter, model.sites)
        if name in named or fires(model.sites[name], start, stop, model.cfg.n_layers)
    ]


def inputs(model: Transformer, given: Any, mask: Tensor | None, start: int) -> tuple[Tensor, Tensor | None]:
    """Ids [b, p] (or a residual stream [b, p, d]) and the attention mask that goes with them."""
    if isinstance(given, Tensor) and given.is_floating_point():
        if given.ndim != 3 or given.shape[-1] != model.cfg.d_model:
            raise ValueError(
                f"a residual stream is [batch, pos, {model.cfg.d_model}], not {tuple(given.shape)}"
            )
        return given, mask
    if start > 0:
        raise ValueError(f"a run that starts at layer {start} takes a residual stream [batch, pos, d_model]")
    if not isinstance(given, Tensor):
        ids, own = text.to_tokens(model, given)
        mask = own if mask is None else mask
    else:
        ids = given.to(model.device)
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.ndim != 2 or ids.shape[1] == 0 or ids.shape[0] == 0:
        raise ValueError(f"token ids must be [batch, pos] with at least one of each, not {tuple(ids.shape)}")
    low, high = int(ids.min()), int(ids.max())
    d_vocab = model.cfg.embed.d_vocab
    if low < 0 or high >= d_vocab:
        bad = low if low < 0 else high
        raise ValueError(f"token id {bad} is outside the vocabulary of {model.cfg.name} (0 to {d_vocab - 1})")
    return ids, mask


def check_length(cfg: ModelConfig, total: int) -> None:
    """Raise where a text of `total` tokens does not fit the context."""
    learned = cfg.embed.n_positions
    limit = cfg.n_ctx if learned is None else min(cfg.n_ctx, learned)
    if total > limit:
        raise ValueError(f"the prompt has {total} tokens and {cfg.name} takes at most {limit}")


def validity(
    mask: Tensor | None, past: KeyValues | None, n: int, batch: int, device: torch.device
) -> Tensor | None:
    """Where tokens are real over cached and new positions, [b, k]; None where all are."""
    cached = None if past is None or past.valid is None else past.valid.repeat(batch // len(past.valid), 1)
    length = 0 if past is None else past.length
    if mask is None:
        if cached is None:
            return None
        mask = torch.ones(batch, n, dtype=torch.bool)
    mask = mask.to(device=device, dtype=torch.bool)
    if mask.ndim == 2 and mask.shape[1] == n and length:
        before = mask.new_ones(batch, length) if cached is None else cached
        mask = torch.cat([before, mask], 1)
    if mask.shape != (batch, length + n):
        raise ValueError(
            f"attention_mask is {tuple(mask.shape)} and the run has {(batch, length + n)} positions"
        )
    return None if bool(mask.all()) else mask


def slicer(sites: Mapping[str, Site], pos_slice: int | slice) -> Callable[[str, Tensor], Tensor]:
    """Keeps the given query positions of whatever has a position axis; an int keeps the axis, of length one."""
    index = slice(pos_slice, pos_slice + 1 or None) if isinstance(pos_slice, int) else pos_slice

    def keep(name: str, x: Tensor) -> Tensor:
        axes = sites[name].shape.split()
        return x[(slice(None),) * axes.index("pos") + (index,)] if "pos" in axes else x

    return keep
