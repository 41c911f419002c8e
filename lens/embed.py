"""Token ids, the patches of an image, or the mel frames of a sound, to the first residual stream.

Letters: b batch, p position, c channel, y row, x column, m mel, t frame, d d_model, w width of the
sum (d_embed where the sum is projected).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lens.axial import AxialPositions
from lens.config import EmbedConfig
from lens.features import Features
from lens.frame import Frame
from lens.inputs import ModelInputs
from lens.mel import Mel
from lens.norm import Norm
from lens.patches import Patches
from lens.recurrent import Weight
from lens.taps import OFF, AnyTaps


class Embed(nn.Module):
    """Token embedding plus learned positions and token types where there are any; then norm and projection."""

    def __init__(self, cfg: EmbedConfig, d_model: int, prefix: str = "") -> None:
        super().__init__()
        self.cfg = cfg
        self.hook_embed, self.hook_pos_embed = f"{prefix}hook_embed", f"{prefix}hook_pos_embed"
        self.hook_token_type_embed = f"{prefix}hook_token_type_embed"
        self.hook_full_embed = f"{prefix}hook_full_embed"
        d_model = d_model if cfg.latents is None else cfg.d_embed
        self.latents = None if cfg.latents is None else Weight(*cfg.latents)
        self.hook_latents = f"{prefix}hook_latents"
        late = cfg.project == "sum"
        width = cfg.d_embed if late else d_model
        self.patches = None if cfg.patches is None else Patches(cfg.patches, cfg.d_embed)
        self.mel = None if cfg.mel is None else Mel(cfg.mel, cfg.d_embed, prefix)
        self.features = None if cfg.features is None else Features(cfg.features, cfg.d_embed, prefix)
        if cfg.of_tokens:
            self.tokens = nn.Embedding(cfg.d_vocab, cfg.d_embed)
        self.project = nn.Linear(cfg.d_embed, d_model, bias=late) if late or cfg.d_embed != d_model else None
        rows = None if cfg.n_positions is None else cfg.n_positions + cfg.position_offset
        self.positions = None if rows is None else nn.Embedding(rows, width)
        if cfg.axial is not None:
            self.positions = AxialPositions(cfg.axial)
        self.types = nn.Embedding(cfg.n_types, width) if cfg.n_types else None
        self.ln = None if cfg.norm_eps is None else Norm(f"{prefix}embed.ln", width, "layer", cfg.norm_eps)

    def forward(
        self,
        given: Int[Tensor, "b p"] | Float[Tensor, "b c y x"] | Float[Tensor, "b m t"],
        frame: Frame,
        taps: AnyTaps = OFF,
        types: Int[Tensor, "b p"] | None = None,
    ) -> Float[Tensor, "b p d"]:
        """`given` are token ids, images, features or mel frames; `types` are all 0 where they are not given."""
        if self.cfg.empty:
            assert self.positions is not None
            x = self.positions.weight.new_zeros(*given.shape, self.cfg.d_embed)
            return (self.place if self.cfg.positions_in_attention else self.add_positions)(x, frame, taps)
        if self.mel is not None:
            x = self.mel(given, taps)
        elif self.features is not None:
            x = self.features(given)
        else:
            x = self.tokens(given) if self.patches is None else self.patches(given)
        if self.cfg.scale != 1.0:
            x = x * torch.tensor(self.cfg.scale, dtype=x.dtype, device=x.device)
        late = self.cfg.project == "sum"
        if self.project is not None and not late:
            x = self.project(x)
        x = taps(self.hook_embed, x)
        if self.ln is not None and self.cfg.norm_first:
            x = self.ln(x, taps)
        if self.types is not None:
            x = self.add_types(x, types, taps)
        if self.cfg.positions_in_attention:
            x = self.place(x, frame, taps)
        elif self.positions is not None:
            x = self.add_positions(x, frame, taps)
        if self.ln is not None and not self.cfg.norm_first:
            x = self.ln(x, taps)
        if self.project is not None and late:
            x = self.project(x)
        x = x if self.ln is None else taps(self.hook_full_embed, x)
        return x if self.cfg.copies == 1 else x.repeat(1, 1, self.cfg.copies)

    def add_positions(self, x: Float[Tensor, "b p w"], frame: Frame, taps: AnyTaps) -> Float[Tensor, "b p w"]:
        """x plus the embedding of each token's position."""
        assert self.positions is not None
        where = self.positions(frame.positions + self.cfg.position_offset)
        if taps.wants(self.hook_pos_embed):
            where = taps(self.hook_pos_embed, where.expand(x.shape))
        return x + where

    def seen(self, given: ModelInputs, taps: AnyTaps = OFF) -> ModelInputs:
        """What is embedded of what was given: of images of any size, what the backbone sees in them."""
        return given if self.features is None else self.features.seen(given, taps)

    def placed(self, frame: Frame) -> Frame:
        """The same frame, which knows where its positions are, if attention adds them."""
        if self.cfg.positions_in_attention and self.features is not None:
            frame.where = self.features.places(frame)
        elif self.cfg.positions_in_attention and self.positions is not None:
            frame.where = self.positions(frame.positions + self.cfg.position_offset)
        return frame

    def place(self, x: Float[Tensor, "b p w"], frame: Frame, taps: AnyTaps) -> Float[Tensor, "b p w"]:
        """The stream as it is; its positions are what attention adds, and can be edited here."""
        if taps.wants(self.hook_pos_embed):
            assert frame.where is not None
            frame.where = taps(self.hook_pos_embed, frame.where.expand(x.shape))
        return x

    def add_types(
        self, x: Float[Tensor, "b p w"], types: Int[Tensor, "b p"] | None, taps: AnyTaps
    ) -> Float[Tensor, "b p w"]:
        """x plus the embedding of each token's type."""
        assert self.types is not None
        added = self.types.weight[0] if types is None else self.types(types)
        if taps.wants(self.hook_token_type_embed):
            added = taps(self.hook_token_type_embed, added.expand(x.shape))
        return x + added


def sinusoids(n: int, width: int) -> Float[Tensor, "n w"]:
    """The positions of "Attention Is All You Need" (arXiv 1706.03762, §3.5), sines in the first half."""
    wavelengths = 10000.0 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(n, dtype=torch.float64)[:, None] / wavelengths
    return torch.cat([angles.sin(), angles.cos()[:, : width // 2]], -1).float()
