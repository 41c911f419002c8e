"""A sound to a row of positions (Whisper, arXiv 2212.04356, §2.2).

Letters: b batch, m mel, t frame, p position (every other frame), d d_model.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens.config import MelConfig
from lens.taps import OFF, AnyTaps


class Mel(nn.Module):
    """Two convolutions over mel frames, each with a GELU; the second halves their number."""

    def __init__(self, cfg: MelConfig, d_model: int, prefix: str = "") -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(cfg.n_mels, d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(d_model, d_model, kernel_size=3, stride=2, padding=1)
        self.hook_conv1_pre, self.hook_conv1_post = f"{prefix}hook_conv1_pre", f"{prefix}hook_conv1_post"
        self.hook_conv2_pre = f"{prefix}hook_conv2_pre"

    def forward(self, frames: Float[Tensor, "b m t"], taps: AnyTaps = OFF) -> Float[Tensor, "b p d"]:
        x = F.gelu(taps(self.hook_conv1_pre, self.conv1(frames).mT))
        x = taps(self.hook_conv1_post, x)
        return F.gelu(taps(self.hook_conv2_pre, self.conv2(x.mT).mT))
