"""The sites of one model: exactly those that can fire in it; any other name is an error before a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from lens.config import EmbedConfig, ModelConfig, StackConfig
from lens.mixer import mixer_at
from lens.nearest import unknown
from lens.vocabulary import (
    AFTER,
    ALIASES,
    BETWEEN,
    BLOCK,
    EMBED,
    EXPERT,
    FEED_FORWARD,
    FINAL,
    READ,
    UNEMBED,
    Kind,
)

Part = Literal["source", "embed", "block", "end"]
NamesFilter = Any  # None | str | ("pattern", 5) | iterable of those | Callable[[str], bool]


@dataclass(frozen=True)
class Site:
    """One named activation of one model.

    `extra` sites cost memory or time to make; they are left out unless asked for by name. `conditional` ones
    may not fire in a given run (an expert that no token was sent to). `sizes` are those of axes that differ from
    layer to layer. `part` is where in the model it is:
    in the encoder of an encoder–decoder (`source`), the embedding, a block, or after the blocks (`end`).
    """

    name: str
    shape: str
    meaning: str
    layer: int | None = None
    extra: bool = False
    conditional: bool = False
    part: Part = "block"
    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def kind(self) -> str:
        """The name without its layer: `attn.hook_q`, `encoder.hook_resid_post`, `ln_final.hook_scale`."""
        return re.sub(r"^(encoder\.|decoder\.)?(blocks\.)?\d+\.", r"\1", self.name)


class Sites(dict[str, Site]):
    """The sites of a model that others run, and why it lacks others of our vocabulary (`lens.bridge`)."""

    def __init__(self, sites: Mapping[str, Site], model: str, refused: Mapping[str, str]) -> None:
        super().__init__(sites)
        self.model, self.refused = model, refused


def sites_of(cfg: ModelConfig) -> dict[str, Site]:
    """Every site that can fire in a model, by name, in firing order.

    The two stacks of an encoder–decoder are `encoder.{l}.…` and `decoder.{l}.…`, their ends
    `encoder_final_ln.…` and `decoder_final_ln.…`.
    """
    if cfg.source is None:
        found = _stack_sites(cfg.embed, cfg.stack, "", "blocks.", "ln_final")
    else:
        encoder = _stack_sites(cfg.source.embed, cfg.source.stack, "encoder.", "encoder.", "encoder_final_ln")
        found = [replace(site, part="source") for site in encoder]
        found += _stack_sites(cfg.embed, cfg.stack, "decoder.", "decoder.", "decoder_final_ln")
    found += [_site("", kind, part="end") for kind in UNEMBED if kind.where.holds(cfg)]
    return {site.name: site for site in found}


def _stack_sites(e: EmbedConfig, c: StackConfig, ends: str, blocks: str, final: str) -> list[Site]:
    """The sites of an embedding and a stack, under these prefixes and the name of the final norm."""
    found = [_site(ends, kind, part="embed") for kind in EMBED if kind.where.holds(e)]
    for layer in range(c.n_layers):
        here = c.at(layer)
        sizes = _sizes(here)
        for kind in _block_kinds(here):
            if kind.where.holds(here):
                wide = here.streams > 1 and kind.suffix.startswith("hook_resid")
                found.append(_sized(_site(f"{blocks}{layer}.", kind, layer), {} if wide else sizes))
            if kind.suffix == "mlp.hook_expert_indices":
                found += _expert_sites(here, f"{blocks}{layer}.", layer)
    norm = [_site("", kind, part="end") for kind in FINAL if kind.where.holds(c)]
    return found + [replace(site, name=site.name.replace("ln_final", final)) for site in norm]


def _block_kinds(c: StackConfig) -> list[Kind]:
    """Kinds of sites around and in what mixes the positions of one block."""
    mixer = mixer_at(c)
    if mixer is None:
        return BLOCK
    return [*READ, *mixer.kinds, *BETWEEN, *(mixer.mlp_kinds if mixer.mlp else FEED_FORWARD), *AFTER]


def _sizes(c: StackConfig) -> dict[str, int]:
    """Sizes that a stage, or a branch that reads one of two streams, has for itself."""
    if c.grid is None:
        return {} if c.streams == 1 else {"d_model": c.branch.d_model}
    rows, columns = c.grid
    mixer = mixer_at(c)
    sizes = {
        "pos": rows * columns,
        "merged": ((rows + 1) // 2) * ((columns + 1) // 2),
        "head": c.n_heads, "kv": c.n_kv_heads,
        "d_model": c.d_model, "d_head": c.d_head, "d_mlp": c.d_mlp or 0, "d_next": c.merge_to or 0,
    }  # fmt: skip
    own = {} if mixer is None or mixer.sizes is None else mixer.sizes(c)
    return {**sizes, "4*d_model": 4 * c.d_model, **own}


def _sized(site: Site, sizes: dict[str, int]) -> Site:
    if not sizes:
        return site
    return replace(site, sizes=tuple((axis, sizes[axis]) for axis in site.shape.split() if axis in sizes))


def _site(prefix: str, kind: Kind, layer: int | None = None, part: Part = "block") -> Site:
    return Site(prefix + kind.suffix, kind.shape, kind.meaning, layer, kind.extra, kind.conditional, part)


def _expert_sites(c: StackConfig, block: str, layer: int) -> list[Site]:
    return [
        _site(f"{block}mlp.experts.{expert}.", kind, layer)
        for expert in range(0 if c.experts is None else c.experts.n)
        for kind in EXPERT
        if kind.where.holds(c)
    ]


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
        homes = [kind.suffix for kind in BLOCK if kind.suffix.rsplit(".", 1)[-1] == suffix]
        suffix = min(homes, key=lambda home: home.count("."), default=suffix)  # not a shared expert's
    return f"blocks.{layer}.{suffix}"


def expand(name: Any, sites: Mapping[str, Site]) -> list[str]:
    """The full names that `name` stands for; a shorthand without a layer stands for all layers.

    Raises:
        ValueError: nothing of that name can fire in this model; the message gives the nearest names.
    """
    if not isinstance(name, str) and not (isinstance(name, tuple) and name and isinstance(name[0], str)):
        raise ValueError(f"a site is named by a string or a tuple such as ('pattern', 5), not by {name!r}")
    full = act_name(*name) if isinstance(name, tuple) else (name if name in sites else act_name(name))
    if full not in sites and full.startswith("blocks."):  # the decoder's, where there are two stacks
        full = f"decoder.{full.removeprefix('blocks.')}" if "decoder.hook_embed" in sites else full
    if full in sites:
        return [full]
    if match := re.fullmatch(
        r"(?:blocks|decoder)\.(\d+)\.(?:attn\.)?(hook_\w+)", full
    ):  # a mixer's, by its last part
        layer, last = int(match[1]), f".{match[2]}"
        hits = [name for name, site in sites.items() if site.layer == layer and name.endswith(last)]
        if hits := [name for name in hits if sites[name].part == "block"]:
            return hits
    hits = [s for s in sites if s.endswith(f".{full}") and not full.startswith("blocks.")]
    if not hits:
        if isinstance(sites, Sites) and full in sites.refused:
            raise ValueError(f"{full!r} is not there in {sites.model}: {sites.refused[full]}")
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
