"""The steps of weight processing one by one, on weights in TransformerLens's layout, as methods of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lens import processing
from lens.compat import layout
from lens.compat.config import HookedTransformerConfig
from lens.compat.initial import initial_weights
from lens.config import ModelConfig
from lens.model import Transformer

Weights = Mapping[str, Tensor]


class StateSteps(Transformer):
    """What `HookedTransformer` does with weights that are not in it: each gives new ones and changes neither."""

    def fold_layer_norm(
        self, state_dict: Weights, fold_biases: bool = True, center_weights: bool = True
    ) -> dict[str, Tensor]:
        """See `lens.processing.fold_layer_norm`; biases and means are folded where the norm has them.

        Raises:
            ValueError: the step does not apply, or only a part of it is asked for; as do all steps here.
        """
        if self.cfg.stack.norm == "layer" and not (fold_biases and center_weights):
            raise ValueError("a LayerNorm is folded with its bias and its mean: leave both switches on")
        return self._step(processing.fold_layer_norm, state_dict, folded=True)

    def center_writing_weights(self, state_dict: Weights) -> dict[str, Tensor]:
        """See `lens.processing.center_writing_weights`."""
        return self._step(processing.center_writing_weights, state_dict)

    def center_unembed(self, state_dict: Weights) -> dict[str, Tensor]:
        """See `lens.processing.center_unembed`."""
        return self._step(processing.center_unembed, state_dict)

    def fold_value_biases(self, state_dict: Weights) -> dict[str, Tensor]:
        """See `lens.processing.fold_value_biases`."""
        return self._step(processing.fold_value_biases, state_dict)

    def refactor_factored_attn_matrices(self, state_dict: Weights) -> dict[str, Tensor]:
        """See `lens.processing.refactor_factored_attn_matrices`."""
        return self._step(processing.refactor_factored_attn_matrices, state_dict)

    def fill_missing_keys(self, state_dict: Weights) -> dict[str, Tensor]:
        """These weights, and this model's where there are none."""
        return {**self.state_dict(), **state_dict}

    def init_weights(self) -> None:
        """New first weights in this model, as `cfg.init_mode` and `cfg.seed` say."""
        settings: Any = self.cfg
        hooked: HookedTransformerConfig = settings.hooked
        nn.Module.load_state_dict(self, initial_weights(self.cfg, hooked))

    def _step(
        self,
        step: Callable[[ModelConfig, Weights], tuple[ModelConfig, Any]],
        state: Weights,
        folded: bool = False,
    ) -> dict[str, Tensor]:
        norms = [entry.theirs for entry in layout.entries(self.cfg) if entry.norm]
        folded = folded or not any(name in state for name in norms)
        return layout.to_layout(*step(*layout.from_layout(self.cfg, state)), folded=folded)
