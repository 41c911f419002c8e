"""A drop-in model's weights in TransformerLens's layout, in and out; processed, and with heads ungrouped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from lens import processing
from lens.compat import layout
from lens.compat.hook_points import Board, HookPoint
from lens.compat.settings import Settings
from lens.config import ModelConfig
from lens.model import Transformer
from lens.parameters import aliases_of


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
