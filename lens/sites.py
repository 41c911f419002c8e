"""The vocabulary: every named activation, its shape and its meaning, under TransformerLens's names.

A model declares exactly the sites that can fire in it (`sites_of`); a name that cannot fire is an error
before anything runs.

Letters: batch, pos (query position), key (key position), head, kv (key/value head), d_model, d_head, d_mlp.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lens.config import ModelConfig, StackConfig
from lens.nearest import unknown

NamesFilter = Any  # None | str | ("pattern", 5) | iterable of those | Callable[[str], bool]


@dataclass(frozen=True)
class Site:
    """One named activation of one model.

    `extra` sites cost memory or time to make; they are left out unless asked for by name. `conditional` ones
    may not fire in a given run (an expert that no token was sent to).
    """

    name: str
    shape: str
    meaning: str
    layer: int | None = None
    extra: bool = False
    conditional: bool = False

    @property
    def kind(self) -> str:
        """The name without its layer: `attn.hook_q`, `hook_resid_post`, `ln_final.hook_scale`."""
        return re.sub(r"^blocks\.\d+\.", "", self.name)


@dataclass(frozen=True)
class Row:
    """A line of the vocabulary: a site that exists in every block of a stack for which `when` holds."""

    suffix: str
    shape: str
    meaning: str
    when: Callable[[StackConfig], bool] = lambda c: True
    extra: bool = False
    conditional: bool = False


def _mlp(c: StackConfig) -> bool:
    return c.d_mlp is not None


def _dense(c: StackConfig) -> bool:
    return _mlp(c) and c.experts is None


def _rotary(c: StackConfig) -> bool:
    return c.rotary is not None


def _pre_norm(c: StackConfig) -> bool:
    return c.norm != "none" and bool(c.norm_placement & {"in", "add"})


def _out_norm(c: StackConfig) -> bool:
    return c.norm != "none" and "out" in c.norm_placement


def _norm(
    path: str, where: str, when: Callable[[StackConfig], bool], width: str = "d_model"
) -> tuple[Row, Row]:
    many = "" if width == "d_model" else ("head " if width == "d_head" else "")
    return (
        Row(f"{path}.hook_scale", f"batch pos {many}1", f"divisor of the norm {where}", when),
        Row(
            f"{path}.hook_normalized",
            f"batch pos {many}{width}",
            f"normalised, before weight and bias: {where}",
            when,
        ),
    )


BLOCK: tuple[Row, ...] = (
    Row("hook_resid_pre", "batch pos d_model", "residual stream entering the block"),
    Row(
        "hook_attn_in",
        "batch pos head d_model",
        "residual stream as each head reads it, before the norm; with "
        "grouped queries a kv head reads the mean over its query heads",
        extra=True,
    ),
    Row(
        "hook_q_input", "batch pos head d_model", "what each head's queries read, before the norm", extra=True
    ),
    Row("hook_k_input", "batch pos kv d_model", "what each head's keys read, before the norm", extra=True),
    Row("hook_v_input", "batch pos kv d_model", "what each head's values read, before the norm", extra=True),
    *_norm("ln1", "of the attention branch", _pre_norm),
    Row("attn.hook_q", "batch pos head d_head", "queries, before q-norm and rotary"),
    Row("attn.hook_k", "batch pos kv d_head", "keys, before k-norm and rotary"),
    Row("attn.hook_v", "batch pos kv d_head", "values"),
    Row(
        "attn.q_norm.hook_scale",
        "batch pos head 1",
        "divisor of the query norm",
        lambda c: c.qk_norm == "head",
    ),
    Row(
        "attn.q_norm.hook_normalized",
        "batch pos head d_head",
        "normalised queries, before weight and bias",
        lambda c: c.qk_norm == "head",
    ),
    Row("attn.k_norm.hook_scale", "batch pos kv 1", "divisor of the key norm", lambda c: c.qk_norm == "head"),
    Row(
        "attn.k_norm.hook_normalized",
        "batch pos kv d_head",
        "normalised keys, before weight and bias",
        lambda c: c.qk_norm == "head",
    ),
    Row(
        "attn.q_norm.hook_scale",
        "batch pos 1",
        "divisor of the norm over all queries",
        lambda c: c.qk_norm == "all",
    ),
    Row(
        "attn.q_norm.hook_normalized",
        "batch pos head*d_head",
        "all queries normalised, before weight and bias",
        lambda c: c.qk_norm == "all",
    ),
    Row(
        "attn.k_norm.hook_scale",
        "batch pos 1",
        "divisor of the norm over all keys",
        lambda c: c.qk_norm == "all",
    ),
    Row(
        "attn.k_norm.hook_normalized",
        "batch pos kv*d_head",
        "all keys normalised, before weight and bias",
        lambda c: c.qk_norm == "all",
    ),
    Row("attn.hook_rot_q", "batch pos head d_head", "queries after rotary positions", _rotary),
    Row("attn.hook_rot_k", "batch pos kv d_head", "keys after rotary positions", _rotary),
    Row("attn.hook_attn_scores", "batch head pos key", "scaled (and capped) scores; -inf where masked"),
    Row("attn.hook_pattern", "batch head pos key", "attention probabilities; rows sum to one"),
    Row("attn.hook_z", "batch pos head d_head", "values mixed by the pattern"),
    Row("attn.hook_result", "batch pos head d_model", "each head's own contribution, z W_O", extra=True),
    *_norm("ln1_post", "on the attention branch's output", _out_norm),
    Row("hook_attn_out", "batch pos d_model", "what attention adds to the residual stream"),
    Row(
        "hook_resid_mid",
        "batch pos d_model",
        "residual stream between attention and MLP",
        lambda c: _mlp(c) and not c.parallel,
    ),
    Row(
        "hook_mlp_in",
        "batch pos d_model",
        "residual stream as the MLP reads it, before the norm",
        _mlp,
        extra=True,
    ),
    *_norm("ln2", "of the MLP branch", lambda c: _pre_norm(c) and _mlp(c) and not c.shared_norm),
    Row(
        "mlp.hook_router_logits",
        "batch pos expert",
        "router logits over experts",
        lambda c: c.experts is not None,
    ),
    Row(
        "mlp.hook_expert_weights",
        "batch pos top_k",
        "weights of the chosen experts",
        lambda c: c.experts is not None,
    ),
    Row(
        "mlp.hook_expert_indices",
        "batch pos top_k",
        "which experts were chosen",
        lambda c: c.experts is not None,
    ),
    Row(
        "mlp.hook_pre",
        "batch pos d_mlp",
        "neurons before the activation function (the gate, if gated)",
        _dense,
    ),
    Row(
        "mlp.hook_pre_linear",
        "batch pos d_mlp",
        "the branch that is multiplied by the gate",
        lambda c: _dense(c) and c.gated,
    ),
    Row("mlp.hook_post", "batch pos d_mlp", "neurons after activation function and gate", _dense),
    *_norm("ln2_post", "on the MLP branch's output", lambda c: _out_norm(c) and _mlp(c)),
    Row("hook_mlp_out", "batch pos d_model", "what the MLP adds to the residual stream", _mlp),
    Row("hook_resid_post", "batch pos d_model", "residual stream leaving the block (before a post-norm)"),
    Row(
        "hook_normalized_resid_post",
        "batch pos d_model",
        "residual stream after the block's last post-norm",
        lambda c: "add" in c.norm_placement and c.norm != "none",
    ),
)

EXPERT: tuple[Row, ...] = (
    Row("hook_pre", "token d_mlp", "neurons before the activation, tokens sent here", conditional=True),
    Row(
        "hook_pre_linear",
        "token d_mlp",
        "the branch multiplied by the gate, tokens sent here",
        lambda c: c.gated,
        conditional=True,
    ),
    Row("hook_post", "token d_mlp", "neurons after activation and gate, tokens sent here", conditional=True),
)

ALIASES = {
    "attn": "pattern", "attn_logits": "attn_scores", "query": "q", "key": "k", "value": "v",
    "mlp_pre": "pre", "mlp_post": "post", "resid": "resid_pre",
}  # fmt: skip
"""Other names TransformerLens users give to sites."""


def sites_of(cfg: ModelConfig) -> dict[str, Site]:
    """Every site that can fire in a model, by name, in firing order."""
    c = cfg.stack
    found = [Site("hook_embed", "batch pos d_model", "token embedding, scaled and projected")]
    if cfg.embed.n_positions is not None:
        found.append(Site("hook_pos_embed", "batch pos d_model", "position embedding"))
    for layer in range(c.n_layers):
        for row in BLOCK:
            if row.when(c):
                name = f"blocks.{layer}.{row.suffix}"
                found.append(Site(name, row.shape, row.meaning, layer, row.extra, row.conditional))
            if row.suffix == "mlp.hook_expert_indices" and c.experts is not None:
                found += [
                    Site(f"blocks.{layer}.mlp.experts.{e}.{r.suffix}", r.shape, r.meaning, layer, r.extra, True)
                    for e in range(c.experts.n) for r in EXPERT if r.when(c)
                ]  # fmt: skip
    if c.final_norm and c.norm != "none":
        found += [
            Site(r.suffix, r.shape, r.meaning)
            for r in _norm("ln_final", "before the unembedding", lambda c: True)
        ]
    found.append(Site("hook_logits", "batch pos d_vocab", "logits"))
    return {site.name: site for site in found}


def act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """A full site name from TransformerLens's shorthand: `act_name("pattern", 5)`, `act_name("scale", 3, "ln1")`.

    Names that are complete already come back unchanged. Without a layer the result may stand for several
    sites; `resolve` expands it.
    """
    if "." in name or name.startswith("hook_"):
        return name if layer is None else f"blocks.{layer}.{name}"
    if layer is None and (match := re.fullmatch(r"([a-z_]*[a-z])(\d+)([a-z]\w*)?", name)):
        name, layer, layer_type = match[1], int(match[2]), match[3] or layer_type
    name = ALIASES.get(name, name)
    suffix = f"{layer_type}.hook_{name}" if layer_type else f"hook_{name}"
    if layer is None:
        return suffix
    if not layer_type:
        homes = [row.suffix for row in BLOCK if row.suffix.rsplit(".", 1)[-1] == suffix]
        suffix = homes[0] if homes else suffix
    return f"blocks.{layer}.{suffix}"


def expand(name: str | tuple[Any, ...], sites: Mapping[str, Site]) -> list[str]:
    """The full names that `name` stands for; a shorthand without a layer stands for all layers.

    Raises:
        ValueError: nothing of that name can fire in this model; the message gives the nearest names.
    """
    full = act_name(*name) if isinstance(name, tuple) else (name if name in sites else act_name(name))
    if full in sites:
        return [full]
    hits = [s for s in sites if s.endswith(f".{full}") and not full.startswith("blocks.")]
    if not hits:
        raise ValueError(unknown("site", full, sites, of="this model"))
    return hits


def resolve(names: NamesFilter, sites: Mapping[str, Site]) -> list[str]:
    """The sites a names filter stands for, in firing order.

    None and callables choose among the ordinary sites; `extra` ones must be asked for by name.

    Raises:
        ValueError: a name cannot fire in this model.
    """
    if names is None:
        return [n for n, s in sites.items() if not s.extra]
    if callable(names):
        return [n for n, s in sites.items() if not s.extra and names(n)]
    if isinstance(names, str) or _is_key(names):
        names = [names]
    wanted = {full for name in _checked(names) for full in expand(name, sites)}
    return [n for n in sites if n in wanted]


def _is_key(names: Any) -> bool:
    return isinstance(names, tuple) and len(names) in (2, 3) and isinstance(names[1], int)


def _checked(names: Any) -> Iterable[Any]:
    if not isinstance(names, Iterable):
        raise ValueError(f"a names filter is a name, a list of names or a function of a name, not {names!r}")
    return names
