"""One batch of texts through the model: the vectors of their rows at every site, and nothing else.

1. Texts are padded on the right; one forward reads all sites and stops at the deepest.
2. As the run passes a site, the vectors of the rows are picked and handed over there and then, so that no more than
   one site's activations are held.

Letters: b batch, p position, d width of a site, k rows of the batch, t tokens that are averaged in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lens.nearest import nearest, unknown
from lens.sites import NamesFilter, Site, resolve
from lens.taps import Halt, Taps

if TYPE_CHECKING:
    from lens.model import Transformer

MAX_TOKENS = 4096
"""A batch is no larger than this, padding included, unless a single text is."""


def probed_sites(model: Transformer, sites: NamesFilter) -> list[str]:
    """The full names that `sites` stands for, in firing order; of an encoder–decoder, those of its encoder, which is
    what reads texts.

    Raises:
        ValueError: a name that cannot fire in this model, nothing at all, a site without one vector per position, or
            one whose positions are not the text's.
    """
    _check_shorthand(sites, model)
    names = resolve(sites, model.sites)
    if not names:
        raise ValueError("no sites are named")
    for name in names:
        if not _has_vectors(model.sites[name]):
            raise ValueError(
                f"{name!r} cannot be probed: it is [{model.sites[name].shape}], and a probe reads a vector per "
                "position, such as resid_post or z"
            )
    return names if model.cfg.source is None else _where_texts_are(names, sites, model)


def _where_texts_are(names: list[str], sites: NamesFilter, model: Transformer) -> list[str]:
    """Those of `names` whose positions are a text's tokens; refuses what was named in full and has others.

    They are the encoder's, or where that reads with latents, the decoder's.
    """
    assert model.cfg.source is not None
    latents = model.cfg.source.embed.latents is not None
    here, there = ("decoder", "encoder") if latents else ("encoder", "decoder")
    known = [
        name
        for name, site in model.sites.items()
        if (site.part == "source") != latents and _has_vectors(site)
    ]
    asked = {
        name for name in (sites if isinstance(sites, list | tuple) else [sites]) if isinstance(name, str)
    }
    read = [name for name in names if name in known]
    others = [name for name in names if name not in read]
    refused = [name for name in others if name in asked] or ([] if read else others)
    if refused:
        near = nearest(refused[0].replace(there, here, 1), known, 1) or known[-1:]
        raise ValueError(
            f"{refused[0]!r} cannot be probed: the tokens of texts are the positions of {model.name}'s {here}; name a "
            f"site there, such as {near[0]!r}"
        )
    return read


def _check_shorthand(sites: NamesFilter, model: Transformer) -> None:
    """A shorthand that does not exist is told with the nearest shorthand that can be probed."""
    for name in [sites] if isinstance(sites, str) else sites if isinstance(sites, list | tuple) else []:
        if not isinstance(name, str) or "." in name or name.startswith("hook_") or name in model.sites:
            continue
        try:
            resolve(name, model.sites)
        except ValueError:
            found = {site.name.rsplit(".", 1)[-1] for site in model.sites.values() if _has_vectors(site)}
            known = {short.removeprefix("hook_") for short in found}
            raise ValueError(unknown("site", name, known, of="this model")) from None


def _has_vectors(site: Site) -> bool:
    axes = site.shape.split()
    return axes[:2] == ["batch", "pos"] and len(axes) > 2 and "key" not in axes and not site.conditional


def batches(texts: np.ndarray, lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Texts cut into batches of similar length: at most `size` of them, and at most `MAX_TOKENS` with padding.

    Args:
        texts: text numbers.
        lengths: tokens of each of them.
    """
    order = np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order):
        stop = first + 1
        while stop < min(first + size, len(order)):
            if lengths[order[stop]] * (stop + 1 - first) > MAX_TOKENS:
                break
            stop += 1
        yield texts[order[first:stop]]
        first = stop


def read(
    model: Transformer,
    ids: Sequence[Sequence[int]],
    row: np.ndarray,
    tokens: np.ndarray,
    sites: Sequence[str],
    give: Callable[[str, Tensor], None],
) -> None:
    """One forward; each site's vectors [k, d] are given as the run passes it: on the CPU, float32 or float64.

    Args:
        ids: b texts.
        row: int64 [k], the text of each row, as an index into `ids`.
        tokens: int64 [k, 2], its tokens [first, stop), averaged if there are several.
    """
    device = model.device
    lengths = torch.tensor([len(text) for text in ids])
    padded = torch.zeros(len(ids), int(lengths.max()), dtype=torch.long)
    for i, text in enumerate(ids):
        padded[i, : len(text)] = torch.tensor(text)
    mask = torch.arange(padded.shape[1]) < lengths[:, None]  # [b, p]
    counts = torch.from_numpy(tokens[:, 1] - tokens[:, 0])
    first = torch.from_numpy(tokens[:, 0]) - (counts.cumsum(0) - counts)
    text_at = torch.from_numpy(row).repeat_interleave(counts).to(device)  # [t]
    token_at = (torch.arange(int(counts.sum())) + first.repeat_interleave(counts)).to(device)
    several = bool((counts > 1).any())
    counts = counts.to(device)

    def keep(site: str, x: Tensor) -> Tensor:
        picked = x[text_at, token_at].flatten(1)  # [t, d]
        picked = picked if picked.dtype == torch.float64 else picked.float()
        give(site, (torch.segment_reduce(picked, "mean", lengths=counts) if several else picked).cpu())
        return x.new_empty(0)

    taps = Taps(sites, keep=keep, halt=True)
    with suppress(Halt):
        model(padded.to(device), attention_mask=None if bool(mask.all()) else mask.to(device), taps=taps)
    assert len(taps.seen) == len(sites)
