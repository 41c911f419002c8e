"""Heads in groups: who looks at whom. A model of one stack has one group, an encoder–decoder three.

Names tell the group by their first letter: `a9.h2` in a model of one stack; in an encoder–decoder `e0.h1` looks from
source to source, `d0.h1` from target to target, and `x1.h2` from target to source (sites `encoder.0.attn.…`,
`decoder.0.attn.…`, `decoder.1.cross_attn.…`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from circuits.places import place

if TYPE_CHECKING:
    from lens.config import ModelConfig

Row = Literal["source", "target"]
LETTERS = "aedx"
NAME = re.compile(r"([edx])(\d{1,4})\.h(\d{1,4})")


@dataclass(frozen=True)
class Group:
    """Heads of one kind. `queries`, `keys`: which row of positions looks, and which is looked at.

    In a model of one stack both are the `target`.
    """

    letter: str
    title: str
    block: str
    part: Literal["attn", "cross_attn"]
    layers: int
    heads: int
    queries: Row
    keys: Row
    causal: bool

    def site(self, layer: int, hook: str) -> str:
        """The name of a site of a layer's heads: `decoder.1.cross_attn.hook_pattern`."""
        return f"{self.block}.{layer}.{self.part}.{hook}"

    def name(self, layer: int, head: int) -> str:
        return f"{self.letter}{layer}.h{head}"

    @property
    def names(self) -> list[str]:
        """All heads, layer by layer."""
        return [self.name(l, h) for l in range(self.layers) for h in range(self.heads)]

    @property
    def crosses(self) -> bool:
        return self.queries != self.keys


def groups_of(cfg: ModelConfig) -> tuple[Group, ...]:
    """The groups of a model all of whose blocks attend, in the order in which they run."""
    c = cfg.stack
    if cfg.source is None:
        one = Group("a", "All heads", "blocks", "attn", c.n_layers, c.n_heads, "target", "target", c.causal)
        return (one,)
    e = cfg.source.stack
    sizes = (c.n_layers, c.n_heads)
    return (
        Group(
            "e", "Encoder: source to source", "encoder", "attn", e.n_layers, e.n_heads, "source", "source", e.causal
        ),
        Group("d", "Decoder: target to target", "decoder", "attn", *sizes, "target", "target", c.causal),
        Group("x", "Cross-attention: target to source", "decoder", "cross_attn", *sizes, "target", "source", False),
    )  # fmt: skip


def node_name(text: str) -> str:
    """A node's name as it stands in an address: those of `circuits.places.place`, or a head of an encoder–decoder.

    Raises:
        ValueError: it is not of these forms.
    """
    return text if NAME.fullmatch(text) else place(text).name


def find(name: str, groups: tuple[Group, ...]) -> tuple[Group, int, int] | None:
    """The group, layer and head of a name; None where it is none of these heads."""
    match = re.fullmatch(rf"([{LETTERS}])(\d{{1,4}})\.h(\d{{1,4}})", name)
    if match is None:
        return None
    layer, head = int(match[2]), int(match[3])
    for group in groups:
        if group.letter == match[1] and layer < group.layers and head < group.heads:
            return group, layer, head
    return None


def known_heads(groups: tuple[Group, ...]) -> str:
    """Which names there are: `e0.h0 to e1.h3, d0.h0 to d1.h3`."""
    return ", ".join(f"{g.names[0]} to {g.names[-1]}" for g in groups)


def refusal(node: str, cfg: ModelConfig) -> str:
    """Why a node's name cannot be one of this model's, "" where it can be: letters of another kind, or out of range."""
    one_stack = cfg.source is None
    if one_stack and NAME.fullmatch(node):
        return f"{node} is a head of an encoder–decoder, and {cfg.name} has one stack: its heads are a0.h0 and so on"
    if one_stack and cfg.n_heads:
        at, c = place(node), cfg.stack
        several = {"head": c.n_heads, "kv": cfg.n_key_value_heads}.get(at.kind)
        if several is not None and ((at.layer or 0) >= c.n_layers or (at.head or 0) >= several):
            letter = "h" if at.kind == "head" else "kv"
            last = f"a{c.n_layers - 1}.{letter}{several - 1}"
            return f"{node} is not a head of {cfg.name}, which has a0.{letter}0 to {last}"
    if not one_stack and find(node, groups_of(cfg)) is None:
        return f"{node} is not a head of {cfg.name}, which has {known_heads(groups_of(cfg))}"
    return ""
