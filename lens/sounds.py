"""Sounds as the mel frames that a model reads, through Hugging Face's feature extractor.

A waveform is a row of floats from -1 to 1, 16 000 a second. Frames are as wide as the model's own extractor makes
them (preprocessor_config.json), or as Whisper's does (arXiv 2212.04356, §2.2: windows of 25 ms every 10 ms).

Letters: b batch, m mel, t frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lens.inputs import Array, ModelInputs

if TYPE_CHECKING:
    from lens.config import ModelConfig
    from lens.model import Transformer

RATE = 16_000
"""Samples a second."""


def reads(cfg: ModelConfig) -> bool:
    """Does this model's encoder read sounds?"""
    return cfg.source is not None and cfg.source.embed.mel is not None


def is_one(given: Any) -> bool:
    """Is this a single waveform?"""
    if isinstance(given, Mapping):
        return "array" in given
    if isinstance(given, list):
        return bool(given) and all(isinstance(x, float) for x in given)
    return isinstance(given, Tensor | Array) and getattr(given, "ndim", 0) == 1


def source(model: Transformer, given: Any) -> ModelInputs:
    """Waveforms (one, several, or [b, samples]) or mel frames [b, m, t], as the encoder's inputs.

    They are arrays or tensors; one waveform can be a list of floats.

    Raises:
        ValueError: they are something else, too long, or have another shape.
    """
    if isinstance(given, Tensor) and given.ndim == 3:
        return ModelInputs(mel=checked(given, model.cfg)).to(model.device)
    if not isinstance(given, Tensor) and isinstance(given, Array) and getattr(given, "ndim", 0) == 3:
        return source(model, torch.tensor(np.asarray(given)))
    if tuple(getattr(given, "shape", ())) == _size(model.cfg):
        n, t = _size(model.cfg)
        raise ValueError(
            f"{model.cfg.name} reads mel frames [batch, {n}, {t}], not [{n}, {t}]: give frames[None]"
        )
    several: Any = [np.asarray(given) if isinstance(given, list) else given] if is_one(given) else given
    if not isinstance(several, list) and getattr(several, "ndim", 0) != 2:
        raise ValueError(_wanted(model.cfg, given))
    return ModelInputs(mel=frames(model, [_waveform(model.cfg, row) for row in several])).to(model.device)


def recorded(given: Mapping[str, Any], name: str) -> Any:
    """The waveform of a recording as Hugging Face's data sets hold it, `array` and `sampling_rate`.

    Raises:
        ValueError: its rate is another one than models read.
    """
    rate = given.get("sampling_rate")
    if rate != RATE:
        raise ValueError(f"{name} reads sounds of {RATE} samples a second, not {rate}: resample it first")
    return given["array"]


def frames(model: Transformer, waveforms: list[Tensor]) -> Float[Tensor, "b m t"]:
    """Mel frames of waveforms, each padded with silence to what the model reads.

    Raises:
        ValueError: there is none, or one is too long.
    """
    assert model.cfg.source is not None and model.cfg.source.embed.mel is not None
    cfg = model.cfg.source.embed.mel
    if not waveforms:
        raise ValueError("there is no waveform")
    extractor = _extractor(json.dumps(model.preprocessing or {"feature_size": cfg.n_mels}))
    longest, limit = max(map(len, waveforms)), cfg.n_frames * extractor.hop_length
    if longest > limit:
        takes = f"{model.cfg.name} reads at most {limit} ({limit / RATE:g} s)"
        raise ValueError(f"a waveform has {longest} samples ({longest / RATE:g} s) and {takes}")
    made = extractor(
        [x.numpy() for x in waveforms], sampling_rate=RATE, max_length=limit, return_tensors="pt"
    )
    return checked(made["input_features"], model.cfg)


def checked(mel: Tensor | None, cfg: ModelConfig) -> Float[Tensor, "b m t"]:
    """Mel frames, if they are as many as the model reads.

    Raises:
        ValueError: they are not.
    """
    size = _size(cfg)
    if mel is None or mel.ndim != 3 or tuple(mel.shape[1:]) != size or not mel.is_floating_point():
        raise ValueError(_wanted(cfg, mel))
    return mel


def _waveform(cfg: ModelConfig, row: Any) -> Float[Tensor, " t"]:
    if not isinstance(row, Tensor | Array):
        raise ValueError(_wanted(cfg, row))
    x = row if isinstance(row, Tensor) else torch.tensor(np.asarray(row))
    if x.ndim != 1 or not x.is_floating_point() or not len(x):
        raise ValueError(_wanted(cfg, x))
    if not bool(x.isfinite().all()):
        raise ValueError(f"a waveform for {cfg.name} holds NaN or infinity")
    return x.detach().cpu().float()


def _size(cfg: ModelConfig) -> tuple[int, int]:
    """Bands and frames of what the encoder reads."""
    assert cfg.source is not None and cfg.source.embed.mel is not None
    return cfg.source.embed.mel.n_mels, cfg.source.embed.mel.n_frames


def _wanted(cfg: ModelConfig, given: Any) -> str:
    size = _size(cfg)
    shape = "" if getattr(given, "shape", None) is None else f" {tuple(given.shape)} {given.dtype}"
    got = "" if given is None else f", not {type(given).__name__}{shape}"
    return f"{cfg.name} reads mel frames [batch, {size[0]}, {size[1]}] or waveforms of floats at 16 kHz{got}"


@cache
def _extractor(settings: str) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(**json.loads(settings))
