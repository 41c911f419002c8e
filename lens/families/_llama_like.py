"""The shape most families vary: pre-RMSNorm, rotary positions, grouped queries, a gated MLP."""

from __future__ import annotations

from typing import Any, Literal

from lens.config import EmbedConfig, Experts, ModelConfig, Rotary, StackConfig, UnembedConfig
from lens.families._rope import rotary
from lens.fields import Fields
from lens.weights import Rule, alias, fused, same, skipped

Projection = Literal["q", "k", "v", "o"]

BLOCK = "stack.blocks.{l}"
LAYER = "model.layers.{l}"


def sizes(f: Fields) -> tuple[int, int]:
    """(layers, context): what windows and rotary positions depend on."""
    return f.get("num_hidden_layers"), f.get("max_position_embeddings")


def build(
    f: Fields,
    *,
    d_head: int | None = None,
    n_kv_heads: int | None = None,
    theta: float = 10_000.0,
    partial: float | None = None,
    eps: float = 1e-6,
    act_fn: str | None = None,
    rotary_by_layer: tuple[Rotary, ...] | None = None,
    scaled_embedding: bool = False,
    logit_softcap: float | None = None,
    tied: bool = False,
    **stack: Any,
) -> ModelConfig:
    """A `ModelConfig` of this shape; named arguments are defaults, `stack` overrides `StackConfig`."""
    n_layers, n_ctx = sizes(f)
    d_model, n_heads, d_vocab = f.get("hidden_size"), f.get("num_attention_heads"), f.get("vocab_size")
    width = f.get("head_dim", default=d_head or d_model // n_heads, null=d_model // n_heads)
    kv = f.get("num_key_value_heads", default=n_kv_heads or n_heads, null=n_heads)
    turns = rotary_by_layer or (rotary(f, width, n_ctx, theta=theta, partial=partial),) * n_layers
    options: dict[str, Any] = {
        "norm": "rms",
        "norm_eps": f.number("rms_norm_eps", default=eps),
        "rotary": turns,
        "act_fn": act_fn or f.activation("hidden_act", default="silu"),
        "gated": True,
        "mlp_bias": False,
    }
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(
            d_vocab=d_vocab, d_embed=d_model, scale=_root(d_model) if scaled_embedding else 1.0
        ),
        stack=StackConfig(
            n_layers=n_layers,
            d_model=d_model,
            n_heads=n_heads,
            d_head=width,
            n_kv_heads=kv,
            d_mlp=f.get("intermediate_size"),
            **{**options, **stack},
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model, softcap=logit_softcap),
        tied=bool(f.get("tie_word_embeddings", default=tied)),
    )


def attention_bias(f: Fields) -> frozenset[Projection]:
    """Biases on all four projections, or none."""
    return frozenset({"q", "k", "v", "o"}) if f.get("attention_bias", default=False) else frozenset()


def ends() -> tuple[Rule, ...]:
    """Embedding, final norm and unembedding."""
    return (
        same("model.embed_tokens", "embed.tokens"),
        same("model.norm", "stack.ln_final"),
        same("lm_head", "unembed.linear"),
        *skipped("model.rotary_emb.inv_freq", f"{LAYER}.self_attn.rotary_emb.inv_freq"),
    )


def attention(output: str = "o_proj") -> tuple[Rule, ...]:
    """The four projections."""
    names = {"q_proj": "q", "k_proj": "k", "v_proj": "v", output: "o"}
    return tuple(
        same(f"{LAYER}.self_attn.{theirs}", f"{BLOCK}.attn.{ours}") for theirs, ours in names.items()
    )


def mlp() -> tuple[Rule, ...]:
    """Gate, up and down."""
    return tuple(same(f"{LAYER}.mlp.{name}_proj", f"{BLOCK}.mlp.{name}") for name in ("gate", "up", "down"))


def experts_in(f: Fields, **fields: Any) -> Experts:
    """Experts of the Qwen kind: in every `decoder_sparse_step`-th layer but those of `mlp_only_layers`."""
    f.ignore("output_router_logits", "router_aux_loss_coef")  # training only
    n_layers, step = f.get("num_hidden_layers"), f.get("decoder_sparse_step", default=1)
    dense = f.get("mlp_only_layers", default=[])
    sparse = tuple(layer for layer in range(n_layers) if (layer + 1) % step == 0 and layer not in dense)
    return Experts(
        top_k=f.get("num_experts_per_tok", default=8),
        normalize=f.get("norm_topk_prob", default=False),
        layers=None if len(sparse) == n_layers else sparse,
        **fields,
    )


def experts() -> tuple[Rule, ...]:
    """Router and experts: one by one, as files have them, or fused, as they are in memory."""
    saved, ours = f"{LAYER}.mlp.experts", f"{BLOCK}.mlp.experts.{{e}}"
    pair = (f"{ours}.gate.weight", f"{ours}.up.weight")
    return (
        same(f"{LAYER}.mlp.gate", f"{BLOCK}.mlp.router"),
        *(same(f"{saved}.{{e}}.{name}_proj", f"{ours}.{name}") for name in ("gate", "up", "down")),
        alias(fused(f"{saved}.gate_up_proj", *pair, weight="e (n m) d -> n e m d")),
        alias(fused(f"{saved}.down_proj", f"{ours}.down.weight", weight="e d m -> e d m")),
    )


def norms(**names: str) -> tuple[Rule, ...]:
    """Norms of a block: ours = theirs."""
    return tuple(same(f"{LAYER}.{theirs}", f"{BLOCK}.{ours}") for ours, theirs in names.items())


def qk_norms(q: str = "q_norm", k: str = "k_norm") -> tuple[Rule, ...]:
    """Norms on queries and keys."""
    return (
        same(f"{LAYER}.self_attn.{q}", f"{BLOCK}.attn.q_norm"),
        same(f"{LAYER}.self_attn.{k}", f"{BLOCK}.attn.k_norm"),
    )


def pre_norms() -> tuple[Rule, ...]:
    """The two norms of Llama's block."""
    return norms(ln1="input_layernorm", ln2="post_attention_layernorm")


def _root(d_model: int) -> float:
    """√d_model as checkpoints were trained with it: rounded to float32."""
    import torch

    return float(torch.tensor(d_model**0.5, dtype=torch.float32))
