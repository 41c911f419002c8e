"""Exact patching: give one activation its corrupt value in the clean run, and see what the metric does.

All patches at all layers are computed in a few climbs through the model (`climb`) instead of one run each:

1. One clean run keeps the streams, keys and values; one corrupt run the activations to patch in.
2. A patch of a head's z or of a branch's output moves the stream by a known difference (the stream is a sum),
   so a patched run starts as that moved stream, right after the place of the patch.
3. Patched runs are stacked and climb together. A patch at one position runs only the positions from there on.
4. Patches in the prefix that clean and corrupt share are zero and are not run, nor are those whose
   activation is the same in both.

Letters: n pair, l layer, h head, p all positions, t positions from the first difference on, e d_head, d d_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import memory, senders
from circuits.climb import Join, climb
from circuits.metrics import get_metric, metric_name
from circuits.suffix import Suffix, batches
from lens.hooks import is_hooked
from lens.nearest import unknown
from lens.progress import Progress, silent
from lens.taps import Taps

if TYPE_CHECKING:
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.kv import KeyValues
    from lens.model import Transformer

SITES = ("z", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Activations that can be patched; z is patched per head."""


@dataclass(frozen=True)
class Patched:
    """The change of the metric, patch by patch: metric(patched clean run) − metric(clean run).

    Negative: the clean activation supports the behaviour. `effect` is the mean over the pairs, with the axes
    `axes` names; `per_example` has a last axis for the pairs. `clean` and `corrupt` are the unpatched metrics, [n].
    """

    site: str
    metric_name: str
    axes: tuple[str, ...]
    per_example: Tensor
    clean: Float[Tensor, " n"]
    corrupt: Float[Tensor, " n"]

    @property
    def effect(self) -> Tensor:
        """Mean over the pairs, in units of the metric."""
        return self.per_example.mean(-1)

    @property
    def normalized(self) -> Tensor:
        """`effect` as a share of the change from clean to corrupt: 1 where the patch does all the damage."""
        return self.effect / (self.corrupt.mean() - self.clean.mean())


@torch.no_grad()
def patch(
    model: Transformer,
    pairs: Pairs,
    site: str = "z",
    metric: str | Metric = "logit_diff",
    *,
    by_position: bool | None = None,
    share_prefix: bool = True,
    max_memory: int | str = memory.DEFAULT,
    progress: Progress = silent,
) -> Patched:
    """Every patch of one kind of activation, exactly.

    Args:
        site: one of `SITES`.
        by_position: one patch per position, else all positions at once. None: heads at all positions at once,
            everything else by position.

    Returns:
        Effects [layer, head] for z and [layer, position] for the others; [layer, position, head] and [layer]
        where `by_position` says so. Positions count from the start of the prompt.

    Raises:
        ValueError: an unknown site, or one this model does not have; pairs that do not fit the model; hooks
            of a `with model.hooks(…)` block, which a climb would not pass through.
    """
    check_site(model, site)
    if is_hooked(model):
        raise ValueError("exact patching does not pass through hooks; call it outside `with model.hooks(…)`")
    pairs.check(model.cfg)
    chosen = get_metric(metric)
    by_position = site != "z" if by_position is None else by_position
    cfg, heads = model.cfg, (model.cfg.n_heads,) if site == "z" else ()
    shape = (cfg.n_layers, *((pairs.n_positions,) if by_position else ()), *heads)
    axes = ("layer", *(("position",) if by_position else ()), *(("head",) if heads else ()))
    width = max(1, pairs.n_positions - (pairs.first_difference if share_prefix else 0))
    row = memory.block_row(cfg, width)
    size = min(len(pairs), memory.rows_within(max_memory, 2 * cfg.n_layers * row))
    together = max(1, memory.rows_within(max_memory, row) // size)
    effects, clean, corrupt = [], [], []
    n_batches = -(-len(pairs) // size)
    for index, (_, suffix) in enumerate(batches(model, pairs, size, share_prefix)):
        sweep = Sweep(suffix, site, chosen, by_position)
        effect = torch.zeros(*shape, len(suffix), dtype=sweep.clean.dtype)
        plan = list(sweep.climbs(together))
        for done, (skip, joins) in enumerate(plan):
            progress(index * len(plan) + done, n_batches * len(plan), f"patch {site}")
            keys, stream = climb(suffix, joins, sweep.past_of(skip), skip)
            changes = suffix.metric(stream, chosen, skip) - sweep.clean
            changes = changes.masked_fill(suffix.ends < skip, 0.0)  # the patch comes after the answer
            for key, change in zip(keys, changes.cpu(), strict=True):
                effect[key] = change
        effects.append(effect)
        clean.append(sweep.clean.cpu())
        corrupt.append(sweep.corrupt.cpu())
    progress(1, 1, f"patch {site}")
    return Patched(
        site, metric_name(metric), axes, torch.cat(effects, -1), torch.cat(clean), torch.cat(corrupt)
    )


def check_site(model: Transformer, site: str) -> None:
    """Raise unless `site` can be patched in this model.

    Raises:
        ValueError: it cannot; the message gives the nearest that can.
    """
    there = [s for s in SITES if s == "z" or f"blocks.0.hook_{s}" in model.sites]
    if site not in there:
        raise ValueError(unknown("site to patch", site, there))


class Sweep:
    """One batch's clean and corrupt runs, and the patched streams that can be made from them."""

    def __init__(self, suffix: Suffix, site: str, metric: Metric, by_position: bool) -> None:
        self.suffix, self.site, self.by_position, self.model = suffix, site, by_position, suffix.model
        n = len(suffix)
        streams = {self._stream_site(layer) for layer in range(self.model.cfg.n_layers)}
        patched = {self._patched_site(layer) for layer in range(self.model.cfg.n_layers)}
        scales = (
            {s for s in senders.sites(self.model) if s.endswith("ln1_post.hook_scale")}
            if site == "z"
            else set()
        )
        taps = Taps(streams | patched | scales)
        past = suffix.open_past(2)
        logits = suffix.run(torch.cat([suffix.clean, suffix.corrupt]), taps, past)[:, 0]
        self.clean, self.corrupt = metric(logits.unflatten(0, (2, n)), suffix.pairs)
        self.seen = taps.seen
        self.past = past.rows(slice(0, n))

    def past_of(self, skip: int) -> KeyValues | None:
        """The clean keys and values before position `skip` of the suffix."""
        length = self.suffix.start + skip
        return self.past.upto(length) if length else None

    def climbs(self, together: int) -> Iterator[tuple[int, Sequence[Join]]]:
        """Groups of at most `together` patches that can climb together, with the positions they skip."""
        for skip in range(self.suffix.width) if self.by_position else (0,):
            joins = list(self.joins(skip))
            for first in range(0, len(joins), together):
                yield skip, joins[first : first + together]

    def joins(self, skip: int) -> Iterator[Join]:
        """The patches at position `skip` of the suffix (at all positions, unless by position), bottom layer first."""
        position = (self.suffix.start + skip,) if self.by_position else ()
        for layer in range(self.model.cfg.n_layers):
            stage = self._stage(layer)
            if self.site == "z":
                moves = self._head_moves(layer, skip)
                for head in moves.flatten(1).any(1).nonzero()[:, 0].tolist():
                    yield Join(layer, stage, (layer, *position, head), self._mover(layer, skip, moves[head]))
            else:
                moved = self._halves(self._patched_site(layer), skip)
                if bool(moved.any()):
                    yield Join(layer, stage, (layer, *position), self._mover(layer, skip, moved))

    def _mover(self, layer: int, skip: int, moved: Tensor):
        """The clean stream with `moved` added: at the first position climbed, or at all."""
        n = len(self.suffix)

        def make() -> Tensor:
            stream = self.seen[self._stream_site(layer)][:n, skip:]
            if not self.by_position:
                return stream + moved
            stream = stream.clone()
            stream[:, 0] += moved[:, 0]
            return stream

        return make

    def _halves(self, site: str, skip: int) -> Tensor:
        """Corrupt minus clean at a site, from position `skip` of the suffix on, or at that position only."""
        n, stop = len(self.suffix), skip + 1 if self.by_position else None
        x = self.seen[site]
        return x[n:, skip:stop] - x[:n, skip:stop]

    def _head_moves(self, layer: int, skip: int) -> Float[Tensor, "h n t d"]:
        """What patching each head's z does to the stream.

        Behind a norm on the branch's output one head's z changes the divisor for all, so the branch is made anew.
        """
        block, n = self.model.block(layer), len(self.suffix)
        z = self._halves(block.attn.hook_z, skip)
        moves = torch.einsum("nthe,hed->hntd", z, block.attn.W_O)
        if block.ln1_post is None:
            return moves
        stop = skip + 1 if self.by_position else None
        before = block.attn.o(self.seen[block.attn.hook_z][:n, skip:stop].flatten(2))
        return block.ln1_post(before + moves) - block.ln1_post(before)

    def _stage(self, layer: int):
        if self.site == "resid_pre":
            return "pre"
        before_mlp = self.site in ("z", "attn_out", "resid_mid") and not self.model.block(layer).one_sum
        return "mid" if before_mlp else "post"

    def _stream_site(self, layer: int) -> str:
        """The stream that a patch at this site moves."""
        block = self.model.block(layer)
        return {"pre": block.hook_resid_pre, "mid": block.hook_resid_mid, "post": block.hook_resid_post}[
            self._stage(layer)
        ]

    def _patched_site(self, layer: int) -> str:
        return f"blocks.{layer}.{'attn.' if self.site == 'z' else ''}hook_{self.site}"
