"""What a run was asked for, checked before anything runs. Every message names the operand and what would do.

Letters: b batch, p position, k cached and new positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lens import images, sounds, text
from lens.config import EmbedConfig, ModelConfig, SourceConfig, StackConfig
from lens.inputs import ModelInputs
from lens.kv import KeyValues
from lens.sites import NamesFilter, Site, resolve
from lens.taps import AnyTaps

if TYPE_CHECKING:
    from lens.model import Transformer


@dataclass(frozen=True)
class Span:
    """The part of a model that one run computes: layers `start` to `stop` - 1, with or without its two ends."""

    start: int
    stop: int
    embeds: bool
    unembeds: bool
    encodes: bool = False

    @classmethod
    def of(cls, cfg: ModelConfig, given: Any, start: int, stop: int | None) -> Span:
        """The span of a run of `given` (text, ids or a residual stream) between two layers.

        Raises:
            ValueError: there are no such layers.
        """
        n = cfg.n_layers
        last = n if stop is None else stop + n if stop < 0 else stop
        if not 0 <= start <= n:
            raise ValueError(f"start_at_layer is {start} and {cfg.name} has layers 0 to {n - 1}")
        if not start <= last <= n:
            raise ValueError(f"stop_at_layer is {stop}; from layer {start} on it can be {start} to {n}")
        return cls(
            start,
            last,
            embeds=start == 0 and not is_stream(given, cfg),
            unembeds=stop is None,
            encodes=cfg.source is not None and _reads_source(given, cfg),
        )

    def fires(self, site: Site) -> bool:
        """Can this site fire in this run?"""
        if site.part == "source":
            return self.encodes
        if site.layer is not None:
            return self.start <= site.layer < self.stop
        return self.embeds if site.part == "embed" else self.unembeds

    def __str__(self) -> str:
        ends = [] if self.embeds else ["without the embedding"]
        ends += [] if self.unembeds else ["without the unembedding"]
        layers = f"of layers {self.start} to {self.stop - 1}" if self.start < self.stop else "of no layers"
        return " ".join([layers, " and ".join(ends)]).strip()


def is_stream(given: Any, cfg: ModelConfig) -> bool:
    """Is this a residual stream, rather than text, ids, images, or what a model that reads sounds takes for one?"""
    if isinstance(given, ModelInputs):
        return given.stream is not None
    floats = isinstance(given, Tensor) and given.is_floating_point()
    return floats and given.ndim != 4 and not sounds.reads(cfg)


def _reads_source(given: Any, cfg: ModelConfig) -> bool:
    """Does a run of this begin with the encoder?"""
    if isinstance(given, ModelInputs):
        return isinstance(given.source, ModelInputs) or images.of_source(given, cfg)
    return not is_stream(given, cfg)


def check_sites(model: Transformer, names: Iterable[str], span: Span) -> None:
    """Raise unless every name is a site of the model that can fire in this span."""
    for name in names:
        if name not in model.sites:
            resolve([name], model.sites)  # raises with the nearest names
            raise ValueError(f"{name!r} is a shorthand; taps take full site names")
        if not span.fires(model.sites[name]):
            raise ValueError(f"{name!r} cannot fire in a run {span}")


def reads(model: Transformer, names_filter: NamesFilter, span: Span) -> list[str]:
    """The sites a filter stands for, less those that a shorthand or function chose and this run does not reach."""
    named = names_filter if isinstance(names_filter, list | tuple | set | frozenset) else [names_filter]
    return [
        name for name in resolve(names_filter, model.sites) if name in named or span.fires(model.sites[name])
    ]


def check_past(past: KeyValues | None, batch: int, span: Span, cfg: ModelConfig) -> None:
    """Raise unless a run of `batch` rows can stand on `past`, and add all it should to it."""
    if past is None:
        return
    check_causal(cfg, "there are no keys and values that a run could stand on")
    if past.n_rows is not None and batch % past.n_rows:
        raise ValueError(f"the past has {past.n_rows} rows, and a run on it a multiple of that; not {batch}")
    if not past.frozen and span.stop - span.start < cfg.n_layers:
        raise ValueError(f"a run {span} would fill only some layers of `past`; freeze() it first")


def check_causal(cfg: ModelConfig, but: str) -> None:
    """Raise where positions look at what follows them, or a mixer takes texts as a whole."""
    if not cfg.causal:
        reads = (cfg if cfg.source is None else cfg.source).embed
        whole = "images as a whole" if reads.patches or reads.features else "texts in both directions"
        raise ValueError(f"{cfg.name} reads {whole}: {but}")
    for mixer in cfg.stack.mixers:
        if mixer is not None and not mixer.continues:
            raise ValueError(
                f"{cfg.name} mixes positions by {mixer.kind}, which takes texts as a whole: {but}"
            )


def check_logits_at(at: int | slice | Tensor | None, batch: int, n: int, c: StackConfig) -> None:
    """Raise unless the positions to unembed exist, of a run that begins with n."""
    n = entering(c, c.n_layers)[0] or n
    if at is None or isinstance(at, slice):
        return
    if isinstance(at, Tensor) and at.shape != (batch,):
        raise ValueError(f"logits_at holds one position per row, [{batch}]; not {list(at.shape)}")
    low, high = (at, at) if isinstance(at, int) else (int(at.min()), int(at.max()))
    if low < -n or high >= n:
        raise ValueError(f"logits_at is {low if low < -n else high} and the run has {n} positions")


def inputs(model: Transformer, given: Any, mask: Any, start: int) -> ModelInputs:
    """Ids [b, p] (or a residual stream [b, p, d]) on the model's device, with what goes with them.

    Raises:
        ValueError: they have another shape, or do not fit the model.
    """
    mask = None if mask is None else torch.as_tensor(mask)
    if model.cfg.source is not None:
        given, mask = with_source(model, given, mask)
    if isinstance(given, Tensor) and not images.is_picture(given, model.cfg):
        stream = given if is_stream(given, model.cfg) else None
        image = given if given.ndim == 4 else None
        given = ModelInputs(ids=given if stream is image is None else None, image=image, stream=stream)
    elif not isinstance(given, ModelInputs):
        given = text.to_inputs(model, given)
    given = replace(given, mask=given.mask if mask is None else mask)
    if given.mask is not None and (model.cfg.stack.stages is not None or model.cfg.embed.empty):
        what = "of its object queries" if model.cfg.embed.empty else "of them"
        raise ValueError(f"{model.cfg.name} reads whole images: nothing {what} can be masked")
    if given.source is not None and model.cfg.source is None:
        raise ValueError(f"{model.cfg.name} has no encoder that could read a source")
    if given.stream is not None:
        check_stream(given.stream, model.cfg.stack, start, model.cfg.embed)
        return given
    if start > 0:
        raise ValueError(f"a run that starts at layer {start} takes a residual stream [batch, pos, d_model]")
    if model.cfg.embed.patches is not None:
        images.check_size(given.image, model.cfg.embed.patches, model.cfg.name)
        return replace(given, image=given.image.to(model.dtype)).to(model.device)  # type: ignore[union-attr]
    if given.image is not None or given.features is not None or given.mel is not None:
        what = "images" if given.mel is None else "sounds"
        raise ValueError(f"{model.cfg.name} reads tokens, not {what}")
    if model.cfg.embed.empty:
        images.check_queries(given, model.cfg)
        return given.to(model.device)
    return replace(given, ids=tokens(given, model.cfg.embed, model.cfg.name)).to(model.device)


def tokens(given: ModelInputs, embed: EmbedConfig, name: str) -> Tensor:
    """The ids [b, p] of inputs, in order.

    Raises:
        ValueError: they have another shape, or an id or type is outside its table.
    """
    ids = given.given
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.ndim != 2 or ids.shape[1] == 0 or ids.shape[0] == 0:
        raise ValueError(f"token ids must be [batch, pos] with at least one of each, not {tuple(ids.shape)}")
    if ids.dtype == torch.bool or ids.is_floating_point():
        raise ValueError(f"token ids are whole numbers, not {ids.dtype}")
    ids = ids if ids.dtype in (torch.int32, torch.int64) else ids.long()  # the only ones that tables take
    check_ids("token id", ids, embed.d_vocab, f"the vocabulary of {name}")
    check_types(given.types, ids, embed.n_types, name)
    return ids


def with_source(model: Transformer, given: Any, mask: Tensor | None) -> tuple[Any, Tensor | None]:
    """Inputs of an encoder–decoder: what is not said to be the target is the source, and its mask."""
    cfg = model.cfg
    assert cfg.source is not None
    if is_stream(given, cfg) or isinstance(given, ModelInputs):
        given = given if isinstance(given, ModelInputs) else ModelInputs(stream=given)
        source = given.source
        if images.of_source(given, cfg):
            source, given = given, ModelInputs()
    elif isinstance(given, Tensor) and not sounds.reads(cfg) and not images.is_picture(given, cfg):
        source = (
            ModelInputs(image=given, mask=mask) if images.reads(cfg) else ModelInputs(ids=given, mask=mask)
        )
        given, mask = ModelInputs(), None
    else:
        given = text.to_inputs(model, given)
        source = given.source
    if isinstance(source, ModelInputs):
        source = _checked_source(model, source)
    if given.ids is None and given.stream is None and source is not None:
        given = ModelInputs(ids=text.start_of(cfg, source.n_rows))
    rows = None if source is None else source.n_rows
    if rows is not None and given.n_rows % rows:
        raise ValueError(f"the source has {rows} rows, and its target a multiple of that; not {given.n_rows}")
    return replace(given, source=source), mask


def _checked_source(model: Transformer, source: ModelInputs) -> ModelInputs:
    """A source as the encoder takes it: images or their features, a stream, mel frames or ids."""
    cfg = model.cfg
    assert cfg.source is not None
    if images.reads(cfg):
        return images.checked(source, cfg, model.dtype)
    if source.stream is not None:
        check_source(source.stream, cfg.source)
        return replace(source, ids=None)
    if cfg.source.embed.mel is not None:
        return replace(source, mel=sounds.checked(source.mel, cfg).to(model.dtype))
    return replace(source, ids=tokens(source, cfg.source.embed, cfg.name))


def check_source(stream: Tensor, source: SourceConfig) -> None:
    """Raise unless this is what an encoder reads in its embedding's place: its stream, or what latents read."""
    embedded = replace(source.stack, d_model=source.embed.d_embed, stages=None, streams=1)
    check_stream(stream, source.stack if source.embed.latents is None else embedded)


def entering(c: StackConfig, layer: int) -> tuple[int | None, int]:
    """Positions (None: any number) and width of the stream that enters a layer, or leaves the last."""
    if c.stages is None:
        return None, c.d_model
    here = c.at(min(layer, c.n_layers - 1))
    return prod(here.grid or ()), here.d_model


def check_stream(stream: Tensor, c: StackConfig, layer: int = 0, embed: EmbedConfig | None = None) -> None:
    """Raise unless this is a residual stream as it enters that layer; `embed` says what else could be meant."""
    n, width = entering(c, layer)
    if stream.ndim != 3 or stream.shape[-1] != width or n not in (None, stream.shape[1]):
        where = "" if n is None else f" that enters layer {layer}"
        found = f"{tuple(stream.shape)}{images.instead(embed)}"
        raise ValueError(f"a residual stream{where} is [batch, {n or 'pos'}, {width}], not {found}")


def n_positions(embed: EmbedConfig, given: ModelInputs) -> int:
    """How many positions a run of these has."""
    if given.features is not None and given.stream is None:
        return prod(given.features.shape[2:])
    return given.n if given.stream is not None or embed.n_fixed is None else embed.n_fixed


def ends(model: Transformer, given: ModelInputs, valid: Tensor | None, taps: AnyTaps) -> Tensor | None:
    """Where each text's vector is read, [b]; None where that is the first token, or no vector is looked at.

    Raises:
        ValueError: it is not known which tokens these are, or none of a text's ends it.
    """
    pooler = model.cfg.pooler
    if pooler is None or pooler.at in ("first", "mean") or not model.pools(taps):
        return None
    if given.ids is None:
        name = f"{model.cfg.name} reads a text's vector where the text ends"
        raise ValueError(f"{name}: give the ids beside the stream, as ModelInputs(stream=…, ids=…)")
    ids = given.ids.to(model.device)
    if ids.shape != (given.n_rows, given.n):
        raise ValueError(f"ids are {tuple(ids.shape)} and the stream beside them {tuple(given.given.shape)}")
    if valid is not None:
        ids = ids.masked_fill(~valid[:, -ids.shape[1] :], -1)
    if pooler.at == "highest":
        return ids.argmax(-1)
    found = ids == pooler.token
    check_ends(found, f"token {pooler.token}, which ends a text of {model.cfg.name}")
    return found.to(torch.uint8).argmax(-1)


def check_ends(found: Tensor, what: str) -> None:
    """Raise unless every row [b, p] has a place that was looked for."""
    if not bool(found.any(-1).all()):
        raise ValueError(f"row {int((~found.any(-1)).nonzero()[0])} has no {what}")


def check_ids(what: str, ids: Tensor, n: int, where: str) -> None:
    """Raise unless all ids are 0 to n - 1."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= n:
        bad = low if low < 0 else high
        raise ValueError(f"{what} {bad} is outside {where} (0 to {n - 1})")


def check_types(types: Tensor | None, ids: Tensor, n: int, name: str) -> None:
    """Raise unless token types fit their ids and the model has them."""
    if types is None:
        return
    if not n:
        raise ValueError(f"{name} has no token types")
    if types.shape != ids.shape:
        raise ValueError(f"token types are {tuple(types.shape)} and the ids {tuple(ids.shape)}")
    check_ids("token type", types, n, f"the token types of {name}")


def check_length(cfg: ModelConfig, total: int, source: bool = False) -> None:
    """Raise where a text of `total` tokens does not fit; where only scores or states know of positions, any does."""
    part = cfg.source if source and cfg.source is not None else cfg
    table = part.embed.n_positions
    if (table is None and part.stack.endless) or part.embed.features is not None:
        return
    limit = cfg.n_ctx if table is None else table if source else min(cfg.n_ctx, table)
    if total > limit:
        what = "source" if source else "prompt"
        raise ValueError(f"the {what} has {total} tokens and {cfg.name} takes at most {limit}")


def global_tokens(
    cfg: ModelConfig, given: ModelInputs, valid: Tensor | None, device: torch.device
) -> Tensor | None:
    """True at tokens that see all others and are seen by all, [b, p]; None where there are none.

    Raises:
        ValueError: the model has no such tokens, or the shape does not fit.
    """
    chosen = given.global_tokens
    if cfg.stack.global_tokens is None:
        if chosen is not None:
            raise ValueError(f"{cfg.name} has no global tokens")
        return None
    if chosen is None and cfg.stack.global_tokens == "first":
        place = torch.arange(given.n)[None] if valid is None else valid.long().cumsum(-1) - 1
        chosen = (place == 0).expand(given.n_rows, -1)
    if chosen is None:
        return None
    if chosen.shape != (given.n_rows, given.n):
        raise ValueError(f"global_tokens is {tuple(chosen.shape)} and the run has {(given.n_rows, given.n)}")
    chosen = chosen.to(device=device, dtype=torch.bool)
    chosen = chosen if valid is None else chosen & valid
    return chosen if bool(chosen.any()) else None


def validity(
    mask: Tensor | None, past: KeyValues | None, n: int, batch: int, device: torch.device
) -> Tensor | None:
    """Where tokens are real over cached and new positions, [b, k]; None where all are."""
    cached = None if past is None or past.valid is None else past.valid.repeat(batch // len(past.valid), 1)
    length = 0 if past is None else past.length
    if mask is None:
        if cached is None:
            return None
        mask = torch.ones(batch, n, dtype=torch.bool)
    elif not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("attention_mask must hold True or 1 where a token is real and False or 0 elsewhere")
    mask = mask.to(device=device, dtype=torch.bool)
    if mask.ndim == 2 and mask.shape[1] == n and length:
        before = mask.new_ones(batch, length) if cached is None else cached
        mask = torch.cat([before, mask], 1)
    if mask.shape != (batch, length + n):
        raise ValueError(
            f"attention_mask is {tuple(mask.shape)} and the run has {(batch, length + n)} positions"
        )
    if not bool(mask.any(-1).all()):
        empty = int((~mask.any(-1)).nonzero()[0])
        raise ValueError(f"row {empty} of attention_mask has no real token")
    return None if bool(mask.all()) else mask


def slicer(sites: Mapping[str, Site], pos_slice: int | slice) -> Callable[[str, Tensor], Tensor]:
    """Keeps the given query positions of whatever has a position axis; an int keeps the axis, of length one."""
    index = slice(pos_slice, pos_slice + 1 or None) if isinstance(pos_slice, int) else pos_slice

    def keep(name: str, x: Tensor) -> Tensor:
        axes = sites[name].shape.split()
        return x[(slice(None),) * axes.index("pos") + (index,)] if "pos" in axes else x

    return keep
