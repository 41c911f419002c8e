"""Exact patching: give one activation another value in a run, and see what the metric does.

All patches at all layers are computed in a few climbs through the model (`climb`) instead of one run each:

1. One clean run keeps the streams, keys and values; one ablated run the activations to patch in. Denoising
   turns the two around.
2. A patched run starts as the run's own stream, moved, right after the place of the patch (`moves`).
3. Patched runs are stacked and climb together. A patch at one position runs only the positions from there on.
   A model that is not ours to climb through (`Transformer.own`) is run as a whole instead (`whole_runs`).
4. Patches in the prefix that clean and corrupt share are zero and are not run, nor are those whose
   activation is the same in both.

Letters: n pair, p position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import memory
from circuits.ablation import get_ablation
from circuits.climb import Join, climb
from circuits.metrics import bind, metric_name
from circuits.moves import SITES, UNITS, Moves, Where, full_site
from circuits.pairs import check_kind
from circuits.spans import Span, span_masks
from circuits.sweep import Batch, Parts, checkpoint_at, sweep
from circuits.whole_runs import WholeRuns
from lens.hooks import is_hooked
from lens.nearest import unknown
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.ablation import Ablation
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.model import Transformer

__all__ = ["SITES", "Patched", "check_site", "patch", "units_of"]


@dataclass(frozen=True)
class Patched:
    """The change of the metric, patch by patch: metric(patched run) − metric(run).

    Noising patches the clean run: negative where the clean activation supports the behaviour. Denoising
    patches the corrupt run: positive where the clean activation restores it. `effect` is the mean over the
    pairs, with the axes `axes` names; `per_example` has a last axis for the pairs. `clean` and `corrupt` are the
    metrics of the two runs, [n]. NaN where a patch was not asked for.
    """

    site: str
    metric_name: str
    axes: tuple[str, ...]
    per_example: Tensor
    clean: Float[Tensor, " n"]
    corrupt: Float[Tensor, " n"]
    denoise: bool = False
    spans: tuple[Span, ...] = ()
    ablation: str = "counterfactual"

    @property
    def effect(self) -> Tensor:
        """Mean over the pairs, in units of the metric."""
        return self.per_example.mean(-1)

    @property
    def normalized(self) -> Tensor:
        """`effect` as a share of the change from the patched run to the other: 1 where the patch does it all."""
        change = float(self.corrupt.mean() - self.clean.mean())
        return self.effect / (-change if self.denoise else change)


@torch.no_grad()
def patch(
    model: Transformer,
    pairs: Pairs,
    site: str = "z",
    metric: str | Metric = "logit_diff",
    *,
    by_position: bool | None = None,
    spans: Sequence[Span] | Span | None = None,
    units: Sequence[tuple[int, ...]] | None = None,
    ablation: str | Ablation = "counterfactual",
    denoise: bool = False,
    share_prefix: bool = True,
    max_memory: int | str = memory.DEFAULT,
    checkpoint: str | Path | None = None,
    progress: Progress = silent,
) -> Patched:
    """Every patch of one kind of activation, exactly.

    Args:
        site: one of `SITES`; `post` are the MLP's neurons, of which there are many: see `units`.
        by_position: one patch per position, else all positions at once. None: heads and neurons at all
            positions at once, everything else by position.
        spans: one patch per named place instead, such as "S2", "S1:S2" or a position (`circuits.spans`).
        units: patch only these: (layer, head) or (layer, neuron), or (layer,) where a site has no such parts.
        ablation: the value patched in, one of `circuits.ablation.ablations()`.
        denoise: patch clean values into the corrupt run instead.
        checkpoint: a folder that keeps finished parts, so that killed work can be begun again; it is deleted
            at the end.

    Returns:
        Effects [layer, head] for z, [layer, neuron] for post and [layer, position] for the others;
        [layer, position, head] and [layer] where `by_position` says so; [layer, span] or [layer, span, head]
        with `spans`. Positions count from the start of the prompt.

    Raises:
        ValueError: an unknown site, span, unit or ablation, or one this model does not have; pairs that do not
            fit the model; denoising with constants; hooks of a `with model.hooks(…)` block, which a climb would
            not pass through.
    """
    check_site(model, site)
    if is_hooked(model):
        raise ValueError("exact patching does not pass through hooks; call it outside `with model.hooks(…)`")
    pairs.check(model.cfg)
    ablation = get_ablation(ablation)
    spans = [spans] if isinstance(spans, str | int) else spans
    cfg, n = model.cfg, len(pairs)
    where = _where(model, pairs, site, by_position, spans, units)
    source = ablation.source(model, pairs, [full_site(layer, site) for layer in range(cfg.n_layers)])
    if denoise and not source.runs:
        raise ValueError(f"denoising restores clean values in another run, and {ablation.kind} gives no run")
    chosen = bind(metric, model, pairs)
    axes, shape = _axes(model, pairs, where)
    row = memory.block_row(cfg, source.width(share_prefix))
    size = min(n, memory.rows_within(max_memory, 2 * cfg.n_layers * row))
    together = max(1, memory.rows_within(max_memory, row) // size)
    about = {"what": "patch", "site": site, "denoise": denoise, "by_position": where.by_position}
    about |= {"spans": spans and list(spans), "units": units and sorted(map(list, units))}
    kept = checkpoint_at(checkpoint, model, pairs, metric, ablation, about)

    def work(batch: Batch) -> Parts:
        part = source[batch.rows]
        suffix = part.suffix(model, share_prefix)
        moves = (Moves if model.own else WholeRuns)(part, suffix, _rows(where, batch.rows), chosen, denoise)
        effect = torch.full(shape, float("nan") if units is not None else 0.0, dtype=moves.base.dtype)
        effect = effect.expand(len(suffix), *shape).clone()
        if units is not None:
            for unit in units:
                effect[(slice(None), unit[0], ..., *unit[1:])] = 0.0
        plan = _climbs(moves, chosen, together) if isinstance(moves, Moves) else moves.plan(together)
        for done, changes in enumerate(plan):
            parts = batch.part(f"climb {done} of {together}", done, len(plan), changes)
            for key, change in zip(parts["keys"].tolist(), parts["changes"].cpu(), strict=True):
                effect[(slice(None), *key)] = change
        return {"effect": effect, "clean": moves.clean.cpu(), "corrupt": moves.ablated.cpu()}

    parts = sweep(n, size, work, label=f"patch {site}", checkpoint=kept, progress=progress)
    if kept is not None:
        kept.remove()
    return Patched(
        site, metric_name(metric), axes, parts["effect"].movedim(0, -1), parts["clean"], parts["corrupt"],
        denoise, tuple(spans or ()), ablation.kind,
    )  # fmt: skip


def _climbs(moves: Moves, metric: Metric, together: int) -> list[Callable[[], Parts]]:
    """Work that gives the keys of some patches, and the change of the metric by each, [patch, n]."""
    suffix = moves.suffix

    def changes(skip: int, joins: Sequence[Join]) -> Parts:
        keys, stream = climb(suffix, joins, moves.past_of(skip), skip)
        change = suffix.metric(stream, metric, skip) - moves.base
        change = change.masked_fill(suffix.ends < skip, 0.0)  # the patch comes after the answer
        return {"keys": torch.tensor(keys), "changes": change}

    return [partial(changes, skip, joins) for skip, joins in moves.climbs(together)]


def check_site(model: Transformer, site: str) -> None:
    """Raise unless `site` can be patched in this model.

    Raises:
        ValueError: it cannot; the message gives the nearest that can.
    """
    there = [s for s in SITES if full_site(0, s) in model.sites]
    if site in SITES and site not in there:
        check_kind(model.cfg)
        raise ValueError(f"{model.name} has no {site} to patch; it has {', '.join(there)}")
    if site not in there:
        raise ValueError(unknown("site to patch", site, there))


def units_of(model: Transformer, site: str, layers: Sequence[int]) -> list[tuple[int, ...]]:
    """All that can be patched of a site in these layers, for `patch(units=…)`.

    Raises:
        ValueError: a layer does not exist.
    """
    for layer in layers:
        if not 0 <= layer < model.cfg.n_layers:
            raise ValueError(f"layer {layer} does not exist; {model.name} has {model.cfg.n_layers}")
    if site not in UNITS:
        return [(layer,) for layer in layers]
    width = model.cfg.n_heads if site == "z" else model.cfg.d_mlp or 0
    return [(layer, unit) for layer in layers for unit in range(width)]


def _where(
    model: Transformer,
    pairs: Pairs,
    site: str,
    by_position: bool | None,
    spans: Sequence[Span] | None,
    units: Sequence[tuple[int, ...]] | None,
) -> Where:
    if spans is not None and by_position:
        raise ValueError("patches are either by position or by span, not both")
    if spans is not None:
        by_position = False
    if by_position is None:
        by_position = site not in UNITS
    limits = [("layer", model.cfg.n_layers)]
    if site in UNITS:
        limits.append((UNITS[site], model.cfg.n_heads if site == "z" else model.cfg.d_mlp or 0))
    for unit in units or ():
        if len(unit) != len(limits):
            wanted = ", ".join(name for name, _ in limits)
            raise ValueError(f"unit {tuple(unit)} must be ({wanted}) for {site}")
        for (name, limit), at in zip(limits, unit, strict=True):
            if not 0 <= at < limit:
                raise ValueError(f"unit {tuple(unit)}: {name} {at} does not exist; there are {limit}")
    wanted = None if units is None else frozenset(tuple(unit) for unit in units)
    return Where(site, by_position, None if spans is None else span_masks(pairs, spans), wanted)


def _axes(model: Transformer, pairs: Pairs, where: Where) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and lengths of the result's axes, without the pairs."""
    sizes = {"layer": model.cfg.n_layers}
    if where.spans is not None:
        sizes["span"] = where.n_places
    elif where.by_position:
        sizes["position"] = pairs.n_positions
    if where.site in UNITS:
        sizes[UNITS[where.site]] = model.cfg.n_heads if where.site == "z" else model.cfg.d_mlp or 0
    return tuple(sizes), tuple(sizes.values())


def _rows(where: Where, rows: slice) -> Where:
    spans = None if where.spans is None else where.spans[:, rows]
    return Where(where.site, where.by_position, spans, where.units)
