"""Hooks in TransformerLens's style, `fn(activation, hook)`, for one run or for a `with` block of one context.

A context hook lives in a `ContextVar`: other threads, tasks and browser sessions that use the same model
never see it, and it ends with its block, also when the block raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lens.sites import NamesFilter, Site, resolve
from lens.taps import AnyTaps, Edit, Joined, Taps

HookFunction = Callable[..., "Tensor | None"]
Hooks = Iterable[tuple[NamesFilter, HookFunction]]


@dataclass
class HookPoint:
    """What a hook function is told about where it runs."""

    name: str
    site: Site
    ctx: dict[str, Any] = field(default_factory=dict)

    def layer(self) -> int:
        """The block this site is in.

        Raises:
            ValueError: the site is outside all blocks.
        """
        if self.site.layer is None:
            raise ValueError(f"{self.name!r} is in no layer")
        return self.site.layer


_active: ContextVar[tuple[tuple[int, Taps], ...]] = ContextVar("lens_hooks", default=())


def edits_from(hooks: Hooks, sites: Mapping[str, Site]) -> dict[str, list[Edit]]:
    """Hook functions bound to their sites.

    Raises:
        ValueError: a name cannot fire in this model.
    """
    edits: dict[str, list[Edit]] = {}
    for names, function in hooks:
        for name in resolve(names, sites):
            edits.setdefault(name, []).append(_bind(function, HookPoint(name, sites[name])))
    return edits


def _bind(function: HookFunction, point: HookPoint) -> Edit:
    return lambda activation: function(activation, hook=point)


@contextmanager
def hooked(model: Any, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> Iterator[Any]:
    """All runs of `model` inside the block, in this context only, pass through these hooks."""
    taps = Taps(edits=edits_from(fwd_hooks, model.sites), gradients=edits_from(bwd_hooks, model.sites))
    with tapped(model, taps):
        yield model


@contextmanager
def tapped(model: Any, taps: Taps) -> Iterator[None]:
    """All runs of `model` inside the block, in this context only, pass through `taps`, where it can act."""
    token = _active.set((*_active.get(), (id(model), taps)))
    try:
        yield
    finally:
        _active.reset(token)


def joined(model: Any, taps: AnyTaps) -> AnyTaps:
    """`taps` behind the hooks that stand on `model` and those of this context, outermost first."""
    mine = [outer for owner, outer in _active.get() if owner == id(model)]
    if model.standing.names:
        mine = [model.standing, *mine]
    for outer in reversed(mine):
        taps = Joined(outer, taps)
    return taps


def is_hooked(model: Any) -> bool:
    """Are hooks active on `model` here, of this context or standing ones?"""
    return bool(model.standing.names) or any(owner == id(model) for owner, _ in _active.get())
