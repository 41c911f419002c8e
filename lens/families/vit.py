"""The vision transformer (arXiv 2010.11929), DeiT and DINO of its shape: patches behind a class token."""

from __future__ import annotations

from typing import Any

from lens.config import ClassifierConfig, EmbedConfig, ModelConfig, PatchConfig, PoolerConfig, StackConfig
from lens.family import Family
from lens.fields import Fields
from lens.weights import Rule, Table, alias, fused, same, skipped

BLOCK = "stack.blocks.{l}"


def build(f: Fields) -> ModelConfig:
    f.ignore("encoder_stride")  # of the head that paints masked patches, which is not read
    d_model, n_heads = f.get("hidden_size"), f.get("num_attention_heads")
    f.only("pooler_output_size", d_model)
    patches = PatchConfig(
        image_size=_pair(f.get("image_size", default=224)),
        patch_size=_pair(f.get("patch_size", default=16)),
        n_channels=f.get("num_channels", default=3),
    )
    bias = {"q", "k", "v", "o"} if f.get("qkv_bias", default=True) else {"o"}
    pooler = f.activation("pooler_act", default="tanh")
    eps = f.number("layer_norm_eps", default=1e-12)
    classifies = f.has("classifier.weight", unknown=True)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=patches.n_positions,
        embed=EmbedConfig(d_vocab=0, d_embed=d_model, n_positions=patches.n_positions, patches=patches),
        stack=StackConfig(
            n_layers=f.get("num_hidden_layers"),
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_model // n_heads,
            n_kv_heads=n_heads,
            d_mlp=f.get("intermediate_size"),
            causal=False,
            norm_eps=eps,
            attn_bias=frozenset(bias),  # type: ignore[arg-type]
            act_fn=f.activation("hidden_act", default="gelu"),
        ),
        unembed=None,
        pooler=PoolerConfig(act_fn=pooler)
        if f.has("vit.pooler.dense.weight", "pooler.dense.weight")
        else None,
        classifier=ClassifierConfig(n_classes=f.n_classes()) if classifies else None,
    )


def _pair(size: Any) -> tuple[int, int]:
    """Height and width, of which one may stand for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def weights(cfg: ModelConfig) -> Table:
    rules = (
        fused("vit.embeddings.cls_token", "embed.patches.class_token.weight", weight="1 n d -> n d"),
        fused("vit.embeddings.position_embeddings", "embed.positions.weight", weight="1 n d -> n d"),
        same("vit.embeddings.patch_embeddings.projection", "embed.patches.linear"),
        same("vit.layernorm", "stack.ln_final"),
        same("vit.pooler.dense", "pooler.dense"),
        same("classifier", "classifier.linear"),
        *_saved(),
        *_loaded(),
        *skipped("vit.embeddings.mask_token"),
    )
    return Table("vit", rules, prefix="vit.")


def _saved() -> tuple[Rule, ...]:
    """A block's names in checkpoints."""
    layer = "vit.encoder.layer.{l}"
    qkv = {"query": "q", "key": "k", "value": "v"}
    return (
        *(same(f"{layer}.attention.attention.{a}", f"{BLOCK}.attn.{b}") for a, b in qkv.items()),
        same(f"{layer}.attention.output.dense", f"{BLOCK}.attn.o"),
        same(f"{layer}.layernorm_before", f"{BLOCK}.ln1"),
        same(f"{layer}.layernorm_after", f"{BLOCK}.ln2"),
        same(f"{layer}.intermediate.dense", f"{BLOCK}.mlp.up"),
        same(f"{layer}.output.dense", f"{BLOCK}.mlp.down"),
    )


def _loaded() -> tuple[Rule, ...]:
    """The same in memory."""
    layer = "vit.layers.{l}"
    names = {f"attention.{name}_proj": f"attn.{name}" for name in "qkvo"}
    names |= {"layernorm_before": "ln1", "layernorm_after": "ln2", "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down"}
    return tuple(alias(same(f"{layer}.{a}", f"{BLOCK}.{b}")) for a, b in names.items())


FAMILY = Family("vit", ("vit",), build, weights)
