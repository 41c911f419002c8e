"""Attention among tokens that fall into one bucket (LSH attention of Reformer, Kitaev et al. 2020, arXiv 2001.04451).

1. One map makes a vector per head that is the query and, normalised, the key.
2. A hash: random directions, each as itself and negated; the bucket is that of the largest product. Several
   factors multiply to the number of buckets. `n_hashes` of them are drawn anew from `seed`.
3. For each hash, tokens are sorted by bucket and within it by position, and laid end to end, hash behind hash. This
   row is cut into chunks; each looks at itself and its neighbours, around the end too. Nothing else is made of
   buckets: a query also sees the keys of other buckets in these chunks, as in Hugging Face.
4. Results of several hashes are mixed by the sums of their exponentials. That is one softmax over all the keys that
   a query meets, so a key counts as often as it is met: log(count) is added to its scores.
5. A token looks at itself only where there is nothing else: its score is -100,000.

Untapped and without padding the chunks are attended as they lie. Scores and pattern exist only where tapped, and
are then those of the whole text. Texts of one chunk are seen as a whole, without a hash.

Letters: b batch, p query position, k key position, h head, r hash, e d_head, d d_model, c product with a direction,
l slot in the row of one hash, m chunk, s place in it, w key around.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lens.config import StackConfig
from lens.frame import Frame
from lens.heads import Heads, by_head
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.mixers._chunks import Chunked, Rows, rows
from lens.norm import upcast
from lens.taps import OFF, AnyTaps
from lens.vocabulary import HEAD, PATTERN, RESULT, SCORES, K, Kind, Q, V, Z

LAST = 2**62  # behind every bucket


@dataclass(frozen=True, kw_only=True)
class Lsh(Chunked):
    """How many buckets there are, as a product of even factors; how often tokens are hashed, and from which seed."""

    n_buckets: tuple[int, ...]
    n_hashes: int = 1
    seed: int = 0
    kind: Literal["lsh"] = "lsh"


class LshAttention(Heads):
    """softmax(q kᵀ · scale + log of how often a key is met) v, with keys that are normalised queries."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__(site, cfg)
        assert isinstance(cfg.mixer, Lsh) and cfg.n_kv_heads == cfg.n_heads
        self.lsh, self.qk = cfg.mixer, self.q
        del self.q, self.k
        self.hook_qk, self.hook_bucket_indices = f"{site}.hook_qk", f"{site}.hook_bucket_indices"
        self.hook_attn_scores, self.hook_pattern = f"{site}.hook_attn_scores", f"{site}.hook_pattern"

    W_Q = property(lambda self: self.qk.weight.unflatten(0, (self.cfg.n_heads, -1)).mT)  # [h, d, e]
    W_K = W_Q
    b_Q = property(lambda self: by_head(self.qk, self.cfg.n_heads))  # [h, e]
    b_K = b_Q

    def forward(
        self,
        inputs: Float[Tensor, "b p d"],
        frame: Frame,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream."""
        h = self.cfg.n_heads
        qk = taps(self.hook_qk, self.qk(inputs).unflatten(-1, (h, -1)))
        v = taps(self.hook_v, self.v(inputs).unflatten(-1, (h, -1))).transpose(1, 2)
        whole, buckets = self.lsh.padded(frame.n) <= self.lsh.chunk, None
        if not whole:
            buckets = taps(self.hook_bucket_indices, self.buckets(qk.detach(), frame))
        q = taps(self.hook_q, qk.view_as(qk)).transpose(1, 2)
        k = taps(self.hook_k, unit(qk)).transpose(1, 2)
        if (
            buckets is not None
            and frame.valid is None
            and not taps.wants(self.hook_attn_scores, self.hook_pattern)
        ):
            z = self.sorted(q, k, v, buckets, frame)
        else:
            z = self.explicit(q, k, v, buckets, frame, taps)
        return self.written(z.transpose(1, 2), taps)

    def buckets(self, qk: Float[Tensor, "b p h e"], frame: Frame) -> Int[Tensor, "b h r p"]:
        """Which bucket each token falls into, hash by hash; padding into one of its own behind the others."""
        factors = self.lsh.n_buckets
        drawn: Tensor = frame.once((self.lsh, "directions"), lambda: self.directions(frame))
        products = torch.einsum("bphe,herc->bhrpc", qk, drawn)
        bucket = torch.zeros(products.shape[:-1], dtype=torch.long, device=qk.device)
        stride = 1
        for part, n in zip(products.split([n // 2 for n in factors], -1), factors, strict=True):
            bucket = bucket + stride * torch.cat([part, -part], -1).argmax(-1)
            stride *= n
        return bucket if frame.valid is None else bucket.masked_fill(~frame.valid[:, None, None], stride)

    def directions(self, frame: Frame) -> Float[Tensor, "h e r c"]:
        """The random directions, drawn as Hugging Face draws them on a CPU."""
        shape = (self.cfg.n_heads, self.cfg.d_head, self.lsh.n_hashes, sum(self.lsh.n_buckets) // 2)
        generator = torch.Generator().manual_seed(self.lsh.seed)
        return torch.randn(shape, generator=generator, dtype=frame.dtype, device="cpu").to(
            frame.device or "cpu"
        )

    def explicit(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b h k e"],
        v: Float[Tensor, "b h k e"],
        buckets: Int[Tensor, "b h r p"] | None,
        frame: Frame,
        taps: AnyTaps,
    ) -> Float[Tensor, "b h p e"]:
        """In steps that can be read and edited, on the whole text."""
        at: Rows = frame.once((self.lsh, "rows"), lambda: rows(self.lsh, frame))
        scores = ((q * self.scale) @ k.mT).masked_fill(at.self, _itself(q.dtype))
        seen = at.seen[:, None]
        if buckets is not None:
            counts = self.counts(buckets, at, frame)
            scores, seen = scores + counts.to(q.dtype).clamp(min=1).log(), seen & (counts > 0)
        scores = taps(self.hook_attn_scores, scores.masked_fill(~seen, -torch.inf))
        return taps(self.hook_pattern, upcast(scores).softmax(-1).to(q.dtype)) @ v

    def counts(self, buckets: Int[Tensor, "b h r p"], at: Rows, frame: Frame) -> Int[Tensor, "b h p k"]:
        """How often each query meets each key: in all hashes' rows, and in all chunks around its own."""
        real = buckets if frame.valid is None else buckets.masked_fill(~frame.valid[:, None, None], LAST)
        slot = real.argsort(dim=-1, stable=True).argsort(-1)  # [b, h, r, p]
        hashes = torch.arange(self.lsh.n_hashes, device=buckets.device)[:, None]
        chunk = (slot + hashes * at.padded[:, None, None]) // self.lsh.chunk
        n_chunks = (at.padded * self.lsh.n_hashes // self.lsh.chunk).clamp(min=1)[:, None, None]
        counts = torch.zeros((*buckets.shape[:2], frame.n, frame.n), dtype=torch.long, device=buckets.device)
        for offset in self.lsh.offsets:
            seen = ((chunk + offset) % n_chunks)[..., None]  # [b, h, r, p, 1]
            for keys in chunk.unbind(2):
                counts = counts + (seen == keys[:, :, None, None, :]).sum(2)
        counts = counts.masked_fill(at.whole[:, None, None], 1)
        return (
            counts if frame.valid is None else counts.masked_fill(at.self & ~frame.valid[:, None, :, None], 1)
        )

    def sorted(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b h k e"],
        v: Float[Tensor, "b h k e"],
        buckets: Int[Tensor, "b h r p"],
        frame: Frame,
    ) -> Float[Tensor, "b h p e"]:
        """Chunk by chunk as tokens lie sorted by bucket; no pattern of the text exists."""
        n, length, r = frame.n, self.lsh.padded(frame.n), self.lsh.n_hashes
        order = F.pad(buckets, (0, length - n), value=LAST).argsort(dim=-1, stable=True)  # [b, h, r, l]
        place = order.flatten(2).unflatten(2, (-1, self.lsh.chunk))  # [b, h, m, s]

        def chunks(x: Tensor) -> Float[Tensor, "b h m s e"]:
            index = order.flatten(2)[..., None].expand(-1, -1, -1, x.shape[-1])
            return F.pad(x, (0, 0, 0, length - n)).gather(2, index).unflatten(2, place.shape[2:])

        of_query, of_key = place[..., :, None], self.lsh.around(place)[..., None, :]
        scores = (chunks(q) * self.scale) @ self.lsh.around(chunks(k)).mT
        hidden = of_key >= n if not frame.causal else (of_key >= n) | (of_key > of_query)
        scores = scores.masked_fill(hidden, -torch.inf).masked_fill(of_key == of_query, _itself(q.dtype))
        pattern = upcast(scores).softmax(-1).to(q.dtype)
        z = (pattern @ self.lsh.around(chunks(v))).flatten(2, 3).unflatten(2, (r, length))
        weight = upcast(scores).logsumexp(-1).flatten(2).unflatten(2, (r, length))
        back = order.argsort(-1)
        z = z.gather(3, back[..., None].expand(z.shape))
        weight = weight.gather(3, back).softmax(2).to(q.dtype)
        return (z * weight[..., None]).sum(2)[:, :, :n]


def unit(x: Float[Tensor, "b p h e"]) -> Float[Tensor, "b p h e"]:
    """Divided by the root mean square of its entries."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def _itself(dtype: torch.dtype) -> float:
    """A token's score for itself, which half precision can hold."""
    return -1e3 if dtype == torch.float16 else -1e5


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, Lsh)
    hashed = f"{m.n_hashes} hash{'es' if m.n_hashes > 1 else ''} into {prod(m.n_buckets)} buckets"
    return f"attention among tokens of like direction: {hashed}, sorted, in chunks of {m.chunk}"


SQUARE = "batch head pos key"

MIXER = Mixer(
    "lsh",
    Lsh,
    LshAttention,
    kinds=(
        Kind("attn.hook_qk", HEAD, "queries, and keys before they are normalised"),
        V,
        Kind(
            "attn.hook_bucket_indices",
            "batch head hash pos",
            "the bucket that each token falls into; none where a text is one chunk",
            conditional=True,
        ),
        Kind(Q.suffix, HEAD, "queries alone"),
        Kind(K.suffix, HEAD, "keys alone, normalised"),
        Kind(SCORES.suffix, SQUARE, "scaled scores plus the log of how often a key is met; -100,000 for itself"),
        PATTERN, Z, RESULT,
    ),
    words=words,
    path="attn",
)  # fmt: skip
