"""TransformerLens's `HookedTransformer`, and what belongs to it, on the core. Parts are imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lens.compat.cache import ActivationCache
    from lens.compat.config import HookedTransformerConfig
    from lens.compat.encoder import BertNextSentencePrediction, HookedEncoder
    from lens.compat.encoder_decoder import HookedEncoderDecoder
    from lens.compat.factored_matrix import FactoredMatrix, composition_scores
    from lens.compat.hook_points import HookPoint
    from lens.compat.installing import install, installed, uninstall
    from lens.compat.model import HookedTransformer, Output
    from lens.compat.slices import Slice

__all__ = [
    "ActivationCache",
    "BertNextSentencePrediction",
    "FactoredMatrix",
    "HookPoint",
    "HookedEncoder",
    "HookedEncoderDecoder",
    "HookedTransformer",
    "HookedTransformerConfig",
    "Output",
    "Slice",
    "composition_scores",
    "install",
    "installed",
    "uninstall",
]

_WHERE = {
    "HookedTransformer": "model",
    "Output": "model",
    "HookedTransformerConfig": "config",
    "ActivationCache": "cache",
    "FactoredMatrix": "factored_matrix",
    "composition_scores": "factored_matrix",
    "HookPoint": "hook_points",
    "HookedEncoder": "encoder",
    "HookedEncoderDecoder": "encoder_decoder",
    "BertNextSentencePrediction": "encoder",
    "Slice": "slices",
    "install": "installing",
    "installed": "installing",
    "uninstall": "installing",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
