"""A circuit from which edges are taken one after another, and what each removal does, computing only what changes.

1. The circuit begins as the whole model. Its state is what every sender writes now, less its ablated output.
2. Removing edges into one receiver moves that receiver's input by minus the differences of their senders.
   Several alternatives are tried in one batch.
3. Only heads and MLPs that the move reaches along edges of the circuit, and from which the logits can be
   reached, are computed again; everything else keeps its state.
4. `settle` makes one of the alternatives the circuit's new state.

Letters: n pair, c alternative, t position, s sender, h head, e d_head, d d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits import senders
from circuits.some_heads import attend, couples, key_value_heads

if TYPE_CHECKING:
    from circuits.baseline import Baseline
    from circuits.graph import ReceiverKind
    from circuits.metrics import Metric
    from lens.block import Block


@dataclass
class Tried:
    """Alternatives of one receiver: which senders each removes, what they do, and what they changed."""

    receiver: int
    removed: Bool[Tensor, "c s"]
    values: Float[Tensor, "c n"]
    moves: dict[int, Float[Tensor, "c n t d"]]
    z: dict[int, tuple[list[int], Float[Tensor, "c n t h e"]]]
    mlp: dict[int, Float[Tensor, "c n t d"]]


@dataclass
class Costs:
    """What was spent, beside what one full forward per removal would have been.

    `forwards`: multiply-adds of the weight matrices in the blocks, in units of one forward of the same pairs
    through all blocks; sums over edges, attention's mixing and the unembedding are left out, as they are from
    the unit. `batches`: how often something was run; `rows`: how many removals were run in them.
    """

    forwards: float = 0.0
    batches: int = 0
    rows: int = 0


@dataclass
class Removals:
    """The state. `mask`: bool [s, r], the circuit's edges; `values`: float [n], its metric."""

    baseline: Baseline
    metric: Metric
    mask: Bool[Tensor, "s r"] = field(init=False)
    values: Float[Tensor, " n"] = field(init=False)
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        base = self.baseline
        self.graph, self.suffix, self.model = base.graph, base.suffix, base.suffix.model
        self.mask = self.graph.valid.clone()
        self.values = base.metrics[0]
        self.difference = -base.difference.transpose(0, 1)  # [s, n, t, d], now less ablated
        blocks = [self.model.block(layer) for layer in range(self.graph.n_layers)]
        self.z = {b.layer: base.seen[b.attn.hook_z].clone() for b in blocks}
        self.mlp = {b.layer: base.seen[b.hook_mlp_out].clone() for b in blocks if b.mlp is not None}
        self.ablated: dict[int, Tensor] = {}
        self.weights = sum(_weights(block) for block in blocks)

    # ---- what is needed

    def alive(self) -> Bool[Tensor, " r"]:
        """The receivers from which the logits can be reached."""
        seen = torch.zeros(self.graph.n_receivers, dtype=torch.bool)
        seen[-1] = True
        for s in reversed(range(1, self.graph.n_senders)):
            if self.mask[s, seen].any():
                seen |= self.graph.feeds[:, s]
        return seen

    def differs(self) -> Bool[Tensor, " s"]:
        """The senders that write something else than their ablated value now."""
        return self.difference.flatten(1).any(1).cpu()

    def inputs(self, receivers: Sequence[int]) -> Float[Tensor, "r n t d"]:
        """What some receivers that read the same senders read now."""
        reach = int(self.graph.reach[receivers[0]])
        if reach not in self.ablated:
            node, base = self.graph.receiver_nodes[receivers[0]], self.baseline
            if node.layer is None:
                clean = base.last
            elif node.kind == "mlp":
                clean = base.mlp_input(node.layer)
            else:
                clean = base.seen[self.model.block(node.layer).hook_resid_pre]
            self.ablated[reach] = clean + base.difference[:, :reach].sum(1)
        used = self.mask[:reach, list(receivers)].to(self.difference).mT  # [r, s]
        moved = used @ self.difference[:reach].flatten(1)
        return self.ablated[reach] + moved.unflatten(1, self.ablated[reach].shape)

    # ---- trying

    @torch.no_grad()
    def tried(self, receiver: int, removed: Bool[Tensor, "c s"], alive: Bool[Tensor, " r"]) -> Tried:
        """What removing each of these sets of edges into one receiver does to the circuit as it stands.

        `alive` is that of the state with any of the edges into this receiver.
        """
        used = removed.any(0).nonzero()[:, 0]
        moved = -(removed[:, used].to(self.difference) @ self.difference[used].flatten(1))
        found = Tried(receiver, removed, self.values.expand(len(removed), -1), {}, {}, {})
        inputs = {receiver: moved.unflatten(1, self.difference.shape[1:])}
        layer = self.graph.receiver_nodes[receiver].layer
        for above in range(self.graph.n_layers if layer is None else layer, self.graph.n_layers):
            self._attention(above, found, self._moved(("q", "k", "v"), above, found, inputs, alive))
            if self.graph.mlp:
                self._mlp(above, found, self._moved(("mlp",), above, found, inputs, alive))
        moves = self._moved(("logits",), 0, found, inputs, alive)
        self.costs.batches += 1
        self.costs.rows += len(removed)
        for last, move in moves.items():
            found.values = self.suffix.metric((self.inputs([last]) + move).flatten(0, 1), self.metric)
        return found

    def _moved(
        self,
        kinds: tuple[ReceiverKind, ...],
        layer: int,
        found: Tried,
        inputs: dict[int, Tensor],
        alive: Tensor,
    ) -> dict[int, Float[Tensor, "c n t d"]]:
        """By how much the inputs of a layer's receivers of these kinds move, those that do."""
        slices = [self.graph.receiver_slice(kind, layer) for kind in kinds]
        columns = [r for s in slices for r in range(s.start, s.stop)]
        moved = {r: inputs[r] for r in columns if r in inputs}
        sources = list(found.moves)
        reads = (self.mask[sources][:, columns] & alive[columns]).mT.tolist()
        for r, row in zip(columns, reads, strict=True):
            parts = [found.moves[s] for s, on in zip(sources, row, strict=True) if on]
            if parts:
                moved[r] = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        return moved

    def _attention(self, layer: int, found: Tried, moved: dict[int, Tensor]) -> None:
        """Run the heads of a layer that read something new."""
        if not moved:
            return
        graph, block = self.graph, self.model.block(layer)
        first = graph.head_senders(layer).start
        heads = graph.feeds[list(moved), first : first + graph.n_heads].any(0).nonzero()[:, 0].tolist()
        heads = list(range(graph.n_heads)) if couples(block) else heads
        kvs = key_value_heads(block, heads)
        streams = [
            self._streams(graph.receiver_slice("q", layer).start, heads, moved),
            self._streams(graph.receiver_slice("k", layer).start, kvs, moved),
            self._streams(graph.receiver_slice("v", layer).start, kvs, moved),
        ]
        z = attend(self.suffix, block, heads, *streams)
        copies = len(z) // len(self.suffix)
        z, now = z.unflatten(0, (copies, -1)), self.z[layer]
        if block.ln1_post is None:
            shares = torch.einsum("cnthe,hed->hcntd", z - now[:, :, heads], block.attn.W_O[heads])
        else:
            shares = self._shares(block, z.flatten(0, 1)).unflatten(1, (copies, -1))
            shares = shares - self._shares(block, now)[:, None]
        found.z[layer] = heads, z
        for head, share in zip(heads, shares, strict=True):
            found.moves[first + head] = share
        rows = [len(x) // len(self.suffix) for x in streams]
        made = (rows[0] + copies) * len(heads) + (rows[1] + rows[2]) * len(kvs)
        self.costs.forwards += made * block.cfg.d_model * block.cfg.d_head / self.weights

    def _streams(self, first: int, heads: list[int], moved: dict[int, Tensor]) -> Float[Tensor, "b t h d"]:
        """The inputs of these heads of one kind: with an axis of alternatives only where one of them moved."""
        now = self.inputs([first + h for h in heads])
        if not any(first + h in moved for h in heads):
            return now.permute(1, 2, 0, 3)
        new = [
            x + moved[first + h] if first + h in moved else x[None] for h, x in zip(heads, now, strict=True)
        ]
        copies = max(len(x) for x in new)
        return torch.stack([x.expand(copies, -1, -1, -1) for x in new], 3).flatten(0, 1)

    def _shares(self, block: Block, z: Float[Tensor, "b t h e"]) -> Float[Tensor, "h b t d"]:
        assert block.ln1_post is not None
        return senders.heads(block, z, block.ln1_post.scale(block.attn.o(z.flatten(2))))

    def _mlp(self, layer: int, found: Tried, moved: dict[int, Tensor]) -> None:
        """Run a layer's MLP, if it reads something new."""
        for r, move in moved.items():
            x = self.inputs([r]) + move
            out = self.model.block(layer).mlp_out(x.flatten(0, 1)).view_as(x)
            found.mlp[layer] = out
            found.moves[self.graph.mlp_sender(layer)] = out - self.mlp[layer]
            self.costs.forwards += len(out) * _mlp_weights(self.model.block(layer)) / self.weights

    # ---- settling

    def settle(self, tried: Tried, which: int) -> None:
        """Make one alternative, the last tried or one before it, the circuit."""
        self.mask[tried.removed[which], tried.receiver] = False
        self.values = tried.values[which]
        for s, move in tried.moves.items():
            self.difference[s] += move[which if len(move) > 1 else 0]
        for layer, (heads, z) in tried.z.items():
            self.z[layer][:, :, heads] = z[which if len(z) > 1 else 0]
        for layer, out in tried.mlp.items():
            self.mlp[layer] = out[which]


def _weights(block: Block) -> int:
    """Multiply-adds of one token in a block's matrices."""
    cfg = block.cfg
    return 2 * cfg.d_model * cfg.d_head * (cfg.n_heads + cfg.n_kv_heads) + _mlp_weights(block)


def _mlp_weights(block: Block) -> int:
    if block.mlp is None:
        return 0
    cfg = block.cfg
    used = sum(p.numel() for p in block.mlp.parameters() if p.ndim > 1)
    if cfg.experts is None:
        return used
    experts = sum(p.numel() for name, p in block.mlp.named_parameters() if name.startswith("experts."))
    return used - experts + experts * cfg.experts.top_k // cfg.experts.n
