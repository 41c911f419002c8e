"""Kinds of models, and which pages can do something with each: one line why not, and where to go instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lens.config import ModelConfig

DECODER, READER, SEQ2SEQ, VISION, MIXER, OTHER = (
    "decoder", "reader", "encoder–decoder", "vision", "mixer", "other",
)  # fmt: skip
SCENES = (READER, SEQ2SEQ, VISION)
"""Kinds that are looked at as scenes; decoders and mixers as pairs of prompts."""

PYTHON = "read its activations in Python: model.run_with_cache"


@dataclass(frozen=True)
class Refusal:
    """Why a page shows nothing of a model, and the page that does, with what its link says."""

    why: str
    page: str
    label: str


def kind_of(cfg: ModelConfig) -> str:
    """What a model is to the pages.

    `DECODER`s predict the next token of a text by attention, `MIXER`s without it. `READER`s read texts and predict
    no next token: encoders, and CLIP's model of texts. `VISION` reads images in patches. `OTHER`: sounds, object
    detection, images or texts that are read in both directions without plain attention.
    """
    if cfg.source is not None:
        tokens = cfg.embed.d_vocab and cfg.source.embed.d_vocab
        plain = tokens and cfg.unembed is not None and cfg.source.embed.n_fixed is None
        return SEQ2SEQ if plain and cfg.stack.attends and cfg.source.stack.attends else OTHER
    if cfg.embed.patches is not None:
        return VISION if cfg.stack.attends and cfg.stack.stages is None else OTHER
    if cfg.embed.n_fixed is not None or cfg.embed.d_vocab == 0:
        return OTHER
    if not cfg.stack.attends:
        return MIXER if cfg.causal and cfg.unembed is not None else OTHER
    return DECODER if cfg.causal and cfg.unembed is not None else READER


def mixed_by(cfg: ModelConfig) -> str:
    """What mixes positions in attention's place, in words; "" where attention does."""
    return " and ".join(sorted({mixer.kind for mixer in cfg.stack.mixers if mixer is not None}))


def no_pairs(cfg: ModelConfig) -> str:
    """Why pairs of prompts say nothing of a model, in a half sentence; "" where they do."""
    if mixed_by(cfg):
        return f"{cfg.name} mixes positions by {mixed_by(cfg)}, so it has no attention heads to patch"
    if cfg.source is not None:
        return f"{cfg.name} has an encoder, and circuits are found in models of one stack"
    if cfg.embed.d_vocab == 0:
        return f"{cfg.name} reads images, and circuits are found between prompts"
    if not cfg.causal:
        return f"{cfg.name} reads texts in both directions, and circuits are found in causal models"
    return "" if cfg.unembed is not None else f"{cfg.name} predicts no tokens"


def refusal(page: str, cfg: ModelConfig) -> Refusal | None:
    """Why `page` shows nothing of a model; None where it does."""
    kind = kind_of(cfg)
    if page in ("start", "runs") or kind == DECODER:
        return None
    if kind == OTHER:
        return _beyond(page, cfg)
    if page in ("patching", "circuit", "evidence"):
        if kind == MIXER:
            return Refusal(f"{no_pairs(cfg)}.", "prompt", "See what it expects next, layer by layer")
        return Refusal(f"{no_pairs(cfg)}.", "head", "Take one head away and see what changes")
    if page in ("heads", "head") and kind == MIXER:
        why = f"{cfg.name} mixes positions by {mixed_by(cfg)}: there are no attention heads to look at."
        return Refusal(why, "prompt", "See what it expects next, layer by layer")
    if page == "probes" and kind in (VISION, SEQ2SEQ):
        return Refusal(
            f"Probes are trained here on models that read one text; {cfg.name} reads "
            f"{'images' if kind == VISION else 'a source and a target'}; {PYTHON}.",
            "heads", "Look at its heads",
        )  # fmt: skip
    return None


def _beyond(page: str, cfg: ModelConfig) -> Refusal:
    reads = "texts"
    if cfg.source is not None:
        reads = "sounds" if cfg.source.embed.n_fixed is not None else "images of any size"
    elif cfg.embed.d_vocab == 0:
        reads = "images"
    how = f" and mixes positions by {mixed_by(cfg)}" if mixed_by(cfg) else ""
    return Refusal(
        f"{cfg.name} reads {reads}{how}: this page has no view of that; {PYTHON}.",
        "start", "Choose another model",
    )  # fmt: skip
