"""Names and shapes of all parameters of a model, from its configuration alone."""

from __future__ import annotations

from lens.config import ModelConfig, StackConfig

Shapes = dict[str, tuple[int, ...]]


def shapes_of(cfg: ModelConfig) -> Shapes:
    """Every parameter's name and shape, in the model's order.

    With `cfg.tied`, `unembed.linear.weight` is another name of `embed.tokens.weight`; both are listed.
    """
    c, shapes = cfg.stack, Shapes()
    shapes["embed.tokens.weight"] = (cfg.embed.d_vocab, cfg.embed.d_embed)
    if cfg.embed.n_positions is not None:
        shapes["embed.positions.weight"] = (cfg.embed.n_positions + cfg.embed.position_offset, c.d_model)
    if cfg.embed.d_embed != c.d_model:
        shapes["embed.project.weight"] = (c.d_model, cfg.embed.d_embed)
    for layer in range(c.n_layers):
        shapes |= {f"stack.blocks.{layer}.{name}": shape for name, shape in _block(c).items()}
    if c.final_norm and c.norm != "none":
        shapes |= _norm(c, "stack.ln_final", c.d_model)
    if cfg.unembed.d_embed != c.d_model:
        shapes["unembed.project.weight"] = (cfg.unembed.d_embed, c.d_model)
    return shapes | _linear("unembed.linear", cfg.unembed.d_vocab, cfg.unembed.d_embed, cfg.unembed.bias)


def _block(c: StackConfig) -> Shapes:
    shapes = Shapes()
    branches = ["ln1"] if c.d_mlp is None or c.shared_norm else ["ln1", "ln2"]
    if c.norm != "none":
        for name in branches:
            if c.norm_placement & {"in", "add"}:
                shapes |= _norm(c, name, c.d_model)
            if "out" in c.norm_placement:
                shapes |= _norm(c, f"{name}_post", c.d_model)
    queries, keys = c.n_heads * c.d_head, c.n_kv_heads * c.d_head
    for name, width in (("q", queries), ("k", keys), ("v", keys)):
        shapes |= _linear(f"attn.{name}", width, c.d_model, name in c.attn_bias)
    shapes |= _linear("attn.o", c.d_model, queries, "o" in c.attn_bias)
    if c.qk_norm:
        shapes |= _norm(c, "attn.q_norm", c.d_head if c.qk_norm == "head" else queries)
        shapes |= _norm(c, "attn.k_norm", c.d_head if c.qk_norm == "head" else keys)
    if c.experts is not None:
        shapes |= _linear("mlp.router", c.experts.n, c.d_model, False)
        for e in range(c.experts.n):
            shapes |= _mlp(c, f"mlp.experts.{e}")
    else:
        shapes |= _mlp(c, "mlp")
    return shapes


def _mlp(c: StackConfig, path: str) -> Shapes:
    if c.d_mlp is None:
        return {}
    gate = _linear(f"{path}.gate", c.d_mlp, c.d_model, c.mlp_bias) if c.gated else {}
    up = _linear(f"{path}.up", c.d_mlp, c.d_model, c.mlp_bias)
    return gate | up | _linear(f"{path}.down", c.d_model, c.d_mlp, c.mlp_bias)


def _linear(path: str, rows: int, columns: int, bias: bool) -> Shapes:
    weight: Shapes = {f"{path}.weight": (rows, columns)}
    return weight | {f"{path}.bias": (rows,)} if bias else weight


def _norm(c: StackConfig, path: str, width: int) -> Shapes:
    weight: Shapes = {f"{path}.weight": (width,)}
    return weight | {f"{path}.bias": (width,)} if c.norm == "layer" else weight
