"""Families: how a Hugging Face config and checkpoint become a `ModelConfig` and our parameters, and back.

A file in `lens/families/` defines one `FAMILY`. Reading a checkpoint:

1. `find` the family by the config's `model_type`.
2. The family's `build` reads the config's fields; fields it does not handle are refused by name.
3. The family's weight table maps every tensor to our parameters, strictly (`lens.weights`).
4. Whether the embedding is tied is seen in the tensors: there is no separate unembedding, or it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from lens.config import ModelConfig
from lens.fields import Fields
from lens.nearest import unknown
from lens.parameters import shapes_of
from lens.registry import collect
from lens.weights import Table

EMBED, UNEMBED = "embed.tokens.weight", "unembed.linear.weight"


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

    def config(self, hf: Mapping[str, Any]) -> ModelConfig:
        """The configuration a Hugging Face config.json describes.

        Raises:
            ValueError: a field is missing, has a value that is not supported, or is not handled at all.
        """
        fields = Fields(self.name, hf)
        cfg = self.build(fields)
        fields.close()
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
        raise ValueError(unknown("model type", str(model_type), by_type))
    return by_type[model_type]


def read(hf: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """A Hugging Face config and checkpoint as ours: a configuration, and parameters by our names.

    Raises:
        ValueError: the config or a tensor does not fit; the message names it.
    """
    family = find(hf)
    cfg = family.config(hf)
    state = family.weights(cfg).read(tensors, shapes_of(cfg), optional=[UNEMBED])
    if UNEMBED not in state and hf.get("tie_word_embeddings") is False:
        raise ValueError(
            "the checkpoint has no unembedding (lm_head) and its config says that it is not tied to the "
            "embedding: these are the weights of a model without a language-model head"
        )
    tied = UNEMBED not in state or _equal(state[UNEMBED], state[EMBED])
    if tied:
        state[UNEMBED] = state[EMBED]
    return replace(cfg, tied=tied), state


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
    if cfg.tied:
        state = {**state, UNEMBED: state[EMBED]}
        names = table.names(name for name in state if name != UNEMBED) if names is None else names
    return table.write(state, names)


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.is_meta or b.is_meta:  # shapes only: nothing can be compared
        return a is b
    same_memory = a.data_ptr() == b.data_ptr() and a.stride() == b.stride()
    return a.shape == b.shape and a.dtype == b.dtype and (same_memory or torch.equal(a, b))
