"""`from_pretrained`: a checkpoint as a drop-in model, its weights processed as TransformerLens does."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from lens import processing
from lens.compat import encoder_layouts
from lens.compat.config import HookedTransformerConfig, described
from lens.config import ModelConfig
from lens.family import read
from lens.load import best_device, device_of, dtype_of
from lens.load import read as read_checkpoint
from lens.nearest import unknown

if TYPE_CHECKING:
    from lens.compat.model import HookedTransformer

OWNERS = {
    r"gpt2(-small)?": "openai-community/gpt2",
    r"gpt2-(medium|large|xl)": "openai-community/gpt2-{}",
    r"distillgpt2|distilgpt2": "distilbert/distilgpt2",
    r"opt-(125m|1\.3b|2\.7b|6\.7b|13b|30b|66b)": "facebook/opt-{}",
    r"gpt-neo-(125M|1\.3B|2\.7B)": "EleutherAI/gpt-neo-{}",
    r"gpt-neo-(small|125m)": "EleutherAI/gpt-neo-125M",
    r"gpt-j(-6B)?": "EleutherAI/gpt-j-6B",
    r"pythia-(\d+[mb](?:-deduped)?|\d\.\d+b(?:-deduped)?)": "EleutherAI/pythia-{}",
    r"tiny-stories-(1M|3M|8M|28M|33M)": "roneneldan/TinyStories-{}",
    r"gemma-(2b|7b)(-it)?": "google/gemma-{}{}",
    r"gemma-2-(2b|9b|27b)(-it)?": "google/gemma-2-{}{}",
    r"bert-(base|large)-(cased|uncased)": "google-bert/bert-{}-{}",
    r"t5-(small|base|large|3b|11b)": "google-t5/t5-{}",
}
"""TransformerLens's short names, and where on the Hugging Face hub they are."""

UNBEGUN = ("qwen2", "qwen3")
"""Families whose texts TransformerLens begins with no token unless it is told to."""

IDLE = ("trust_remote_code", "token", "cache_dir", "local_files_only", "low_cpu_mem_usage")
"""Options of transformers' loader that change nothing here."""


def from_pretrained(
    cls: type[HookedTransformer],
    model_name: str,
    fold_ln: bool = True,
    center_writing_weights: bool = True,
    center_unembed: bool = True,
    refactor_factored_attn_matrices: bool = False,
    checkpoint_index: int | None = None,
    checkpoint_value: int | None = None,
    hf_model: Any = None,
    device: torch.device | str | None = None,
    n_devices: int = 1,
    tokenizer: Any = None,
    move_to_device: bool = True,
    fold_value_biases: bool = True,
    default_prepend_bos: bool | None = None,
    default_padding_side: str = "right",
    dtype: torch.dtype | str = torch.float32,
    first_n_layers: int | None = None,
    n_ctx: int | None = None,
    **options: Any,
) -> HookedTransformer:
    """A frozen model with TransformerLens's interface.

    Args:
        model_name: what `lens.load` takes, or TransformerLens's short name (`gpt2-small`, `pythia-70m`).
        fold_ln, center_writing_weights, center_unembed, fold_value_biases, refactor_factored_attn_matrices: the steps
            of `lens.processing`; those that the model has no use for are left out.
        hf_model: a model of transformers whose weights are taken instead.
        default_prepend_bos: texts begin with the token that begins texts; None: yes, but for Qwen.
        first_n_layers: the first layers alone.
        n_ctx: another length of context; with learned positions a smaller one.
        options: `revision`, `torch_dtype`; those of transformers that change nothing here are taken.

    Raises:
        ValueError: unknown name or option, unsupported model, a step that cannot be done; one line says which.
    """
    dtype = options.pop("torch_dtype", dtype)
    revision = options.pop("revision", None)
    _check(options, from_pretrained, checkpoint_index, checkpoint_value)
    if n_devices != 1:
        raise ValueError(f"n_devices is {n_devices}; a model is on one device here")
    where = torch.device("cpu") if not move_to_device else None if device is None else device_of(device)
    wanted = dtype_of(dtype)
    cfg, state, tokenizer, about = _opened(model_name, revision, tokenizer, hf_model)
    if cfg.source is not None:
        other = "HookedEncoderDecoder.from_pretrained" if encoder_layouts.reads(cfg) else "lens.load"
        raise ValueError(f"{cfg.name} ({cfg.family}) is an encoder and a decoder: load it by {other}")
    cfg, state = _shortened(cfg, state, first_n_layers, n_ctx)
    exact = torch.promote_types(wanted, torch.float32)
    state = {name: x.to(exact) for name, x in state.items()}
    cfg, state = processing.processed(
        cfg, state, fold_ln=fold_ln, center_writing_weights=center_writing_weights, center_unembed=center_unembed,
        fold_value_biases=fold_value_biases, refactor_factored_attn_matrices=refactor_factored_attn_matrices,
    )  # fmt: skip
    made = cls.from_state(cfg, state, device=where or best_device(), dtype=wanted, **about)
    if tokenizer is not None:
        made.set_tokenizer(tokenizer, default_padding_side)
    begins = cfg.family not in UNBEGUN if default_prepend_bos is None else default_prepend_bos
    made.cfg.hooked.default_prepend_bos = begins
    if fold_ln and cfg.stack.norm != "none":
        made.cfg.hooked.normalization_type += "Pre"
    return made


def encoder_from_pretrained(
    cls: type[Any],
    model_name: str,
    like: Literal["BERT", "T5"],
    checkpoint_index: int | None = None,
    checkpoint_value: int | None = None,
    hf_model: Any = None,
    device: torch.device | str | None = None,
    tokenizer: Any = None,
    move_to_device: bool = True,
    dtype: torch.dtype | str = torch.float32,
    **options: Any,
) -> Any:
    """A frozen `HookedEncoder` or `HookedEncoderDecoder`, its weights as they are; arguments as in `from_pretrained`.

    Raises:
        ValueError: unknown name or option, or a model of another shape; one line says which.
    """
    dtype = options.pop("torch_dtype", dtype)
    revision = options.pop("revision", None)
    _check(options, encoder_from_pretrained, checkpoint_index, checkpoint_value)
    where = torch.device("cpu") if not move_to_device else None if device is None else device_of(device)
    wanted = dtype_of(dtype)
    cfg, state, tokenizer, about = _opened(model_name, revision, tokenizer, hf_model)
    if not encoder_layouts.reads(cfg) or (cfg.source is None) != (like == "BERT"):
        what = "HookedEncoderDecoder" if cfg.source is not None else "HookedTransformer"
        what = "HookedEncoder" if encoder_layouts.reads(cfg) and cfg.source is None else what
        raise ValueError(f"{cfg.name} ({cfg.family}) has not the shape of {like}: try {what} or lens.load")
    made = cls.from_state(cfg, dict(state), device=where or best_device(), dtype=wanted, **about)
    if tokenizer is not None:
        made.set_tokenizer(tokenizer)
    return made


def _check(options: dict[str, Any], function: Any, index: int | None, value: int | None) -> None:
    """Raise for options that are unknown, or have no meaning here."""
    for name in options:
        if name not in IDLE:
            raise ValueError(
                unknown("option", name, (*IDLE, *function.__annotations__), of="from_pretrained")
            )
    if index is not None or value is not None:
        raise ValueError("checkpoints of a training are chosen by revision=…, their name on the hub")


def official_name(model_name: str) -> str:
    """The name on the hub that TransformerLens means; names that it does not shorten come back as they are."""
    for pattern, there in OWNERS.items():
        if match := re.fullmatch(pattern, model_name):
            return there.format(*(part or "" for part in match.groups()))
    return model_name


def pretrained_config(model_name: str, **options: Any) -> HookedTransformerConfig:
    """What a checkpoint is, in TransformerLens's words; its weights are read, since a part of it shows there alone."""
    cfg, _, _, _ = _opened(model_name, options.get("revision"), None, options.get("hf_model"))
    return described(cfg)


def _opened(
    model_name: str, revision: str | None, tokenizer: Any, hf_model: Any
) -> tuple[ModelConfig, Any, Any, dict[str, str]]:
    """Configuration, weights, tokenizer, and where they are from."""
    from lens.sources import open_checkpoint

    if hf_model is not None:
        tensors = {name: x.detach().clone() for name, x in hf_model.state_dict().items()}
        cfg, state = read(hf_model.config.to_dict(), tensors)
        about = {"origin": f"a model of transformers, {model_name}"}
        return replace(cfg, name=model_name), state, tokenizer, about
    name = official_name(str(model_name))
    checkpoint = open_checkpoint(name if revision is None else f"{name}@{revision}")
    cfg, state = read_checkpoint(checkpoint, checkpoint.tensors)
    about = {"revision": checkpoint.revision, "origin": checkpoint.origin}
    return cfg, state, checkpoint.tokenizer if tokenizer is None else tokenizer, about


def _shortened(
    cfg: ModelConfig, state: Any, layers: int | None, n_ctx: int | None
) -> tuple[ModelConfig, Any]:
    """Fewer layers, another context.

    Raises:
        ValueError: there are fewer already.
    """
    state = dict(state)
    if layers is not None:
        if not 0 < layers <= cfg.n_layers:
            raise ValueError(f"first_n_layers is {layers} and {cfg.name} has {cfg.n_layers} layers")
        c = cfg.stack
        parts = {name: getattr(c, name) for name in ("windows", "rotary", "mixer", "shared")}
        cut = {name: part[:layers] for name, part in parts.items() if isinstance(part, tuple)}
        cfg = replace(cfg, stack=replace(c, n_layers=layers, **cut))
        gone = tuple(f"stack.blocks.{l}." for l in range(layers, c.n_layers))
        state = {name: x for name, x in state.items() if not name.startswith(gone)}
    if n_ctx is not None:
        table, name = cfg.embed.n_positions, "embed.positions.weight"
        if table is not None and n_ctx > table:
            raise ValueError(f"n_ctx is {n_ctx} and {cfg.name} has learned {table} positions")
        if table is not None:
            state[name] = state[name][: n_ctx + cfg.embed.position_offset]
            cfg = replace(cfg, embed=replace(cfg.embed, n_positions=n_ctx))
        cfg = replace(cfg, n_ctx=n_ctx)
    return cfg, state
