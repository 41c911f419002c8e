"""How well a circuit does the model's job: all edges outside it carry their corrupt value.

In one forward on the clean prompt, whatever the number of edges:

1. A run of the corrupt prompt gives what every receiver read and every sender wrote there.
2. In the circuit's run, each sender's output now, less its corrupt output, is its difference.
3. The input of a receiver is its corrupt input plus the differences of the senders that have an edge to it
   in the circuit: one small matrix product per layer. Queries, keys, values and MLPs are set apart.

Several circuits are stacked in one batch. The shared prefix is not run: there every difference is zero.

Letters: n pair, c circuit, t position, s sender in use, r receiver of one layer, h head, d d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import memory, receivers, senders
from circuits.graph import Graph
from circuits.metrics import get_metric, metric_name
from circuits.suffix import Suffix, batches
from lens.progress import Progress, silent
from lens.taps import Edit, Taps

if TYPE_CHECKING:
    from circuits.circuit import Circuit
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.model import Transformer


@dataclass(frozen=True)
class Evaluation:
    """The metric of a circuit beside those of the whole model on clean and on corrupt prompts.

    All three are float [n], one per pair, in units of the metric.
    """

    metric_name: str
    n_edges: int
    circuit: Float[Tensor, " n"]
    clean: Float[Tensor, " n"]
    corrupt: Float[Tensor, " n"]

    @property
    def metric(self) -> float:
        """Mean metric of the circuit."""
        return float(self.circuit.mean())

    @property
    def metric_model(self) -> float:
        """Mean metric of the whole model on the clean prompts."""
        return float(self.clean.mean())

    @property
    def metric_corrupt(self) -> float:
        """Mean metric of the whole model on the corrupt prompts: what a circuit without edges gives."""
        return float(self.corrupt.mean())

    @property
    def faithfulness(self) -> float:
        """(m(circuit) − m(corrupt)) / (m(model) − m(corrupt)): 1 does the whole job, 0 none of it.

        NaN where the model itself does not tell clean from corrupt.
        """
        gap = self.metric_model - self.metric_corrupt
        return (self.metric - self.metric_corrupt) / gap if gap else float("nan")

    def to_dict(self) -> dict[str, float | int | str]:
        """The means, for JSON."""
        return {
            "metric_name": self.metric_name,
            "n_edges": self.n_edges,
            "metric": self.metric,
            "metric_model": self.metric_model,
            "metric_corrupt": self.metric_corrupt,
            "faithfulness": self.faithfulness,
        }


def evaluate(
    model: Transformer,
    pairs: Pairs,
    circuit: Circuit,
    metric: str | Metric = "logit_diff",
    *,
    share_prefix: bool = True,
    max_memory: int | str = memory.DEFAULT,
    progress: Progress = silent,
) -> Evaluation:
    """One circuit's `Evaluation`; see `evaluate_many`."""
    options = {"share_prefix": share_prefix, "max_memory": max_memory, "progress": progress}
    return evaluate_many(model, pairs, [circuit], metric, **options)[0]


@torch.no_grad()
def evaluate_many(
    model: Transformer,
    pairs: Pairs,
    circuits: Sequence[Circuit],
    metric: str | Metric = "logit_diff",
    *,
    share_prefix: bool = True,
    max_memory: int | str = memory.DEFAULT,
    progress: Progress = silent,
) -> list[Evaluation]:
    """Evaluations of several circuits, which share the runs of the whole model and are stacked in batches.

    Raises:
        ValueError: a circuit of another graph, a model whose stream is post-norm, pairs that do not fit.
    """
    senders.check_linear(model.cfg)
    pairs.check(model.cfg)
    graph, chosen = Graph.of(model.cfg), get_metric(metric)
    for circuit in circuits:
        if circuit.graph != graph:
            raise ValueError(
                f"this circuit belongs to a graph of other sizes ({circuit.graph}), not to {model.name}"
            )
    if not circuits:
        return []
    width = max(1, pairs.n_positions - (pairs.first_difference if share_prefix else 0))
    row = memory.difference_row(model.cfg, graph.n_senders, width) + 4 * memory.block_row(model.cfg, width)
    rows = memory.rows_within(max_memory, row)
    size = min(len(pairs), rows)
    together = max(1, rows // size)
    total, done = -(-len(pairs) // size) * (1 + -(-len(circuits) // together)), 0
    found: list[list[Tensor]] = [[] for _ in circuits]
    whole: list[Tensor] = []
    for _, suffix in batches(model, pairs, size, share_prefix):
        progress(done, total, "evaluate")
        reference = Reference.of(suffix, graph, chosen)
        whole.append(reference.metrics)
        done += 1
        for first in range(0, len(circuits), together):
            progress(done, total, "evaluate")
            group = circuits[first : first + together]
            values = _CircuitRun(reference, torch.stack([c.mask for c in group])).metric(chosen)
            for place, value in zip(found[first : first + together], values, strict=True):
                place.append(value)
            done += 1
    progress(total, total, "evaluate")
    clean, corrupt = torch.cat(whole, 1).cpu()
    return [
        Evaluation(metric_name(metric), circuit.n_edges, torch.cat(parts).cpu(), clean, corrupt)
        for circuit, parts in zip(circuits, found, strict=True)
    ]


@dataclass(frozen=True)
class Reference:
    """The whole model's run on clean and corrupt prompts: metrics [2, n], and the corrupt activations."""

    suffix: Suffix
    graph: Graph
    metrics: Float[Tensor, "2 n"]
    corrupt: dict[str, Tensor]

    @classmethod
    def of(cls, suffix: Suffix, graph: Graph, metric: Metric) -> Reference:
        model, n = suffix.model, len(suffix)
        blocks = [model.block(layer) for layer in range(model.cfg.n_layers)]
        streams = [
            site for b in blocks for site in (b.hook_resid_pre, b.hook_resid_mid) if site in model.sites
        ]
        keep = lambda site, x: x[n:]  # noqa: E731  only the corrupt rows
        taps = Taps([*senders.sites(model), *streams, receivers.stream_site(model)], keep=keep)
        logits = suffix.run(torch.cat([suffix.clean, suffix.corrupt]), taps)[:, 0]
        return cls(suffix, graph, metric(logits.unflatten(0, (2, n)), suffix.pairs), taps.seen)


class _CircuitRun:
    """Several circuits' runs in one batch: row c * n + i is pair i in circuit c."""

    def __init__(self, reference: Reference, masks: Tensor) -> None:
        self.reference, self.graph, self.suffix = reference, reference.graph, reference.suffix
        self.model, corrupt = self.suffix.model, reference.corrupt
        self.live = masks.any(2).any(0).nonzero()[:, 0]  # senders with an edge in some circuit
        stream = corrupt[senders.embed_site(self.model)]
        self.masks = masks[:, self.live].to(stream.device, stream.dtype).mT  # [c, r, s]
        self.place = {int(s): i for i, s in enumerate(self.live)}
        self.difference = stream.new_zeros(len(masks), len(self.live), stream.numel())
        self.filled = 0

    def metric(self, metric: Metric) -> Float[Tensor, "c n"]:
        """Run the circuits and measure them."""
        copies = len(self.masks)
        taps = Taps(edits=self.edits())
        logits = self.suffix.run(self.suffix.clean.repeat(copies, 1), taps)[:, 0]
        return metric(logits.unflatten(0, (copies, -1)), self.suffix.pairs)

    def edits(self) -> dict[str, Edit]:
        """Every receiver's input is set, and every sender's output noted, at its own site."""
        edits: dict[str, Edit] = {}
        first = self.model.block(0)
        edits[first.hook_resid_pre] = lambda x: self.note(0, x - self.tiled(first.hook_resid_pre))
        for layer in range(self.model.cfg.n_layers):
            block = self.model.block(layer)
            for kind in ("q", "k", "v"):
                site = getattr(block, f"hook_{kind}_input")
                edits[site] = self.reader(
                    block.hook_resid_pre, self.graph.receiver_slice(kind, layer), heads=True
                )
            scaled = None if block.ln1_post is None else block.ln1_post.hook_scale
            if scaled is None:
                edits[block.attn.hook_z] = self.head_noter(layer)
            else:  # heads' shares need the output norm's divisor, which comes after z
                z: list[Tensor] = []
                edits[block.attn.hook_z] = lambda x, z=z: z.append(x)
                edits[scaled] = self.scaled_head_noter(layer, z)
            if block.mlp is not None:
                where = block.hook_resid_pre if block.one_sum else block.hook_resid_mid
                edits[block.hook_mlp_in] = self.reader(
                    where, self.graph.receiver_slice("mlp", layer), heads=False
                )
                edits[block.hook_mlp_out] = self.noter(self.graph.mlp_sender(layer), block.hook_mlp_out)
        last = receivers.stream_site(self.model)
        edits[last] = self.reader(last, self.graph.receiver_slice("logits"), heads=False)
        return edits

    def tiled(self, site: str) -> Tensor:
        """The corrupt activation at a site, once per circuit."""
        x = self.reference.corrupt[site]
        return x.repeat(len(self.masks), *[1] * (x.ndim - 1))

    def reader(self, stream_site: str, columns: slice, heads: bool) -> Edit:
        """An edit that gives these receivers the corrupt stream plus the differences along their edges."""

        def read(_: Tensor) -> Tensor:
            stream = self.reference.corrupt[stream_site]
            masks = self.masks[:, columns, : self.filled]
            moved = masks @ self.difference[:, : self.filled]  # [c, r, n*t*d]
            inputs = moved.unflatten(2, stream.shape) + stream  # [c, r, n, t, d]
            inputs = inputs.permute(0, 2, 3, 1, 4).flatten(0, 1)
            return inputs if heads else inputs[:, :, 0]

        return read

    def note(self, sender: int, difference: Float[Tensor, "cn t d"]) -> None:
        """Keep one sender's difference, if any circuit uses it."""
        place = self.place.get(sender)
        if place is not None:
            self.difference[:, place] = difference.unflatten(0, (len(self.masks), -1)).flatten(1)
            self.filled = place + 1

    def noter(self, sender: int, site: str) -> Edit:
        """An edit that notes one sender's output and leaves it as it is."""
        return lambda x: self.note(sender, x - self.tiled(site))

    def head_noter(self, layer: int) -> Edit:
        block = self.model.block(layer)

        def note(z: Tensor) -> None:
            used = self.used(layer)
            if used:
                moved = (z - self.tiled(block.attn.hook_z))[:, :, used]
                shares = torch.einsum("nthe,hed->hntd", moved, block.attn.W_O[used])
                self.note_heads(layer, used, shares)

        return note

    def scaled_head_noter(self, layer: int, z: list[Tensor]) -> Edit:
        block, corrupt = self.model.block(layer), self.reference.corrupt
        assert block.ln1_post is not None
        scale_site = block.ln1_post.hook_scale

        def note(scale: Tensor) -> None:
            used = self.used(layer)
            before = senders.heads(block, corrupt[block.attn.hook_z], corrupt[scale_site])
            shares = senders.heads(block, z.pop(), scale) - before.repeat(1, len(self.masks), 1, 1)
            self.note_heads(layer, used, shares[used])

        return note

    def used(self, layer: int) -> list[int]:
        """The heads of a layer that some circuit uses."""
        return [h for h in range(self.graph.n_heads) if self.graph.head_sender(layer, h) in self.place]

    def note_heads(self, layer: int, used: list[int], shares: Float[Tensor, "h cn t d"]) -> None:
        for head, share in zip(used, shares, strict=True):
            self.note(self.graph.head_sender(layer, head), share)
