"""TransformerLens's `HookedTransformer`, and what belongs to it, on the core. Parts are imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "HookedTransformer": "model",
    "Output": "model",
    "HookedTransformerConfig": "config",
    "ActivationCache": "cache",
    "FactoredMatrix": "factored_matrix",
    "composition_scores": "factored_matrix",
    "HookPoint": "hook_points",
    "Slice": "slices",
}

__all__ = [
    "ActivationCache", "FactoredMatrix", "HookPoint", "HookedTransformer", "HookedTransformerConfig", "Output",
    "Slice", "composition_scores",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
