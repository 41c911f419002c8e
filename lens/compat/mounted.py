"""What TransformerLens's models share here: the core with a hook point at every site, runs that keep what they see, and
parts that can be called by themselves.

Letters: b batch, p position.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lens import processing
from lens.arguments import check_sites
from lens.compat.cache import ActivationCache
from lens.compat.config import HookedTransformerConfig, model_config
from lens.compat.hook_points import Board, HookPoint
from lens.compat.hooked import Hooked, points, sliced
from lens.compat.initial import initial_weights
from lens.compat.parts import alone_as
from lens.compat.settings import Settings
from lens.compat.slices import Slice
from lens.compat.stored import Stored
from lens.compat.tokenizer import HookedTokenizer
from lens.compat.weights import Weights
from lens.config import ModelConfig
from lens.model import Transformer
from lens.norm import Norm
from lens.taps import Taps
from lens.uninitialised import Uninitialised


class Mounted(Hooked, Stored, Weights):  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    """A model with TransformerLens's interface.

    Args:
        cfg: TransformerLens's configuration, or a dictionary of its fields, for a model with random weights that can
            be trained; or a `ModelConfig`.
        tokenizer: one of lens, or a fast one of transformers; without one, only ids are accepted.
        move_to_device: to `cfg.device`.
        default_padding_side: of texts of different lengths.
    """

    def __init__(
        self,
        cfg: Any,
        tokenizer: Any = None,
        move_to_device: bool = True,
        default_padding_side: str = "right",
        **about: Any,
    ) -> None:
        if isinstance(cfg, str):
            raise ValueError(
                f"give a configuration, or load {cfg!r} by {type(self).__name__}.from_pretrained({cfg!r})"
            )
        if tokenizer is not None:
            tokenizer = HookedTokenizer.of(tokenizer, default_padding_side)
        fresh = cfg.hooked if isinstance(cfg, Settings) else None
        if not isinstance(cfg, ModelConfig):
            fresh = _completed(HookedTransformerConfig.unwrap(cfg), tokenizer)
            cfg = self.described_by(fresh)
        with nullcontext() if fresh is None else Uninitialised():
            super().__init__(replace(cfg, tied=False), tokenizer, **about)
        self.cfg = Settings.of(self.cfg, fresh)
        self._mount()
        if fresh is not None:
            if fresh.init_weights and self.device.type != "meta":
                nn.Module.load_state_dict(self, initial_weights(self.cfg, fresh))
            self.to(dtype=fresh.dtype).requires_grad_(True)
            if move_to_device and fresh.device is not None and self.device.type != "meta":
                self.to(fresh.device)

    @staticmethod
    def described_by(c: HookedTransformerConfig) -> ModelConfig:
        """The core's configuration of a model that TransformerLens's describes."""
        return model_config(c)

    def their_name(self, site: str) -> str:
        """TransformerLens's name of a site of the core."""
        return site

    def _mount(self) -> None:
        """TransformerLens's parts in the core's places, and a hook point at every site."""
        self.board, self.hook_dict = Board(), {}
        theirs = {name: self.their_name(name) for name in self.sites}
        self._text_sites = tuple(theirs.get(name, name) for name in self._text_sites)
        self.sites = {theirs[name]: replace(site, name=theirs[name]) for name, site in self.sites.items()}
        norms = {
            theirs.get(norm.hook_normalized): norm
            for norm in self.modules()
            if isinstance(norm, Norm) and norm.centred
        }
        for name, site in self.sites.items():
            self.hook_dict[name] = HookPoint.at(site, self.board, norms.get(name))
        for module in self.modules():
            for name, value in _hook_names(module).items():
                if theirs.get(value) in self.hook_dict:
                    setattr(module, name, self.hook_dict[theirs[value]])
            alone_as(module, self.board)
        self.placed()
        self.board.owned_by(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.board.owned_by(self)

    def __getattr__(self, name: str) -> Any:
        points = self.__dict__.get("hook_dict", {})
        return points[name] if name in points else super().__getattr__(name)

    @classmethod
    def from_state(cls, cfg: ModelConfig, state: Mapping[str, Tensor], **about: Any) -> Any:
        """A frozen model with the given weights under our names; an unembedding that is tied gets its own."""
        cfg, state = processing.untied(cfg, state)
        model = super().from_state(cfg, state, **about)
        assert isinstance(model, cls)
        return model._located()

    def run_with_cache(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *model_args: Any,
        names_filter: Any = None,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        pos_slice: Any = None,
        return_cache_object: bool = True,
        edits: Any = None,
        grad: bool = False,
        instead: Any = None,
        **model_kwargs: Any,
    ) -> tuple[Any, Any]:
        """What `forward` gives, and the activations asked for.

        Args:
            names_filter: None for all ordinary sites and those that are switched on; a name, shorthand, list of
                those, or a function of the full name.
            device: where to keep them.
            incl_bwd: run the backward pass of what comes out, which must be one number, and keep the gradient of
                each site as `name + "_grad"`.
            pos_slice: keep these query positions only: an int, (start, stop, step), or a list.
            return_cache_object: False for a dictionary.
            edits, grad: the core's; with `grad`, activations are kept with their graph.
            instead: what runs the model, if it is not called itself.

        Raises:
            ValueError: a name is none of this model's, or was named and cannot fire in this run.
        """
        inputs, rest = self.split(model_args, model_kwargs)
        if rest and not self.is_theirs(rest[0]):  # the core's order: (inputs, names_filter)
            names_filter, rest = rest[0], []
        reads = self._reads(inputs, names_filter, model_kwargs)
        cut, gradients = Slice.unwrap(pos_slice), {}

        def keep(name: str, x: Tensor) -> Tensor:
            if grad:
                return x
            x = sliced(self.hook_dict[name], self.hook_dict[name].shown(x.detach()), cut)
            return x if device is None else x.to(device)

        def note(g: Tensor, hook: HookPoint) -> None:
            g = sliced(hook, g.detach(), cut)
            gradients[f"{hook}_grad"] = g if device is None else g.to(device)

        backward = {name: self.hook_dict[name].gradient(note) for name in reads} if incl_bwd else None
        taps = Taps(reads, edits, gradients=backward, keep=keep, grad=grad)
        out = (self if instead is None else instead)(inputs, *rest, taps=taps, **model_kwargs)
        if incl_bwd:
            out.backward()
        cache = ActivationCache({**taps.seen, **gradients}, self)
        cache = cache.remove_batch_dim() if remove_batch_dim else cache
        if clear_contexts:
            self.clear_contexts()
        return out, cache if return_cache_object else dict(cache)

    def _reads(self, inputs: Any, names_filter: Any, options: Mapping[str, Any]) -> list[str]:
        """The sites a run is to keep; those it cannot reach are left out, unless they were named."""
        span = self.span(inputs, options)
        found: list[str] = [point.name for point in points(self, names_filter)]
        named = names_filter if isinstance(names_filter, list | tuple | set | frozenset) else [names_filter]
        check_sites(self, [name for name in found if name in named], span)
        return [name for name in found if span.fires(self.sites[name])]

    @property
    def mod_dict(self) -> dict[str, Any]:
        """Every part and hook point by TransformerLens's name."""
        parts = {
            self.their_path(name): part for name, part in self.named_modules() if name not in ("", "stack")
        }
        return {**parts, **self.hook_dict}

    # ------------------------------------------------------------------ where it is

    def to(self, *args: Any, print_details: bool = False, **options: Any) -> Any:
        """Move or cast the model; gives it back."""
        Transformer.to(self, *args, **options)
        return self._located()

    def move_model_modules_to_device(self) -> None:
        """Move the model to `cfg.device`."""
        self.to(self.cfg.hooked.device)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.hook_dict})

    def cuda(self, device: Any = None) -> Any:
        """Move the model to a CUDA device."""
        return self.to("cuda" if device is None else device)

    def cpu(self) -> Any:
        """Move the model to the CPU."""
        return self.to("cpu")

    def mps(self) -> Any:
        """Move the model to Apple's GPU."""
        return self.to("mps")

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """`half()`, `double()` and all that moves or casts also says so in the settings."""
        super()._apply(fn, recurse)
        return self._located() if isinstance(self.cfg, Settings) else self

    def _located(self) -> Any:
        """The settings say where the model is, and of which type."""
        self.cfg.hooked.device, self.cfg.hooked.dtype = str(self.device), self.dtype
        return self


def _completed(c: HookedTransformerConfig, tokenizer: HookedTokenizer | None) -> HookedTransformerConfig:
    """The vocabulary's size from the tokenizer, where it is not given."""
    if c.d_vocab == -1 and tokenizer is not None:
        c.d_vocab = tokenizer.n_vocab
        c.d_vocab_out = c.d_vocab if c.d_vocab_out == -1 else c.d_vocab_out
    return c


def _hook_names(module: nn.Module) -> dict[str, str]:
    """The names of sites that a part holds, by attribute."""
    held = {name: value for kind in type(module).__mro__ for name, value in vars(kind).items()} | vars(module)
    return {
        name: value for name, value in held.items() if name.startswith("hook_") and isinstance(value, str)
    }
