"""A drop-in model's weights in TransformerLens's layout, in and out; processed, and with heads ungrouped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from lens import processing
from lens.compat import layout
from lens.compat.hook_points import Board, HookPoint
from lens.compat.settings import Settings
from lens.config import ModelConfig
from lens.model import Transformer
from lens.nearest import unknown
from lens.parameters import aliases_of


@dataclass(frozen=True)
class Place:
    """Where a part is in its model, by our name and by TransformerLens's."""

    ours: str
    theirs: str
    cfg: ModelConfig

    @property
    def folded(self) -> bool:
        """Have norms in front of maps been folded?"""
        return isinstance(self.cfg, Settings) and str(self.cfg.hooked.normalization_type).endswith("Pre")


class Weight(Tensor):
    """A weight of the core as TransformerLens shapes it: a view, so that `attn.W_Q[0] = x` and `attn.W_Q.data = x`
    both write into the core's. What is computed from it are ordinary tensors."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @property
    def data(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.as_subclass(Tensor).data

    @data.setter
    def data(self, x: Tensor) -> None:
        if x.shape != self.shape:
            raise ValueError(f"the weight is {tuple(self.shape)}, and what it is to be {tuple(x.shape)}")
        if not isinstance(self._base, nn.Parameter):
            raise ValueError(
                "this is no weight of the model, but made of its weights, or a bias that it lacks"
            )
        self.as_subclass(Tensor).data.copy_(x)

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return repr(self.as_subclass(Tensor))


def as_weights(cls: type[Any]) -> type[Any]:
    """Let the properties of a part that are weights (`W_Q`, `b_U`) give `Weight`s."""

    def shown(get: Any) -> property:
        def weight(self: Any) -> Any:
            x = get(self)
            return x if isinstance(x, nn.Parameter) or x is None else x.as_subclass(Weight)

        return property(weight, doc=get.__doc__)

    for name in dir(cls):
        found = getattr(cls, name)
        if isinstance(found, property) and name.lstrip("_")[:2] in ("W_", "b_"):
            setattr(cls, name, shown(found.fget))
    return cls


class StoredPart(nn.Module):
    """What a part of a drop-in model knows of its weights by TransformerLens's names: `attn.state_dict()["W_Q"]`."""

    place: Place

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """This part's weights in TransformerLens's layout, copies of the core's."""
        if args or options.get("destination") is not None:  # torch collects those of a whole model
            return super().state_dict(*args, **options)
        place, under = self.place, f"{self.place.theirs}."
        state = {f"{place.ours}.{name}": x for name, x in super().state_dict(keep_vars=True).items()}
        if not state:
            return {}
        found = layout.to_layout(place.cfg, state, folded=place.folded, under=under)
        return {options.get("prefix", "") + name.removeprefix(under): x for name, x in found.items()}

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> Any:
        """Weights of this part in TransformerLens's layout into it, in place.

        Raises:
            ValueError: a weight is missing, unknown, of another shape, or a bias that this model does not have.
        """
        known, under = self.state_dict(), f"{self.place.theirs}."
        missing = [name for name in known if name not in state_dict]
        unexpected = [name for name in state_dict if name not in known]
        given = {under + name: x for name, x in state_dict.items() if strict or name in known}
        given = {name: x for name, x in given.items() if name.rsplit(".", 1)[-1] not in layout.IGNORED}
        if strict and missing:
            raise ValueError(f"{self.place.theirs} needs a weight {missing[0]!r}, which is not there")
        found, parameters = (
            layout.part_from_layout(self.place.cfg, given, under),
            dict(self.named_parameters()),
        )
        with torch.no_grad():
            for name, x in found.items():
                parameters[name.removeprefix(f"{self.place.ours}.")].copy_(x)
        return _IncompatibleKeys(missing, unexpected)

    def __setattr__(self, name: str, value: Any) -> None:
        """A weight by TransformerLens's name (`attn.W_Q = x`) is copied into the core's."""
        if (
            isinstance(value, Tensor)
            and "place" in vars(self)
            and isinstance(getattr(type(self), name, None), property)
        ):
            state = self.state_dict()
            if name not in state:
                raise ValueError(unknown("weight", name, state, of=self.place.theirs))
            self.load_state_dict({name: value}, strict=False)
        else:
            super().__setattr__(name, value)


class Stored(Transformer):
    """What `HookedTransformer` knows of weights in files, and of settings that change them."""

    board: Board
    hook_dict: dict[str, HookPoint]

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters under TransformerLens's names where it has one; each is the core's, in the core's shape.

        Norms that have been folded have none.
        """
        try:
            entries = list(layout.entries(self.cfg))
        except ValueError:  # the layout has no place for such a model: our names
            entries = []
        cfg = vars(self)["cfg"]
        settings = cfg.hooked if isinstance(cfg, Settings) else None  # there is none while the model is made
        folded = settings is not None and str(settings.normalization_type).endswith("Pre")
        hidden = {entry.ours for entry in entries if entry.norm} if folded else set()
        known = {entry.ours: entry.theirs for entry in reversed(entries)}
        aliases = aliases_of(vars(self)["cfg"]) if entries else {}
        for path, parameter in super().named_parameters("", recurse, remove_duplicate):
            name = aliases.get(path, path)
            if name not in hidden:
                yield f"{prefix}{'.' if prefix else ''}{known.get(name, name)}", parameter

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Weights in TransformerLens's layout, copies of the core's; see `lens.compat.layout`."""
        folded = str(self.cfg.hooked.normalization_type).endswith("Pre")
        return layout.to_layout(self.cfg, nn.Module.state_dict(self), folded=folded)

    def their_path(self, path: str) -> str:
        """TransformerLens's name of a part of the core."""
        return path.removeprefix("stack.")

    def placed(self) -> None:
        """Tell each part where it is."""
        for path, part in self.named_modules():
            if isinstance(part, StoredPart):
                vars(part)["place"] = Place(path, self.their_path(path), self.cfg)

    def tl_parameters(self) -> dict[str, Tensor]:
        """The same as `state_dict`, which TransformerLens's tools ask for by this name."""
        return self.state_dict()

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> Any:
        """Weights in TransformerLens's layout, or under our names, into this model.

        Without `strict`, what is not there stays as it is, and what is not known is left out.

        Raises:
            ValueError: a weight is missing, unknown or of another shape.
        """
        state = dict(state_dict)
        if any(name.startswith("stack.") for name in state):
            return super().load_state_dict(state, strict, assign)
        if not strict:
            known = self.state_dict()
            state = known | {name: x for name, x in state.items() if name in known}
        cfg, ours = layout.from_layout(self.cfg, state)
        if cfg.stack != self.cfg.stack or cfg.unembed != self.cfg.unembed:
            return self._become(cfg, ours)
        return super().load_state_dict(ours, True, assign)

    def load_and_process_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        fold_value_biases: bool = True,
        refactor_factored_attn_matrices: bool = False,
    ) -> None:
        """Weights in TransformerLens's layout into this model, processed as in `from_pretrained`.

        Raises:
            ValueError: a weight does not fit, or a step does not apply; see `lens.processing.processed`.
        """
        cfg, ours = processing.processed(
            *layout.from_layout(self.cfg, state_dict), fold_ln=fold_ln, center_writing_weights=center_writing_weights,
            center_unembed=center_unembed, fold_value_biases=fold_value_biases,
            refactor_factored_attn_matrices=refactor_factored_attn_matrices,
        )  # fmt: skip
        self._become(cfg, ours, folded=fold_ln)

    def process_weights_(
        self,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        refactor_factored_attn_matrices: bool = False,
        fold_value_biases: bool = True,
    ) -> None:
        """The weights that are here, processed."""
        cfg, ours = processing.processed(
            self.cfg, nn.Module.state_dict(self), fold_ln=fold_ln, center_writing_weights=center_writing_weights,
            center_unembed=center_unembed, fold_value_biases=fold_value_biases,
            refactor_factored_attn_matrices=refactor_factored_attn_matrices,
        )  # fmt: skip
        self._become(cfg, ours, folded=fold_ln)

    def _become(self, cfg: ModelConfig, state: Mapping[str, Tensor], folded: bool = False) -> None:
        """Other weights, and the parts that they need; hooks and settings stay."""
        learns = next(self.parameters()).requires_grad
        state = {name: x.detach().clone() for name, x in state.items()}
        new = type(self).from_state(
            cfg, state, tokenizer=self.tokenizer, device=self.device, dtype=self.dtype
        )
        settings, attached = self.cfg.hooked, self.board.attached
        mark = str(settings.normalization_type).removesuffix("Pre")
        if folded and mark in ("LN", "RMS"):
            settings.normalization_type = f"{mark}Pre"
        settings.n_key_value_heads = None if cfg.stack.n_kv_heads == cfg.n_heads else cfg.stack.n_kv_heads
        about = {
            name: vars(self)[name]
            for name in ("tokenizer", "revision", "origin", "preprocessing", "training")
        }
        self.__dict__.update({**vars(new), **about})
        self.cfg = Settings.of(cfg, settings)
        self.placed()
        self.board.owned_by(self)
        for hook in attached:
            point = self.hook_dict[hook.point]
            point.add_hook(hook.hook, hook.dir, hook.is_permanent, hook.context_level)
        self.requires_grad_(learns)

    # ------------------------------------------------------------------ settings

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Count each head's own contribution among the ordinary sites."""
        self.cfg.hooked.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Count the streams that each head's queries, keys and values read among the ordinary sites."""
        self.cfg.hooked.use_split_qkv_input = use_split_qkv_input

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Count the stream as each head reads it among the ordinary sites."""
        self.cfg.hooked.use_attn_in = use_attn_in

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Count the stream as the MLP reads it among the ordinary sites.

        Raises:
            ValueError: there is no MLP.
        """
        if self.cfg.attn_only:
            raise ValueError(f"{self.cfg.name} has no MLP that would read anything")
        self.cfg.hooked.use_hook_mlp_in = use_hook_mlp_in

    def set_ungroup_grouped_query_attention(self, ungroup_grouped_query_attention: bool) -> None:
        """Give every query head keys and values of its own, or share them again."""
        settings = self.cfg.hooked
        if ungroup_grouped_query_attention == settings.ungroup_grouped_query_attention:
            return
        state = nn.Module.state_dict(self)
        if ungroup_grouped_query_attention:
            self._groups = self.cfg.stack.n_kv_heads
            self._become(*processing.ungrouped(self.cfg, state))
        else:
            self._become(*processing.grouped(self.cfg, state, self._groups))
        settings.ungroup_grouped_query_attention = ungroup_grouped_query_attention
