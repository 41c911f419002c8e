"""Attention to neighbouring blocks and to the two ends of a text (BigBird, Zaheer et al. 2020, arXiv 2007.14062).

1. A text is cut into blocks of `block` tokens; the last one may be shorter.
2. Queries of the first and the last block look at all keys. Those between look at their own block, its two
   neighbours, the first and the last.
3. The paper adds `n_random` blocks at random. Outside training Hugging Face takes the first block each time, so
   that its keys count 1 + n_random times for the queries between: log(1 + n_random) is added to their scores.
4. Texts of at most `5 + 2 n_random` blocks' tokens are attended as a whole.

Untapped and without padding this is one kernel over gathered blocks, linear in the length of the text. Scores and
pattern exist only where tapped, and are then those of the whole text.

Letters: b batch, p query position, k key position, h head, e d_head, d d_model, m blocks between the ends,
s place in a block, w key among the gathered ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lens.config import MixerConfig, StackConfig
from lens.frame import Frame
from lens.heads import Heads, Streams
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.norm import upcast
from lens.taps import OFF, AnyTaps
from lens.vocabulary import PATTERN, RESULT, SCORES, K, Kind, Q, V, Z


@dataclass(frozen=True, kw_only=True)
class BigBird(MixerConfig):
    """Tokens in a block, and how many blocks at random the paper gives to each."""

    block: int
    n_random: int
    kind: Literal["big_bird"] = "big_bird"
    by_head: ClassVar[bool] = True
    continues: ClassVar[bool] = False

    @property
    def whole(self) -> int:
        """Texts of no more tokens are attended as a whole."""
        return (5 + 2 * self.n_random) * self.block


class BlockAttention(Heads):
    """softmax(q kᵀ · scale + how often a key counts) v over the keys that a query's block sees."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__(site, cfg)
        assert isinstance(cfg.mixer, BigBird)
        self.blocks = cfg.mixer
        self.hook_attn_scores, self.hook_pattern = f"{site}.hook_attn_scores", f"{site}.hook_pattern"

    def forward(
        self, inputs: Streams, frame: Frame, taps: AnyTaps = OFF, past: KeyValues | None = None
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream; `inputs` as for `Attention`."""
        q, k, v = self.matched(inputs, taps)
        tapped = taps.wants(self.hook_attn_scores, self.hook_pattern)
        if frame.valid is None and frame.n > self.blocks.whole and not tapped:
            return self.written(self.by_block(q, k, v, frame).transpose(1, 2), taps)
        counts: Tensor = frame.once(self.blocks, lambda: log_counts(self.blocks, frame))
        if not tapped:
            z = F.scaled_dot_product_attention(q, k, v, attn_mask=counts, scale=self.scale)
            return self.written(z.transpose(1, 2), taps)
        scores = taps(self.hook_attn_scores, (q * self.scale) @ k.mT + counts)
        pattern = taps(self.hook_pattern, upcast(scores).softmax(-1).to(q.dtype))
        return self.written((pattern @ v).transpose(1, 2), taps)

    def by_block(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b h k e"],
        v: Float[Tensor, "b h k e"],
        frame: Frame,
    ) -> Float[Tensor, "b h p e"]:
        """One kernel for the ends of the text, and one for all blocks between them."""
        b, s = len(q), self.blocks.block
        n = -(-frame.n // s)
        last = (n - 1) * s
        seen, counts = frame.once((self.blocks, "gathered"), lambda: between(self.blocks, n, frame))
        ends = torch.cat([q[:, :, :s], q[:, :, last:]], 2)
        first, final = F.scaled_dot_product_attention(ends, k, v, scale=self.scale).split(
            [s, frame.n - last], 2
        )
        gap = n * s - frame.n
        keys, values = (F.pad(x, (0, 0, 0, gap)).unflatten(2, (n, s))[:, :, seen] for x in (k, v))
        queries = q[:, :, s:last].unflatten(2, (n - 2, s))

        def flat(x: Float[Tensor, "b h m *s e"]) -> Float[Tensor, "bm h w e"]:
            return x.flatten(3, -2).transpose(1, 2).flatten(0, 1)

        z = F.scaled_dot_product_attention(
            flat(queries), flat(keys), flat(values), attn_mask=counts.repeat(b, 1, 1, 1), scale=self.scale
        )
        middle = z.unflatten(0, (b, n - 2)).transpose(1, 2).flatten(2, 3)
        return torch.cat([first, middle, final], 2)


def between(cfg: BigBird, n: int, frame: Frame) -> tuple[Int[Tensor, "m 5"], Float[Tensor, "m 1 1 w"]]:
    """The blocks that each block between the ends looks at, and the log of how often each of their keys counts."""
    own = torch.arange(1, n - 1, device=frame.device)[:, None]
    near = own + torch.tensor([-1, 0, 1], device=frame.device)
    ends = torch.tensor([0, n - 1], device=frame.device).expand(n - 2, 2)
    again = (near == 0) | (near == n - 1)  # a neighbour that is an end already
    often = torch.tensor([log(1 + cfg.n_random), 0.0], dtype=frame.dtype, device=frame.device).expand(
        n - 2, 2
    )
    counts = torch.cat([torch.zeros_like(near, dtype=frame.dtype).masked_fill(again, -torch.inf), often], 1)
    seen = torch.cat([near, ends], 1)
    place = seen[..., None] * cfg.block + torch.arange(cfg.block, device=frame.device)
    counts = counts[..., None].masked_fill(place >= frame.n, -torch.inf)
    return seen, counts.flatten(1)[:, None, None]


def log_counts(cfg: BigBird, frame: Frame) -> Float[Tensor, "b 1 p k"]:
    """The log of how often each query counts each key; -inf where it does not look.

    Blocks are those of each row's text alone; padding looks at itself.
    """
    if frame.valid is None:
        place = torch.arange(frame.n, device=frame.device)[None]
        length = torch.full((1, 1), frame.n, device=frame.device)
    else:
        place = (frame.valid.long().cumsum(-1) - 1).clamp(min=0)
        length = frame.valid.long().sum(-1, keepdim=True)
    block, last = place // cfg.block, ((length - 1) // cfg.block)[:, :, None]
    query, key = block[:, :, None], block[:, None, :]
    whole = (length <= cfg.whole)[:, :, None]
    inside = (query > 0) & (query < last) & ~whole
    sees = (key == 0) | (key == last) | ((query - key).abs() <= 1) | ~inside
    if frame.valid is not None:
        k = torch.arange(frame.n, device=frame.device)
        sees = (sees & frame.valid[:, None, :]) | (k == k[:, None])
    counts = (inside & (key == 0)).to(frame.dtype) * log(1 + cfg.n_random)
    return counts.masked_fill(~sees, -torch.inf)[:, None]


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, BigBird)
    sees = "its own, its neighbours and both ends of the text"
    return (
        f"attention by blocks of {m.block} tokens: each sees {sees}; the first counts {1 + m.n_random} times"
    )


SQUARE = "batch head pos key"

MIXER = Mixer(
    "big_bird",
    BigBird,
    BlockAttention,
    kinds=(
        Q, K, V,
        Kind(SCORES.suffix, SQUARE, "scaled scores, log(1 + n_random) more at the first block; -inf where not seen"),
        PATTERN, Z, RESULT,
    ),
    words=words,
    path="attn",
)  # fmt: skip
