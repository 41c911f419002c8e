"""Modules that old code has put in a hook point's place: `block.hook_q_input = Wrapper(block.hook_q_input)`.

From the next run on they act there, as the first of the hooks that stand on the model. The place then shows the hook
point again; the module stays among the model's modules and parameters, until it is deleted: `del block.hook_q_input`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from lens.taps import Edit, Taps


def placed_modules(model: Any) -> Taps | None:
    """Taps that call every module that stands where a hook point was; None where there is none."""
    edits: dict[str, Edit] = {}
    for path, part in _parts(model):
        for name, module in vars(part)["_modules"].items():
            site = f"{path}{name}"
            if name.startswith("hook_") and site in model.hook_dict:
                vars(part)[name] = model.hook_dict[site]
                edits[site] = module
    return Taps(edits=edits) if edits else None


def _parts(model: Any) -> list[tuple[str, nn.Module]]:
    """What has hook points, with its path: the model, its blocks, and their parts."""
    known = vars(model).get("_hooked_parts")
    if known is None or known[0] is not model.stack:
        sites = {site.rpartition(".")[0] for site in model.hook_dict}
        named = ((path.removeprefix("stack."), part) for path, part in model.named_modules())
        known = model.stack, [(f"{path}." if path else "", part) for path, part in named if path in sites]
        vars(model)["_hooked_parts"] = known
    return known[1]
