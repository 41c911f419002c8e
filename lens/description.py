"""A model in words and numbers, from its config and the shapes of its tensors: no weight is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from lens.checkpoint import LazyTensors
from lens.config import ModelConfig, StackConfig
from lens.load import read
from lens.parameters import shapes_of
from lens.progress import Progress, silent
from lens.sites import sites_of
from lens.sources import open_checkpoint


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
    n_parameters: int
    memory: dict[str, int]
    sizes: dict[str, int | None]
    n_sites: int
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
    sites = sites_of(cfg)
    counts = Counter(site.kind for site in sites.values())
    firsts = {site.kind: site for site in reversed(sites.values())}
    return Description(
        name=checkpoint.name,
        origin=checkpoint.origin,
        revision=checkpoint.revision,
        licence=checkpoint.card.get("licence") or "not stated",
        family=cfg.family,
        words=in_words(cfg),
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
        site_kinds=[
            SiteKind(kind, counts[kind], firsts[kind].shape, firsts[kind].meaning, firsts[kind].extra)
            for kind in counts
        ],
    )


def n_parameters(cfg: ModelConfig) -> int:
    """Number of parameters; a tied embedding counts once."""
    shapes = shapes_of(cfg)
    if cfg.tied:
        del shapes["unembed.linear.weight"]
    return sum(prod(shape) for shape in shapes.values())


def in_words(cfg: ModelConfig) -> list[str]:
    """The architecture, one line per part, in the order of the data."""
    c = cfg.stack
    tied = ", used again as the unembedding" if cfg.tied else ""
    lines = [f"embedding of {cfg.d_vocab:,} tokens in {cfg.embed.d_embed} dimensions{tied}", _positions(cfg)]
    order = "attention and MLP side by side" if c.parallel else "attention, then MLP"
    kind = f"{c.n_layers} blocks: " + ("attention only" if c.d_mlp is None else order)
    lines += [f"{kind}{_norms(c)}", _attention(c)]
    if c.d_mlp is not None:
        lines.append(_mlp(c, c.d_mlp))
    scores = "" if cfg.unembed.softcap is None else f", logits bounded by {cfg.unembed.softcap:g}"
    final = "a final norm, then " if c.final_norm and c.norm != "none" else ""
    lines.append(f"{final}{'the same matrix' if cfg.tied else 'a matrix of its own'} to logits{scores}")
    return lines


def _positions(cfg: ModelConfig) -> str:
    kinds = []
    if cfg.embed.n_positions is not None:
        kinds.append("learned positions, added to the embedding")
    rotary = next((r for r in cfg.stack.rotary or () if r is not None), None)
    if rotary is not None:
        part = "" if rotary.dim == cfg.d_head else f" on {rotary.dim} of {cfg.d_head} dimensions"
        kinds.append(f"rotary positions in attention{part} (base {rotary.theta:,.0f})")
    return f"{' and '.join(kinds) or 'no positions'}; context of {cfg.n_ctx:,} tokens"


def _norms(c: StackConfig) -> str:
    if c.norm == "none":
        return "; no norms"
    names = {"in": "before each branch", "out": "on each branch's output", "add": "after each sum"}
    places = " and ".join(names[p] for p in ("in", "out", "add") if p in c.norm_placement)
    return f"; {'LayerNorm' if c.norm == 'layer' else 'RMSNorm'} {places}"


def _attention(c: StackConfig) -> str:
    shared = "" if c.n_kv_heads == c.n_heads else f" sharing {c.n_kv_heads} key/value heads"
    text = f"attention: {c.n_heads} heads of {c.d_head}{shared}{', causal' if c.causal else ''}"
    windows = sorted({w for w in c.windows or () if w is not None})
    if windows:
        n = sum(w is not None for w in c.windows or ())
        text += f", {n} of {c.n_layers} layers see the last {' or '.join(map(str, windows))} positions"
    if c.qk_norm:
        text += ", queries and keys normalised"
    return text if c.attn_softcap is None else f"{text}, scores bounded by {c.attn_softcap:g}"


def _mlp(c: StackConfig, d_mlp: int) -> str:
    kind = "gated MLP" if c.gated else "MLP"
    if c.experts is not None:
        return f"{c.experts.n} experts, {c.experts.top_k} per token: {kind} of {d_mlp:,} neurons ({c.act_fn})"
    return f"{kind} of {d_mlp:,} neurons ({c.act_fn})"
