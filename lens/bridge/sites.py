"""Which of our sites a bridge has: those that fire in a small run, have our shape, and mean what ours mean.

1. Every name of our vocabulary that the bridge knows too is read in one run of a few ids.
2. What does not fire, or has another shape, is left out; why is kept, for the refusal that names the site.
3. A branch's output must be what it adds to the stream, and a normalised stream what it is before gain and bias;
   elsewhere the same name has another meaning, and is left out.

Whether edits take effect is seen when a site is first edited (`Bridged`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lens.config import ModelConfig
from lens.sites import Site
from lens.vocabulary import BLOCK, EMBED, FINAL, UNEMBED, Kind

THEIRS = {"hook_logits": "unembed.hook_out"}
APART = ("hook_attn_in",)  # the bridge has it only while it has no q, k and v inputs; ours are those
SWITCHES = {
    "attn.hook_result": "set_use_attn_result",
    "hook_q_input": "set_use_split_qkv_input",
    "hook_k_input": "set_use_split_qkv_input",
    "hook_v_input": "set_use_split_qkv_input",
    "hook_mlp_in": "set_use_hook_mlp_in",
}
"""Sites that the bridge has only while a setting is on."""
SHAPES = {"batch": 2, "pos": 5, "key": 5, "1": 1}


@dataclass(frozen=True)
class Found:
    """A bridge's sites in firing order, its own names of them, and why other names are missing."""

    sites: dict[str, Site]
    theirs: dict[str, str]
    refused: dict[str, str]


def small_run(d_vocab: int, device: torch.device) -> Tensor:
    """Ids [2, 5] that any model with so many reads."""
    flat = torch.arange(SHAPES["batch"] * SHAPES["pos"]) * 7 + 5
    return (flat % d_vocab).view(SHAPES["batch"], SHAPES["pos"]).to(device)


def fitting(bridge: Any, cfg: ModelConfig, device: torch.device) -> Found:
    """Steps 1 to 3.

    Raises:
        ValueError: not even the residual stream can be read.
    """
    known = bridge.hook_dict
    refused: dict[str, str] = {}
    switches = set()
    for switch in set(SWITCHES.values()):
        try:
            getattr(bridge, switch)(True)
            switches.add(switch)
        except (ValueError, NotImplementedError, RuntimeError) as error:
            for suffix in (s for s, needed in SWITCHES.items() if needed == switch):
                refused |= {f"blocks.{i}.{suffix}": str(error).splitlines()[0] for i in range(cfg.n_layers)}
    asked = {s.name: s for s in candidates(cfg) if s.name not in refused and theirs(s.name) in known}
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(x: Any, hook: Any) -> None:
            if isinstance(x, Tensor):
                seen.setdefault(name, x.detach())

        return hook

    try:
        with torch.no_grad():
            ids = small_run(cfg.embed.d_vocab, device)
            bridge.run_with_hooks(ids, fwd_hooks=[(theirs(name), note(name)) for name in asked])
    finally:
        for switch in switches:
            getattr(bridge, switch)(False)
    for name, site in asked.items():
        if name not in seen:
            refused[name] = "it does not fire"
        elif tuple(seen[name].shape) != shape(site, cfg):
            refused[name] = f"it is {list(seen[name].shape)} there, and {site.shape} here"
    refused |= other_meanings(seen, cfg)
    sites = {name: site for name, site in asked.items() if name not in refused}
    if any(f"blocks.{layer}.hook_resid_post" not in sites for layer in range(cfg.n_layers)):
        raise ValueError(f"TransformerLens's bridge of {cfg.name} shows no residual stream")
    return Found(sites, {name: theirs(name) for name in sites}, refused)


def theirs(name: str) -> str:
    return THEIRS.get(name, name)


def candidates(cfg: ModelConfig) -> Iterator[Site]:
    """One site per name of our vocabulary of language models; those that this configuration has come first."""
    parts: list[tuple[list[Kind], str, Any, int | None, Any]] = [(EMBED, "", cfg.embed, None, "embed")]
    parts += [(BLOCK, f"blocks.{i}.", cfg.stack, i, "block") for i in range(cfg.n_layers)]
    parts += [(FINAL, "", cfg.stack, None, "end"), (UNEMBED, "", cfg, None, "end")]
    for kinds, prefix, holder, layer, part in parts:
        here: dict[str, Kind] = {}
        for kind in kinds:
            if kind.suffix not in here or (kind.where.holds(holder) and not kind.conditional):
                here[kind.suffix] = kind
        for kind in here.values():
            if not kind.conditional and kind.suffix not in APART:
                yield Site(prefix + kind.suffix, kind.shape, kind.meaning, layer, kind.extra, part=part)


def shape(site: Site, cfg: ModelConfig) -> tuple[int, ...]:
    """What the site must be in the small run; −1 for an axis that no such model has."""
    sizes = SHAPES | {
        "d_model": cfg.d_model, "d_embed": cfg.d_model, "head": cfg.n_heads, "kv": cfg.stack.n_kv_heads,
        "d_head": cfg.d_head, "d_mlp": cfg.d_mlp or -1, "d_vocab": cfg.d_vocab,
        "head*d_head": cfg.n_heads * cfg.d_head, "kv*d_head": cfg.stack.n_kv_heads * cfg.d_head,
    }  # fmt: skip
    return tuple(sizes.get(axis, -1) for axis in site.shape.split())


def other_meanings(seen: dict[str, Tensor], cfg: ModelConfig) -> dict[str, str]:
    """Step 3: the names that mean something else there."""
    found: dict[str, str] = {}
    for layer in range(cfg.n_layers):
        at = {
            part: seen.get(f"blocks.{layer}.hook_{part}")
            for part in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        }
        for start, branches, stop in (
            ("resid_pre", ("attn_out",), "resid_mid"),
            ("resid_mid", ("mlp_out",), "resid_post"),
            ("resid_pre", ("attn_out", "mlp_out"), "resid_post"),
        ):
            parts = [at[start], *(at[b] for b in branches), at[stop]]
            if any(x is None for x in parts) or (at["resid_mid"] is not None and len(branches) > 1):
                continue
            *added, end = [x for x in parts if x is not None]
            if not torch.allclose(
                sum(added[1:], added[0]), end, rtol=1e-3, atol=1e-3 * float(end.abs().max())
            ):
                names = [f"blocks.{layer}.hook_{branch}" for branch in branches]
                found |= dict.fromkeys(names, "it is not what is added to the stream there")
    for name, x in seen.items():
        if name.endswith("hook_normalized") and ".attn." not in name:
            size = x.float().pow(2).mean(-1)
            if not torch.allclose(size, torch.ones_like(size), atol=0.02):
                found[name] = "it is after gain and bias there"
    return found
