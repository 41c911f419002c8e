"""The computation graph of a model: who writes to the residual stream, who reads it, and which edges exist.

Senders write to the residual stream, receivers read it, and an edge is one sender's contribution to one
receiver's input. Both are listed in the order in which the model computes them:

    senders     embed | a0.h0 … a0.h{H-1} m0 | a1.h0 … | …
    receivers   a0.h0<q> … a0.h0<k> … a0.h0<v> … m0 | a1.h0<q> … | … | logits

With grouped queries keys and values belong to the key-value heads: `a0.kv0<k>`, `a0.kv0<v>`. In a parallel
block the MLP does not read its own layer's heads. An attention-only model has no `m{l}`.

Because senders are in causal order, the senders that a receiver can read are always a prefix of the list;
`Graph.reach` holds the length of that prefix.

Shapes: s sender, r receiver.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lens.mixer import check_attention
from lens.nearest import unknown

if TYPE_CHECKING:
    from lens.config import ModelConfig

Kind = Literal["embed", "head", "mlp", "q", "k", "v", "logits"]
ReceiverKind = Literal["q", "k", "v", "mlp", "logits"]


@dataclass(frozen=True)
class Node:
    """One sender or receiver. `head` counts key-value heads where queries are grouped and kind is k or v."""

    name: str
    kind: Kind
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Graph:
    """All nodes and edges of a model with these sizes. Equal sizes give equal graphs."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    mlp: bool = True
    parallel: bool = False

    @classmethod
    def of(cls, cfg: ModelConfig) -> Graph:
        """The graph of a model with this configuration.

        Raises:
            ValueError: positions are not mixed by attention, so that there are no heads.
        """
        check_attention(cfg, "the nodes of a circuit are attention heads")
        return cls(
            n_layers=cfg.n_layers,
            n_heads=cfg.n_heads,
            n_kv_heads=cfg.n_key_value_heads,
            mlp=not cfg.attn_only,
            parallel=cfg.stack.parallel,
        )

    @cached_property
    def sender_nodes(self) -> tuple[Node, ...]:
        nodes = [Node("embed", "embed")]
        for layer in range(self.n_layers):
            nodes += [Node(f"a{layer}.h{h}", "head", layer, h) for h in range(self.n_heads)]
            if self.mlp:
                nodes.append(Node(f"m{layer}", "mlp", layer))
        return tuple(nodes)

    @cached_property
    def receiver_nodes(self) -> tuple[Node, ...]:
        nodes: list[Node] = []
        kv = "h" if self.n_kv_heads == self.n_heads else "kv"
        for layer in range(self.n_layers):
            nodes += [Node(f"a{layer}.h{h}<q>", "q", layer, h) for h in range(self.n_heads)]
            nodes += [Node(f"a{layer}.{kv}{g}<k>", "k", layer, g) for g in range(self.n_kv_heads)]
            nodes += [Node(f"a{layer}.{kv}{g}<v>", "v", layer, g) for g in range(self.n_kv_heads)]
            if self.mlp:
                nodes.append(Node(f"m{layer}", "mlp", layer))
        nodes.append(Node("logits", "logits"))
        return tuple(nodes)

    @cached_property
    def senders(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.sender_nodes)

    @cached_property
    def receivers(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.receiver_nodes)

    @cached_property
    def sender_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.senders)}

    @cached_property
    def receiver_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.receivers)}

    @property
    def n_senders(self) -> int:
        return len(self.senders)

    @property
    def n_receivers(self) -> int:
        return len(self.receivers)

    @cached_property
    def reach(self) -> Tensor:
        """LongTensor [r]: a receiver reads the first `reach[r]` senders."""
        return torch.tensor([self._reach(node) for node in self.receiver_nodes])

    def _reach(self, node: Node) -> int:
        if node.layer is None:
            return self.n_senders
        after_heads = node.kind == "mlp" and not self.parallel
        return self.senders_before(node.layer) + (self.n_heads if after_heads else 0)

    @cached_property
    def valid(self) -> Tensor:
        """BoolTensor [s, r]: the edges that exist."""
        return torch.arange(self.n_senders)[:, None] < self.reach[None, :]

    @property
    def n_edges(self) -> int:
        return int(self.reach.sum())

    @cached_property
    def feeds(self) -> Tensor:
        """BoolTensor [r, s]: the receiver is an input of the node that is sender s.

        A key-value head is an input of every query head of its group; `logits` is an input of no sender.
        """
        feeds = torch.zeros(self.n_receivers, self.n_senders, dtype=torch.bool)
        group = self.n_heads // self.n_kv_heads
        for r, node in enumerate(self.receiver_nodes):
            if node.layer is None:
                continue
            if node.head is None:
                feeds[r, self.mlp_sender(node.layer)] = True
            elif node.kind == "q":
                feeds[r, self.head_sender(node.layer, node.head)] = True
            else:
                first = self.head_sender(node.layer, node.head * group)
                feeds[r, first : first + group] = True
        return feeds

    # ---- places in the lists

    @property
    def _senders_per_layer(self) -> int:
        return self.n_heads + self.mlp

    @property
    def _receivers_per_layer(self) -> int:
        return self.n_heads + 2 * self.n_kv_heads + self.mlp

    def senders_before(self, layer: int) -> int:
        """How many senders are computed before this layer; `n_layers` counts all of them."""
        return 1 + layer * self._senders_per_layer

    def head_sender(self, layer: int, head: int) -> int:
        """Index of a head among the senders."""
        return self.senders_before(layer) + head

    def head_senders(self, layer: int) -> slice:
        """The senders that are this layer's heads."""
        start = self.senders_before(layer)
        return slice(start, start + self.n_heads)

    def mlp_sender(self, layer: int) -> int:
        """Index of a layer's MLP among the senders.

        Raises:
            ValueError: the model has no MLPs.
        """
        if not self.mlp:
            raise ValueError(f"m{layer} does not exist: the model is attention-only")
        return self.senders_before(layer) + self.n_heads

    def receiver_slice(self, kind: ReceiverKind, layer: int = 0) -> slice:
        """The receivers of one kind in one layer (`logits` ignores the layer).

        Raises:
            ValueError: the kind does not exist in this graph.
        """
        sizes = {"q": self.n_heads, "k": self.n_kv_heads, "v": self.n_kv_heads, "mlp": int(self.mlp)}
        if kind == "logits":
            return slice(self.n_receivers - 1, self.n_receivers)
        if not sizes.get(kind):
            kinds = [name for name, size in sizes.items() if size]
            raise ValueError(unknown("kind of receiver", kind, [*kinds, "logits"]))
        start = layer * self._receivers_per_layer
        for name, size in sizes.items():
            if name == kind:
                return slice(start, start + size)
            start += size
        raise AssertionError(kind)

    def layer_receivers(self, layer: int, n_layers: int = 1) -> slice:
        """All receivers of a layer, those of its heads, then its MLP; or of some layers, as far as there are."""
        last = min(layer + n_layers, self.n_layers)
        return slice(layer * self._receivers_per_layer, last * self._receivers_per_layer)

    def edge(self, sender: str, receiver: str) -> tuple[int, int]:
        """The two indices of an edge given by names.

        Raises:
            ValueError: a name is unknown, or the receiver is computed before the sender.
        """
        if sender not in self.sender_index:
            raise ValueError(unknown("sender of this model", sender, self.senders))
        if receiver not in self.receiver_index:
            raise ValueError(unknown("receiver of this model", receiver, self.receivers))
        s, r = self.sender_index[sender], self.receiver_index[receiver]
        if not self.valid[s, r]:
            raise ValueError(f"there is no edge {sender} → {receiver}: {receiver} does not read {sender}")
        return s, r

    # ---- plain data

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives back an equal graph."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Graph:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a size is missing, unknown or not a positive number.
        """
        try:
            graph = cls(**dict(values))
        except (TypeError, ValueError) as error:
            raise ValueError(f"not the sizes of a graph: {error}") from error
        sizes = (graph.n_layers, graph.n_heads, graph.n_kv_heads)
        if not all(isinstance(n, int) and n > 0 for n in sizes) or graph.n_heads % graph.n_kv_heads:
            raise ValueError(f"not the sizes of a graph: {values}")
        return graph
