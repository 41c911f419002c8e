"""Taps: the one way to read or rewrite an activation.

The forward pass is an ordinary function that calls `x = taps(site, x)` at each named site and goes on with
whatever comes back. A `Taps` object belongs to one run; the model never holds one, so nothing can leak from
one run into the next, and threads can share a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor

Edit = Callable[[Tensor], "Tensor | None"]
Edits = Mapping[str, "Edit | Iterable[Edit]"]


class Halt(Exception):
    """Everything this run wanted has been seen."""


class Tap(Protocol):
    """What components call. `OFF` and `Taps` satisfy it."""

    def __call__(self, site: str, x: Tensor) -> Tensor: ...

    def wants(self, *sites: str) -> bool:
        """Does this run look at any of these? If not, the component may skip making them."""
        ...

    def alters(self, *sites: str) -> bool:
        """Must what comes back from any of these be used in its own right (edited, or differentiated)?"""
        ...


class Off:
    """Nobody is watching."""

    __slots__ = ()
    names: frozenset[str] = frozenset()

    def __call__(self, site: str, x: Tensor) -> Tensor:
        return x

    def wants(self, *sites: str) -> bool:
        return False

    def alters(self, *sites: str) -> bool:
        return False


OFF = Off()


class Taps:
    """What one run reads and edits.

    At a site, edits are applied first, in order (an edit that returns None leaves the activation as it is),
    then gradients are hooked, then the result is read.

    Args:
        reads: full site names to keep in `seen`.
        edits: site name → function(s) of the activation.
        gradients: site name → function(s) of the gradient at that site; a returned tensor replaces it.
        keep: how a read is stored (slice, detach, move); gets the site's name and the activation.
        grad: start the autograd graph at the sites read or given in `gradients`, so that
            `torch.autograd.grad(metric, list(taps.seen.values()))` works. Nothing upstream is differentiated.
        halt: raise `Halt` once all reads have been seen.

    An edit that returns something of another shape or type than the activation raises a ValueError.
    """

    __slots__ = ("_alters", "edits", "grad", "gradients", "halt", "keep", "names", "reads", "seen")

    def __init__(
        self,
        reads: Iterable[str] = (),
        edits: Edits | None = None,
        *,
        gradients: Edits | None = None,
        keep: Callable[[str, Tensor], Tensor] | None = None,
        grad: bool = False,
        halt: bool = False,
    ) -> None:
        self.reads = frozenset(reads)
        self.edits = {site: _several(e) for site, e in (edits or {}).items()}
        self.gradients = {site: _several(g) for site, g in (gradients or {}).items()}
        self.keep = keep
        self.grad = grad or bool(self.gradients)
        self.halt = halt and bool(self.reads)
        self.seen: dict[str, Tensor] = {}
        self.names = self.reads | self.edits.keys() | self.gradients.keys()
        self._alters = frozenset(self.names if self.grad else self.edits)

    def wants(self, *sites: str) -> bool:
        names = self.names
        return any(site in names for site in sites)

    def alters(self, *sites: str) -> bool:
        names = self._alters
        return any(site in names for site in sites)

    def __call__(self, site: str, x: Tensor) -> Tensor:
        if site not in self.names:
            return x
        edits = self.edits.get(site, ())
        if edits and x.numel() and 0 in x.stride() and _overlaps(x):
            x = x.clone()  # a row that stands for several: what is written in place must reach one alone
        for edit in edits:
            edited = edit(x)
            x = x if edited is None else _checked(edited, site, x)
        if self.grad and x.is_floating_point():
            if not x.requires_grad:
                x = x.detach().requires_grad_()
            for hook in self.gradients.get(site, ()):
                x.register_hook(hook)
        if site in self.reads:
            self.seen[site] = x if self.keep is None else self.keep(site, x)
            if self.halt and len(self.seen) == len(self.reads):
                raise Halt
        return x


class Joined:
    """Two taps on one run: `outer` acts first (context hooks), then `inner`."""

    __slots__ = ("inner", "names", "outer")

    def __init__(self, outer: Taps | Joined, inner: Off | Taps | Joined) -> None:
        self.outer, self.inner = outer, inner
        self.names = outer.names | inner.names

    def wants(self, *sites: str) -> bool:
        return self.outer.wants(*sites) or self.inner.wants(*sites)

    def alters(self, *sites: str) -> bool:
        return self.outer.alters(*sites) or self.inner.alters(*sites)

    def __call__(self, site: str, x: Tensor) -> Tensor:
        return self.inner(site, self.outer(site, x))


AnyTaps = Off | Taps | Joined


def _overlaps(x: Tensor) -> bool:
    """Do several elements share one place in memory (`expand`)?"""
    return any(step == 0 and n > 1 for step, n in zip(x.stride(), x.shape, strict=True))


def _checked(edited: Any, site: str, x: Tensor) -> Tensor:
    """What an edit returned, if it can stand in the activation's place."""
    if not isinstance(edited, Tensor):
        raise ValueError(
            f"an edit at {site!r} returned {type(edited).__name__}; it must return a tensor or None"
        )
    if edited.shape != x.shape or edited.dtype != x.dtype:
        made, there = f"{tuple(edited.shape)} {edited.dtype}", f"{tuple(x.shape)} {x.dtype}"
        raise ValueError(f"an edit at {site!r} returned {made}; the activation there is {there}")
    return edited


def _several(given: Any) -> tuple[Edit, ...]:
    """One function or several.

    Raises:
        ValueError: something else.
    """
    several: list[Any] = [given] if callable(given) or isinstance(given, str | Tensor) else [*given]
    for one in several:
        if not callable(one):
            kind = type(one).__name__
            raise ValueError(f"an edit is a function of the activation, such as torch.zeros_like, not {kind}")
    return tuple(several)
