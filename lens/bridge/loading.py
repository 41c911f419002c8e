"""From a checkpoint to a bridged model: the Hugging Face model, the bridge around it, our face on both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lens.bridge.model import Bridged
from lens.bridge.sites import fitting, small_run
from lens.checkpoint import Checkpoint
from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig

BACKEND = "transformer-lens"
FLAGS = ("is_multimodal", "is_audio_model", "is_visual_model")


@dataclass(frozen=True)
class Booted:
    """A bridge, and what was given to make it."""

    bridge: Any
    architecture: str


def load(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Bridged:
    """The model of a checkpoint, run by TransformerLens.

    Raises:
        ValueError: Hugging Face or TransformerLens does not know the architecture, the weights do not fit it, or it
            reads something else than one text.
    """
    booted = boot(checkpoint, device, dtype)
    cfg = config(checkpoint, booted)
    found = fitting(booted.bridge, cfg, device)
    return Bridged(
        booted.bridge, cfg, found, tokenizer=checkpoint.tokenizer, revision=checkpoint.revision,
        origin=f"{checkpoint.origin}, run by TransformerLens ({booted.architecture})",
    )  # fmt: skip


def boot(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Booted:
    """The Hugging Face model with eager attention, and the bridge that stands around it."""
    import transformers
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    from transformer_lens.model_bridge.sources._hf_format import determine_architecture_from_hf_config
    from transformers import AutoConfig
    from transformers.utils import logging

    content = dict(checkpoint.config)
    kind = content.pop("model_type", None)
    if kind is None:
        raise ValueError(
            f"{checkpoint.name} is not a Hugging Face checkpoint, which backend={BACKEND!r} needs"
        )
    try:
        hf = AutoConfig.for_model(kind, **content)
        architecture = determine_architecture_from_hf_config(hf)
        made = getattr(transformers, architecture)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"TransformerLens cannot run {checkpoint.name}: {first_line(error)}") from error
    quiet = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        ids = small_run(int(getattr(hf, "vocab_size", 2)), device)
        model = made.from_pretrained(
            None, config=hf, state_dict=dict(checkpoint.tensors), attn_implementation="eager", dtype=dtype
        )
        model = model.eval().requires_grad_(False).to(device)
        alone = model(ids).logits
        bridge = build_bridge_from_module(
            model, architecture, hf_config=hf, tokenizer=None, device=device, dtype=dtype,
            model_name=checkpoint.name,
        )  # fmt: skip
        bridge.enable_compatibility_mode(no_processing=True, disable_warnings=True)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise ValueError(f"TransformerLens cannot run {checkpoint.name}: {first_line(error)}") from error
    finally:
        if quiet:
            logging.enable_progress_bar()
    check_agreement(bridge(ids), alone, checkpoint.name)
    what = [flag for flag in FLAGS if getattr(bridge.cfg, flag, False)]
    if what or getattr(hf, "is_encoder_decoder", False) or not hasattr(bridge, "blocks"):
        raise ValueError(
            f"{checkpoint.name} ({architecture}) does not read one text with one stack of blocks"
        )
    return Booted(bridge, architecture)


def check_agreement(bridged: torch.Tensor, alone: torch.Tensor, name: str) -> None:
    """Raise unless the bridge gives the logits that the model gave before it stood around it.

    Raises:
        ValueError: it gives others.
    """
    room = 1e-4 if alone.dtype in (torch.float32, torch.float64) else 3e-2
    if not torch.allclose(bridged, alone, rtol=0, atol=room * float(alone.abs().max())):
        off = float((bridged - alone).abs().max())
        raise ValueError(
            f"TransformerLens's bridge gives {name} other logits than Hugging Face, by up to {off:.2g}"
        )


def config(checkpoint: Checkpoint, booted: Booted) -> ModelConfig:
    """The sizes that TransformerLens read, as our configuration. What only our own components need is left out."""
    c = booted.bridge.cfg
    kv = getattr(c, "n_key_value_heads", None) or c.n_heads
    rms = "RMS" in str(getattr(c, "normalization_type", "") or "")
    stack = StackConfig(
        n_layers=c.n_layers,
        d_model=c.d_model,
        n_heads=c.n_heads,
        n_kv_heads=kv,
        d_head=c.d_head,
        d_mlp=getattr(c, "d_mlp", None),
        causal=getattr(c, "attention_dir", "causal") == "causal",
        norm="rms" if rms else "layer",
        norm_eps=float(getattr(c, "eps", 1e-5) or 1e-5),
        parallel=bool(getattr(c, "parallel_attn_mlp", False)),
        gated=bool(getattr(c, "gated_mlp", False)),
    )
    return ModelConfig(
        family=BACKEND,
        name=checkpoint.name,
        n_ctx=c.n_ctx,
        embed=EmbedConfig(d_vocab=c.d_vocab, d_embed=c.d_model),
        stack=stack,
        unembed=UnembedConfig(d_vocab=getattr(c, "d_vocab_out", None) or c.d_vocab, d_embed=c.d_model),
        hf=dict(checkpoint.config),
    )


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
