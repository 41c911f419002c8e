"""The activations that one run kept, addressed by site name or shorthand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lens.sites import Site, expand


class ActivationCache(Mapping[str, Tensor]):
    """A read-only mapping from site name to activation, in firing order.

    `cache["blocks.5.attn.hook_pattern"]`, `cache["pattern", 5]` and `cache["scale", 3, "ln1"]` address one
    site; `cache.stack("resid_post")` all layers of a kind, on a new first axis.

    Args:
        activations: site name → tensor.
        sites: the model's sites, for shorthands.
        batched: False once the batch axis has been removed.
    """

    def __init__(
        self, activations: Mapping[str, Tensor], sites: Mapping[str, Site], batched: bool = True
    ) -> None:
        self._activations = {name: activations[name] for name in sites if name in activations}
        self._sites, self.batched = sites, batched

    def __getitem__(self, key: str | tuple) -> Tensor:
        if isinstance(key, str) and key in self._activations:
            return self._activations[key]
        names = expand(key, self._sites)
        kept = [name for name in names if name in self._activations]
        if not kept:
            raise KeyError(f"{names[0]!r} was not read in this run; name it in names_filter")
        if len(kept) > 1:
            raise KeyError(
                f"{key!r} stands for {len(kept)} sites ({kept[0]}, …); give a layer, or use .stack({key!r})"
            )
        return self._activations[kept[0]]

    def __contains__(self, key: object) -> bool:
        try:
            self[key]  # type: ignore[index]
        except (KeyError, ValueError):
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def __repr__(self) -> str:
        size = sum(t.numel() * t.element_size() for t in self.values())
        return f"ActivationCache({len(self)} sites, {size / 2**20:.1f} MiB)"

    def stack(self, name: str | tuple) -> Tensor:
        """All layers of one kind of site that were read, [layer, …]."""
        names = [n for n in expand(name, self._sites) if n in self._activations]
        if not names:
            raise KeyError(f"{name!r} was not read in this run; name it in names_filter")
        if len({self._activations[n].shape for n in names}) > 1:
            raise ValueError(f"{name!r} has another shape in another layer: read the layers one by one")
        return torch.stack([self._activations[n] for n in names])

    def remove_batch_dim(self) -> ActivationCache:
        """The same without the batch axis.

        Raises:
            ValueError: the batch has more than one row.
        """
        if not self.batched:
            return self
        for name, x in self._activations.items():
            if x.shape[0] != 1:
                raise ValueError(
                    f"the batch axis can only be removed from a batch of 1; {name!r} has {x.shape[0]} rows"
                )
        return ActivationCache({n: x[0] for n, x in self.items()}, self._sites, batched=False)

    def to(self, device: torch.device | str) -> ActivationCache:
        """A copy with every activation on `device`."""
        return ActivationCache({n: x.to(device) for n, x in self.items()}, self._sites, self.batched)
