"""Weights in TransformerLens's names and shapes, and back: `blocks.0.attn.W_Q` [h, d, e], `unembed.W_U` [d, v].

There, every map but a gate has a bias, a norm that has been folded has no entry, shared keys and values are `_W_K`
and `_W_V`, Gemma's gains are stored as they act, and what scales embeddings or logits is a part of them.

Letters: d d_model, e d_head, h head, g key/value head, m d_mlp, v vocabulary, p position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lens.compat import encoder_layouts
from lens.compat.entries import Entry, of_block, of_norm, turned
from lens.config import ModelConfig, StackConfig
from lens.nearest import unknown
from lens.parameters import aliases_of, shapes_of
from lens.processing import State

IGNORED = ("mask", "IGNORE", "rotary_sin", "rotary_cos", "alibi")
"""What TransformerLens keeps beside its weights and makes anew."""


def to_layout(
    cfg: ModelConfig, state: Mapping[str, Tensor], *, folded: bool = False, under: str = ""
) -> State:
    """Copies of our weights in TransformerLens's layout. With `folded`, norms in front of maps have no entries.

    `under` (`blocks.0.attn.`) is where the part of the model is, if `state` has that part's weights alone.

    Raises:
        ValueError: the layout has no place for a weight; the message names it.
    """
    shapes, like = shapes_of(_with_biases(cfg)), next(iter(state.values()))
    found: State = {}
    for entry in (entry for entry in entries(cfg) if entry.theirs.startswith(under)):
        x = state.get(entry.ours)
        if entry.absent and x is not None and bool(x.any()):
            raise ValueError(f"{cfg.name} has {entry.ours!r}: TransformerLens's layout has no place for that")
        if (entry.norm and folded) or (entry.absent and entry.theirs.endswith("b_gate")):
            continue
        if x is None and entry.ours.endswith(".bias"):
            x = like.new_zeros(shapes[entry.ours])
        if x is not None:
            there = entry.there(x.detach())
            found[entry.theirs] = there.clone() if there.data_ptr() == x.data_ptr() else there
    return found


def from_layout(cfg: ModelConfig, weights: Mapping[str, Tensor]) -> tuple[ModelConfig, State]:
    """Weights in TransformerLens's layout as ours, and the configuration with the biases that they have.

    Norms that are not there have been folded, and become the identity; biases that are not there are zero.

    Raises:
        ValueError: a weight is missing, unknown or of another shape; the message names it.
    """
    cfg, weights = replace(cfg, tied=False), _gated(cfg, weights)
    known = {entry.theirs: entry for entry in entries(cfg)}
    for name in weights:
        if name not in known and name.rsplit(".", 1)[-1] not in IGNORED:
            raise ValueError(unknown("weight", name, known, of=cfg.name))
    full = _with_biases(cfg)
    shapes, state = shapes_of(full), State()
    like = next(iter(weights.values()))
    for entry in known.values():
        if entry.ours not in shapes or entry.ours in state:
            continue
        if entry.theirs in weights:
            state[entry.ours] = _back(entry, weights[entry.theirs], shapes[entry.ours])
        elif entry.norm or entry.ours.endswith(".bias"):
            zero = entry.ours.endswith(".bias") or cfg.stack.norm_unit_offset
            state[entry.ours] = (torch.zeros if zero else torch.ones)(shapes[entry.ours], dtype=like.dtype)
        else:
            raise ValueError(f"{cfg.name} needs a weight {entry.theirs!r}, which is not there")
    state |= {name: state[same] for name, same in aliases_of(cfg).items() if same in state}
    return _without_zeros(cfg, state)


def _with_biases(cfg: ModelConfig) -> ModelConfig:
    """The same with a bias on every map."""

    def biased(c: StackConfig) -> StackConfig:
        return replace(c, attn_bias=frozenset("qkvo"), mlp_bias=True)

    source = None if cfg.source is None else replace(cfg.source, stack=biased(cfg.source.stack))
    unembed = None if cfg.unembed is None else replace(cfg.unembed, bias=True)
    return replace(cfg, stack=biased(cfg.stack), source=source, unembed=unembed)


def _gated(cfg: ModelConfig, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Of a gated MLP, TransformerLens adds `b_in` after the gate: to the output, that is `b_in` W_out."""
    if not cfg.stack.gated or cfg.stack.experts is not None:
        return weights
    found = dict(weights)
    for layer in range(cfg.n_layers):
        path = f"blocks.{layer}.mlp"
        bias, out = found.get(f"{path}.b_in"), found.get(f"{path}.W_out")
        if bias is not None and out is not None and bool(bias.any()):
            found[f"{path}.b_in"] = torch.zeros_like(bias)
            found[f"{path}.b_out"] = found.get(f"{path}.b_out", out.new_zeros(out.shape[1])) + bias @ out
    return found


def part_from_layout(cfg: ModelConfig, weights: Mapping[str, Tensor], under: str) -> State:
    """Weights of one part in TransformerLens's layout, under their full names, as ours; those that are not there are
    left out, and so are biases of zero that this model does not have.

    Raises:
        ValueError: a weight is unknown, of another shape, or a bias that this model does not have.
    """
    known = {entry.theirs: entry for entry in entries(cfg) if entry.theirs.startswith(under)}
    shapes, here, found = shapes_of(_with_biases(cfg)), shapes_of(cfg), State()
    for name, x in weights.items():
        if name not in known:
            raise ValueError(unknown("weight", name, known, of=cfg.name))
        ours = known[name].ours
        if ours in here:
            found[ours] = _back(known[name], x, shapes[ours])
        elif bool(x.any()):
            raise ValueError(
                f"{cfg.name} has no bias {name!r}: give it one by model.load_state_dict, with all weights"
            )
    return found


def _back(entry: Entry, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        found = entry.here(x)
    except (RuntimeError, IndexError):
        found = x
    if tuple(found.shape) != shape:
        wanted = tuple(entry.there(torch.empty(shape, device="meta")).shape)
        raise ValueError(f"{entry.theirs!r} is {tuple(x.shape)} and must be {wanted}")
    return found


def _without_zeros(cfg: ModelConfig, state: State) -> tuple[ModelConfig, State]:
    """Leave out biases that the model did not have and that are zero."""

    def empty(*ends: str) -> bool:
        return not any(bool(x.any()) for name, x in state.items() if name.endswith(ends))

    def kept(c: StackConfig) -> StackConfig:
        attention = {r for r in "qkvo" if r in c.attn_bias or not empty(f"attn.{r}.bias")}
        maps = (".gate.bias", ".up.bias", ".down.bias")
        mlp = c.mlp_bias or not empty(*maps)
        return replace(c, attn_bias=frozenset(attention), mlp_bias=mlp)  # type: ignore[arg-type]

    unembed = cfg.unembed
    if unembed is not None and not empty("unembed.linear.bias"):
        unembed = replace(unembed, bias=True)
    source = None if cfg.source is None else replace(cfg.source, stack=kept(cfg.source.stack))
    new = replace(cfg, stack=kept(cfg.stack), source=source, unembed=unembed)
    wanted = shapes_of(new)
    return new, {name: x for name, x in state.items() if name in wanted}


def entries(cfg: ModelConfig) -> Iterator[Entry]:
    """All weights, in TransformerLens's order.

    Raises:
        ValueError: the layout has no place for such a model.
    """
    c, e, u = cfg.stack, cfg.embed, cfg.unembed
    if encoder_layouts.reads(cfg):
        yield from encoder_layouts.entries(cfg)
        return
    odd = {
        "a mixer in attention's place": not c.attends, "two stacks": cfg.source is not None or cfg.vision is not None,
        "factorised embeddings": e.d_embed != c.d_model or (u is not None and u.d_embed != c.d_model),
        "something else than tokens": not e.of_tokens, "token types": e.n_types > 0, "a hidden layer in front "
        "of the vocabulary": u is not None and bool(u.transform), "shared layers": c.shared is not None,
        "stages": c.stages is not None, "global tokens": c.global_tokens is not None,
        "positions in the scores": c.relative is not None, "a pooler or classifier": bool(cfg.pooler or cfg.classifier),
        "an expert for all positions": c.experts is not None and c.experts.shared is not None,
    }  # fmt: skip
    for what, there in odd.items():
        if there:
            raise ValueError(f"{cfg.name} has {what}: TransformerLens's layout has no place for that")
    yield Entry("embed.W_E", "embed.tokens.weight", lambda x: x * e.scale, lambda x: x / e.scale)
    if e.norm_eps is not None:
        yield Entry("embed.ln.w", "embed.ln.weight")
        yield Entry("embed.ln.b", "embed.ln.bias")
    if e.n_positions is not None:
        offset = e.position_offset
        yield Entry(
            "pos_embed.W_pos",
            "embed.positions.weight",
            lambda x: x[offset:],
            lambda x: torch.cat([x.new_zeros(offset, x.shape[1]), x]) if offset else x,
        )
    for layer in range(c.n_layers):
        yield from of_block(c, f"blocks.{layer}", f"stack.blocks.{layer}")
    if c.final_norm and c.norm != "none":
        yield from of_norm(c, "ln_final", "stack.ln_final", True)
    if u is not None:
        yield Entry(
            "unembed.W_U",
            "unembed.linear.weight",
            lambda x: turned(x) * u.scale,
            lambda x: turned(x) / u.scale,
        )
        yield Entry("unembed.b_U", "unembed.linear.bias")
