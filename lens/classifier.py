"""What encoders say of a whole text, or of each token: a pooled vector, and logits over classes.

Letters: b batch, p position, d d_model, c classes, o entries of the pooled vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lens.boxes import Boxes
from lens.config import ClassifierConfig, ModelConfig, PoolerConfig
from lens.frame import Frame
from lens.mlp import ACTIVATIONS
from lens.taps import OFF, AnyTaps

if TYPE_CHECKING:
    from lens.model import Transformer


class Pooler(nn.Module):
    """One token's stream, and a layer on it: the first token's (arXiv 1810.04805, §3.1), or the last's."""

    hook_pooler_pre = "pooler.hook_pooler_pre"
    hook_pooler_out = "pooler.hook_pooler_out"

    def __init__(self, cfg: PoolerConfig, d_model: int) -> None:
        super().__init__()
        self.act = None if cfg.act_fn is None else ACTIVATIONS[cfg.act_fn]
        self.dense = nn.Linear(d_model, cfg.d_out or d_model, bias=cfg.bias) if cfg.layer else None

    def forward(self, x: Float[Tensor, "b d"], taps: AnyTaps = OFF) -> Float[Tensor, "b o"]:
        if self.dense is not None:
            x = self.dense(x)
        if self.act is not None:
            x = self.act(taps(self.hook_pooler_pre, x))
        return taps(self.hook_pooler_out, x)


class Classifier(nn.Module):
    """A linear map to classes, of one vector per text or of every position."""

    hook_logits = "classifier.hook_logits"

    def __init__(self, cfg: ClassifierConfig, d_model: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.linear = nn.Linear(d_model, cfg.n_classes)

    def forward(self, x: Float[Tensor, "b *p d"], taps: AnyTaps = OFF) -> Float[Tensor, "b *p c"]:
        return taps(self.hook_logits, self.linear(x))


HEADS = ("pooler.", "classifier.", "boxes.")
"""How the sites begin that are read only where they are looked at, or where classes are all there is."""


def heads(cfg: ModelConfig) -> tuple[Pooler | None, Classifier | None, Boxes | None]:
    """What a model says of its last stream beside the logits of an unembedding."""
    pooler = None if cfg.pooler is None else Pooler(cfg.pooler, cfg.d_model)
    classifier = None if cfg.classifier is None else Classifier(cfg.classifier, cfg.d_model)
    return pooler, classifier, Boxes(cfg.d_model) if cfg.boxes else None


def read_token(x: Float[Tensor, "b p d"], frame: Frame) -> Float[Tensor, "b d"]:
    """The stream where each row's vector is read: at `frame.ends`, or else at its first token."""
    return (
        first_token(x, frame) if frame.ends is None else x[torch.arange(len(x), device=x.device), frame.ends]
    )


def mean(x: Float[Tensor, "b p d"], frame: Frame) -> Float[Tensor, "b d"]:
    """The mean of the stream over positions that are not padding."""
    if frame.valid is None:
        return x.mean(1)
    real = frame.valid[:, :, None].to(x.dtype)
    return (x * real).sum(1) / real.sum(1)


def _averages(model: Transformer) -> bool:
    return model.cfg.pooler is not None and model.cfg.pooler.at == "mean"


def first_token(x: Float[Tensor, "b p d"], frame: Frame) -> Float[Tensor, "b d"]:
    """The stream at each row's first token that is not padding."""
    if frame.valid is None:
        return x[:, 0]
    first = frame.valid.to(torch.uint8).argmax(-1)
    return x[torch.arange(len(x), device=x.device), first]


def classes(
    model: Transformer, x: Float[Tensor, "b p d"], frame: Frame, taps: AnyTaps = OFF
) -> Float[Tensor, "b *p c"] | None:
    """Logits over classes from the normalised last stream; None where there is only a pooler, or neither."""
    of_tokens = model.cfg.classifier is not None and model.cfg.classifier.of == "token"
    vector = mean(x, frame) if _averages(model) else read_token(x, frame)
    if model.pooler is not None:
        vector = model.pooler(vector, taps)
    said = None if model.classifier is None else model.classifier(x if of_tokens else vector, taps)
    if model.boxes is not None and taps.wants(*model.boxes.sites):
        model.boxes(x, taps)
    return said
