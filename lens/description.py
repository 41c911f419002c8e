"""A model in words and numbers, from its config and the shapes of its tensors: no weight is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from lens.checkpoint import LazyTensors
from lens.config import MixerConfig, ModelConfig, PoolerConfig, SourceConfig, StackConfig
from lens.edits_in_words import edits_in_words
from lens.load import read
from lens.mixer import mixer_at
from lens.parameters import aliases_of, shapes_of
from lens.progress import Progress, silent
from lens.sites import sites_of
from lens.sources import open_checkpoint
from lens.sparsity import Fixed, Strided


@dataclass(frozen=True)
class SiteKind:
    """Sites that differ only in their layer. `count` is how many a model has."""

    kind: str
    count: int
    shape: str
    meaning: str
    extra: bool


@dataclass(frozen=True)
class Description:
    """What `lens info` tells. Memory is for the parameters alone, in bytes."""

    name: str
    origin: str
    revision: str
    licence: str
    family: str
    words: list[str]
    edits: list[str]
    n_parameters: int
    memory: dict[str, int]
    sizes: dict[str, int | None]
    n_sites: int
    blocks: str  # what the names of sites in a block begin with
    site_kinds: list[SiteKind]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def describe(name_or_path: str | Path, progress: Progress = silent) -> Description:
    """What is known of a model without running it. A model that is known and not here is fetched.

    Raises:
        ValueError: as `lens.load`.
    """
    checkpoint = open_checkpoint(name_or_path, progress)
    tensors = checkpoint.tensors
    cfg, _ = read(checkpoint, tensors.meta() if isinstance(tensors, LazyTensors) else tensors)
    n = n_parameters(cfg)
    parts = {"": cfg} if cfg.vision is None else {"": cfg, "vision: ": cfg.vision}
    sites = [(part + site.kind, site) for part, of in parts.items() for site in sites_of(of).values()]
    counts = Counter(kind for kind, _ in sites)
    firsts = dict(reversed(sites))
    return Description(
        name=checkpoint.name,
        origin=checkpoint.origin,
        revision=checkpoint.revision,
        licence=checkpoint.card.get("licence") or "not stated",
        family=cfg.family,
        words=in_words(cfg),
        edits=edits_in_words(cfg),
        n_parameters=n,
        memory={"float32": 4 * n, "bfloat16": 2 * n},
        sizes={
            "n_layers": cfg.n_layers,
            "n_heads": cfg.n_heads,
            "n_key_value_heads": cfg.n_key_value_heads,
            "d_model": cfg.d_model,
            "d_head": cfg.d_head,
            "d_mlp": cfg.d_mlp,
            "d_vocab": cfg.d_vocab,
            "n_ctx": cfg.n_ctx,
        },
        n_sites=len(sites),
        blocks="blocks.<layer>." if cfg.source is None else "encoder.<layer>. or decoder.<layer>.",
        site_kinds=[
            SiteKind(kind, counts[kind], firsts[kind].shape, firsts[kind].meaning, firsts[kind].extra)
            for kind in counts
        ],
    )


def n_parameters(cfg: ModelConfig) -> int:
    """Number of parameters; those that have several names count once."""
    aliases = aliases_of(cfg)
    return sum(prod(shape) for name, shape in shapes_of(cfg).items() if name not in aliases)


def in_words(cfg: ModelConfig) -> list[str]:
    """The architecture, one line per part, in the order of the data."""
    c = cfg.stack
    if cfg.source is not None:
        return _of_two(cfg, cfg.source)
    if cfg.vision is not None:
        both = {"texts": replace(cfg, vision=None), "images": cfg.vision}
        lines = [f"{what}: {line}" for what, part in both.items() for line in in_words(part)]
        return [*lines, "cosines of the vectors of images and texts, times a learned scale"]
    return [_embedding(cfg), _positions(cfg), *_stack(c), *_ends(cfg)]


def _of_two(cfg: ModelConfig, source: SourceConfig) -> list[str]:
    """An encoder–decoder: the encoder's lines, then the decoder's."""
    encoder = replace(cfg, embed=source.embed, stack=source.stack, source=None, tied=False)
    lines = [f"encoder: {line}" for line in (_embedding(encoder), _positions(encoder), *_stack(source.stack))]
    if source.stack.final_norm and source.stack.norm != "none":
        lines.append("encoder: a final norm")
    shared = "the encoder's embedding" if source.shared else _embedding(cfg)
    decoder = [shared, _positions(cfg), *_stack(cfg.stack)]
    return lines + [f"decoder: {line}" for line in decoder] + _ends(cfg)


def _stack(c: StackConfig) -> list[str]:
    mixers = [mixer_at(c.at(layer)) for layer in range(c.n_layers)]
    attends = [mixer is None or mixer.path == "attn" for mixer in mixers]
    first = "attention" if all(attends) else "attention or mixer" if any(attends) else "mixer"
    order = f"{first} and MLP side by side" if c.parallel else f"{first}, then MLP"
    order = f"{first}, then cross-attention, then MLP" if c.cross else order
    once = f" of {len(set(c.shared))} sets of parameters" if c.shared else ""
    once += " over two streams" if c.streams > 1 else ""
    kind = f"{_several(c.n_layers, 'block')}{once}: " + (f"{first} only" if c.d_mlp is None else order)
    own = all(mixer is not None and mixer.mlp is not None for mixer in mixers)
    mlp = [] if own or c.d_mlp is None else [_mlp(c, c.d_mlp)]
    return [f"{kind}{_norms(c)}", *_stages(c), *_mixing(c), *mlp]


def _stages(c: StackConfig) -> list[str]:
    """Sizes of the stages, where there are several."""
    each = [
        f"{s.n_layers} blocks of {s.d_model} dimensions and {s.n_heads} heads on {s.grid[0]} × {s.grid[1]} positions"
        for s in c.stages or ()
    ]
    return (
        [f"stages: {'; '.join(each)}; between them, four neighbouring positions become one"] if each else []
    )


def _mixing(c: StackConfig) -> list[str]:
    """Attention, and each kind of mixer, one line each."""
    first = dict[MixerConfig | None, int]()
    for layer, mixer in enumerate(c.mixers):
        first.setdefault(mixer, layer)
    lines = []
    for mixer, layer in first.items():
        where = "" if len(first) == 1 else f" (in {c.mixers.count(mixer)} of {c.n_layers} layers)"
        here = mixer_at(c.at(layer))
        lines.append((_attention(c) if here is None else here.words(c.at(layer))) + where)
    return lines


def _embedding(cfg: ModelConfig) -> str:
    e = cfg.embed
    if e.patches is not None:
        (height, width), (h, w) = e.patches.image_size, e.patches.patch_size
        token = ", behind a class token" if e.patches.class_token else ""
        token += "" if e.norm_eps is None else ", normalised"
        channels = _several(e.patches.n_channels, "channel")
        return f"images of {height} × {width} in patches of {h} × {w}, {channels}{token}"
    if e.mel is not None:
        return f"{e.mel.n_frames:,} frames of {e.mel.n_mels} mel bands, through two convolutions"
    if e.features is not None:
        net, what = (
            e.features.backbone,
            "bottlenecks" if e.features.backbone.bottleneck else "pairs of convolutions",
        )
        through = f"a ResNet of {sum(net.depths)} {what} to {e.features.width:,} channels"
        return f"images of any size, {net.n_channels} channels, through {through}; its places in {e.d_embed} dimensions"
    if e.empty:
        if not e.positions_in_attention:
            return f"{e.n_positions:,} positions, whose embeddings the stream begins as"
        return f"{e.n_positions} object queries, for which the stream begins at zero"
    tied = ", used again as the unembedding" if cfg.tied else ""
    text = f"embedding of {e.d_vocab:,} tokens in {e.d_embed} dimensions{tied}"
    if e.latents is not None:
        text += f", which {e.latents[0]:,} latents of {e.latents[1]:,} dimensions read in its place"
    if e.copies > 1:
        text += f", {e.copies} times side by side"
    if e.n_types:
        text += f", and of {e.n_types} token type{'s' * (e.n_types > 1)}"
    if e.norm_eps is not None:
        text += ", normalised"
    return text if e.project == "tokens" else f"{text}, projected to {cfg.d_model}"


def _ends(cfg: ModelConfig) -> list[str]:
    """The heads, one line each; without any, that the last stream is what a run gives."""
    final = "a final norm, then " if cfg.stack.final_norm and cfg.stack.norm != "none" else ""
    lines = []
    if cfg.pooler is not None:
        lines.append(f"{final}{_pooled(cfg, cfg.pooler)}")
    if cfg.classifier is not None:
        c = cfg.classifier
        tells = {
            "label": "labels",
            "follows": "does the second text follow",
            "answer": "start and end of answers",
            "object": "which object, or none",
        }
        what = "image" if cfg.embed.patches is not None and c.of == "text" else c.of
        what = "object query" if cfg.embed.empty else what
        lines.append(
            f"{final}logits over {c.n_classes} class{'es' * (c.n_classes > 1)} of each {what} ({tells[c.task]})"
        )
    if cfg.boxes:
        lines.append(f"{final}three linear maps and a sigmoid to the box of each object query")
    if cfg.unembed is not None:
        scores = "" if cfg.unembed.softcap is None else f", logits bounded by {cfg.unembed.softcap:g}"
        hidden = f"a hidden layer of {cfg.unembed.d_embed} ({cfg.unembed.transform}), then "
        final += hidden if cfg.unembed.transform else ""
        lines.append(f"{final}{'the same matrix' if cfg.tied else 'a matrix of its own'} to logits{scores}")
    elif cfg.classifier is None:
        lines.append("no unembedding: a run gives the last residual stream")
    return lines


def _pooled(cfg: ModelConfig, pooler: PoolerConfig) -> str:
    what = "image" if cfg.embed.patches is not None else "text"
    places = {"first": "", "mean": ", the mean of all positions"}
    where = places.get(pooler.at, ", read where the text ends")
    if not pooler.layer:
        return f"a vector per {what}{where}"
    return f"a pooled vector per {what} ({pooler.act_fn or f'{pooler.d_out or cfg.d_model} entries'}){where}"


def _positions(cfg: ModelConfig) -> str:
    kinds = []
    if cfg.embed.positions_in_attention:
        tables = (
            "learned vectors of row and column" if cfg.embed.features and cfg.embed.features.learned else ""
        )
        tables = tables or ("sines of row and column" if cfg.embed.features else "learned positions")
        kinds.append(f"{tables}, added to what queries and keys read in every layer")
    elif cfg.embed.axial is not None:
        (rows, _), (columns, _) = cfg.embed.axial
        kinds.append(f"learned places on a map of {rows} × {columns}, added to the embedding")
    elif cfg.embed.n_positions is not None and not cfg.embed.empty:
        kinds.append("learned positions, added to the embedding")
    elif cfg.embed.empty:
        kinds.append("learned positions")
    rotary = next((r for r in cfg.stack.rotary or () if r is not None), None)
    if rotary is not None:
        part = "" if rotary.dim == cfg.d_head else f" on {rotary.dim} of {cfg.d_head} dimensions"
        kinds.append(f"rotary positions in attention{part} (base {rotary.theta:,.0f})")
    if cfg.stack.relative is not None:
        table = {
            "buckets": "a bias per bucket of distances",
            "disentangled": "distances meet queries and keys",
        }
        kinds.append(f"positions in the scores ({table[cfg.stack.relative.kind]})")
    n, what = (cfg.n_ctx, "tokens") if cfg.embed.n_fixed is None else (cfg.embed.n_fixed, "positions")
    length = "images of any size" if cfg.embed.features else f"context of {n:,} {what}"
    if not cfg.stack.attends and cfg.stack.endless:
        length = f"texts of any length (trained on {n:,} {what})"
    return f"{' and '.join(kinds) or 'no positions'}; {length}"


def _norms(c: StackConfig) -> str:
    if c.norm == "none":
        return "; no norms"
    names = {"in": "before each branch", "out": "on each branch's output", "add": "after each sum"}
    places = " and ".join(names[p] for p in ("in", "out", "add") if p in c.norm_placement)
    return f"; {'LayerNorm' if c.norm == 'layer' else 'RMSNorm'} {places}"


def _attention(c: StackConfig) -> str:
    shared = "" if c.n_kv_heads == c.n_heads else f" sharing {c.n_kv_heads} key/value heads"
    text = f"attention: {c.n_heads} heads of {c.d_head}{shared}{', causal' if c.causal else ', in both directions'}"
    windows = sorted({w for w in c.windows or () if isinstance(w, int)})
    if windows:
        n = sum(isinstance(w, int) for w in c.windows or ())
        which = " or ".join(map(str, windows))
        reach = (
            f"the last {which} positions" if c.causal else f"less than {which} positions away on both sides"
        )
        text += f", {n} of {c.n_layers} layers see {reach}"
    for pattern, n in Counter(w for w in c.windows or () if isinstance(w, Strided | Fixed)).items():
        text += f", {n} of {c.n_layers} layers see {pattern.words}"
    if c.global_tokens:
        text += ", global tokens see and are seen from everywhere"
    if c.qk_norm:
        text += ", queries and keys normalised"
    return text if c.attn_softcap is None else f"{text}, scores bounded by {c.attn_softcap:g}"


def _mlp(c: StackConfig, d_mlp: int) -> str:
    kind = "gated MLP" if c.gated else "MLP"
    if c.experts is not None:
        sparse = c.experts.layers
        where = "" if sparse is None else f" in {len(sparse)} of {c.n_layers} layers"
        full = "" if c.experts.capacity is None else f", {c.experts.capacity} tokens of a text each"
        text = f"{c.experts.n} experts{where}, {c.experts.top_k} per token{full}"
        both = "" if c.experts.shared is None else f", and one of {c.experts.shared:,} for all tokens"
        rest = "" if sparse is None else f"; {d_mlp:,} in the other layers"
        return f"{text}: {kind} of {c.experts.d_mlp or d_mlp:,} neurons ({c.act_fn}){both}{rest}"
    least = "" if c.stages is None or c.stages[0].d_mlp == d_mlp else f"{c.stages[0].d_mlp:,} to "
    return f"{kind} of {least}{d_mlp:,} neurons ({c.act_fn}{', normalised' if c.mlp_norm else ''})"


def _several(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
