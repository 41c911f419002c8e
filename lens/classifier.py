"""What encoders say of a whole text, or of each token: a pooled vector, and logits over classes.

Letters: b batch, p position, d d_model, c classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lens.config import ClassifierConfig, PoolerConfig
from lens.frame import Frame
from lens.mlp import ACTIVATIONS
from lens.taps import OFF, AnyTaps


class Pooler(nn.Module):
    """A layer on the last stream at each text's first token (arXiv 1810.04805, §3.1)."""

    hook_pooler_pre = "pooler.hook_pooler_pre"
    hook_pooler_out = "pooler.hook_pooler_out"

    def __init__(self, cfg: PoolerConfig, d_model: int) -> None:
        super().__init__()
        self.act = ACTIVATIONS[cfg.act_fn]
        self.dense = nn.Linear(d_model, d_model)

    def forward(self, first: Float[Tensor, "b d"], taps: AnyTaps = OFF) -> Float[Tensor, "b d"]:
        return taps(self.hook_pooler_out, self.act(taps(self.hook_pooler_pre, self.dense(first))))


class Classifier(nn.Module):
    """A linear map to classes, of one vector per text or of every position."""

    hook_logits = "classifier.hook_logits"

    def __init__(self, cfg: ClassifierConfig, d_model: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.linear = nn.Linear(d_model, cfg.n_classes)

    def forward(self, x: Float[Tensor, "b *p d"], taps: AnyTaps = OFF) -> Float[Tensor, "b *p c"]:
        return taps(self.hook_logits, self.linear(x))


def first_token(x: Float[Tensor, "b p d"], frame: Frame) -> Float[Tensor, "b d"]:
    """The stream at each row's first token that is not padding."""
    if frame.valid is None:
        return x[:, 0]
    first = frame.valid.to(torch.uint8).argmax(-1)
    return x[torch.arange(len(x), device=x.device), first]
