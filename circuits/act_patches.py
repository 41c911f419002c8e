"""TransformerLens's `patching`, by its names: clean activations put into a corrupted run, one patch after another.

What a function gives is what TransformerLens gives: the metric of each patched run. How it is found is not:

1. One corrupted run keeps its streams, keys and values, logits, and the activation that is patched.
2. A patch is made on that activation (`patch_setter`). Where it changes nothing, the metric is the corrupted run's.
3. Positions before the first change, and blocks below the patch, are not run again. Patches of what adds to the
   stream climb together (`climb`); the others run from their layer on, several in one batch.
4. Logits before the first change are those of the corrupted run; the metric is told logits of all positions.

Models that look in both directions, that have no attention, and those on which hooks stand are run whole each time.

Letters: b batch, p position, t positions from the first change on, d d_model, v vocabulary.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits import memory
from circuits.climb import Join, Stage, climb
from circuits.pairs import Pairs
from circuits.suffix import Suffix
from lens.hooks import is_hooked
from lens.model import Transformer
from lens.nearest import unknown
from lens.sites import act_name, expand
from lens.taps import Taps

if TYPE_CHECKING:
    import pandas as pd

    from lens.compat.cache import ActivationCache
    from lens.compat.model import HookedTransformer

Index = Sequence[int]
Setter = Callable[[Tensor, Index, Tensor], Tensor]
Metric = Callable[[Tensor], Any]
AXES = ("layer", "pos", "head_index", "head", "src_pos", "dest_pos")


# ---- what is put where: (corrupted activation, index, clean activation) → patched activation


def layer_pos_patch_setter(corrupted_activation: Tensor, index: Index, clean_activation: Tensor) -> Tensor:
    """Index (layer, pos), of what has axes [batch, pos, …]."""
    _, pos = index
    corrupted_activation[:, pos] = clean_activation[:, pos]
    return corrupted_activation


def layer_pos_head_vector_patch_setter(
    corrupted_activation: Tensor, index: Index, clean_activation: Tensor
) -> Tensor:
    """Index (layer, pos, head), of a head's vectors [batch, pos, head, …]."""
    _, pos, head = index
    corrupted_activation[:, pos, head] = clean_activation[:, pos, head]
    return corrupted_activation


def layer_head_vector_patch_setter(
    corrupted_activation: Tensor, index: Index, clean_activation: Tensor
) -> Tensor:
    """Index (layer, head), of a head's vectors [batch, pos, head, …]."""
    _, head = index
    corrupted_activation[:, :, head] = clean_activation[:, :, head]
    return corrupted_activation


def layer_head_pattern_patch_setter(
    corrupted_activation: Tensor, index: Index, clean_activation: Tensor
) -> Tensor:
    """Index (layer, head), of patterns and scores [batch, head, dest, src]."""
    _, head = index
    corrupted_activation[:, head] = clean_activation[:, head]
    return corrupted_activation


def layer_head_pos_pattern_patch_setter(
    corrupted_activation: Tensor, index: Index, clean_activation: Tensor
) -> Tensor:
    """Index (layer, head, dest), of patterns and scores [batch, head, dest, src]."""
    _, head, dest = index
    corrupted_activation[:, head, dest] = clean_activation[:, head, dest]
    return corrupted_activation


def layer_head_dest_src_pos_pattern_patch_setter(
    corrupted_activation: Tensor, index: Index, clean_activation: Tensor
) -> Tensor:
    """Index (layer, head, dest, src), of patterns and scores [batch, head, dest, src]."""
    _, head, dest, src = index
    corrupted_activation[:, head, dest, src] = clean_activation[:, head, dest, src]
    return corrupted_activation


# ---- one function for all


def make_df_from_ranges(column_max_ranges: Sequence[int], column_names: Sequence[str]) -> pd.DataFrame:
    """Every combination of numbers from 0 below each maximum, a column each; the last column changes first."""
    import pandas as pd

    rows = list(itertools.product(*map(range, column_max_ranges)))
    return pd.DataFrame(rows, columns=list(column_names))


@torch.no_grad()
def generic_activation_patch(
    model: HookedTransformer,
    corrupted_tokens: Tensor,
    clean_cache: ActivationCache,
    patching_metric: Metric,
    patch_setter: Setter,
    activation_name: str,
    index_axis_names: Sequence[str] | None = None,
    index_df: pd.DataFrame | None = None,
    return_index_df: bool = False,
) -> Any:
    """The metric of each patched run.

    Args:
        corrupted_tokens: [b, p], the run that is patched.
        clean_cache: where the values come from.
        patching_metric: logits [b, p, v] → a number.
        patch_setter: (corrupted activation, index, clean activation) → the patched activation. It may change what it
            is given, and is called more than once for an index.
        activation_name: a kind of site, as `get_act_name` takes it ("resid_pre", "z", "pattern", …).
        index_axis_names: axes to go through: the first is "layer"; "pos", "head_index", "head", "dest_pos", "src_pos".
        index_df: indices to go through instead, a row each, with the layer in the first column.
        return_index_df: give the indices as well.

    Returns:
        A tensor with an axis for each of `index_axis_names`, or one value per row of `index_df`.

    Raises:
        ValueError: not exactly one of the two ways of giving indices, an unknown axis, no such site.
    """
    if (index_axis_names is None) == (index_df is None):
        raise ValueError("give either index_axis_names or index_df")
    flat, sizes = index_axis_names is None, list[int]()
    if index_axis_names is not None:
        sizes = [_size(model, axis, corrupted_tokens.shape[-1], activation_name) for axis in index_axis_names]
        index_df = make_df_from_ranges(sizes, index_axis_names)
    assert index_df is not None
    rows = [tuple(map(int, row)) for row in index_df.itertuples(index=False)]
    names = {
        layer: expand(act_name(activation_name, layer), model.sites)[0] for layer in {r[0] for r in rows}
    }
    tokens = corrupted_tokens[None] if corrupted_tokens.ndim == 1 else corrupted_tokens
    patches = Patches(model, tokens, clean_cache, patching_metric, patch_setter, names)
    values = torch.tensor(patches.values(rows), device=model.device, dtype=torch.float32)
    found = values if flat else values.view(sizes)
    return (found, index_df) if return_index_df else found


def _size(model: HookedTransformer, axis: str, n_pos: int, activation_name: str) -> int:
    kv = activation_name in ("k", "v")
    heads = model.cfg.stack.n_kv_heads if kv else model.cfg.n_heads
    sizes = {"layer": model.cfg.n_layers, "head": heads, "head_index": heads}
    sizes |= dict.fromkeys(("pos", "src_pos", "dest_pos"), n_pos)
    if axis not in sizes:
        raise ValueError(unknown("axis", axis, AXES))
    return sizes[axis]


# ---- the engine

ADDING = {
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
    "attn.hook_z",
}
"""Kinds of sites whose change moves the stream by a sum."""


class Patches:
    """The corrupted run, and what patches of one kind of activation do to it."""

    def __init__(
        self, model: HookedTransformer, tokens: Tensor, clean: ActivationCache, metric: Metric, setter: Setter,
        names: dict[int, str],
    ) -> None:  # fmt: skip
        self.model, self.clean, self.metric, self.setter, self.names = model, clean, metric, setter, names
        self.tokens = tokens.to(model.device)
        self.whole = not _shares(model) or any(model.sites[name].layer is None for name in names.values())
        if self.whole:
            return
        nothing = torch.zeros(len(tokens), dtype=torch.int64)
        ids = tokens.cpu()
        self.suffix = Suffix.of(model, Pairs(ids, ids, nothing, nothing), share_prefix=False)
        blocks = map(model.block, range(model.cfg.n_layers))
        streams = {s for b in blocks for s in (b.hook_resid_pre, b.hook_resid_mid, b.hook_resid_post)}
        taps, past = Taps((streams & model.sites.keys()) | set(names.values())), model.new_past()
        self.logits = Transformer.forward(model, self.tokens, taps=taps, past=past)
        past.freeze()
        self.past, self.seen = past, taps.seen
        row = memory.block_row(model.cfg, tokens.shape[1]) + 4 * tokens.shape[1] * model.cfg.d_vocab
        self.together = max(1, memory.rows_within(memory.DEFAULT, row) // len(tokens))

    def values(self, rows: list[tuple[int, ...]]) -> list[float]:
        """The metric of the run with each patch."""
        if self.whole:
            return [self._whole(row) for row in rows]
        base = float(self.metric(self.logits))
        found = dict.fromkeys(range(len(rows)), base)
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            first = self._first_change(row)
            if first is not None:
                group = -1 if self._adds(row[0]) else row[0]
                groups[group, first].append(i)
        for (layer, skip), members in groups.items():
            for start in range(0, len(members), self.together):
                part = members[start : start + self.together]
                run = self._climbed if layer < 0 else self._from_layer
                found |= run([(i, rows[i]) for i in part], skip)
        return [found[i] for i in range(len(rows))]

    def _patched(self, row: tuple[int, ...]) -> Tensor:
        """The corrupted run's activation with the patch, as the core has it."""
        point = self.model.hook_dict[self.names[row[0]]]
        x = self.seen[point.name]
        shown = point.shown(x)
        new = self.setter(shown.clone(), list(row), self.clean[point.name])
        return point.hidden(new, x)

    def _first_change(self, row: tuple[int, ...]) -> int | None:
        """The first position at which a patch changes anything; of patterns, the position that looks."""
        site = self.model.sites[self.names[row[0]]]
        axes = site.shape.split()
        changed = (self._patched(row) != self.seen[site.name]).movedim(axes.index("pos"), 0).flatten(1).any(1)
        where = changed.nonzero()
        return int(where[0]) if len(where) else None

    def _adds(self, layer: int) -> bool:
        kind, block = self.model.sites[self.names[layer]].kind, self.model.block(layer)
        return kind in ADDING and not (kind == "attn.hook_z" and block.ln1_post is not None)

    def _climbed(self, members: list[tuple[int, tuple[int, ...]]], skip: int) -> dict[int, float]:
        """Patches of what adds to the stream, of any layers, with the same first change."""
        joins = [
            Join(row[0], self._stage(row[0]), (i,), partial(self._stream, row, skip)) for i, row in members
        ]
        past = self.past.upto(skip) if skip else None
        keys, stream = climb(self.suffix, sorted(joins, key=lambda join: join.layer), past, skip)
        logits = self.model.to_logits(stream).unflatten(0, (len(keys), -1))
        return {i: self._measure(x, skip) for (i,), x in zip(keys, logits, strict=True)}

    def _stage(self, layer: int) -> Stage:
        kind, block = self.model.sites[self.names[layer]].kind, self.model.block(layer)
        if kind == "hook_resid_pre":
            return "pre"
        early = kind in ("attn.hook_z", "hook_attn_out", "hook_resid_mid")
        return "mid" if early and not block.one_sum else "post"

    def _stream(self, row: tuple[int, ...], skip: int) -> Tensor:
        """The corrupted run's stream after the patch, [b, t, d]."""
        block, name = self.model.block(row[0]), self.names[row[0]]
        new, kind = self._patched(row)[:, skip:], self.model.sites[name].kind
        if kind.startswith("hook_resid"):
            return new
        change = new - self.seen[name][:, skip:]
        if kind == "attn.hook_z":
            change = torch.einsum("bthe,hed->btd", change, block.attn.W_O)
        site = block.hook_resid_mid if self._stage(row[0]) == "mid" else block.hook_resid_post
        return self.seen[site][:, skip:] + change

    def _from_layer(self, members: list[tuple[int, tuple[int, ...]]], skip: int) -> dict[int, float]:
        """Patches of any activation of one layer: the block is run with it, on the corrupted run's stream."""
        layer, n = members[0][1][0], len(self.tokens)
        name = self.names[layer]
        axis = self.model.sites[name].shape.split().index("pos")

        def edit(x: Tensor) -> Tensor:
            new = [self._patched(row).narrow(axis, skip, x.shape[axis]) for _, row in members]
            return torch.cat(new)

        stream = self.seen[self.model.block(layer).hook_resid_pre][:, skip:].repeat(len(members), 1, 1)
        past = self.past.upto(skip) if skip else None
        logits = Transformer.forward(
            self.model, stream, start_at_layer=layer, taps=Taps(edits={name: edit}), past=past
        )
        return {i: self._measure(x, skip) for (i, _), x in zip(members, logits.split(n), strict=True)}

    def _measure(self, logits: Tensor, skip: int) -> float:
        return float(self.metric(torch.cat([self.logits[:, :skip], logits], 1)))

    def _whole(self, row: tuple[int, ...]) -> float:
        """A run through all of the model and its hooks."""
        name = self.names[row[0]]

        def hook(x: Tensor, hook: Any) -> Tensor:
            return self.setter(x.clone(), list(row), self.clean[name])

        return float(self.metric(self.model.run_with_hooks(self.tokens, fwd_hooks=[(name, hook)])))


def _shares(model: HookedTransformer) -> bool:
    """Can runs of this model stand on another's stream, keys and values?"""
    cfg = model.cfg
    plain = cfg.causal and cfg.source is None and cfg.unembed is not None and cfg.stack.attends
    return plain and not is_hooked(model)


# ---- the kinds of patches


def _of(activation_name: str, setter: Setter, *axes: str) -> Callable[..., Tensor]:
    return partial(
        generic_activation_patch, patch_setter=setter, activation_name=activation_name, index_axis_names=axes
    )


def _heads(name: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Of one kind of head's vectors: by position [layer, pos, head], and at all positions [layer, head]."""
    by_pos = _of(name, layer_pos_head_vector_patch_setter, "layer", "pos", "head")
    return by_pos, _of(name, layer_head_vector_patch_setter, "layer", "head")


get_act_patch_resid_pre = _of("resid_pre", layer_pos_patch_setter, "layer", "pos")
get_act_patch_resid_mid = _of("resid_mid", layer_pos_patch_setter, "layer", "pos")
get_act_patch_resid_post = _of("resid_post", layer_pos_patch_setter, "layer", "pos")
get_act_patch_attn_out = _of("attn_out", layer_pos_patch_setter, "layer", "pos")
get_act_patch_mlp_out = _of("mlp_out", layer_pos_patch_setter, "layer", "pos")

get_act_patch_attn_head_out_by_pos, get_act_patch_attn_head_out_all_pos = _heads("z")
get_act_patch_attn_head_q_by_pos, get_act_patch_attn_head_q_all_pos = _heads("q")
get_act_patch_attn_head_k_by_pos, get_act_patch_attn_head_k_all_pos = _heads("k")
get_act_patch_attn_head_v_by_pos, get_act_patch_attn_head_v_all_pos = _heads("v")
get_act_patch_attn_head_pattern_all_pos = _of(
    "pattern", layer_head_pattern_patch_setter, "layer", "head_index"
)
get_act_patch_attn_head_pattern_by_pos = _of(
    "pattern", layer_head_pos_pattern_patch_setter, "layer", "head_index", "dest_pos"
)
get_act_patch_attn_head_pattern_dest_src_pos = _of(
    "pattern", layer_head_dest_src_pos_pattern_patch_setter, "layer", "head_index", "dest_pos", "src_pos"
)


def _padded(found: list[Tensor]) -> Tensor:
    """Stacked; keys and values of fewer heads are filled up with zeros, as in TransformerLens."""
    heads = max(x.shape[-1] for x in found)
    return torch.stack([torch.nn.functional.pad(x, (0, heads - x.shape[-1])) for x in found])


def get_act_patch_attn_head_all_pos_every(
    model: HookedTransformer, corrupted_tokens: Tensor, clean_cache: ActivationCache, metric: Metric
) -> Tensor:
    """[5, layer, head]: patches of each head's output, queries, keys, values and pattern, at all positions."""
    given = (model, corrupted_tokens, clean_cache, metric)
    vectors = (
        get_act_patch_attn_head_out_all_pos, get_act_patch_attn_head_q_all_pos, get_act_patch_attn_head_k_all_pos,
        get_act_patch_attn_head_v_all_pos, get_act_patch_attn_head_pattern_all_pos,
    )  # fmt: skip
    return _padded([function(*given) for function in vectors])


def get_act_patch_attn_head_by_pos_every(
    model: HookedTransformer, corrupted_tokens: Tensor, clean_cache: ActivationCache, metric: Metric
) -> Tensor:
    """[5, layer, pos, head]: the same, position by position."""
    given = (model, corrupted_tokens, clean_cache, metric)
    vectors = (
        get_act_patch_attn_head_out_by_pos, get_act_patch_attn_head_q_by_pos, get_act_patch_attn_head_k_by_pos,
        get_act_patch_attn_head_v_by_pos,
    )  # fmt: skip
    patterns = get_act_patch_attn_head_pattern_by_pos(*given).transpose(1, 2)
    return _padded([*(function(*given) for function in vectors), patterns])


def get_act_patch_block_every(
    model: HookedTransformer, corrupted_tokens: Tensor, clean_cache: ActivationCache, metric: Metric
) -> Tensor:
    """[3, layer, pos]: patches of the stream that enters each block, and of what its attention and MLP write."""
    given = (model, corrupted_tokens, clean_cache, metric)
    functions = (get_act_patch_resid_pre, get_act_patch_attn_out, get_act_patch_mlp_out)
    return torch.stack([function(*given) for function in functions])
