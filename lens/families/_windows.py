"""Sliding windows from a config: which layers see how far back."""

from __future__ import annotations

from collections.abc import Sequence

from lens.fields import Fields
from lens.nearest import unknown

Windows = tuple[int | None, ...]

LAYER_TYPES = ("full_attention", "sliding_attention")


def everywhere(window: int | None, n_layers: int, n_ctx: int) -> Windows | None:
    """The same window in every layer; None if it never bites."""
    return None if window is None or window >= n_ctx else (window,) * n_layers


def by_type(f: Fields, window: int | None, layer_types: Sequence[str], n_ctx: int) -> Windows | None:
    """The window in layers of type `sliding_attention`; None if it never bites.

    Raises:
        ValueError: a layer has a type other than these two, or there is no window.
    """
    for kind in layer_types:
        if kind not in LAYER_TYPES:
            raise ValueError(
                f"{f.family} config field layer_types: {unknown('layer type', kind, LAYER_TYPES)}"
            )
    if "sliding_attention" not in layer_types:
        return None
    if window is None:
        raise ValueError(f"{f.family} config has layers of type 'sliding_attention' but no sliding_window")
    if window >= n_ctx:
        return None
    return tuple(window if kind == "sliding_attention" else None for kind in layer_types)


def from_layer(f: Fields, n_layers: int, n_ctx: int) -> Windows | None:
    """Qwen's way: windows from layer `max_window_layers` on, if switched on at all."""
    used = f.get("use_sliding_window", default=False)
    window = f.get("sliding_window", default=4096, null=None) if used else None
    first = f.get("max_window_layers", default=28)
    f.ignore("sliding_window")
    derived = [
        "sliding_attention" if window and layer >= first else "full_attention" for layer in range(n_layers)
    ]
    return by_type(f, window, f.get("layer_types", default=derived), n_ctx)
