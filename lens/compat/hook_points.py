"""Hook points of one model: a site's name that also takes hooks, and the board where all hooks of a model are.

A hook that stands on a model acts on every run, in every thread, until it is taken off. A run goes by the hooks that
are there when it begins: the board is never changed, but replaced, so a run in another thread is not disturbed.

Letters: d width; `...` any leading axes.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lens.compat.placed import hook_points_shown
from lens.hooks import joined
from lens.nearest import unknown
from lens.norm import Norm
from lens.sites import Site
from lens.taps import OFF, AnyTaps, Edit, Taps

HookFunction = Callable[..., Any]
Direction = Literal["fwd", "bwd"]
DIRECTIONS = ("fwd", "bwd", "both")


class HookPoint(str):
    """A site of one model, which is its full name: `model.blocks[0].attn.hook_pattern`.

    Hook functions are told it as `hook`: its `name`, `ctx` (kept from run to run), `layer()` and `site`. Called, it
    gives back what it is given.
    """

    site: Site
    ctx: dict[str, Any]
    norm: Norm | None
    board: Board

    @classmethod
    def at(cls, site: Site, board: Board, norm: Norm | None = None) -> HookPoint:
        """The hook point of a site. `norm`: the LayerNorm whose output TransformerLens means by it."""
        point = cls(site.name)
        point.site, point.ctx, point.norm, point.board = site, {}, norm, board
        return point

    def __call__(self, x: Tensor) -> Tensor:
        return x

    @property
    def name(self) -> str:
        return str(self)

    def layer(self) -> int:
        """The block this site is in.

        Raises:
            ValueError: it is outside all blocks.
        """
        if self.site.layer is None:
            raise ValueError(f"{self.name!r} is in no layer")
        return self.site.layer

    def clear_context(self) -> None:
        self.ctx = {}

    def add_hook(
        self, hook: HookFunction, dir: Direction = "fwd", is_permanent: bool = False, level: int | None = None,
        prepend: bool = False,
    ) -> None:  # fmt: skip
        """Let every run pass through `hook(activation, hook=point)`; "bwd" for gradients."""
        self.board.add(Attached(self, hook, checked(dir), is_permanent, level), prepend)

    def add_perma_hook(self, hook: HookFunction, dir: Direction = "fwd") -> None:
        """The same, and `reset_hooks` leaves it there unless told otherwise."""
        self.add_hook(hook, dir, is_permanent=True)

    def remove_hooks(
        self,
        dir: Literal["fwd", "bwd", "both"] = "fwd",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Take off the hooks that stand here."""
        self.board.remove(checked(dir), including_permanent, level, self)

    @property
    def fwd_hooks(self) -> list[Attached]:
        return [hook for hook in self.board.attached if hook.point == self and hook.dir == "fwd"]

    @property
    def bwd_hooks(self) -> list[Attached]:
        return [hook for hook in self.board.attached if hook.point == self and hook.dir == "bwd"]

    def shown(self, x: Tensor) -> Tensor:
        """An activation as TransformerLens has it: there, `hook_normalized` of a LayerNorm is after gain and bias."""
        return x if self.norm is None else x * self.norm.gain + self.norm.b

    def hidden(self, y: Tensor, x: Tensor) -> Tensor:
        """The inverse; what a gain of zero hides stays as it was in x."""
        if self.norm is None:
            return y
        gain = self.norm.gain
        return torch.where(gain == 0, x, (y - self.norm.b) / gain.where(gain != 0, 1))

    def edit(self, function: HookFunction) -> Edit:
        """A forward hook as an edit of the core's activation."""

        def act(x: Tensor) -> Tensor | None:
            shown = self.shown(x)
            before = None if shown.is_inference() else shown._version
            y = function(shown, hook=self)
            if y is None and before is not None and shown._version == before:
                return None
            return self.hidden(shown if y is None else y, x)  # what was written in place counts as well

        return (lambda x: function(x, hook=self)) if self.norm is None else act

    def gradient(self, function: HookFunction) -> Edit:
        """A backward hook as a function of the core's gradient. It may return a tensor, or a tuple of one."""

        def act(g: Tensor) -> Tensor | None:
            gain = None if self.norm is None else self.norm.gain
            found = function(g if gain is None else g / gain, hook=self)
            found = found[0] if isinstance(found, tuple) else found
            return found if found is None or gain is None else found * gain

        return act


@dataclass(frozen=True)
class Attached:
    """One hook that stands on a model."""

    point: HookPoint
    hook: HookFunction
    dir: Direction
    is_permanent: bool = False
    context_level: int | None = None


class Board:
    """All hooks that stand on one model, in the order in which they act."""

    def __init__(self) -> None:
        self._state: tuple[tuple[Attached, ...], AnyTaps] = ((), OFF)
        self._lock = threading.Lock()
        self._owner: Callable[[], Any] = lambda: None

    def owned_by(self, model: Any) -> None:
        """Say whose hooks these are; the model can still be let go of."""
        self._owner = weakref.ref(model)

    @property
    def model(self) -> Any:
        """The model whose hooks these are; None once it is gone and only a part of it is left."""
        return self._owner()

    @property
    def attached(self) -> tuple[Attached, ...]:
        return self._state[0]

    @property
    def taps(self) -> AnyTaps:
        """What a run that begins now passes through."""
        return self._state[1]

    def add(self, hook: Attached, first: bool = False) -> None:
        with self._lock:
            self._replace((hook, *self.attached) if first else (*self.attached, hook))

    def remove(
        self,
        dir: str = "both",
        including_permanent: bool = False,
        level: int | None = None,
        at: str | None = None,
    ) -> None:
        """Take off all hooks of a direction, or those `at` a site; permanent ones only if they are included."""

        def goes(hook: Attached) -> bool:
            here = dir in ("both", hook.dir) and at in (None, hook.point)
            chosen = not hook.is_permanent and level in (None, hook.context_level)
            return here and (including_permanent or chosen)

        with self._lock:
            self._replace(tuple(hook for hook in self.attached if not goes(hook)))

    def _replace(self, attached: tuple[Attached, ...]) -> None:
        self._state = (attached, taps_of((h.point, h.hook, h.dir) for h in attached) if attached else OFF)

    def __deepcopy__(self, memo: dict[int, Any]) -> Board:
        """A copy of a model starts without hooks."""
        return memo.setdefault(id(self), Board())

    def __reduce__(self) -> tuple[type[Board], tuple[()]]:
        return Board, ()


def taps_of(hooks: Iterable[tuple[HookPoint, HookFunction, Direction]]) -> Taps:
    """Hooks as the taps of runs, in order."""
    edits: dict[str, list[Edit]] = {}
    gradients: dict[str, list[Edit]] = {}
    for point, function, dir in hooks:
        if dir == "fwd":
            edits.setdefault(point.name, []).append(point.edit(function))
        else:
            gradients.setdefault(point.name, []).append(point.gradient(function))
    return Taps(edits=edits, gradients=gradients)


def checked(dir: str) -> Any:
    """A direction.

    Raises:
        ValueError: there is no such direction.
    """
    if dir not in DIRECTIONS:
        raise ValueError(unknown("direction", dir, DIRECTIONS))
    return dir


@contextmanager
def alone(board: Board) -> Iterator[AnyTaps]:
    """The hooks that act on a model here, for one of its parts that is called by itself."""
    model = board.model
    if model is None:
        yield board.taps
        return
    with hook_points_shown(model):
        yield joined(model, OFF)
