"""CLIP (arXiv 2103.00020): a causal model of texts, read where they end, and a vision transformer, in one space.

Checkpoints of both are a model of texts whose `vision` reads images; those of one are that one alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lens.config import EmbedConfig, ModelConfig, PatchConfig, PoolerConfig, StackConfig
from lens.family import Family
from lens.fields import Fields
from lens.weights import Rule, Table, alias, fused, same, skipped

SHAPE = {"projection_dim": 512, "num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
TEXT = SHAPE | {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
VISION = SHAPE | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
"""What a configuration of a part does not say; one of both parts may tell nothing but differences."""

WRONG_END = 2
"""The end of texts in the first configurations, whose tokenizers have the highest id there."""


def build(f: Fields) -> ModelConfig:
    kind = f.values.get("model_type")
    if kind == "clip_text_model":
        return _text(f)
    if kind == "clip_vision_model":
        return _vision(f)
    f.ignore("initializer_factor", "logit_scale_init_value")
    width = f.get("projection_dim", default=512)
    text, vision = (
        Fields(f.family, _part(f, f"{name}_config", usual), f.tensors)
        for name, usual in (("text", TEXT), ("vision", VISION))
    )
    cfg = replace(_text(text, width), vision=_vision(vision, width))
    text.close()
    vision.close()
    return cfg


def _part(f: Fields, name: str, usual: dict[str, Any]) -> dict[str, Any]:
    """The configuration of one part; the first checkpoints say it twice, and the second overrides the first."""
    part, second = f.get(name, default={}), f.get(f"{name}_dict", default=None)
    return dict(part) if second is None else {**part, **usual, **second}


def _text(f: Fields, width: int | None = None) -> ModelConfig:
    """The model of texts; `width` is that of the common space, where images are read beside it."""
    stack = _stack(f, TEXT, causal=True)
    n_ctx, d_vocab = (f.get(name, default=TEXT[name]) for name in ("max_position_embeddings", "vocab_size"))
    token = f.get("eos_token_id", default=TEXT["eos_token_id"])
    if not isinstance(token, int):
        raise ValueError(f"{f.family} config field eos_token_id={token!r}: one token ends a text")
    end: dict[str, Any] = {"at": "token", "token": token} if token != WRONG_END else {"at": "highest"}
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=stack.d_model, n_positions=n_ctx),
        stack=stack,
        unembed=None,
        pooler=_pooler(f, "text_projection", width, **end),
    )


def _vision(f: Fields, width: int | None = None) -> ModelConfig:
    stack = _stack(f, VISION, causal=False)
    size, patch, channels = (
        f.get(name, default=VISION[name]) for name in ("image_size", "patch_size", "num_channels")
    )
    patches = PatchConfig(image_size=(size, size), patch_size=(patch, patch), n_channels=channels, bias=False)
    n = patches.n_positions
    return ModelConfig(
        family=f.family,
        name=f"{f.family}.vision" if width else f.family,
        n_ctx=n,
        embed=EmbedConfig(
            d_vocab=0, d_embed=stack.d_model, n_positions=n, patches=patches, norm_eps=stack.norm_eps
        ),
        stack=stack,
        unembed=None,
        pooler=_pooler(f, "visual_projection", width),
    )


def _stack(f: Fields, usual: dict[str, Any], *, causal: bool) -> StackConfig:
    f.ignore("initializer_factor", "dropout")
    d_model, n_heads, n_layers, d_mlp = (
        f.get(name, default=usual[name])
        for name in ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size")
    )
    return StackConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_head=d_model // n_heads,
        n_kv_heads=n_heads,
        d_mlp=d_mlp,
        causal=causal,
        norm_eps=f.number("layer_norm_eps", default=usual["layer_norm_eps"]),
        attn_bias=frozenset({"q", "k", "v", "o"}),
        act_fn=f.activation("hidden_act", default=usual["hidden_act"]),
    )


def _pooler(f: Fields, projection: str, width: int | None, **at: Any) -> PoolerConfig:
    """The vector's place, and the map to the common space: of a part alone, where the checkpoint has one."""
    own = f.get("projection_dim", default=512)
    if width is None and not f.has(f"{projection}.weight", unknown=True):
        return PoolerConfig(act_fn=None, layer=False, **at)
    return PoolerConfig(act_fn=None, d_out=width or own, bias=False, **at)


def weights(cfg: ModelConfig) -> Table:
    if cfg.vision is not None:
        both = (same("logit_scale", "contrast.weight"), *_texts(), *_images("vision."))
        return Table("clip", (*both, *skipped(*BUFFERS)))
    part, kind = (_images(), "vision_model.") if cfg.embed.patches is not None else (_texts(), "text_model.")
    rules = [*part, *skipped(*BUFFERS)]
    if cfg.pooler is not None and not cfg.pooler.layer:  # saved without a prefix, which older ones have
        bare = [replace(rule, source=rule.source.removeprefix(kind)) for rule in rules]
        rules = [*bare, *(alias(rule) for rule in rules if rule.source.startswith(kind))]
    return Table("clip", tuple(rules))


BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


def _texts(prefix: str = "") -> tuple[Rule, ...]:
    theirs = "text_model.embeddings"
    return (
        same(f"{theirs}.token_embedding", f"{prefix}embed.tokens"),
        same(f"{theirs}.position_embedding", f"{prefix}embed.positions"),
        *_layers("text_model", prefix),
        same("text_model.final_layer_norm", f"{prefix}stack.ln_final"),
        same("text_projection", f"{prefix}pooler.dense"),
    )


def _images(prefix: str = "") -> tuple[Rule, ...]:
    theirs, token = "vision_model.embeddings", f"{prefix}embed.patches.class_token.weight"
    return (
        fused(f"{theirs}.class_embedding", token, weight="d -> 1 d"),
        same(f"{theirs}.patch_embedding", f"{prefix}embed.patches.linear"),
        same(f"{theirs}.position_embedding", f"{prefix}embed.positions"),
        same("vision_model.pre_layrnorm", f"{prefix}embed.ln"),
        *_layers("vision_model", prefix),
        same("vision_model.post_layernorm", f"{prefix}stack.ln_final"),
        same("visual_projection", f"{prefix}pooler.dense"),
    )


def _layers(side: str, prefix: str) -> tuple[Rule, ...]:
    theirs, ours = f"{side}.encoder.layers.{{l}}", f"{prefix}stack.blocks.{{l}}"
    names = {f"self_attn.{a}_proj": f"attn.{a}" for a in "qkv"} | {"self_attn.out_proj": "attn.o"}
    names |= {"layer_norm1": "ln1", "layer_norm2": "ln2", "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down"}
    return tuple(same(f"{theirs}.{a}", f"{ours}.{b}") for a, b in names.items())


FAMILY = Family("clip", ("clip", "clip_text_model", "clip_vision_model"), build, weights)
