"""lens: hooked transformers whose every activation can be read and rewritten, run by run."""

from __future__ import annotations

from lens.cache import ActivationCache
from lens.config import ModelConfig
from lens.kv import KeyValues
from lens.model import Transformer
from lens.taps import OFF, Taps

__all__ = ["OFF", "ActivationCache", "KeyValues", "ModelConfig", "Taps", "Transformer", "load", "save"]


def __getattr__(name: str):
    if name in ("load", "save"):
        from lens import load as module

        return getattr(module, name)
    raise AttributeError(f"module 'lens' has no attribute {name!r}")
