"""What attention shares with mixers that have heads: maps of queries, keys, values and output, and what heads write.

Letters: b batch, p position, h head, g key/value head, d d_model, e d_head, x any entries.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lens.config import StackConfig
from lens.taps import AnyTaps

Streams = Tensor | tuple[Tensor, Tensor, Tensor]


class Heads(nn.Module):
    """The four linear maps, TransformerLens's views of them, and the way from z to the stream."""

    def __init__(self, site: str, cfg: StackConfig) -> None:
        super().__init__()
        self.cfg = cfg
        d, e, h, g, bias = cfg.d_model, cfg.d_head, cfg.n_heads, cfg.n_kv_heads, cfg.attn_bias
        self.q = nn.Linear(d, h * e, bias="q" in bias)
        self.k = nn.Linear(d, g * e, bias="k" in bias)
        self.v = nn.Linear(d, g * e, bias="v" in bias)
        self.o = nn.Linear(h * e, d, bias="o" in bias)
        self.scale = cfg.attn_scale if cfg.attn_scale is not None else e**-0.5
        self.hook_q, self.hook_k, self.hook_v = f"{site}.hook_q", f"{site}.hook_k", f"{site}.hook_v"
        self.hook_z, self.hook_result = f"{site}.hook_z", f"{site}.hook_result"

    # TransformerLens's shapes, as views of the stored weights
    W_Q = property(lambda self: self.q.weight.unflatten(0, (self.cfg.n_heads, -1)).mT)  # [h, d, e]
    W_K = property(lambda self: self.k.weight.unflatten(0, (self.cfg.n_kv_heads, -1)).mT)  # [g, d, e]
    W_V = property(lambda self: self.v.weight.unflatten(0, (self.cfg.n_kv_heads, -1)).mT)  # [g, d, e]
    W_O = property(lambda self: self.o.weight.T.unflatten(0, (self.cfg.n_heads, -1)))  # [h, e, d]
    b_Q = property(lambda self: by_head(self.q, self.cfg.n_heads))  # [h, e]
    b_K = property(lambda self: by_head(self.k, self.cfg.n_kv_heads))  # [g, e]
    b_V = property(lambda self: by_head(self.v, self.cfg.n_kv_heads))  # [g, e]
    b_O = property(lambda self: by_head(self.o, 1)[0])  # [d]

    def projected(
        self, inputs: Streams, taps: AnyTaps
    ) -> tuple[Float[Tensor, "b p h e"], Float[Tensor, "b p g e"], Float[Tensor, "b p g x"]]:
        """Queries, keys and values of one stream, or of one per head."""
        h, g = self.cfg.n_heads, self.cfg.n_kv_heads
        q, k, v = project(inputs, (self.q, self.k, self.v), (h, g, g))
        return taps(self.hook_q, q), taps(self.hook_k, k), taps(self.hook_v, v)

    def matched(
        self, inputs: Streams, taps: AnyTaps
    ) -> tuple[Float[Tensor, "b h p e"], Float[Tensor, "b h p e"], Float[Tensor, "b h p x"]]:
        """The same with heads in front, keys and values repeated for the query heads that share them."""
        q, k, v = (x.transpose(1, 2) for x in self.projected(inputs, taps))
        if k.shape[1] != q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        return q, k, v

    def written(self, z: Float[Tensor, "b p h x"], taps: AnyTaps) -> Float[Tensor, "b p d"]:
        """What mixed values add to the stream; head by head where that is looked at."""
        return self.summed(taps(self.hook_z, z), taps)

    def summed(self, z: Float[Tensor, "b p h x"], taps: AnyTaps) -> Float[Tensor, "b p d"]:
        """z W_O, summed over heads, and the bias."""
        if taps.wants(self.hook_result):
            if not taps.alters(self.hook_result):
                taps(self.hook_result, self.per_head(z))
            else:
                result = taps(self.hook_result, self.per_head(z)).sum(2)
                return result if self.o.bias is None else result + self.o.bias
        return self.o(z.flatten(2))

    def per_head(self, z: Float[Tensor, "b p h x"]) -> Float[Tensor, "b p h d"]:
        """Each head's contribution to the output: z W_O, without bias."""
        return torch.einsum("bphe,hed->bphd", z, self.W_O)


def project(
    inputs: Streams, linears: tuple[nn.Linear, nn.Linear, nn.Linear], heads: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """One stream, or one per head and projection, through three linear maps, head by head, [b p h e]."""
    if not isinstance(inputs, tuple):
        inputs = (inputs, inputs, inputs)
    q, k, v = (_projected(x, linear, n) for x, linear, n in zip(inputs, linears, heads, strict=True))
    return q, k, v


def placed(inputs: Streams, where: Float[Tensor, "b p d"] | None) -> Streams:
    """What queries, keys and values read, where positions are added for the first two."""
    if where is None:
        return inputs
    q, k, v = inputs if isinstance(inputs, tuple) else (inputs, inputs, inputs)
    if q is k:
        q = k = q + where
        return q, k, v
    return q + where[:, :, None], k + where[:, :, None], v


def by_head(linear: nn.Linear, heads: int) -> Float[Tensor, "h x"]:
    """The bias of a map, head by head; zeros where there is none."""
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
    return bias.unflatten(0, (heads, -1))


def _projected(x: Float[Tensor, "b p *h d"], linear: nn.Linear, heads: int) -> Float[Tensor, "b p h e"]:
    if x.ndim == 3:
        return linear(x).unflatten(-1, (heads, -1))
    y = torch.einsum("bphd,hed->bphe", x, linear.weight.unflatten(0, (heads, -1)))
    return y if linear.bias is None else y + linear.bias.unflatten(0, y.shape[2:])
