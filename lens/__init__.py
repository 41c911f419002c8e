"""lens: hooked transformers whose every activation can be read and rewritten, run by run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lens.cache import ActivationCache
from lens.config import ModelConfig
from lens.kv import KeyValues
from lens.load import load, save
from lens.model import Transformer
from lens.taps import OFF, Taps

if TYPE_CHECKING:
    from lens.compat import (  # noqa: F401  # found by __getattr__
        HookedEncoder,
        HookedEncoderDecoder,
        HookedTransformer,
        HookedTransformerConfig,
    )

__all__ = ["OFF", "ActivationCache", "KeyValues", "ModelConfig", "Taps", "Transformer", "load", "save"]

DROP_IN = ("HookedTransformer", "HookedEncoder", "HookedEncoderDecoder", "HookedTransformerConfig")
"""TransformerLens's classes on this core (`lens.compat`), imported where they are asked for."""


def __getattr__(name: str) -> Any:
    if name not in DROP_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lens import compat

    return getattr(compat, name)
