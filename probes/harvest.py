"""Activations of many texts, one vector per text and site.

1. Texts are run in batches of similar length, padded on the right.
2. One forward per batch reads all sites and stops at the deepest; what is kept of a site is one vector per
   text, taken as the run passes it, so that no batch's activations are held at all positions.

Letters: n texts, b batch, p position, d width of a site.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lens.nearest import unknown
from lens.progress import Progress, silent
from lens.sites import NamesFilter, Site, resolve
from lens.taps import Halt, Taps

if TYPE_CHECKING:
    from lens.model import Transformer

Position = Literal["last", "mean"]


def harvest(
    model: Transformer,
    texts: Sequence[str],
    sites: NamesFilter,
    *,
    position: str = "last",
    batch_size: int = 32,
    progress: Progress = silent,
) -> dict[str, Tensor]:
    """Activations [n, d] of every text at every site, by full site name in firing order, on the CPU.

    The whole result is held in memory: n × d × 4 bytes for each site (float32; float64 for a float64 model).

    Args:
        texts: n texts, none of them empty.
        sites: a site name, a shorthand ("resid_post" for every layer), a list of those, or a function of the
            full name. Axes after the position are flattened: [head, d_head] becomes d.
        position: "last", the last token of each text, or "mean" over its tokens (with the beginning-of-text
            token where the tokenizer adds one).
        batch_size: texts per forward; only speed and memory depend on it.

    Raises:
        ValueError: an unknown site or position, a site that has no vector per position, no texts, a text that
            is empty or longer than the context, or activations that are not finite; the message names the text
            and the site.
    """
    check_position(position)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    names = probed_sites(model, sites)
    rows = _token_rows(model, texts)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[str, Tensor] = {}
    progress(0, len(rows), "reading activations")
    for start in range(0, len(rows), batch_size):
        chosen = order[start : start + batch_size]
        for name, x in _read(model, [rows[i] for i in chosen], names, position).items():
            _check_finite(x, name, chosen, texts)
            if name not in found:
                found[name] = x.new_empty(len(rows), x.shape[1])
            found[name][chosen] = x
        progress(min(start + batch_size, len(rows)), len(rows), "reading activations")
    return {name: found[name] for name in names}


def check_position(position: str) -> None:
    """Raise a ValueError unless `position` is one that `harvest` takes."""
    if position not in get_args(Position):
        raise ValueError(unknown("position", position, get_args(Position)))


def probed_sites(model: Transformer, sites: NamesFilter) -> list[str]:
    """The full names that `sites` stands for, in firing order.

    Raises:
        ValueError: a name that cannot fire in this model, nothing at all, or a site without one vector per
            position.
    """
    names = resolve(sites, model.sites)
    if not names:
        raise ValueError("no sites are named")
    for name in names:
        if not _has_vectors(model.sites[name]):
            raise ValueError(
                f"{name!r} cannot be probed: it is [{model.sites[name].shape}], and a probe reads a vector per "
                "position, such as resid_post or z"
            )
    return names


def _has_vectors(site: Site) -> bool:
    axes = site.shape.split()
    return axes[:2] == ["batch", "pos"] and len(axes) > 2 and "key" not in axes and not site.conditional


def _token_rows(model: Transformer, texts: Sequence[str]) -> list[list[int]]:
    from lens import arguments
    from lens.text import tokenizer_of

    if isinstance(texts, str) or not len(texts):
        raise ValueError("expected a list of texts with at least one text")
    tokenizer = tokenizer_of(model)
    rows = []
    for i, text in enumerate(texts):
        try:
            row = list(tokenizer.prompt(text))
            arguments.check_length(model.cfg, len(row))
        except ValueError as error:
            raise ValueError(f"text {i} {_short(text)}: {error}") from error
        if not row or not text:
            raise ValueError(f"text {i} is empty: it has no tokens")
        rows.append(row)
    return rows


def _read(model: Transformer, rows: list[list[int]], names: list[str], position: str) -> dict[str, Tensor]:
    """One forward: a vector per row and site, on the CPU."""
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    mask = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]  # [b, p]

    def keep(site: str, x: Tensor) -> Tensor:
        x = x.flatten(2)  # [b, p, d]
        if position == "last":
            picked = x[torch.arange(len(rows), device=x.device), lengths - 1]
            return picked if picked.dtype == torch.float64 else picked.float()
        x = x if x.dtype == torch.float64 else x.float()
        return x.masked_fill(~mask[..., None], 0).sum(1) / lengths[:, None].to(x.dtype)

    taps = Taps(names, keep=keep, halt=True)
    with suppress(Halt):
        model(ids.to(model.device), attention_mask=None if bool(mask.all()) else mask, taps=taps)
    return {name: x.cpu() for name, x in taps.seen.items()}


def _check_finite(x: Tensor, site: str, chosen: list[int], texts: Sequence[str]) -> None:
    finite = x.isfinite().all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        what = "NaN" if bool(x[row].isnan().any()) else "infinite"
        i = chosen[row]
        raise ValueError(f"the activation of text {i} {_short(texts[i])} at {site!r} is {what}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
