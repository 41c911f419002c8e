"""Linear attention (Katharopoulos et al. 2020, arXiv 2006.16236): softmax's exponential becomes a product of features.

φ(x) = elu(x) + 1 (eq. 7), entry by entry, so queries and keys are not scaled.

Letters: b batch, p position, h head, e d_head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lens.config import MixerConfig, StackConfig
from lens.mixer import Mixer
from lens.mixers._kernel_attention import KernelAttention, heads, kinds


@dataclass(frozen=True, kw_only=True)
class LinearAttention(MixerConfig):
    """Heads and directions are those of the `StackConfig`."""

    kind: Literal["linear_attention"] = "linear_attention"
    by_head: ClassVar[bool] = True
    endless: ClassVar[bool] = True


class EluAttention(KernelAttention):
    """One feature per entry of a head."""

    def features(
        self, x: Float[Tensor, "b p h e"]
    ) -> tuple[Float[Tensor, "b p h e"], Float[Tensor, "b p h"]]:
        # as elu(x) + 1, without losing what is left of small exponentials beside the 1
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp()), x.new_zeros(x.shape[:3])


def words(c: StackConfig) -> str:
    return f"linear attention: {heads(c)}, weights are products of elu + 1 of queries and keys"


MIXER = Mixer(
    "linear_attention",
    LinearAttention,
    EluAttention,
    kinds=kinds("elu + 1 of each entry"),
    words=words,
    path="attn",
)
