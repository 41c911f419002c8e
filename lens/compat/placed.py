"""Modules that old code has put in a hook point's place: `block.hook_q_input = Wrapper(block.hook_q_input)`.

A run calls its taps with what it finds in the place, so the module itself is the name under which it is called.
Hooks of the same site are called by the module, if it calls what it stands for, or not at all, as in TransformerLens.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from lens.taps import OFF, AnyTaps, Edits, Taps


def placed_modules(model: nn.Module) -> AnyTaps:
    """Taps that call every module that stands where a hook point was."""
    found = [
        child
        for part in _parts(model)
        for name, child in vars(part)["_modules"].items()
        if name.startswith("hook_")
    ]
    return Taps(edits=cast(Edits, {module: module for module in found})) if found else OFF


def _parts(model: Any) -> list[nn.Module]:
    """What has hook points: the model, and its parts down to attention and MLP."""
    known = vars(model).get("_hooked_parts")
    if known is None or known[0] is not model.stack:
        parts = [part for part in model.modules() if any(name.startswith("hook_") for name in vars(part))]
        known = model.stack, [model, *(part for part in parts if part is not model)]
        vars(model)["_hooked_parts"] = known
    return known[1]
