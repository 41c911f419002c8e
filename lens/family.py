"""Families: how a Hugging Face config and checkpoint become a `ModelConfig` and our parameters, and back.

A file in `lens/families/` defines one `FAMILY`. Reading a checkpoint:

1. `find` the family by the config's `model_type`.
2. The family's `build` reads the config's fields; fields it does not handle are refused by name.
3. The family's weight table maps every tensor to our parameters, strictly (`lens.weights`).
4. What is seen in the tensors, not in the config: which heads there are (`Fields.has`), and whether the
   embedding is tied, so that there is no separate unembedding or it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

from torch import Tensor

from lens.config import ModelConfig
from lens.embed import sinusoids
from lens.fields import Fields
from lens.nearest import unknown
from lens.parameters import aliases_of, computed_of, shapes_of
from lens.registry import collect
from lens.weights import Table, identical

EMBED, UNEMBED, SOURCE = "embed.tokens.weight", "unembed.linear.weight", "encoder.embed.tokens.weight"


@dataclass(frozen=True)
class Family:
    """What a family file states.

    `name` is the file's name, `model_types` are the values of `model_type` it reads, `build` turns fields
    into a `ModelConfig`, `weights` gives the table for one model.
    """

    name: str
    model_types: tuple[str, ...]
    build: Callable[[Fields], ModelConfig]
    weights: Callable[[ModelConfig], Table]

    def config(self, hf: Mapping[str, Any], tensors: Collection[str] = ()) -> ModelConfig:
        """The configuration that a Hugging Face config.json and the names of a checkpoint's tensors describe.

        Without names, the heads are those of the family's language models.

        Raises:
            ValueError: a field is missing, has a value that is not supported, or is not handled at all.
        """
        fields = Fields(self.name, hf, tensors)
        cfg = self.build(fields)
        fields.close()
        for stack in (cfg.stack, *((cfg.source.stack,) if cfg.source is not None else ())):
            if stack.experts is not None and not 1 <= stack.experts.top_k <= stack.experts.n:
                n, k = stack.experts.n, stack.experts.top_k
                raise ValueError(f"{self.name} config: {k} of {n} experts per token cannot be chosen")
        return replace(cfg, family=self.name, name=str(hf.get("_name_or_path") or self.name), hf=dict(hf))


@cache
def families() -> dict[str, Family]:
    """Every family by name, found by the directory's name on first use: families import this module."""
    return collect(import_module("lens.families"), "FAMILY", Family)


def find(hf: Mapping[str, Any]) -> Family:
    """The family of a Hugging Face config.

    Raises:
        ValueError: no family has its `model_type`; the message names the nearest ones.
    """
    model_type = hf.get("model_type")
    if not model_type:
        raise ValueError("this config has no model_type, so it is not known how to read the model")
    by_type = {t: family for family in families().values() for t in family.model_types}
    if model_type not in by_type:
        others = 'the README lists all; backend="transformer-lens" may run others'
        raise ValueError(f"{unknown('model type', str(model_type), by_type)} ({others})")
    return by_type[model_type]


def read(hf: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """A Hugging Face config and checkpoint as ours: a configuration, and parameters by our names.

    Raises:
        ValueError: the config or a tensor does not fit; the message names it.
    """
    family = find(hf)
    cfg = family.config(hf, tensors.keys())
    aliases = aliases_of(replace(cfg, tied=True))
    computed = computed_of(cfg)
    table = family.weights(cfg)
    try:
        state = table.read(tensors, shapes_of(cfg), optional=[*aliases, *computed])
    except ValueError:
        _check_head(hf, table, tensors)  # which says more, where that is why
        raise
    for name in computed:
        if name not in state:
            state[name] = sinusoids(*shapes_of(cfg)[name]).to(state[EMBED].dtype)
    headless = cfg.unembed is None
    if not headless and UNEMBED not in state and hf.get("tie_word_embeddings") is False:
        raise ValueError(
            "the checkpoint has no unembedding (lm_head) and its config says that it is not tied to the "
            "embedding: these are the weights of a model without a language-model head"
        )
    embeds = EMBED if cfg.embed.of_tokens else SOURCE
    tied = not headless and (UNEMBED not in state or identical(state[UNEMBED], state[embeds]))
    if cfg.source is not None and cfg.source.embed.of_tokens and cfg.embed.of_tokens:
        shared = SOURCE not in state or identical(state[SOURCE], state[EMBED])
        cfg = replace(cfg, source=replace(cfg.source, shared=shared))
    cfg = replace(cfg, tied=tied)
    return cfg, state | {name: state[same] for name, same in aliases_of(cfg).items()}


def _check_head(hf: Mapping[str, Any], table: Table, names: Collection[str]) -> None:
    """Raise if all that is not read of a checkpoint stands beside the model, as a task's head does."""
    unread = [name for name in names if not table.reads(name)]
    within = {name.partition(".")[0] for name in names} - {name.partition(".")[0] for name in unread}
    named = hf.get("architectures")
    if unread and within and named:
        raise ValueError(
            f"{named[0]} has a head that the {table.family} family does not read: {unread[0]!r} has no place in it"
        )


def write(
    cfg: ModelConfig, state: Mapping[str, Tensor], names: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """The inverse of `read`: a Hugging Face checkpoint's tensors, bit for bit.

    `names` asks for exactly those tensors, as another version of the checkpoint would have them; by default
    the names that `save_pretrained` writes, without an unembedding that is tied.

    Raises:
        ValueError: a tensor cannot be made from `state`; the message names it.
    """
    by_name = families()
    if cfg.family not in by_name:
        raise ValueError(unknown("family", cfg.family, by_name))
    table = by_name[cfg.family].weights(cfg)
    aliases = aliases_of(cfg)
    if names is None:
        unsaved = {*aliases, *computed_of(cfg)}
        names = table.names(name for name in state if name not in unsaved)
        if cfg.unembed is None and cfg.classifier is None:  # a base model's names have no prefix
            names = [name.removeprefix(table.prefix) for name in names]
    return table.write({**state, **{name: state[same] for name, same in aliases.items()}}, names)
