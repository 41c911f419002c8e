"""TransformerLens's configuration, and the `ModelConfig` that it describes."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch

from lens.config import Buckets, EmbedConfig, ModelConfig, Rotary, StackConfig, UnembedConfig
from lens.mlp import ACTIVATIONS
from lens.nearest import unknown

NORMS = ("LN", "LNPre", "RMS", "RMSPre", None)
INIT_MODES = ("gpt2", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal")


@dataclass
class HookedTransformerConfig:
    """What a model is, in TransformerLens's names and with its defaults.

    Sizes that are left out follow from others: `n_heads` from `d_model` and `d_head`, `d_mlp` is 4 `d_model`,
    `d_vocab_out` is `d_vocab`, and `initializer_range` is 0.8 / √d_model (with other `init_mode`s a factor, 1).
    With a `seed`, weights are TransformerLens's, bit for bit on a CPU; the process's random state is not touched.

    Raises:
        ValueError: a value is unknown, or one that is needed is missing.
    """

    n_layers: int
    d_model: int
    n_ctx: int
    d_head: int
    model_name: str = "custom"
    n_heads: int = -1
    d_mlp: int | None = None
    act_fn: str | None = None
    d_vocab: int = -1
    eps: float = 1e-5
    use_attn_result: bool = False
    use_attn_scale: bool = True
    attn_scale: float | int = -1.0
    use_split_qkv_input: bool = False
    use_hook_mlp_in: bool = False
    use_attn_in: bool = False
    use_qk_norm: bool = False
    use_local_attn: bool = False
    ungroup_grouped_query_attention: bool = False
    original_architecture: str | None = None
    from_checkpoint: bool = False
    checkpoint_index: int | None = None
    checkpoint_label_type: str | None = None
    checkpoint_value: int | None = None
    tokenizer_name: str | None = None
    window_size: int | None = None
    attn_types: list[str] | None = None
    init_mode: str = "gpt2"
    normalization_type: str | None = "LN"
    device: str | torch.device | None = None
    n_devices: int = 1
    attention_dir: str = "causal"
    attn_only: bool = False
    seed: int | None = None
    initializer_range: float | int = -1.0
    init_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    positional_embedding_type: str = "standard"
    final_rms: bool = False
    d_vocab_out: int = -1
    parallel_attn_mlp: bool = False
    rotary_dim: int | None = None
    n_params: int | None = None
    use_hook_tokens: bool = False
    gated_mlp: bool = False
    default_prepend_bos: bool = True
    dtype: torch.dtype = torch.float32
    tokenizer_prepends_bos: bool | None = None
    n_key_value_heads: int | None = None
    post_embedding_ln: bool = False
    rotary_base: float | int = 10000
    rotary_base_local: float | int | None = None
    trust_remote_code: bool = False
    rotary_adjacent_pairs: bool = False
    load_in_4bit: bool = False
    num_experts: int | None = None
    experts_per_token: int | None = None
    relative_attention_max_distance: int | None = None
    relative_attention_num_buckets: int | None = None
    decoder_start_token_id: int | None = None
    tie_word_embeddings: bool = False
    use_normalization_before_and_after: bool = False
    attn_scores_soft_cap: float = -1.0
    output_logits_soft_cap: float = -1.0
    use_NTK_by_parts_rope: bool = False
    NTK_by_parts_low_freq_factor: float = 1.0
    NTK_by_parts_high_freq_factor: float = 4.0
    NTK_by_parts_factor: float = 8.0
    NTK_original_ctx_len: int = 8192

    def __post_init__(self) -> None:
        if self.n_heads == -1:
            self.n_heads = self.d_model // self.d_head
        if not self.attn_only:
            self.d_mlp = 4 * self.d_model if self.d_mlp is None else self.d_mlp
            if self.act_fn is None:
                raise ValueError("act_fn must be given unless the model is attn_only")
            if self.act_fn not in (*ACTIVATIONS, "solu_ln"):
                raise ValueError(unknown("activation function", self.act_fn, (*ACTIVATIONS, "solu_ln")))
        if self.initializer_range < 0:
            self.initializer_range = 0.8 / math.sqrt(self.d_model) if self.init_mode == "gpt2" else 1.0
        if self.d_vocab_out == -1:
            self.d_vocab_out = self.d_vocab
        if self.positional_embedding_type == "rotary" and self.rotary_dim is None:
            self.rotary_dim = self.d_head
        if self.use_attn_scale and self.attn_scale == -1.0:
            self.attn_scale = math.sqrt(self.d_head)
        if self.use_local_attn and (self.window_size is None or self.attn_types is None):
            raise ValueError("use_local_attn needs window_size and attn_types")
        if self.device is None:
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        per_layer = 4 * self.d_model * self.d_head * self.n_heads
        per_layer += 0 if self.attn_only else self.d_model * (self.d_mlp or 0) * (2 + self.gated_mlp)
        self.n_params = self.n_layers * per_layer

    @classmethod
    def unwrap(cls, config: HookedTransformerConfig | Mapping[str, Any]) -> HookedTransformerConfig:
        """A configuration, from a dictionary if it is one."""
        return cls.from_dict(config) if isinstance(config, Mapping) else config

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> HookedTransformerConfig:
        """A configuration with these fields.

        Raises:
            ValueError: a field is unknown; the message gives the nearest.
        """
        known = {field.name for field in fields(cls)}
        for name in config_dict:
            if name not in known:
                raise ValueError(unknown("field", name, known, of="HookedTransformerConfig"))
        return cls(**config_dict)

    def is_layer_norm_activation(self) -> bool:
        """Is there a norm behind the activation function (`solu_ln`)?"""
        return self.act_fn is not None and self.act_fn.endswith("_ln")

    def set_seed_everywhere(self, seed: int) -> None:
        """Seed the random states of torch, numpy and Python."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)

    def to_dict(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def model_config(c: HookedTransformerConfig) -> ModelConfig:
    """The core's configuration of a model in TransformerLens's layout: every map has a bias, nothing is tied.

    Raises:
        ValueError: a setting is not supported; the message names it.
    """
    _check(c)
    rotary = c.positional_embedding_type == "rotary"
    norm: Any = {"LN": "layer", "LNPre": "layer", "RMS": "rms", "RMSPre": "rms", None: "none"}[
        c.normalization_type
    ]
    windows = None
    if c.use_local_attn and c.attn_types:
        windows = tuple(c.window_size if kind == "local" else None for kind in c.attn_types[: c.n_layers])
    table = Rotary(
        dim=c.rotary_dim or c.d_head, theta=float(c.rotary_base), interleaved=c.rotary_adjacent_pairs
    )
    stack = StackConfig(
        n_layers=c.n_layers, d_model=c.d_model, n_heads=c.n_heads, d_head=c.d_head,
        n_kv_heads=c.n_heads if c.n_key_value_heads is None else c.n_key_value_heads,
        d_mlp=None if c.attn_only else c.d_mlp, causal=c.attention_dir == "causal", norm=norm, norm_eps=c.eps,
        norm_placement=frozenset({"in", "out"} if c.use_normalization_before_and_after else {"in"}),
        parallel=c.parallel_attn_mlp, attn_bias=frozenset(("q", "k", "v", "o")),
        attn_scale=1 / c.attn_scale if c.use_attn_scale else 1.0, attn_softcap=_cap(c.attn_scores_soft_cap),
        qk_norm="head" if c.use_qk_norm else None, windows=windows, rotary=(table,) * c.n_layers if rotary else None,
        act_fn=(c.act_fn or "relu").removesuffix("_ln"), mlp_norm=c.is_layer_norm_activation(), mlp_bias=True,
        gated=c.gated_mlp,
    )  # fmt: skip
    embed = EmbedConfig(
        d_vocab=c.d_vocab, d_embed=c.d_model, n_positions=None if rotary else c.n_ctx,
        norm_eps=c.eps if c.post_embedding_ln else None,
    )  # fmt: skip
    unembed = UnembedConfig(
        d_vocab=c.d_vocab_out, d_embed=c.d_model, bias=True, softcap=_cap(c.output_logits_soft_cap)
    )
    family = "llama" if norm == "rms" else "gpt2"
    return ModelConfig(
        family=family, name=c.model_name, n_ctx=c.n_ctx, embed=embed, stack=stack, unembed=unembed
    )


def described(cfg: ModelConfig, **known: Any) -> HookedTransformerConfig:
    """A model in TransformerLens's words, as far as they go; `known` is what its configuration does not say."""
    c, u = cfg.stack, cfg.unembed
    table = next((table for table in c.rotary or () if table is not None), None)
    kind = {"layer": "LN", "rms": "RMS", "none": None}[c.norm]
    windows = None if c.windows is None else next((w for w in c.windows if w is not None), None)
    found: dict[str, Any] = {
        "n_layers": c.n_layers, "d_model": c.d_model, "n_ctx": cfg.n_ctx, "d_head": c.d_head, "n_heads": c.n_heads,
        "model_name": cfg.name, "original_architecture": next(iter(cfg.hf.get("architectures") or ()), cfg.family),
        "d_mlp": c.d_mlp, "act_fn": f"{c.act_fn}{'_ln' if c.mlp_norm else ''}", "attn_only": c.d_mlp is None,
        "eps": c.norm_eps,
        "d_vocab": cfg.embed.d_vocab, "d_vocab_out": cfg.embed.d_vocab if u is None else u.d_vocab,
        "normalization_type": kind, "attention_dir": "causal" if c.causal else "bidirectional",
        "positional_embedding_type": "standard" if table is None else "rotary", "gated_mlp": c.gated,
        "decoder_start_token_id": cfg.start_token,
        "rotary_dim": None if table is None else table.dim, "rotary_base": 10000 if table is None else table.theta,
        "rotary_adjacent_pairs": table is not None and table.interleaved, "parallel_attn_mlp": c.parallel,
        "n_key_value_heads": None if c.n_kv_heads == c.n_heads else c.n_kv_heads, "use_qk_norm": c.qk_norm == "head",
        "use_attn_scale": c.attn_scale != 1.0, "attn_scale": 1 / (c.attn_scale or c.d_head**-0.5),
        "use_local_attn": windows is not None, "window_size": windows,
        "attn_types": None if windows is None else ["global" if w is None else "local" for w in c.windows or ()],
        "attn_scores_soft_cap": c.attn_softcap or -1.0, "post_embedding_ln": cfg.embed.norm_eps is not None,
        "output_logits_soft_cap": -1.0 if u is None or u.softcap is None else u.softcap,
        "use_normalization_before_and_after": {"in", "out"} <= c.norm_placement,
        "num_experts": None if c.experts is None else c.experts.n,
        "experts_per_token": None if c.experts is None else c.experts.top_k,
    }  # fmt: skip
    if isinstance(c.relative, Buckets):
        found |= {
            "positional_embedding_type": "relative_positional_bias", "relative_attention_num_buckets": c.relative.n,
            "relative_attention_max_distance": c.relative.max_distance,
            "tie_word_embeddings": u is not None and u.scale != 1,
        }  # fmt: skip
    return HookedTransformerConfig(**{**found, **known})


def _cap(value: float) -> float | None:
    return value if value > 0 else None


def _check(c: HookedTransformerConfig) -> None:
    """Raise for what has no counterpart."""
    for name, value, choices in (
        ("normalization type", c.normalization_type, NORMS),
        ("attention direction", c.attention_dir, ("causal", "bidirectional")),
        ("kind of positions", c.positional_embedding_type, ("standard", "rotary")),
    ):
        if value not in choices:
            raise ValueError(unknown(name, value, [str(choice) for choice in choices]))
    unsupported = {
        "scale_attn_by_inverse_layer_idx": c.scale_attn_by_inverse_layer_idx, "load_in_4bit": c.load_in_4bit,
        "final_rms": c.final_rms and str(c.normalization_type).startswith("LN"),
        "num_experts": c.num_experts is not None, "rotary_base_local": c.rotary_base_local is not None,
        "use_NTK_by_parts_rope": c.use_NTK_by_parts_rope, "n_devices": c.n_devices > 1,
        "relative_attention_num_buckets": c.relative_attention_num_buckets is not None,
        "use_hook_tokens": c.use_hook_tokens,
    }  # fmt: skip
    for name, given in unsupported.items():
        if given:
            raise ValueError(
                f"{name}={getattr(c, name)!r} is not supported; load such a model from its checkpoint"
            )
    if c.d_vocab < 1:
        raise ValueError("d_vocab must be given where there is no tokenizer")
