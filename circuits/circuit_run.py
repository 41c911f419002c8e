"""Any set of edges in one forward: all edges outside it carry their ablated value.

1. The reference says what every receiver reads and every sender writes when everything is ablated.
2. In the circuit's run, each sender's output now, less its ablated output, is its difference.
3. The input of a receiver is its ablated input plus the differences of the senders that have an edge to it in
   the circuit. The sums are made in nested steps, each adding the senders that have written since: for all
   receivers of a few layers, for those of a layer, for its MLP.

Several circuits are stacked in one batch; row c * n + i is pair i in circuit c.

A mask may also say how much of a difference passes an edge, from 0 to 1, and the run can be differentiated with
respect to masks and ablated values.

Letters: n pair, c circuit, t position, s sender in use, r receiver of one layer, h head, d d_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import receivers, senders
from circuits.differences import Differences, Room
from circuits.reference import Reference
from lens.taps import Edit, Taps

if TYPE_CHECKING:
    from circuits.metrics import Metric


BLOCK = 4
"""Layers whose receivers are summed together, as far as their senders have written: wide products are fast."""


class _Sums(NamedTuple):
    """What some receivers get from the first `senders` senders: values [c, r, ntd]."""

    rows: slice
    senders: int
    values: Tensor


class CircuitRun:
    """Several circuits' runs in one batch.

    Args:
        masks: bool [c, sender, receiver], or the part of each edge that passes, from 0 to 1, as floats; with
            spans [c, span, sender, receiver].
        spans: bool [span, n, t]: an edge passes what its sender writes at these positions only.
        grad: whether gradients with respect to masks or the reference's values will be taken, once. Those of
            masks mean nothing where there is no edge.
        room: memory to work in, which no other run uses at the same time.
    """

    def __init__(
        self,
        reference: Reference,
        masks: Tensor,
        *,
        grad: bool = False,
        spans: Tensor | None = None,
        room: Room | None = None,
    ) -> None:
        self.reference, self.graph, self.suffix = reference, reference.graph, reference.suffix
        self.model, ablated = self.suffix.model, reference.ablated
        self.spans, n_spans = spans, 1
        if spans is not None:  # a sender in a span counts as a sender of its own
            n_spans, masks = len(spans), masks.transpose(1, 2).flatten(1, 2)
        live = (masks != 0).any(2).any(0).nonzero()[:, 0].cpu()  # senders with an edge in some circuit
        stream = ablated[senders.embed_site(self.model)]
        self.masks = masks[:, live].to(stream.device, stream.dtype).mT  # [c, r, s]
        self.places: dict[int, list[tuple[int, int]]] = {}
        for i, s in enumerate(live.tolist()):
            self.places.setdefault(s // n_spans, []).append((i, s % n_spans))
        self.differences = Differences(len(masks), len(live), stream.numel(), stream, grad, room)
        self.ahead: list[_Sums] = []

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
                    block.hook_resid_pre, layer, self.graph.receiver_slice(kind, layer), heads=True
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
                    where, layer, self.graph.receiver_slice("mlp", layer), heads=False
                )
                edits[block.hook_mlp_out] = self.noter(self.graph.mlp_sender(layer), block.hook_mlp_out)
        last = receivers.stream_site(self.model)
        edits[last] = self.reader(last, None, self.graph.receiver_slice("logits"), heads=False)
        return edits

    def tiled(self, site: str) -> Tensor:
        """The ablated activation at a site, once per circuit."""
        x = self.reference.ablated[site]
        return x.repeat(len(self.masks), *[1] * (x.ndim - 1))

    def reader(self, stream_site: str, layer: int | None, rows: slice, heads: bool) -> Edit:
        """An edit that gives these receivers the ablated stream plus the differences along their edges."""

        def read(_: Tensor) -> Tensor:
            stream = self.reference.ablated[stream_site]
            inputs = self.sums(layer, rows).unflatten(2, stream.shape) + stream  # [c, r, n, t, d]
            inputs = inputs.permute(0, 2, 3, 1, 4).flatten(0, 1)
            return inputs if heads else inputs[:, :, 0]

        return read

    def sums(self, layer: int | None, rows: slice) -> Float[Tensor, "c r ntd"]:
        """Differences summed along the edges into these receivers of one layer (None: the logits)."""
        if layer is None:
            return self.differences.sums(self.masks[:, rows])
        block = layer // BLOCK * BLOCK
        wider = (self.graph.layer_receivers(block, BLOCK), self.graph.layer_receivers(layer))
        for level, whole in enumerate(wider):
            if level == len(self.ahead) or self.ahead[level].rows != whole:
                self.ahead[level:] = [self.summed(whole, self.ahead[:level])]
        return self.summed(rows, self.ahead).values

    def summed(self, rows: slice, before: list[_Sums]) -> _Sums:
        """Sums over all senders so far, on top of the last of those `before`, which are over fewer."""
        seen = self.differences.filled
        if not before:
            return _Sums(rows, seen, self.differences.sums(self.masks[:, rows]))
        known = before[-1]
        values = known.values[:, rows.start - known.rows.start : rows.stop - known.rows.start]
        if known.senders < seen:
            values = self.differences.sums(self.masks[:, rows], known.senders, values)
        return _Sums(rows, seen, values)

    def note(self, sender: int, difference: Float[Tensor, "cn t d"]) -> None:
        """Keep one sender's difference, if any circuit uses it."""
        for place, span in self.places.get(sender, ()):
            each = difference.unflatten(0, (len(self.masks), -1))  # [c, n, t, d]
            if self.spans is not None:
                each = each * self.spans[span][:, :, None].to(each)
            self.differences.write(place, each.flatten(1))

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
        block, ablated = self.model.block(layer), self.reference.ablated
        assert block.ln1_post is not None
        scale_site = block.ln1_post.hook_scale

        def note(scale: Tensor) -> None:
            used = self.used(layer)
            before = senders.heads(block, ablated[block.attn.hook_z], ablated[scale_site])
            shares = senders.heads(block, z.pop(), scale) - before.repeat(1, len(self.masks), 1, 1)
            self.note_heads(layer, used, shares[used])

        return note

    def used(self, layer: int) -> list[int]:
        """The heads of a layer that some circuit uses."""
        return [h for h in range(self.graph.n_heads) if self.graph.head_sender(layer, h) in self.places]

    def note_heads(self, layer: int, used: list[int], shares: Float[Tensor, "h cn t d"]) -> None:
        for head, share in zip(used, shares, strict=True):
            self.note(self.graph.head_sender(layer, head), share)
