"""Weight processing that leaves every log-probability as it is ("A Mathematical Framework for Transformer Circuits",
2021, and TransformerLens's `load_and_process_state_dict`): configuration and weights in, both out.

1. `untied`: a tied unembedding becomes a tensor of its own, so that the two can be changed apart.
2. `fold_layer_norm`: gain and bias of a norm move into the maps that read it; a LayerNorm's readers lose the mean of
   what they read, which the norm takes away anyhow.
3. `center_writing_weights`: what is written to the stream loses its mean, which LayerNorm takes away.
4. `center_unembed`: the same number is taken from all logits, which softmax does not see.
5. `fold_value_biases`: a pattern's rows sum to one, so value biases add the same everywhere: to the output bias.
6. `refactor_factored_attn_matrices`: W_Q W_Kᵀ and W_V W_O in factors with orthogonal columns.

Each is a function of a `ModelConfig` and weights under our names (`lens.parameters`) and changes neither; where it
would change what the model says, it refuses in one line.

Letters: d d_model, e d_head, h head, g key/value head, m any output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lens.config import ModelConfig, StackConfig, UnembedConfig
from lens.mixer import check_attention

State = dict[str, Tensor]
Model = tuple[ModelConfig, State]
Readers = list[str]


def processed(
    cfg: ModelConfig,
    state: Mapping[str, Tensor],
    *,
    fold_ln: bool = True,
    center_writing_weights: bool = True,
    center_unembed: bool = True,
    fold_value_biases: bool = True,
    refactor_factored_attn_matrices: bool = False,
) -> Model:
    """What is asked for, in TransformerLens's order. What the model has no use for is left out, as there: centring
    what is written where the norm does not centre, centring logits that are capped, folding where there is no norm.

    Raises:
        ValueError: the model is post-norm, or not made of blocks of attention; or as the functions below.
    """
    cfg, state = untied(cfg, state)
    if fold_ln and cfg.stack.norm != "none":
        cfg, state = _folded(cfg, state)
    if center_writing_weights and _centres(cfg):
        cfg, state = _centred(cfg, state)
    if center_unembed and not (cfg.unembed and cfg.unembed.softcap):
        cfg, state = _unembed_centred(cfg, state)
    if fold_value_biases:
        cfg, state = _values_folded(cfg, state)
    if refactor_factored_attn_matrices:
        cfg, state = _refactored(cfg, state)
    return cfg, state


def untied(cfg: ModelConfig, state: Mapping[str, Tensor]) -> Model:
    """The unembedding as a tensor of its own."""
    state = dict(state)
    if cfg.tied and cfg.unembed is not None:
        state["unembed.linear.weight"] = state["embed.tokens.weight"].clone()
        cfg = replace(cfg, tied=False)
    return cfg, state


def fold_layer_norm(cfg: ModelConfig, state: Mapping[str, Tensor]) -> Model:
    """Gains and biases of the norms that maps read, moved into these maps; norms on branch outputs stay.

    Raises:
        ValueError: the model is post-norm, so that the stream itself is what its norms give; or has no norms.
    """
    if cfg.stack.norm == "none":
        raise ValueError(f"{cfg.name} has no norms that could be folded")
    return _folded(*untied(cfg, state))


def center_writing_weights(cfg: ModelConfig, state: Mapping[str, Tensor]) -> Model:
    """Everything that is written to the stream, without its mean over the stream's entries.

    Raises:
        ValueError: something reads the stream without a LayerNorm, and would see the difference.
    """
    _check(cfg)
    if not _centres(cfg):
        why = (
            "its norms do not centre" if cfg.stack.norm == "rms" else "something reads it without a LayerNorm"
        )
        raise ValueError(f"the stream of {cfg.name} cannot be centred: {why}")
    return _centred(*untied(cfg, state))


def center_unembed(cfg: ModelConfig, state: Mapping[str, Tensor]) -> Model:
    """Logits with the mean over the vocabulary 0.

    Raises:
        ValueError: they are capped, or there are none.
    """
    if cfg.unembed is None or cfg.unembed.softcap:
        what = "has no unembedding" if cfg.unembed is None else "caps its logits, which depends on their mean"
        raise ValueError(f"{cfg.name} {what}")
    return _unembed_centred(*untied(cfg, state))


def fold_value_biases(cfg: ModelConfig, state: Mapping[str, Tensor]) -> Model:
    """Value biases as a part of the output bias.

    Raises:
        ValueError: not every block has attention.
    """
    return _values_folded(cfg, dict(state))


def refactor_factored_attn_matrices(cfg: ModelConfig, state: Mapping[str, Tensor]) -> Model:
    """W_Q and W_K as U √S and V √S of W_Q W_Kᵀ with biases as one more row; W_V and W_O as U S and Vᵀ of W_V W_O.

    Raises:
        ValueError: rotary positions or norms stand between queries and keys, or heads share keys and values.
    """
    return _refactored(cfg, dict(state))


def ungrouped(cfg: ModelConfig, state: Mapping[str, Tensor]) -> Model:
    """Every query head with keys and values of its own, copies of those that it shares."""
    _check(cfg, post=True)
    c, state = cfg.stack, dict(state)
    repeats = c.n_heads // c.n_kv_heads
    for layer in range(c.n_layers):
        for name in ("k", "v"):
            for leaf in ("weight", "bias"):
                key = f"stack.blocks.{layer}.attn.{name}.{leaf}"
                if key in state:
                    heads = state[key].unflatten(0, (c.n_kv_heads, -1))
                    state[key] = heads.repeat_interleave(repeats, 0).flatten(0, 1)
        key = f"stack.blocks.{layer}.attn.k_norm.weight"
        if c.qk_norm == "all" and repeats > 1 and key in state:
            raise ValueError(
                f"{cfg.name} normalises the keys of all heads together: they cannot be ungrouped"
            )
    return replace(cfg, stack=replace(c, n_kv_heads=c.n_heads)), state


def grouped(cfg: ModelConfig, state: Mapping[str, Tensor], n_kv_heads: int) -> Model:
    """The inverse of `ungrouped`: the heads of each group share the keys and values of its first."""
    _check(cfg, post=True)
    c, state = cfg.stack, dict(state)
    for name in [n for n in state if (n.startswith("stack.blocks.") and ".attn.k." in n) or ".attn.v." in n]:
        heads = state[name].unflatten(0, (c.n_kv_heads, -1))
        state[name] = heads[:: c.n_kv_heads // n_kv_heads].flatten(0, 1)
    return replace(cfg, stack=replace(c, n_kv_heads=n_kv_heads)), state


def with_biases(cfg: ModelConfig, state: Mapping[str, Tensor]) -> Model:
    """The same model with a bias on every map of attention, MLP and unembedding; new ones are zero."""
    c, state = cfg.stack, dict(state)
    c = replace(c, attn_bias=frozenset("qkvo"), mlp_bias=True)
    unembed = None if cfg.unembed is None else replace(cfg.unembed, bias=True)
    for name in [name for name in state if name.endswith(".weight")]:
        path, _, _ = name.rpartition(".")
        inside = path.startswith("stack.blocks.") and path.rsplit(".", 1)[-1] in _MAPS
        if (inside and not path.endswith("router")) or path == "unembed.linear":
            state.setdefault(f"{path}.bias", state[name].new_zeros(len(state[name])))
    return replace(cfg, stack=c, unembed=unembed), state


_MAPS = ("q", "k", "v", "o", "gate", "up", "down")


def _check(cfg: ModelConfig, post: bool = False) -> None:
    """Raise unless the model is a stack of blocks with attention; pre-norm, unless `post`."""
    check_attention(cfg, "weights are processed in models of attention")
    if cfg.source is not None or cfg.vision is not None:
        raise ValueError(f"{cfg.name} is two models in one: weights are processed in one stack")
    if not post and cfg.stack.norm != "none" and "add" in cfg.stack.norm_placement:
        raise ValueError(
            f"{cfg.name} is post-norm: its stream is what its norms give, so they cannot be folded or centred"
        )


def _centres(cfg: ModelConfig) -> bool:
    """Is the stream only read through LayerNorm?"""
    c = cfg.stack
    return (
        c.norm == "layer"
        and "in" in c.norm_placement
        and c.final_norm
        and cfg.pooler is cfg.classifier is None
    )


def _folded(cfg: ModelConfig, state: State) -> Model:
    _check(cfg)
    c, state = cfg.stack, dict(state)
    if c.norm == "layer" or c.mlp_norm:
        if c.experts is not None:
            raise ValueError(f"{cfg.name} routes to experts without a bias: its LayerNorms cannot be folded")
        cfg, state = with_biases(cfg, state)
        c = cfg.stack
    for layer in range(c.n_layers if "in" in c.norm_placement else 0):
        path = f"stack.blocks.{layer}"
        attention = [f"{path}.attn.{name}" for name in "qkv"]
        mlp = _mlp_readers(c.at(layer), f"{path}.mlp") if c.d_mlp is not None else []
        if c.shared_norm:
            _fold(c, state, f"{path}.ln1", attention + mlp)
        else:
            _fold(c, state, f"{path}.ln1", attention)
            if mlp:
                _fold(c, state, f"{path}.ln2", mlp)
    for layer in range(c.n_layers if c.mlp_norm else 0):
        path = f"stack.blocks.{layer}.mlp"
        _fold(replace(c, norm="layer", norm_unit_offset=False), state, f"{path}.ln", [f"{path}.down"])
    if c.final_norm and cfg.unembed is not None and cfg.pooler is cfg.classifier is None:
        _fold_final(cfg.unembed, c, state)
    return cfg, state


def _mlp_readers(c: StackConfig, path: str) -> Readers:
    own = ["gate", "up"] if c.gated else ["up"]
    if c.experts is None:
        return [f"{path}.{name}" for name in own]
    found = [f"{path}.router", *(f"{path}.experts.{e}.{name}" for e in range(c.experts.n) for name in own)]
    return found + (
        [f"{path}.shared_gate", *(f"{path}.shared.{name}" for name in own)] if c.experts.shared else []
    )


def _fold(c: StackConfig, state: State, norm: str, readers: Readers) -> None:
    """One norm into the maps [m, d] that read it; what is left of it is the identity."""
    gain, bias = _taken(c, state, norm)
    for path in readers:
        weight = state[f"{path}.weight"]
        if bias is not None:
            state[f"{path}.bias"] = state[f"{path}.bias"] + weight @ bias
        state[f"{path}.weight"] = _without_mean(c, weight * gain)


def _taken(c: StackConfig, state: State, norm: str) -> tuple[Tensor, Tensor | None]:
    """Gain and bias of a norm, which becomes the identity."""
    stored, bias = state[f"{norm}.weight"], state.get(f"{norm}.bias")
    state[f"{norm}.weight"] = torch.zeros_like(stored) if c.norm_unit_offset else torch.ones_like(stored)
    if bias is not None:
        state[f"{norm}.bias"] = torch.zeros_like(bias)
    return stored + 1 if c.norm_unit_offset else stored, bias


def _without_mean(c: StackConfig, weight: Tensor) -> Tensor:
    """Readers of a LayerNorm see nothing of a mean."""
    return weight - weight.mean(-1, keepdim=True) if c.norm == "layer" else weight


def _fold_final(u: UnembedConfig, c: StackConfig, state: State) -> None:
    """The last norm into the unembedding, or the map in front of it. A bias goes to the logits."""
    if u.transform:
        _fold(c, state, "stack.ln_final", ["unembed.transform.dense"])
        return
    gain, bias = _taken(c, state, "stack.ln_final")
    narrow = "unembed.project.weight" in state
    first = "unembed.project.weight" if narrow else "unembed.linear.weight"
    if bias is not None:
        seen = state[first] @ bias * u.scale
        seen = state["unembed.linear.weight"] @ seen if narrow else seen
        state["unembed.linear.bias"] = state["unembed.linear.bias"] + seen
    state[first] = _without_mean(c, state[first] * gain)


def _centred(cfg: ModelConfig, state: State) -> Model:
    _check(cfg)
    state = dict(state)
    embeds = ["embed.positions", "embed.types"] if cfg.embed.project == "tokens" else []
    if "embed.project.weight" in state:
        state["embed.project.weight"] = _rows_centred(state["embed.project.weight"], 0)
        if "embed.project.bias" in state:
            state["embed.project.bias"] = _rows_centred(state["embed.project.bias"], 0)
    else:
        embeds = ["embed.tokens", *embeds]
    if cfg.embed.norm_eps is not None:
        embeds = []  # its own LayerNorm takes the mean away, and gives the stream another
    for name in embeds:
        if f"{name}.weight" in state:
            state[f"{name}.weight"] = _rows_centred(state[f"{name}.weight"], -1)
    writers = ("attn.o", "mlp.down")
    for name in state:
        path, _, leaf = name.rpartition(".")
        if (
            path.startswith("stack.blocks.")
            and path.split(".", 3)[-1] in writers
            and leaf in ("weight", "bias")
        ):
            state[name] = _rows_centred(state[name], 0)
        elif ".mlp.experts." in name or ".mlp.shared." in name:
            state[name] = _rows_centred(state[name], 0) if ".down." in name else state[name]
    return cfg, state


def _rows_centred(x: Tensor, axis: int) -> Tensor:
    return x - x.mean(axis, keepdim=True)


def _unembed_centred(cfg: ModelConfig, state: State) -> Model:
    state = dict(state)
    for name in ("unembed.linear.weight", "unembed.linear.bias"):
        if name in state:
            state[name] = _rows_centred(state[name], 0)
    return cfg, state


def _values_folded(cfg: ModelConfig, state: State) -> Model:
    _check(cfg, post=True)
    c = cfg.stack
    if "v" not in c.attn_bias:
        return cfg, state
    if c.global_tokens is not None:
        raise ValueError(f"{cfg.name} mixes two kinds of values: their biases cannot be folded")
    state, r = dict(state), c.n_heads // c.n_kv_heads
    for layer in range(c.n_layers):
        path = f"stack.blocks.{layer}.attn"
        values = (
            state.pop(f"{path}.v.bias").unflatten(0, (c.n_kv_heads, -1)).repeat_interleave(r, 0).flatten()
        )
        added = state[f"{path}.o.weight"] @ values
        state[f"{path}.o.bias"] = state[f"{path}.o.bias"] + added if f"{path}.o.bias" in state else added
    return replace(cfg, stack=replace(c, attn_bias=c.attn_bias - {"v"} | {"o"})), state


def _refactored(cfg: ModelConfig, state: State) -> Model:
    _check(cfg, post=True)
    c = cfg.stack
    between = {
        "rotary positions": c.rotary is not None, "norms of queries and keys": c.qk_norm is not None,
        "scores of positions": c.relative is not None and bool(c.own_terms or c.global_tokens),
    }  # fmt: skip
    for what, there in between.items():
        if there:
            raise ValueError(f"W_Q and W_K of {cfg.name} cannot be refactored: {what} stand between them")
    if c.n_kv_heads != c.n_heads:
        raise ValueError(f"heads of {cfg.name} share keys and values: ungroup them first")
    if c.d_head > c.d_model:
        raise ValueError(f"heads of {cfg.name} are wider than its stream: their factors are not unique")
    cfg, state = _values_folded(cfg, state)
    biased = bool(c.attn_bias & {"q", "k"})
    for layer in range(c.n_layers):
        path = f"stack.blocks.{layer}.attn"
        q, k = (_with_bias(state, f"{path}.{name}", c, biased) for name in "qk")
        q, k = _even(q, k)
        for name, x in (("q", q), ("k", k)):
            rows = x[:, :-1] if biased else x
            state[f"{path}.{name}.weight"] = rows.mT.flatten(0, 1).contiguous()
            if biased:
                state[f"{path}.{name}.bias"] = x[:, -1].flatten()
        values = state[f"{path}.v.weight"].unflatten(0, (c.n_heads, -1)).mT  # [h, d, e]
        out = state[f"{path}.o.weight"].T.unflatten(0, (c.n_heads, -1))  # [h, e, d]
        u, s, vh = svd_of_product(values, out)
        state[f"{path}.v.weight"] = (u * s[:, None]).mT.flatten(0, 1).contiguous()
        state[f"{path}.o.weight"] = vh.flatten(0, 1).T.contiguous()
    stack: Any = replace(cfg.stack, attn_bias=cfg.stack.attn_bias | ({"q", "k"} if biased else set()))
    return replace(cfg, stack=stack), state


def _with_bias(state: State, path: str, c: StackConfig, biased: bool) -> Tensor:
    """A projection of each head with its bias as one more row, [h, d + 1, e]."""
    weight = state[f"{path}.weight"].unflatten(0, (c.n_heads, -1)).mT
    if not biased:
        return weight
    bias = state.get(f"{path}.bias", weight.new_zeros(weight.shape[0] * weight.shape[2]))
    return torch.cat([weight, bias.unflatten(0, (c.n_heads, 1, -1))], 1)


def _even(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Factors U √S and V √S of a bᵀ, [h, d, e] each."""
    u, s, vh = svd_of_product(a, b.mT)
    root = s.sqrt()[:, None]
    return u * root, vh.mT * root


def svd_of_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U [h, d, e], S [h, e] and Vᵀ [h, e, d] of a b, for a [h, d, e] and b [h, e, d], without making a b."""
    qa, ra = torch.linalg.qr(a)
    qb, rb = torch.linalg.qr(b.mT)
    u, s, vh = torch.linalg.svd(ra @ rb.mT)
    return qa @ u, s, vh @ qb.mT
