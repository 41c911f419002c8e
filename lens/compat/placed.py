"""Modules that old code has put in a hook point's place: `block.hook_q_input = Wrapper(block.hook_q_input)`.

They act there in every run, as the first of the hooks that stand on the model, until they are deleted.
The core finds sites by what stands in these places, so that during a run the hook point is there again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lens.taps import Taps

Placed = list[tuple[nn.Module, str, str, nn.Module]]
"""Part, attribute, site, and the module that stands there."""
_lock = threading.Lock()


def placed_modules(model: Any) -> Placed:
    """Every module that stands where a hook point was."""
    return [
        (part, name, f"{path}{name}", module)
        for path, part in _parts(model)
        for name, module in vars(part)["_modules"].items()
        if name.startswith("hook_") and f"{path}{name}" in model.hook_dict
    ]


def calling(placed: Placed) -> Taps:
    """Taps that call these modules."""
    return Taps(edits={site: module for _, _, site, module in placed})


@contextmanager
def hook_points_shown(model: Any) -> Iterator[None]:
    """The places show their hook points inside the block, also to runs of other threads that are inside one."""
    placed = placed_modules(model)
    if not placed:
        yield
        return
    with _lock:
        vars(model)["_showing"] = vars(model).get("_showing", 0) + 1
        for part, name, site, _ in placed:
            vars(part)[name] = model.hook_dict[site]
    try:
        yield
    finally:
        with _lock:
            vars(model)["_showing"] -= 1
            if not vars(model)["_showing"]:
                for part, name, _, _ in placed:
                    vars(part).pop(name, None)


def _parts(model: Any) -> list[tuple[str, nn.Module]]:
    """What has hook points, with its path: the model, its blocks, and their parts."""
    known = vars(model).get("_hooked_parts")
    if known is None or known[0] is not model.stack:
        sites = {site.rpartition(".")[0] for site in model.hook_dict}
        named = ((model.their_path(path), part) for path, part in model.named_modules())
        known = model.stack, [(f"{path}." if path else "", part) for path, part in named if path in sites]
        vars(model)["_hooked_parts"] = known
    return known[1]
