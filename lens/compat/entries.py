"""One tensor under our name and under TransformerLens's: those of a norm, of attention, of a block.

Letters: d d_model, e d_head, h head, g key/value head, m d_mlp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from lens.config import StackConfig

Change = Callable[[Tensor], Tensor]


def _same(x: Tensor) -> Tensor:
    return x


def turned(x: Tensor) -> Tensor:
    """A map as [in, out] instead of [out, in], and back."""
    return x.T.contiguous()


@dataclass(frozen=True)
class Entry:
    """One tensor under both names: `there(ours)` is TransformerLens's, `here(theirs)` ours."""

    theirs: str
    ours: str
    there: Change = _same
    here: Change = _same
    norm: bool = False
    absent: bool = False  # TransformerLens has no such bias: it must be zero


def of_norm(c: StackConfig, theirs: str, ours: str, foldable: bool = False) -> Iterator[Entry]:
    """Gain and bias of a norm; where it is foldable, they may not be there."""
    offset = 1 if c.norm_unit_offset else 0
    yield Entry(f"{theirs}.w", f"{ours}.weight", lambda x: x + offset, lambda x: x - offset, norm=foldable)
    if c.norm == "layer":
        yield Entry(f"{theirs}.b", f"{ours}.bias", norm=foldable)


def of_block(c: StackConfig, there: str, here: str) -> Iterator[Entry]:
    """A block's norms, attention and MLP."""
    if c.norm != "none":
        foldable = "in" in c.norm_placement
        if c.norm_placement & {"in", "add"}:
            yield from of_norm(c, f"{there}.ln1", f"{here}.ln1", foldable)
            if c.d_mlp is not None:
                second = "ln1" if c.shared_norm else "ln2"
                yield from of_norm(c, f"{there}.{'ln3' if c.cross else 'ln2'}", f"{here}.{second}", foldable)
        if "out" in c.norm_placement:
            yield from of_norm(c, f"{there}.ln1_post", f"{here}.ln1_post")
            if c.d_mlp is not None:
                yield from of_norm(c, f"{there}.ln2_post", f"{here}.ln2_post")
    yield from of_attention(c, f"{there}.attn", f"{here}.attn")
    if c.d_mlp is not None:
        yield from _mlp(c, f"{there}.mlp", f"{here}.mlp")


def of_attention(c: StackConfig, there: str, here: str) -> Iterator[Entry]:
    """The maps of attention, and norms of its own."""
    shared = "_" if c.n_kv_heads != c.n_heads else ""
    for letter, under, heads in (
        ("q", "", c.n_heads),
        ("k", shared, c.n_kv_heads),
        ("v", shared, c.n_kv_heads),
    ):
        ours, name = f"{here}.{letter}", letter.upper()
        yield Entry(f"{there}.{under}W_{name}", f"{ours}.weight", _split(heads), _joined)
        yield Entry(
            f"{there}.{under}b_{name}", f"{ours}.bias", lambda x, n=heads: x.unflatten(0, (n, -1)), _flat
        )
    yield Entry(
        f"{there}.W_O",
        f"{here}.o.weight",
        lambda x: x.T.unflatten(0, (c.n_heads, -1)).contiguous(),
        lambda x: x.flatten(0, 1).T.contiguous(),
    )
    yield Entry(f"{there}.b_O", f"{here}.o.bias")
    if c.qk_norm is not None:
        for letter in "qk":
            yield from of_norm(c, f"{there}.{letter}_norm", f"{here}.{letter}_norm")


def _mlp(c: StackConfig, there: str, here: str) -> Iterator[Entry]:
    pairs = {"in": "up", "gate": "gate", "out": "down"}
    if c.mlp_norm:
        yield Entry(f"{there}.ln.w", f"{here}.ln.weight", norm=True)
        yield Entry(f"{there}.ln.b", f"{here}.ln.bias", norm=True)
    if not c.gated:
        del pairs["gate"]
    if c.experts is not None:
        yield Entry(f"{there}.W_gate.weight", f"{here}.router.weight")
        for e in range(c.experts.n):
            for name, ours in pairs.items():
                yield Entry(f"{there}.experts.{e}.W_{name}.weight", f"{here}.experts.{e}.{ours}.weight")
        return
    for name, ours in pairs.items():
        yield Entry(f"{there}.W_{name}", f"{here}.{ours}.weight", turned, turned)
        yield Entry(f"{there}.b_{name}", f"{here}.{ours}.bias", absent=c.gated and name != "out")


def _split(heads: int) -> Change:
    """[h e, d] to [h, d, e]."""
    return lambda x: x.unflatten(0, (heads, -1)).mT.contiguous()


def _joined(x: Tensor) -> Tensor:
    """[h, d, e] to [h e, d]."""
    return x.mT.flatten(0, 1).contiguous()


def _flat(x: Tensor) -> Tensor:
    return x.flatten()
