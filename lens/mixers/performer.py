"""Performer (Choromanski et al. 2021, arXiv 2009.14794): softmax attention estimated by random features, FAVOR+.

1. Directions ω are drawn: in blocks of d_head orthogonal ones, as long as normal vectors are (§2.4).
2. φ(x)[i] = exp(ω[i] · x - |x|² / 2) (lemma 1; x is a query or key times √scale), so that the expectation of
   φ(q) · φ(k) / n is exp(q · k · scale). What all weights of a row share, such as the n, the normaliser takes away.

The features of a position are divided by the largest of them, and the logarithm of that is its level.

Letters: b batch, p position, h head, e d_head, f features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from lens.config import MixerConfig, StackConfig
from lens.mixer import Mixer
from lens.mixers._kernel_attention import KernelAttention, heads, kinds


@dataclass(frozen=True, kw_only=True)
class Performer(MixerConfig):
    """How many random features, and the seed they are drawn with. They are stored with the weights and do not learn."""

    n_features: int
    seed: int = 0
    kind: Literal["performer"] = "performer"
    by_head: ClassVar[bool] = True
    endless: ClassVar[bool] = True


def orthogonal(n: int, e: int, generator: Generator) -> Float[Tensor, "f e"]:
    """Normal vectors of which each block of `e` is orthogonal, float32; computed on the CPU."""
    blocks = []
    for _ in range(-(-n // e)):
        normal = torch.randn(e, e, generator=generator, dtype=torch.float64, device="cpu")
        q, r = torch.linalg.qr(normal)
        lengths = torch.randn(e, e, generator=generator, dtype=torch.float64, device="cpu").norm(dim=1)
        blocks.append((q * r.diagonal().sign()).T * lengths[:, None])
    return torch.cat(blocks)[:n].float()


def drawn(cfg: StackConfig, layer: int) -> Float[Tensor, "f e"]:
    """The random features of a layer, which depend on its number and the seed alone."""
    assert isinstance(cfg.mixer, Performer)
    generator = Generator().manual_seed(1000 * cfg.mixer.seed + layer)
    return orthogonal(cfg.mixer.n_features, cfg.d_head, generator)


class RandomFeatures(nn.Module):
    """A table of directions that is not learned."""

    weight: Tensor

    def __init__(self, cfg: StackConfig, layer: int) -> None:
        super().__init__()
        assert isinstance(cfg.mixer, Performer)
        weight = torch.empty(cfg.mixer.n_features, cfg.d_head)
        if not weight.is_meta:
            weight.copy_(drawn(cfg, layer))
        self.register_buffer("weight", weight)


class FeatureAttention(KernelAttention):
    """All heads of a layer share its random features."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__(site, cfg, layer)
        self.random = RandomFeatures(cfg, layer)

    def features(
        self, x: Float[Tensor, "b p h e"]
    ) -> tuple[Float[Tensor, "b p h f"], Float[Tensor, "b p h"]]:
        x = x * self.scale**0.5
        logs = x @ self.random.weight.to(x.dtype).T - x.square().sum(-1, keepdim=True) / 2
        level = logs.amax(-1, keepdim=True).detach()
        return (logs - level).exp(), level[..., 0]


def initial(c: StackConfig, layer: int, generator: Generator) -> Mapping[str, Tensor]:
    return {"random.weight": drawn(c, layer)}


def words(c: StackConfig) -> str:
    assert isinstance(c.mixer, Performer)
    return f"Performer: {heads(c)}, softmax attention estimated by {c.mixer.n_features} random features"


MIXER = Mixer(
    "performer",
    Performer,
    FeatureAttention,
    kinds=kinds("positive random ones, divided by the largest of the position"),
    words=words,
    path="attn",
    initial=initial,
)
