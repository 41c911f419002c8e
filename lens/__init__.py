"""lens: hooked transformers whose every activation can be read and rewritten, run by run."""

from __future__ import annotations

from lens.cache import ActivationCache
from lens.config import ModelConfig
from lens.kv import KeyValues
from lens.load import load, save
from lens.model import Transformer
from lens.taps import OFF, Taps

__all__ = ["OFF", "ActivationCache", "KeyValues", "ModelConfig", "Taps", "Transformer", "load", "save"]
