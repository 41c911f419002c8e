"""What old code makes or asks for by name and the core has in another form: hook points that are modules, key–value
stores that are made before a run.

Letters: b batch, p position, g key/value head, e d_head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformer_lens import hook_points
from transformer_lens.HookedRootModule import HookedRootModule as TheirRootModule

from lens.compat.hook_points import HookPoint as Site
from lens.compat.mounted import Mounted
from lens.kv import KeyValues


class Both(type):
    """A hook point is a place of a `HookedTransformer`, or a module in a model of one's own."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or (cls is HookPoint and isinstance(instance, Site))


class HookPoint(hook_points.HookPoint, metaclass=Both):
    """`self.hook_x = HookPoint()` in a `HookedRootModule` of one's own, as in TransformerLens.

    `isinstance(model.blocks[0].attn.hook_z, HookPoint)` holds as well.
    """


class HookedRootModule(TheirRootModule):
    """TransformerLens's own, in which a `HookedTransformer` can also be a part.

    The hook points of such a part can be named here behind its path (`model.blocks.0.hook_resid_pre`); hook functions
    and caches have them under the names that they have in the part.
    """

    def setup(self) -> None:
        """Name all parts, and collect the hook points."""
        self.mod_dict, self.hook_dict = {}, {}
        inner: list[str] = []
        for path, part in self.named_modules():
            if path == "" or any(path.startswith(f"{whole}.") for whole in inner):
                continue
            self.mod_dict[path] = part
            if isinstance(part, Mounted):
                inner.append(path)
                found: Any = {f"{path}.{name}": point for name, point in part.hook_dict.items()}
                self.mod_dict |= found
                self.hook_dict |= found
                continue
            part.name = path  # type: ignore[assignment]
            if isinstance(part, hook_points.HookPoint):
                self.hook_dict[path] = part


class HookedTransformerKeyValueCacheEntry(NamedTuple):
    """Keys and values of one layer, [b, p, g, e], to be read."""

    past_keys: Tensor
    past_values: Tensor


class HookedTransformerKeyValueCache(KeyValues):
    """Keys and values of a text so far, for `past_kv_cache`; `cache[layer].past_keys` are those of a layer."""

    @classmethod
    def init_cache(
        cls, cfg: Any, device: torch.device | str | None = None, batch_size: int = 1
    ) -> HookedTransformerKeyValueCache:
        """An empty store. Device and number of rows are those of the first run that uses it."""
        return cls(cfg.n_layers)

    def unfreeze(self) -> None:
        """Let runs add to it again."""
        self.frozen = False

    @property
    def entries(self) -> list[HookedTransformerKeyValueCacheEntry]:
        """What is stored, by layer."""
        return [self[layer] for layer in range(len(self.keys))]

    @property
    def previous_attention_mask(self) -> Tensor | None:
        """1 where a stored token is real, [b, p]; None before the first run."""
        row = next((keys for keys in self.keys if keys is not None), None)
        if row is None or not self.length:
            return None
        return (
            row.new_ones(len(row), self.length, dtype=torch.int) if self.valid is None else self.valid.int()
        )

    def __getitem__(self, layer: int) -> HookedTransformerKeyValueCacheEntry:
        if not -len(self.keys) <= layer < len(self.keys):
            raise IndexError(f"layer is {layer} and keys of {len(self.keys)} layers are stored")
        keys, values = self.keys[layer], self.values[layer]
        if keys is None or values is None:
            raise ValueError("nothing is stored yet: run the model with past_kv_cache= this store")
        keys, values = keys[:, :, : self.length], values[:, :, : self.length]
        return HookedTransformerKeyValueCacheEntry(keys.transpose(1, 2), values.transpose(1, 2))
