"""Attribution of every edge at once, by gradients (EAP, arXiv 2310.10348; EAP-IG, arXiv 2403.17806).

The score of the edge s → r is (corrupt − clean output of s) · (gradient of the metric at the input of r):

1. The prefix that clean and corrupt prompts share is run once (`suffix`).
2. One run of both prompts reads what every sender writes; corrupt − clean are the differences D (`senders`).
3. The clean prompt is run with its embeddings moved a fraction α of the way to the corrupt ones, for each
   integration point, several points stacked in one batch; one backward pass gives the gradients at the
   projections' outputs, from which those at every receiver's input, R, are rebuilt (`receivers`).
4. All scores are one matrix product per pair, D Rᵀ, of which only the senders before each layer are computed.

With α = 0 alone this is EAP; with points and weights that integrate over [0, 1] it is EAP-IG. Then the scores
of all edges out of the embedding sum to the change of the metric from clean to corrupt (completeness of
integrated gradients, arXiv 1703.01365); what is missing is the completeness residual.

Letters: n pair, c integration point, t position, s sender, r receiver, d d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import memory, receivers, senders
from circuits.graph import Graph
from circuits.metrics import get_metric, metric_name
from circuits.scores import Scores
from circuits.suffix import Suffix, batches
from lens.progress import Progress, silent
from lens.taps import Taps

if TYPE_CHECKING:
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.model import Transformer

Points = Sequence[tuple[float, float]]
"""Fractions of the way from clean to corrupt, and their weights, which sum to one."""


@dataclass
class Request:
    """What `edge_scores` was asked for."""

    model: Transformer
    pairs: Pairs
    metric: str | Metric
    points: Points
    per_example: bool = False
    share_prefix: bool = True
    max_memory: int | str = memory.DEFAULT
    progress: Progress = silent
    graph: Graph = field(init=False)

    def __post_init__(self) -> None:
        senders.check_linear(self.model.cfg)
        self.pairs.check(self.model.cfg)
        self.graph = Graph.of(self.model.cfg)

    def plan(self) -> tuple[int, int]:
        """How many pairs are treated together, and how many integration points of them."""
        width = self.pairs.n_positions - (self.pairs.first_difference if self.share_prefix else 0)
        width = max(width, 1)
        graph_row = memory.graph_row(self.model.cfg, width)
        difference_row = memory.difference_row(self.model.cfg, self.graph.n_senders, width)
        difference_row += 4 * self.graph.valid.numel()
        pairs = min(len(self.pairs), memory.rows_within(self.max_memory, graph_row + difference_row))
        left = memory.parse(self.max_memory) - pairs * difference_row
        return pairs, max(1, min(len(self.points), left // (pairs * graph_row)))


def edge_scores(request: Request, method: str, steps: int) -> Scores:
    """Scores of all edges, averaged over the pairs.

    Raises:
        ValueError: the model is post-norm, the pairs do not fit it, or a score is not finite.
    """
    r = request
    metric = get_metric(r.metric)
    size, stacked = r.plan()
    chunks = [r.points[i : i + stacked] for i in range(0, len(r.points), stacked)]
    n_batches = -(-len(r.pairs) // size)
    total, done = n_batches * (1 + len(chunks)), 0
    values = strength = None
    parts: list[Tensor] = []
    missing = 0.0
    r.progress(0, total, method)
    for _, suffix in batches(r.model, r.pairs, size, r.share_prefix):
        difference, change = sender_differences(suffix, r.graph, metric)
        done += 1
        r.progress(done, total, method)
        scores = difference.new_zeros(len(suffix), *r.graph.valid.shape)
        for points in chunks:
            _add_gradients(suffix, r.graph, metric, points, difference, scores)
            done += 1
            r.progress(done, total, method)
        missing += float(scores[:, 0].sum() - change.sum())
        values = scores.sum(0) if values is None else values + scores.sum(0)
        strength = scores.abs().sum(0) if strength is None else strength + scores.abs().sum(0)
        if r.per_example:
            parts.append(scores.cpu())
    assert values is not None
    assert strength is not None
    n = len(r.pairs)
    return Scores(
        graph=r.graph,
        values=(values / n).cpu(),
        strength=(strength / n).cpu(),
        method=method,
        metric=metric_name(r.metric),
        steps=steps,
        per_example=torch.cat(parts) if r.per_example else None,
        completeness_residual=abs(missing) / n,
    )


@torch.no_grad()
def sender_differences(
    suffix: Suffix, graph: Graph, metric: Metric
) -> tuple[Float[Tensor, "n s t d"], Float[Tensor, " n"]]:
    """Corrupt minus clean output of every sender, and corrupt minus clean metric: one run of both prompts."""
    taps = Taps(senders.sites(suffix.model))
    logits = suffix.run(torch.cat([suffix.clean, suffix.corrupt]), taps)[:, 0]
    n = len(suffix)
    values = metric(logits.unflatten(0, (2, n)), suffix.pairs)
    clean = {site: x[:n] for site, x in taps.seen.items()}
    corrupt = {site: x[n:] for site, x in taps.seen.items()}
    return senders.differences(suffix.model, graph, clean, corrupt), values[1] - values[0]


def _add_gradients(
    suffix: Suffix,
    graph: Graph,
    metric: Metric,
    points: Points,
    difference: Float[Tensor, "n s t d"],
    scores: Float[Tensor, "n s r"],
) -> None:
    """Add these integration points' share to the `scores` of each pair."""
    model, n = suffix.model, len(suffix)
    streams = [model.block(layer).hook_resid_pre for layer in range(model.cfg.n_layers)]
    wanted = receivers.sites(model)
    weights = torch.tensor([w for _, w in points], device=difference.device, dtype=difference.dtype)
    moved = torch.cat([a * difference[:, 0] for a, _ in points])
    taps = Taps([*wanted, *streams], {streams[0]: lambda x: x + moved}, grad=True)
    with torch.enable_grad():
        logits = suffix.run(suffix.clean.repeat(len(points), 1), taps)[:, 0]
        values = metric(logits.unflatten(0, (len(points), n)), suffix.pairs)
        at = [taps.seen[site] for site in wanted]
        gradients = dict(zip(wanted, torch.autograd.grad((weights[:, None] * values).sum(), at), strict=True))
    del at, logits, values
    seen = {site: taps.seen[site].detach() for site in streams}
    taps.seen.clear()

    flat = difference.flatten(2)  # [n, s, t*d]

    def add(columns: slice, reach: int, gradient: Float[Tensor, "cn t r d"]) -> None:
        """One group of receivers that read the same senders; step 4 of the algorithm."""
        g = gradient.unflatten(0, (-1, n)).sum(0)  # the weights are already in the gradient
        scores[:, :reach, columns] += flat[:, :reach] @ g.transpose(1, 2).flatten(2).mT

    with torch.no_grad():
        for layer in range(model.cfg.n_layers):
            block = model.block(layer)
            q, v = graph.receiver_slice("q", layer), graph.receiver_slice("v", layer)
            inputs = receivers.attention_inputs(block, seen[streams[layer]], gradients)
            add(slice(q.start, v.stop), graph.senders_before(layer), inputs)
            if graph.mlp:
                mlp = graph.receiver_slice("mlp", layer)
                add(mlp, int(graph.reach[mlp.start]), gradients[block.hook_mlp_in][:, :, None])
        end = graph.receiver_slice("logits")
        add(end, graph.n_senders, gradients[receivers.stream_site(model)][:, :, None])
