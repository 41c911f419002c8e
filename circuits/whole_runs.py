"""Exact patching of models whose blocks are not ours: one whole run for each group of patches.

What `moves` and `climb` do with blocks, runs with edits do here: a batch holds several patches of one activation, each
in rows of its own, and nothing below the patch is saved.

Letters: n pair, t position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circuits.moves import UNITS, Where, full_site
from circuits.sweep import Parts
from lens.taps import Taps

if TYPE_CHECKING:
    from circuits.ablation import Source
    from circuits.metrics import Metric
    from circuits.suffix import Suffix

Key = tuple[int, ...]
Patch = tuple[Key, Tensor, int | None]
"""A patch: its key, the positions [n, t], and the head or neuron."""


class WholeRuns:
    """One batch's runs, as `moves.Moves` has them: `base`, `clean` and `ablated` are metrics [n]."""

    def __init__(self, source: Source, suffix: Suffix, where: Where, metric: Metric, denoise: bool) -> None:
        self.suffix, self.where, self.model, self.measure = suffix, where, suffix.model, metric
        n = len(suffix)
        if denoise and source.noise is not None:
            raise ValueError(
                f"{self.model.name} cannot be denoised from noise: TransformerLens runs it as a whole"
            )
        patched = {full_site(layer, where.site) for layer in range(self.model.cfg.n_layers)}
        ids, edits = source.both(suffix) if source.runs else (torch.cat([suffix.clean, suffix.corrupt]), {})
        taps = Taps(patched, edits)
        logits = suffix.run(ids, taps)[:, 0]
        self.clean, self.ablated = metric(logits.unflatten(0, (2, n)), suffix.pairs)
        self.base = self.ablated if denoise else self.clean
        self.ids = ids[n:] if denoise else ids[:n]
        ablated = {
            site: taps.seen[site][n:] if source.runs else source.constants_at(suffix, site)
            for site in patched
        }
        self.old = ablated if denoise else {site: taps.seen[site][:n] for site in patched}
        self.new = {site: taps.seen[site][:n] for site in patched} if denoise else ablated

    def keys(self, layer: int) -> Iterator[Patch]:
        """The patches of a layer: key, positions [n, t], head or neuron."""
        site, where = full_site(layer, self.where.site), self.where
        differs = self.old[site] != self.new[site]
        units: list[int | None] = list(range(differs.shape[2])) if where.site in UNITS else [None]
        for place, mask in self._places():
            for unit in units:
                wanted = (layer,) if unit is None else (layer, unit)
                if where.units is not None and wanted not in where.units:
                    continue
                here = differs if unit is None else differs[:, :, unit]
                if bool(
                    (here.flatten(2) if here.ndim > 2 else here[..., None]).any(-1).logical_and(mask).any()
                ):
                    yield (layer, *place, *wanted[1:]), mask, unit

    def _places(self) -> Iterator[tuple[Key, Tensor]]:
        n, width, device = len(self.suffix), self.suffix.width, self.model.device
        if self.where.spans is not None:
            for i, span in enumerate(self.where.spans):
                yield (i,), span[:, self.suffix.start :][:, :width].to(device)
        elif self.where.by_position:
            for t in range(width):
                yield (self.suffix.start + t,), (torch.arange(width, device=device) == t).expand(n, width)
        else:
            yield (), torch.ones(n, width, dtype=torch.bool, device=device)

    def plan(self, together: int) -> list[Callable[[], Parts]]:
        """Work that gives the keys of at most `together` patches, and the change of the metric by each, [patch, n]."""
        plans = [(layer, list(self.keys(layer))) for layer in range(self.model.cfg.n_layers)]
        return [
            partial(self._run, layer, patches[first : first + together])
            for layer, patches in plans
            for first in range(0, len(patches), together)
        ]

    def _run(self, layer: int, part: list[Patch]) -> Parts:
        site, n = full_site(layer, self.where.site), len(self.suffix)

        def edit(x: Tensor) -> Tensor:
            x = x.clone()
            for i, (_, mask, unit) in enumerate(part):
                rows, new = x[i * n : (i + 1) * n], self.new[site]
                at = mask.view(*mask.shape, *[1] * (x.ndim - 2))
                if unit is None:
                    rows.copy_(torch.where(at, new, rows))
                else:
                    at = at[:, :, 0]
                    rows[:, :, unit] = torch.where(at, new[:, :, unit], rows[:, :, unit])
            return x

        ids = self.ids.repeat(len(part), 1)
        logits = self.suffix.run(ids, Taps(edits={site: edit}))[:, 0]
        change = self.measure(logits.unflatten(0, (-1, n)), self.suffix.pairs) - self.base
        return {"keys": torch.tensor([key for key, _, _ in part]), "changes": change}
