"""What old code makes or asks for by name and the core has in another form: hook points that are modules, key–value
stores that are made before a run."""

from __future__ import annotations

from typing import Any

import torch
from transformer_lens import hook_points

from lens.compat.hook_points import HookPoint as Site
from lens.kv import KeyValues


class Both(type):
    """A hook point is a place of a `HookedTransformer`, or a module in a model of one's own."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or (cls is HookPoint and isinstance(instance, Site))


class HookPoint(hook_points.HookPoint, metaclass=Both):
    """`self.hook_x = HookPoint()` in a `HookedRootModule` of one's own, as in TransformerLens.

    `isinstance(model.blocks[0].attn.hook_z, HookPoint)` holds as well.
    """


class HookedTransformerKeyValueCache(KeyValues):
    """Keys and values of a text so far, for `past_kv_cache`."""

    @classmethod
    def init_cache(
        cls, cfg: Any, device: torch.device | str | None = None, batch_size: int = 1
    ) -> HookedTransformerKeyValueCache:
        """An empty store. Device and number of rows are those of the first run that uses it."""
        return cls(cfg.n_layers)

    def unfreeze(self) -> None:
        """Let runs add to it again."""
        self.frozen = False
