"""Names and shapes of all parameters of a model, from its configuration alone."""

from __future__ import annotations

from dataclasses import replace

from lens import axial, features
from lens.config import Buckets, EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.mixer import common_of, mixer_at, shapes

Shapes = dict[str, tuple[int, ...]]


def shapes_of(cfg: ModelConfig) -> Shapes:
    """Every parameter's name and shape, in the model's order. Other names of the same tensor are listed too."""
    c = cfg.stack
    shapes = _embed(cfg.embed, c.d_entry)
    if cfg.source is not None:
        encoder = _embed(cfg.source.embed, cfg.source.stack.d_model) | _stack(cfg.source.stack)
        shapes |= {f"encoder.{name}": shape for name, shape in encoder.items()}
    shapes |= _stack(c)
    if cfg.pooler is not None and cfg.pooler.layer:
        shapes |= _linear("pooler.dense", cfg.pooler.d_out or c.d_model, c.d_model, cfg.pooler.bias)
    if cfg.classifier is not None:
        shapes |= _linear("classifier.linear", cfg.classifier.n_classes, c.d_model, True)
    for name, width in {"first": c.d_model, "second": c.d_model, "last": 4}.items() if cfg.boxes else ():
        shapes |= _linear(f"boxes.{name}", width, c.d_model, True)
    if cfg.vision is not None:
        shapes |= {f"vision.{name}": shape for name, shape in shapes_of(cfg.vision).items()}
        shapes["contrast.weight"] = ()
    return shapes if cfg.unembed is None else shapes | _unembed(cfg.unembed, c.d_model)


def aliases_of(cfg: ModelConfig) -> dict[str, str]:
    """Parameters that are other names of parameters: a tied unembedding, layers that share their weights."""
    table = "embed.tokens.weight" if cfg.embed.of_tokens else "encoder.embed.tokens.weight"
    found = {"unembed.linear.weight": table} if cfg.tied and cfg.unembed is not None else {}
    if cfg.source is not None and cfg.source.shared:
        found["encoder.embed.tokens.weight"] = "embed.tokens.weight"
    stacks = (
        {"stack": cfg.stack}
        if cfg.source is None
        else {"stack": cfg.stack, "encoder.stack": cfg.source.stack}
    )
    for path, stack in stacks.items():
        for layer, first in enumerate(stack.shared or ()):
            if layer != first:
                names = _block(stack.at(layer))
                found |= {f"{path}.blocks.{layer}.{name}": f"{path}.blocks.{first}.{name}" for name in names}
    found |= {f"stack.{name}": f"stack.{owner}" for name, owner in common_of(cfg.stack).items()}
    if cfg.vision is not None:
        found |= {f"vision.{name}": f"vision.{owner}" for name, owner in aliases_of(cfg.vision).items()}
    return found


def computed_of(cfg: ModelConfig) -> list[str]:
    """Parameters that a formula gives and checkpoints may leave out: sinusoidal positions."""
    found = {"embed.positions.weight": cfg.embed}
    if cfg.source is not None:
        found["encoder.embed.positions.weight"] = cfg.source.embed
    return [name for name, embed in found.items() if embed.sinusoidal]


def _stack(c: StackConfig) -> Shapes:
    shapes = Shapes()
    for layer in range(c.n_layers):
        shapes |= {f"stack.blocks.{layer}.{name}": shape for name, shape in _block(c.at(layer)).items()}
    shapes |= _relative(c)
    return shapes | _norm(c, "stack.ln_final", c.d_model) if c.final_norm and c.norm != "none" else shapes


def _embed(e: EmbedConfig, d_model: int) -> Shapes:
    d_model = d_model if e.latents is None else e.d_embed
    late = e.project == "sum"
    width = e.d_embed if late else d_model
    shapes: Shapes = {}
    if e.mel is not None:
        for name, width_in in (("conv1", e.mel.n_mels), ("conv2", e.d_embed)):
            shapes[f"embed.mel.{name}.weight"] = (e.d_embed, width_in, 3)
            shapes[f"embed.mel.{name}.bias"] = (e.d_embed,)
    elif e.features is not None:
        shapes |= {f"embed.features.{n}": s for n, s in features.shapes(e.features, e.d_embed).items()}
    elif e.of_tokens:
        shapes["embed.tokens.weight"] = (e.d_vocab, e.d_embed)
    elif e.patches is not None:
        shapes["embed.patches.linear.weight"] = (e.d_embed, e.patches.n_channels, *e.patches.patch_size)
        shapes |= {"embed.patches.linear.bias": (e.d_embed,)} if e.patches.bias else {}
        shapes |= {"embed.patches.class_token.weight": (1, e.d_embed)} if e.patches.class_token else {}
    if late or e.d_embed != d_model:
        shapes |= _linear("embed.project", d_model, e.d_embed, late)
    if e.latents is not None:
        shapes["embed.latents.weight"] = e.latents
    if e.axial is not None:
        shapes |= {f"embed.positions.{name}": shape for name, shape in axial.shapes(e.axial).items()}
    elif e.n_positions is not None:
        shapes["embed.positions.weight"] = (e.n_positions + e.position_offset, width)
    if e.n_types:
        shapes["embed.types.weight"] = (e.n_types, width)
    if e.norm_eps is not None:
        shapes |= {"embed.ln.weight": (width,), "embed.ln.bias": (width,)}
    return shapes


def _unembed(u: UnembedConfig, d_model: int) -> Shapes:
    shapes = Shapes()
    if u.transform:
        shapes |= _linear("unembed.transform.dense", u.d_embed, d_model, True)
        shapes |= {"unembed.transform.ln.weight": (u.d_embed,), "unembed.transform.ln.bias": (u.d_embed,)}
    elif u.d_embed != d_model:
        shapes["unembed.project.weight"] = (u.d_embed, d_model)
    return shapes | _linear("unembed.linear", u.d_vocab, u.d_embed, u.bias)


def _block(c: StackConfig) -> Shapes:
    """The parameters of one block, which `c` is the configuration of (`StackConfig.at`)."""
    c = c.branch
    mixer = mixer_at(c)
    found = _norms(c)
    if mixer is None:
        found |= _attention(c)
    else:
        found |= {f"{mixer.path}.{name}": shape for name, shape in shapes(mixer.module, c).items()}
    if mixer is not None and mixer.mlp is not None:
        found |= {f"mlp.{name}": shape for name, shape in shapes(mixer.mlp, c).items()}
    elif c.experts is not None:
        found |= _linear("mlp.router", c.experts.n, c.d_model, False)
        for e in range(c.experts.n):
            found |= _mlp(replace(c, d_mlp=c.experts.d_mlp or c.d_mlp), f"mlp.experts.{e}")
        if c.experts.shared:
            found |= _linear("mlp.shared_gate", 1, c.d_model, False)
            found |= _mlp(replace(c, d_mlp=c.experts.shared), "mlp.shared")
    else:
        found |= _mlp(c, "mlp")
    if c.merge_to is not None:
        found |= {f"merge.ln.{leaf}": (4 * c.d_model,) for leaf in ("weight", "bias")}
        found["merge.linear.weight"] = (c.merge_to, 4 * c.d_model)
    return found


def _norms(c: StackConfig) -> Shapes:
    """The norms of a block, and its cross-attention."""
    shapes = Shapes()
    branches = ["ln1"] if c.d_mlp is None or c.shared_norm else ["ln1", "ln2"]
    if c.cross:
        shapes |= {f"cross_{name}": shape for name, shape in _attention(c.across).items()}
        shapes |= _norm(c, "ln3", c.d_model) if c.norm != "none" and c.norm_placement & {"in", "add"} else {}
    if c.norm != "none":
        for name in branches:
            if c.norm_placement & {"in", "add"}:
                shapes |= _norm(c, name, c.d_model)
            if "out" in c.norm_placement:
                shapes |= _norm(c, f"{name}_post", c.d_model)
    return shapes


def _attention(c: StackConfig) -> Shapes:
    shapes = Shapes()
    queries, keys = c.n_heads * c.d_head, c.n_kv_heads * c.d_head
    for name, width in (("q", queries), ("k", keys), ("v", keys)):
        shapes |= _linear(f"attn.{name}", width, c.d_model, name in c.attn_bias)
    shapes |= _linear("attn.o", c.d_model, queries, "o" in c.attn_bias)
    if c.qk_norm:
        shapes |= _norm(c, "attn.q_norm", c.d_head if c.qk_norm == "head" else queries)
        shapes |= _norm(c, "attn.k_norm", c.d_head if c.qk_norm == "head" else keys)
    for term in c.own_terms:
        shapes |= _linear(f"attn.pos_{term}", queries, c.d_model, True)
    for name in "qkv" if c.global_tokens else "":
        shapes |= _linear(f"attn.{name}_global", queries, c.d_model, True)
    return shapes


def _relative(c: StackConfig) -> Shapes:
    r = c.relative
    if r is None:
        return {}
    if isinstance(r, Buckets):
        return {"stack.relative.table.weight": (r.n, c.n_heads)}
    norm: Shapes = {f"stack.relative.ln.{leaf}": (c.d_model,) for leaf in ("weight", "bias")}
    return {"stack.relative.table.weight": (2 * r.span, c.d_model)} | (norm if r.norm else {})


def _mlp(c: StackConfig, path: str) -> Shapes:
    if c.d_mlp is None:
        return {}
    gate = _linear(f"{path}.gate", c.d_mlp, c.d_model, c.mlp_bias) if c.gated else {}
    up = _linear(f"{path}.up", c.d_mlp, c.d_model, c.mlp_bias)
    norm: Shapes = {f"{path}.ln.{leaf}": (c.d_mlp,) for leaf in ("weight", "bias")} if c.mlp_norm else {}
    return gate | up | _linear(f"{path}.down", c.d_model, c.d_mlp, c.mlp_bias) | norm


def _linear(path: str, rows: int, columns: int, bias: bool) -> Shapes:
    weight: Shapes = {f"{path}.weight": (rows, columns)}
    return weight | {f"{path}.bias": (rows,)} if bias else weight


def _norm(c: StackConfig, path: str, width: int) -> Shapes:
    weight: Shapes = {f"{path}.weight": (width,)}
    return weight | {f"{path}.bias": (width,)} if c.norm == "layer" else weight
