"""Attribution of nodes by gradients: (ablated − clean activation) · (gradient of the metric there).

1. The prefix that clean and ablated runs share is run once (`suffix`).
2. One run of both reads the site in every layer; ablated − clean are the differences. Constants need no run.
3. The clean prompt is run with its embeddings moved a fraction of the way to the ablated ones, for each
   integration point, several stacked in one batch; one backward pass gives the gradients at the site.
4. The product is summed over the entries of an activation, unless each is a neuron, and over positions, unless
   estimates are by position.

At the clean prompt alone this is attribution patching (Nanda 2023). Models whose stream is normalised after
each sum are welcome here, as in exact patching.

Letters: n pair, c integration point, l layer, t position, p all positions, d d_model; `...` axes of one site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import memory, senders
from circuits.ablation import Ablation, Source
from circuits.attributed import Attributed
from circuits.integration import Points, chunked, enough_steps
from circuits.metrics import Measure, bind, check_gradient, metric_name
from circuits.pairs import check_kind
from circuits.relevance import relevance_edits
from circuits.sweep import Batch, Parts, checkpoint_at, sweep
from lens.nearest import unknown
from lens.progress import Progress, silent
from lens.taps import Edit, Taps

if TYPE_CHECKING:
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from circuits.suffix import Suffix
    from lens.model import Transformer

FOLDERS = {"z": "attn.", "q": "attn.", "k": "attn.", "v": "attn.", "post": "mlp."}
STREAMS = ("embed", "resid_pre", "resid_mid", "resid_post")
SITES = ("z", "q", "k", "v", "post", *STREAMS, "attn_out", "mlp_out")
"""Activations that can be attributed; z, q, k and v per head, post per neuron."""


def full_site(layer: int, site: str) -> str:
    """The full name of a site in one layer; `embed` is the stream that enters the first block."""
    site = "resid_pre" if site == "embed" else site
    return f"blocks.{layer}.{FOLDERS.get(site, '')}hook_{site}"


def check_node_site(model: Transformer, site: str) -> None:
    """Raise unless `site` can be attributed in this model.

    Raises:
        ValueError: it cannot; the message gives the nearest that can.
    """
    there = [s for s in SITES if full_site(0, s) in model.sites]
    if site in SITES and site not in there:
        check_kind(model.cfg)
        raise ValueError(f"{model.name} has no {site} to attribute; it has {', '.join(there)}")
    if site not in there:
        raise ValueError(unknown("site to attribute", site, there))


@dataclass
class NodeRequest:
    """What an attribution of nodes was asked for."""

    model: Transformer
    pairs: Pairs
    site: str = "z"
    metric: str | Metric = "logit_diff"
    steps: int = 1
    method: str = ""
    ablation: Ablation = field(default_factory=Ablation)
    by_position: bool | None = None
    neurons: bool = False
    share_prefix: bool = True
    max_memory: int | str = memory.DEFAULT
    checkpoint: str | Path | None = None
    progress: Progress = silent

    def __post_init__(self) -> None:
        self.pairs.check(self.model.cfg)
        if self.by_position is None:
            self.by_position = self.site not in FOLDERS
        self.neurons = self.neurons or self.site == "post"

    @cached_property
    def sites(self) -> list[str]:
        """The full names of the site, bottom layer first."""
        layers = 1 if self.site == "embed" else self.model.cfg.n_layers
        return [full_site(layer, self.site) for layer in range(layers)]

    @cached_property
    def source(self) -> Source:
        """Where the ablated values come from."""
        return self.ablation.source(
            self.model, self.pairs, list(dict.fromkeys([senders.embed_site(self.model), *self.sites]))
        )

    @cached_property
    def bound(self) -> Measure:
        """The metric, ready to be called."""
        return bind(self.metric, self.model, self.pairs, gradient=True)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the result's axes, without the pairs."""
        per_head = self.site in FOLDERS and self.site != "post"
        return (
            *(("layer",) if self.site != "embed" else ()),
            *(("position",) if self.by_position else ()),
            *(("head",) if per_head else ()),
            *(("neuron",) if self.neurons else ()),
        )

    def enough_steps(self) -> int:
        """How many integration points make integration along the embeddings complete."""
        return enough_steps(
            self.model,
            self.source,
            self.bound,
            share_prefix=self.share_prefix,
            max_memory=self.max_memory,
            progress=self.progress,
        )

    def plan(self, points: int, extra: int = 0) -> tuple[int, int]:
        """How many pairs are treated together, and how many of their `points` runs.

        `extra`: bytes of one row beyond what autograd keeps for every method.
        """
        cfg, width = self.model.cfg, self.source.width(self.share_prefix)
        row = memory.graph_row(cfg, width) + extra
        wide = {"post": cfg.d_mlp or 0}.get(self.site, max(cfg.d_model, cfg.n_heads * cfg.d_head))
        difference = 3 * 4 * width * wide * len(self.sites)
        pairs = min(len(self.pairs), memory.rows_within(self.max_memory, row + difference))
        left = memory.parse(self.max_memory) - pairs * difference
        return pairs, max(1, min(points, left // (pairs * row)))

    def reduced(self, product: Float[Tensor, "n t ..."]) -> Float[Tensor, "n ..."]:
        """Step 4, for one layer."""
        product = product if self.neurons else product.sum(-1)
        return product if self.by_position else product.sum(1)


@dataclass(frozen=True)
class Runs:
    """What step 2 found for some pairs.

    `differences`: ablated minus clean activation, by layer, [n, t, …]. `moved` [n, t, d]: that of the embeddings,
    and `change` [n] what moving them all the way does to the metric. `clean` and `corrupt`: the metric, [n].
    """

    source: Source
    suffix: Suffix
    differences: list[Tensor]
    moved: Float[Tensor, "n t d"]
    change: Float[Tensor, " n"]
    clean: Float[Tensor, " n"]
    corrupt: Float[Tensor, " n"]


@torch.no_grad()
def runs(request: NodeRequest, rows: slice) -> Runs:
    """Steps 1 and 2 for the pairs `rows`."""
    source = request.source[rows]
    suffix = source.suffix(request.model, request.share_prefix)
    n, embed = len(suffix), senders.embed_site(request.model)
    ids, edits = source.both(suffix)
    taps = Taps([embed, *request.sites], edits)
    values = request.bound(suffix.run(ids, taps)[:, 0].unflatten(0, (2, n)), suffix.pairs)
    corrupt = values[1]
    if source.runs:
        differences = [taps.seen[site][n:] - taps.seen[site][:n] for site in request.sites]
    else:
        differences = [source.constants_at(suffix, site) - taps.seen[site][:n] for site in request.sites]
        corrupt = request.bound(suffix.run(suffix.corrupt, Taps())[:, 0], suffix.pairs)
    moved = taps.seen[embed][n:] - taps.seen[embed][:n]
    return Runs(source, suffix, differences, moved, values[1] - values[0], values[0], corrupt)


def gradient_effects(request: NodeRequest, points: Points, relevance: bool = False) -> Attributed:
    """Estimates by gradients integrated along the embeddings' way, or by relevance in their place."""
    size, stacked = request.plan(len(points))
    chunks = chunked(points, stacked)
    embed = senders.embed_site(request.model)

    def work(found: Runs, batch: Batch) -> Parts:
        total: list[Tensor] = []
        missing = -found.change
        for i, part in enumerate(chunks):
            batch.told(i, len(chunks))
            wanted = list(dict.fromkeys([embed, *request.sites]))
            gradients = site_gradients(request, found, part, wanted, relevance)
            missing = missing + (gradients[embed] * found.moved).sum((1, 2))
            share = [
                request.reduced(difference * gradients[site])
                for site, difference in zip(request.sites, found.differences, strict=True)
            ]
            total = share if not total else [a + b for a, b in zip(total, share, strict=True)]
        if relevance and request.site in ("q", "k"):  # patterns are constants
            total = [torch.zeros_like(x) for x in total]
        return {"effect": torch.stack(total, 1)} | ({} if relevance else {"missing": missing})

    return gathered(request, work, size)


def site_gradients(
    request: NodeRequest, found: Runs, points: Points, wanted: Sequence[str], relevance: bool
) -> dict[str, Tensor]:
    """These points' share of the gradients [n, t, …] at the sites; step 3."""
    suffix, n, embed = found.suffix, len(found.suffix), senders.embed_site(request.model)
    weights = torch.tensor([w for _, w in points], device=found.moved.device, dtype=found.moved.dtype)
    steps = torch.cat([a * found.moved for a, _ in points])
    edits: dict[str, Edit] = {embed: lambda x: x + steps}
    taps = Taps(wanted, edits | relevance_edits(request.model) if relevance else edits, grad=True)
    with torch.enable_grad():
        logits = suffix.run(suffix.clean.repeat(len(points), 1), taps)[:, 0]
        values = request.bound(logits.unflatten(0, (len(points), n)), suffix.pairs)
        at = [taps.seen[site] for site in wanted]
        check_gradient(values)
        gradients = torch.autograd.grad((weights[:, None] * values).sum(), at)
    return {site: g.unflatten(0, (-1, n)).sum(0) for site, g in zip(wanted, gradients, strict=True)}


def gathered(request: NodeRequest, work: Callable[[Runs, Batch], Parts], size: int) -> Attributed:
    """The result from `work`, which gives `effect` [n, l, …] for the positions that were run, and maybe `missing`."""
    r = request

    def whole(batch: Batch) -> Parts:
        found = runs(r, batch.rows)
        parts = work(found, batch)
        effect = parts.pop("effect").cpu()
        if r.by_position:
            full = effect.new_zeros(*effect.shape[:2], r.pairs.n_positions, *effect.shape[3:])
            start = found.suffix.start
            full[:, :, start : start + found.suffix.width] = effect
            effect = full
        measured = {"clean": found.clean.cpu(), "corrupt": found.corrupt.cpu()}
        return {name: x.cpu() for name, x in parts.items()} | {"effect": effect} | measured

    about = {"what": "attribute nodes", "method": r.method, "site": r.site, "steps": r.steps}
    about |= {"by_position": r.by_position, "neurons": r.neurons}
    kept = checkpoint_at(r.checkpoint, r.model, r.pairs, r.metric, r.ablation, about)
    parts = sweep(
        len(r.pairs), size, whole, label=f"{r.method} {r.site}", checkpoint=kept, progress=r.progress
    )
    if kept is not None:
        kept.remove()
    effect = parts["effect"] if r.site != "embed" else parts["effect"][:, 0]
    missing = parts.get("missing")
    return Attributed(
        site=r.site,
        method=r.method,
        metric_name=metric_name(r.metric),
        axes=r.axes,
        per_example=effect.movedim(0, -1),
        clean=parts["clean"],
        corrupt=parts["corrupt"],
        steps=r.steps,
        completeness_residual=None if missing is None else abs(float(missing.mean())),
    )
