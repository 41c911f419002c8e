"""Attention with sizes of its own, to what a model was given or among the positions themselves (Perceiver IO).

Jaegle et al. 2021, arXiv 2107.14795, §3.2. Latents read the embedded text, then each other; positions read the
latents. The stream that is read has another width and a norm of its own, and values may be wider than queries.
What it gives is added to the stream, or stands in its place.

Letters: b batch, p position, k key (of the source, or position), h head, e d_head, x d_value, d d_model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens.config import MixerConfig, StackConfig
from lens.frame import Frame
from lens.heads import Heads
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.norm import Norm, upcast
from lens.taps import OFF, AnyTaps
from lens.vocabulary import HEAD, RESULT, Kind, Where


@dataclass(frozen=True, kw_only=True)
class Perceiver(MixerConfig):
    """Sizes of the heads. `d_source` is the width of what was given (None: positions read each other)."""

    n_heads: int
    d_head: int
    d_value: int
    d_source: int | None = None
    adds: bool = True  # type: ignore[misc]
    kind: Literal["perceiver"] = "perceiver"
    continues: ClassVar[bool] = False

    @property
    def reads_source(self) -> bool:
        return self.d_source is not None


class PerceiverAttention(Heads):
    """softmax(q kᵀ · scale) v, with keys and values of the source where there is one."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        m = cfg.mixer
        assert isinstance(m, Perceiver)
        super().__init__(
            site, replace(cfg, n_heads=m.n_heads, n_kv_heads=m.n_heads, d_head=m.d_head, mixer=None)
        )
        width, bias = m.d_source or cfg.d_model, cfg.attn_bias
        self.k = nn.Linear(width, m.n_heads * m.d_head, bias="k" in bias)
        self.v = nn.Linear(width, m.n_heads * m.d_value, bias="v" in bias)
        self.o = nn.Linear(m.n_heads * m.d_value, cfg.d_model, bias="o" in bias)
        norm = m.d_source is not None and cfg.norm != "none"
        self.ln_source = Norm(f"{site}.ln_source", width, cfg.norm, cfg.norm_eps) if norm else None
        self.reads = m.d_source is not None
        self.hook_attn_scores, self.hook_pattern = f"{site}.hook_attn_scores", f"{site}.hook_pattern"

    def forward(
        self,
        inputs: Float[Tensor, "b p d"],
        frame: Frame,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream, or what the stream then is."""
        source, mask = inputs, None
        if not self.reads:
            mask = frame.mask(None)
        elif frame.encoded is not None:
            source, mask = frame.encoded.stream, frame.encoded.mask(None)
            source = source if self.ln_source is None else self.ln_source(source, taps)
        h = self.cfg.n_heads
        q = taps(self.hook_q, self.q(inputs).unflatten(-1, (h, -1))).transpose(1, 2)
        k = taps(self.hook_k, self.k(source).unflatten(-1, (h, -1))).transpose(1, 2)
        v = taps(self.hook_v, self.v(source).unflatten(-1, (h, -1))).transpose(1, 2)
        if not taps.wants(self.hook_attn_scores, self.hook_pattern):
            z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
            return self.written(z.transpose(1, 2), taps)
        scores = (q * self.scale) @ k.mT
        scores = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
        pattern = upcast(taps(self.hook_attn_scores, scores)).softmax(-1).to(q.dtype)
        return self.written((taps(self.hook_pattern, pattern) @ v).transpose(1, 2), taps)


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, Perceiver)
    whom = "of each other" if m.d_source is None else f"of a source of {m.d_source} dimensions"
    place = "" if m.adds else ", which the stream then is"
    return f"attention: {m.n_heads} heads of {m.d_head} with values of {m.d_value}, {whom}{place}"


def _reads(c: StackConfig) -> bool:
    return isinstance(c.mixer, Perceiver) and c.mixer.d_source is not None and c.norm != "none"


SOURCE = Where("a source", _reads)
KEYS, VALUES, SQUARE = "batch key head d_head", "batch key head d_value", "batch head pos key"

MIXER = Mixer(
    "perceiver",
    Perceiver,
    PerceiverAttention,
    kinds=(
        Kind("attn.ln_source.hook_scale", "batch key 1", "what the norm on the source divides by", SOURCE),
        Kind("attn.ln_source.hook_normalized", "batch key d_source", "the source: before gain and bias", SOURCE),
        Kind("attn.hook_q", HEAD, "queries"),
        Kind("attn.hook_k", KEYS, "keys, of the source where there is one"),
        Kind("attn.hook_v", VALUES, "values, of the source where there is one"),
        Kind("attn.hook_attn_scores", SQUARE, "scaled scores; -inf where the source is padding"),
        Kind("attn.hook_pattern", SQUARE, "attention probabilities"),
        Kind("attn.hook_z", "batch pos head d_value", "values mixed by the pattern"),
        RESULT,
    ),
    words=words,
    path="attn",
)  # fmt: skip
