"""Hooks in TransformerLens's words: those that stand on a model, those of a `with` block, those of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lens.arguments import Span, check_sites
from lens.compat.hook_points import Attached, Board, Direction, HookFunction, HookPoint, checked, taps_of
from lens.compat.placed import calling, hook_points_shown, placed_modules
from lens.compat.slices import Slice
from lens.hooks import tapped
from lens.sites import NamesFilter, resolve
from lens.taps import AnyTaps, Joined

if TYPE_CHECKING:
    from lens.compat.mounted import Mounted

Pairs = Iterable[tuple[NamesFilter, HookFunction]]
RETURNS = (None, "logits", "loss", "both", "predictions")
SWITCHED = {
    "attn.hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_attn_in": "use_attn_in",
    "hook_mlp_in": "use_hook_mlp_in",
}
"""Sites that cost memory, and the setting that counts them among the ordinary ones. By name, they are always there."""


class Hooked:
    """What `HookedTransformer` knows of hooks."""

    board: Board
    hook_dict: dict[str, HookPoint]

    @property
    def standing(self) -> AnyTaps:
        """The hooks that stand on this model, as they are now, and modules in hook points' places."""
        placed, standing = placed_modules(self), self.board.taps
        return Joined(calling(placed), standing) if placed else standing

    def __call__(self: Any, *args: Any, **options: Any) -> Any:
        with hook_points_shown(self):
            return nn.Module.__call__(self, *args, **options)

    # ------------------------------------------------------------------ hooks that stand on the model

    def add_hook(
        self: Any, name: NamesFilter, hook: HookFunction, dir: Direction = "fwd", is_permanent: bool = False,
        level: int | None = None, prepend: bool = False,
    ) -> None:  # fmt: skip
        """Let every run from now on pass through `hook(activation, hook=point)`, in all threads, until
        `reset_hooks`. `name` is a site, a shorthand, a list of those, or a function of the full name.

        Raises:
            ValueError: a name is none of this model's; the message gives the nearest.
        """
        for point in points(self, name):
            self.check_and_add_hook(point, point.name, hook, checked(dir), is_permanent, level, prepend)

    def add_perma_hook(self: Any, name: NamesFilter, hook: HookFunction, dir: Direction = "fwd") -> None:
        """The same, and `reset_hooks` leaves it there unless told otherwise."""
        self.add_hook(name, hook, dir, is_permanent=True)

    def reset_hooks(
        self,
        clear_contexts: bool = True,
        direction: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Take hooks off the model. Those of a `with` block end with it."""
        if clear_contexts:
            self.clear_contexts()
        self.board.remove(checked(direction), including_permanent, level)

    def remove_all_hook_fns(
        self,
        direction: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Take hooks off and leave contexts as they are."""
        self.board.remove(checked(direction), including_permanent, level)

    def clear_contexts(self) -> None:
        """Empty every hook point's `ctx`."""
        for point in self.hook_points():
            point.clear_context()

    def hook_points(self) -> Iterable[HookPoint]:
        return self.hook_dict.values()

    # ------------------------------------------------------------------ hooks of a block or a run

    @contextmanager
    def hooks(
        self: Any, fwd_hooks: Pairs = (), bwd_hooks: Pairs = (), reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[Any]:  # fmt: skip
        """Every run inside the `with` block passes through these hooks, in this thread or task only.

        With `reset_hooks_end=False` they stay on the model afterwards, as hooks of `add_hook` do.

        Raises:
            ValueError: a name is none of this model's.
        """
        found = bound(self, fwd_hooks, bwd_hooks)
        try:
            if reset_hooks_end:
                with tapped(self, taps_of(found)):
                    yield self
            else:
                for point, hook, dir in found:
                    self.board.add(Attached(point, hook, dir))
                yield self
        finally:
            if clear_contexts:
                self.clear_contexts()

    def run_with_hooks(
        self: Any,
        *model_args: Any,
        fwd_hooks: Pairs = (),
        bwd_hooks: Pairs = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **model_kwargs: Any,
    ) -> Any:
        """What `forward` gives, of one run through hook functions `fn(activation, hook)`.

        Backward hooks act whenever the backward pass comes, also after this call.

        Raises:
            ValueError: a hook's site is none of this model's, or was named and cannot fire in this run.
        """
        inputs, rest = self.split(model_args, model_kwargs)
        if rest and not self.is_theirs(rest[0]):  # (inputs, fwd_hooks, bwd_hooks)
            fwd_hooks, bwd_hooks, rest = rest[0], rest[1] if len(rest) > 1 else bwd_hooks, []
        fwd_hooks, bwd_hooks = list(fwd_hooks), list(bwd_hooks)
        span = self.span(inputs, model_kwargs)
        named = [name for name, _ in (*fwd_hooks, *bwd_hooks) if isinstance(name, str)]
        check_sites(self, [point.name for name in named for point in points(self, name)], span)
        with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            return self(inputs, *rest, **model_kwargs)

    @staticmethod
    def split(given: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, list[Any]]:
        """What a run reads, and the positional arguments behind it."""
        return (options.pop("input"), []) if not given and "input" in options else (given[0], list(given[1:]))

    @staticmethod
    def is_theirs(argument: Any) -> bool:
        """Is this, behind the inputs, what TransformerLens has there (`return_type`), rather than names or hooks?"""
        return argument is None or (isinstance(argument, str) and argument in RETURNS)

    def span(self: Any, inputs: Any, options: Mapping[str, Any]) -> Span:
        """The layers and ends of a run of `inputs`."""
        start = options.get("start_at_layer") or 0
        start += self.cfg.n_layers if start < 0 else 0
        return Span.of(self.cfg, inputs, start, options.get("stop_at_layer"))

    # ------------------------------------------------------------------ caching by hooks

    def add_caching_hooks(
        self: Any,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Hooks that stand on the model and keep what they see in the dictionary that comes back."""
        found, fwd, bwd = self.get_caching_hooks(names_filter, incl_bwd, device, remove_batch_dim, cache)
        for point, hook, dir in bound(self, fwd, bwd):
            self.board.add(Attached(point, hook, dir))
        return found

    def get_caching_hooks(
        self: Any,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
        pos_slice: Any = None,
    ) -> tuple[dict[str, Tensor], list[Any], list[Any]]:
        """A dictionary, and the forward and backward hooks that fill it; gradients are `name + "_grad"`."""
        kept: dict[str, Tensor] = {} if cache is None else cache
        cut = Slice.unwrap(pos_slice)

        def keep(suffix: str) -> HookFunction:
            def note(x: Tensor, hook: HookPoint) -> None:
                x = x.detach() if device is None else x.detach().to(device)
                x = sliced(hook, x, cut)
                kept[hook.name + suffix] = x[0] if remove_batch_dim else x.clone()

            return note

        names = [point.name for point in points(self, names_filter)]
        backward = [(name, keep("_grad")) for name in names] if incl_bwd else []
        return kept, [(name, keep("")) for name in names], backward

    def cache_some(
        self,
        cache: dict[str, Tensor] | None,
        names: NamesFilter,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
    ) -> dict[str, Tensor]:
        """`add_caching_hooks` with its arguments in another order."""
        return self.add_caching_hooks(names, incl_bwd, device, remove_batch_dim, cache)

    def cache_all(
        self,
        cache: dict[str, Tensor] | None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
    ) -> dict[str, Tensor]:
        """`add_caching_hooks` at every ordinary site."""
        return self.add_caching_hooks(None, incl_bwd, device, remove_batch_dim, cache)

    def check_and_add_hook(
        self, hook_point: HookPoint, hook_point_name: str, hook: HookFunction, dir: Direction = "fwd",
        is_permanent: bool = False, level: int | None = None, prepend: bool = False,
    ) -> None:  # fmt: skip
        """`add_hook` at one hook point, after `check_hooks_to_add`."""
        self.check_hooks_to_add(hook_point, hook_point_name, hook, dir, is_permanent, prepend)
        hook_point.add_hook(hook, dir, is_permanent, level, prepend)

    def check_hooks_to_add(
        self, hook_point: HookPoint, hook_point_name: str, hook: HookFunction, dir: Direction = "fwd",
        is_permanent: bool = False, prepend: bool = False,
    ) -> None:  # fmt: skip
        """Nothing: every site of a model takes hooks, also where its switch is off. To be overridden."""

    def setup(self) -> None:
        """Nothing: hook points are there from the start. `hook_dict` and `mod_dict` are what old code asks for."""


def points(model: Mounted, names: NamesFilter) -> list[HookPoint]:
    """The hook points that a filter stands for; None and functions choose among those that are switched on.

    Raises:
        ValueError: a name is none of this model's; the message gives the nearest.
    """
    if names is None or isinstance(names, Callable):
        chosen = [name for name in enabled(model) if names is None or names(name)]
    else:
        chosen = resolve(names, model.sites)
    return [model.hook_dict[name] for name in chosen]


def enabled(model: Mounted) -> list[str]:
    """Ordinary sites, and those that a setting of the model switches on."""
    switches: Any = model.cfg
    return [
        name
        for name, site in model.sites.items()
        if not site.extra or (site.kind in SWITCHED and getattr(switches, SWITCHED[site.kind]))
    ]


def bound(
    model: Mounted, fwd_hooks: Pairs, bwd_hooks: Pairs
) -> list[tuple[HookPoint, HookFunction, Direction]]:
    """Each hook at each of its points."""
    both: tuple[tuple[Direction, Pairs], ...] = (("fwd", fwd_hooks), ("bwd", bwd_hooks))
    return [(p, hook, dir) for dir, hooks in both for names, hook in hooks for p in points(model, names)]


def sliced(point: HookPoint, x: Tensor, cut: Slice) -> Tensor:
    """Only these query positions, of whatever has positions."""
    axes = point.site.shape.split()
    return cut.apply(x, axes.index("pos")) if "pos" in axes else x
