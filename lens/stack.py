"""A stack of blocks and its final norm.

Letters: b batch, p position, d d_model.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from lens.block import Block
from lens.config import StackConfig
from lens.frame import Frame
from lens.kv import KeyValues
from lens.mixer import check_fields, common_of
from lens.norm import Norm
from lens.relative import table_of
from lens.taps import OFF, AnyTaps


class Stack(nn.Module):
    """Blocks `start` to `stop` in order; the final norm is applied by whoever unembeds."""

    def __init__(self, cfg: StackConfig, site: str = "blocks", final_site: str = "ln_final") -> None:
        super().__init__()
        check_fields(cfg)
        self.cfg = cfg
        self.relative = table_of(cfg)
        self.blocks = nn.ModuleList(
            Block(f"{site}.{layer}", cfg.at(layer), layer, self.relative) for layer in range(cfg.n_layers)
        )
        self.share()
        has_norm = cfg.final_norm and cfg.norm != "none"
        self.ln_final = (
            Norm(final_site, cfg.d_model, cfg.norm, cfg.norm_eps, cfg.norm_unit_offset) if has_norm else None
        )

    def share(self) -> None:
        """Make layers that share their parameters, or some of their mixers', hold the same ones."""
        for layer, first in enumerate(self.cfg.shared or ()):
            if layer != first:
                _share(self.blocks[layer], self.blocks[first])
        for name, owner in common_of(self.cfg).items():
            path, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(path), leaf, self.get_parameter(owner))

    def forward(
        self,
        x: Float[Tensor, "b p d"],
        frame: Frame,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Float[Tensor, "b p2 d2"]:
        for block in self.blocks[start:stop]:
            x = block(x, frame, taps, past)
        return x


def _share(module: nn.Module, owner: nn.Module) -> None:
    for name, parameter in owner.named_parameters(recurse=False):
        setattr(module, name, parameter)
    for name, buffer in owner.named_buffers(recurse=False):
        setattr(module, name, buffer)
    for name, child in owner.named_children():
        _share(module.get_submodule(name), child)
