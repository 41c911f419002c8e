"""Attention among neighbouring chunks of a text (Reformer's local layers, Kitaev et al. 2020, arXiv 2001.04451).

1. A text is cut into chunks. Each looks at itself and some chunks before and after it; before the first stands the
   last, so that a chunk may be met more than once, and its keys then count so often.
2. Under a causal mask, no query sees what follows it.

Untapped and without padding this is one kernel over chunks. Scores and pattern exist only where tapped, and are
then those of the whole text, with the log of how often a key counts added to its scores.

Letters: b batch, p query position, k key position, h head, e d_head, d d_model, m chunk, s place in it, w key around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lens.config import StackConfig
from lens.frame import Frame
from lens.heads import Heads, Streams
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.mixers._chunks import Chunked, Rows, rows
from lens.norm import upcast
from lens.taps import OFF, AnyTaps
from lens.vocabulary import PATTERN, RESULT, SCORES, K, Kind, Q, V, Z


@dataclass(frozen=True, kw_only=True)
class LocalChunks(Chunked):
    """Attention among neighbouring chunks."""

    kind: Literal["local_chunks"] = "local_chunks"
    by_head: ClassVar[bool] = True


class ChunkAttention(Heads):
    """softmax(q kᵀ · scale + log of how often a key counts) v."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__(site, cfg)
        assert isinstance(cfg.mixer, LocalChunks)
        self.chunks = cfg.mixer
        self.hook_attn_scores, self.hook_pattern = f"{site}.hook_attn_scores", f"{site}.hook_pattern"

    def forward(
        self, inputs: Streams, frame: Frame, taps: AnyTaps = OFF, past: KeyValues | None = None
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream; `inputs` as for `Attention`."""
        q, k, v = self.matched(inputs, taps)
        if frame.valid is None and not taps.wants(self.hook_attn_scores, self.hook_pattern):
            z = self.by_chunk(q, k, v, frame)
        else:
            counts = frame.once(self.chunks, lambda: log_counts(self.chunks, frame))
            scores = taps(self.hook_attn_scores, (q * self.scale) @ k.mT + counts)
            z = taps(self.hook_pattern, upcast(scores).softmax(-1).to(q.dtype)) @ v
        return self.written(z.transpose(1, 2), taps)

    def by_chunk(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b h k e"],
        v: Float[Tensor, "b h k e"],
        frame: Frame,
    ) -> Float[Tensor, "b h p e"]:
        """One kernel for all chunks; no pattern exists."""
        cfg, n, b = self.chunks, frame.n, len(q)
        if cfg.padded(n) <= cfg.chunk:
            return F.scaled_dot_product_attention(q, k, v, is_causal=frame.causal, scale=self.scale)

        def chunks(x: Tensor) -> Float[Tensor, "b h m s e"]:
            return F.pad(x, (0, 0, 0, cfg.padded(n) - n)).unflatten(2, (-1, cfg.chunk))

        def flat(x: Float[Tensor, "b h m w e"]) -> Float[Tensor, "bm h w e"]:
            return x.transpose(1, 2).flatten(0, 1)

        mask: Tensor = frame.once((cfg, "chunks"), lambda: visible(cfg, frame))
        z = F.scaled_dot_product_attention(
            *(flat(x) for x in (chunks(q), cfg.around(chunks(k)), cfg.around(chunks(v)))),
            attn_mask=mask.repeat(b, 1, 1, 1),
            scale=self.scale,
        )
        return z.unflatten(0, (b, -1)).transpose(1, 2).flatten(2, 3)[:, :, :n]


def visible(cfg: LocalChunks, frame: Frame) -> Bool[Tensor, "m 1 s w"]:
    """True where a chunk's query may look at a key around it; padding looks at itself."""
    place = torch.arange(cfg.padded(frame.n), device=frame.device).view(1, 1, -1, cfg.chunk)
    q, k = place[0, 0, :, :, None], cfg.around(place)[0, 0, :, None, :]
    seen = (k < frame.n) & ((k <= q) if frame.causal else torch.ones_like(k <= q))
    return (seen | (k == q))[:, None]


def log_counts(cfg: LocalChunks, frame: Frame) -> Float[Tensor, "b 1 p k"]:
    """The log of how often each query counts each key; -inf where it does not look."""
    at: Rows = rows(cfg, frame)
    chunk, n_chunks = at.place // cfg.chunk, (at.padded // cfg.chunk).clamp(min=1)
    counts = torch.zeros_like(at.seen, dtype=frame.dtype).expand(len(chunk), -1, -1)
    for offset in cfg.offsets:
        counts = counts + (((chunk + offset) % n_chunks)[:, :, None] == chunk[:, None, :])
    counts = counts.masked_fill(at.whole[:, :, None], 1.0)
    if frame.valid is not None:
        counts = counts.masked_fill(at.self & ~frame.valid[:, :, None], 1.0)
    return counts.masked_fill(~at.seen, 0.0).log()[:, None]


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, LocalChunks)
    return f"attention by chunks of {m.chunk} tokens: each sees {m.before} before and {m.after} after it"


SQUARE = "batch head pos key"

MIXER = Mixer(
    "local_chunks",
    LocalChunks,
    ChunkAttention,
    kinds=(
        Q, K, V,
        Kind(SCORES.suffix, SQUARE, "scaled scores plus the log of how often a key counts; -inf where not seen"),
        PATTERN, Z, RESULT,
    ),
    words=words,
    path="attn",
)  # fmt: skip
