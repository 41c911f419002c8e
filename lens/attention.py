"""Multi-head attention ("Attention Is All You Need", arXiv 1706.03762, §3.2), with grouped queries.

Letters: b batch, p query position, k key position, h head, g key/value head, r = h / g query heads per kv head,
d d_model, e d_head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens import rotary
from lens.config import StackConfig
from lens.frame import Frame
from lens.kv import KeyValues
from lens.norm import Norm
from lens.taps import OFF, AnyTaps


class Attention(nn.Module):
    """softmax(q kᵀ · scale) v, one pattern per head.

    Untapped it is one fused kernel. Scores and pattern are materialised where tapped (or where scores are
    capped); per-head results only where tapped.
    """

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__()
        self.cfg, self.layer = cfg, layer
        d, e, h, g, bias = cfg.d_model, cfg.d_head, cfg.n_heads, cfg.n_kv_heads, cfg.attn_bias
        self.q = nn.Linear(d, h * e, bias="q" in bias)
        self.k = nn.Linear(d, g * e, bias="k" in bias)
        self.v = nn.Linear(d, g * e, bias="v" in bias)
        self.o = nn.Linear(h * e, d, bias="o" in bias)
        self.rotary, self.window = cfg.rotary_at(layer), cfg.window(layer)
        self.scale = cfg.attn_scale if cfg.attn_scale is not None else e**-0.5
        if cfg.qk_norm:
            widths = (e, e) if cfg.qk_norm == "head" else (h * e, g * e)
            self.q_norm = Norm(f"{site}.q_norm", widths[0], cfg.norm, cfg.norm_eps, cfg.norm_unit_offset)
            self.k_norm = Norm(f"{site}.k_norm", widths[1], cfg.norm, cfg.norm_eps, cfg.norm_unit_offset)
        self.hook_q, self.hook_k, self.hook_v = f"{site}.hook_q", f"{site}.hook_k", f"{site}.hook_v"
        self.hook_rot_q, self.hook_rot_k = f"{site}.hook_rot_q", f"{site}.hook_rot_k"
        self.hook_attn_scores, self.hook_pattern = f"{site}.hook_attn_scores", f"{site}.hook_pattern"
        self.hook_z, self.hook_result = f"{site}.hook_z", f"{site}.hook_result"

    # TransformerLens's shapes, as views of the stored weights
    W_Q = property(lambda self: self.q.weight.unflatten(0, (self.cfg.n_heads, -1)).mT)  # [h, d, e]
    W_K = property(lambda self: self.k.weight.unflatten(0, (self.cfg.n_kv_heads, -1)).mT)  # [g, d, e]
    W_V = property(lambda self: self.v.weight.unflatten(0, (self.cfg.n_kv_heads, -1)).mT)  # [g, d, e]
    W_O = property(lambda self: self.o.weight.T.unflatten(0, (self.cfg.n_heads, -1)))  # [h, e, d]
    b_Q = property(lambda self: _bias(self.q, self.cfg.n_heads))  # [h, e]
    b_K = property(lambda self: _bias(self.k, self.cfg.n_kv_heads))  # [g, e]
    b_V = property(lambda self: _bias(self.v, self.cfg.n_kv_heads))  # [g, e]
    b_O = property(lambda self: _bias(self.o, 1)[0])  # [d]

    def forward(
        self,
        inputs: Float[Tensor, "b p d"] | tuple[Tensor, Tensor, Tensor],
        frame: Frame,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """`inputs` is one normalised stream, or one per head for q [b p h d], k and v [b p g d]."""
        q, k, v = self.project(inputs, frame, taps)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if past is not None:
            k, v = past.join(self.layer, k, v)
        if self.cfg.attn_softcap or taps.wants(self.hook_attn_scores, self.hook_pattern):
            z = self.explicit(q, k, v, frame, taps)
        else:
            z = self.fused(q, k, v, frame)
        z = taps(self.hook_z, z.transpose(1, 2))
        if taps.wants(self.hook_result):
            if not taps.alters(self.hook_result):
                taps(self.hook_result, self.per_head(z))
            else:
                result = taps(self.hook_result, self.per_head(z)).sum(2)
                return result if self.o.bias is None else result + self.o.bias
        return self.o(z.flatten(2))

    def per_head(self, z: Float[Tensor, "b p h e"]) -> Float[Tensor, "b p h d"]:
        """Each head's contribution to the output: z W_O, without bias."""
        return torch.einsum("bphe,hed->bphd", z, self.W_O)

    def project(
        self, inputs: Tensor | tuple[Tensor, Tensor, Tensor], frame: Frame, taps: AnyTaps
    ) -> tuple[Float[Tensor, "b p h e"], Float[Tensor, "b p g e"], Float[Tensor, "b p g e"]]:
        """Queries, keys and values as attention uses them: normed and rotated."""
        c, e = self.cfg, self.cfg.d_head
        if isinstance(inputs, tuple):
            weights = ((self.q, self.W_Q), (self.k, self.W_K), (self.v, self.W_V))
            q, k, v = (_per_head_linear(x, W, linear) for x, (linear, W) in zip(inputs, weights, strict=True))
        else:
            q, k, v = (linear(inputs).unflatten(-1, (-1, e)) for linear in (self.q, self.k, self.v))
        q, k, v = taps(self.hook_q, q), taps(self.hook_k, k), taps(self.hook_v, v)
        if c.qk_norm == "head":
            q, k = self.q_norm(q, taps), self.k_norm(k, taps)
        elif c.qk_norm == "all":
            q = self.q_norm(q.flatten(2), taps).unflatten(-1, (-1, e))
            k = self.k_norm(k.flatten(2), taps).unflatten(-1, (-1, e))
        if self.rotary is not None:
            cos, sin = frame.tables(self.rotary)
            q = taps(self.hook_rot_q, rotary.rotate(q, cos, sin, self.rotary.interleaved))
            k = taps(self.hook_rot_k, rotary.rotate(k, cos, sin, self.rotary.interleaved))
        elif c.rotary is not None:  # a layer without rotary among layers with it
            q, k = taps(self.hook_rot_q, q), taps(self.hook_rot_k, k)
        return q, k, v

    def fused(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b g k e"],
        v: Float[Tensor, "b g k e"],
        frame: Frame,
    ) -> Float[Tensor, "b h p e"]:
        """One kernel; scores and pattern never exist."""
        triangle = frame.plainly_causal(self.window)
        mask = None if triangle else frame.mask(self.window)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=triangle, scale=self.scale, enable_gqa=q.shape[1] != k.shape[1]
        )

    def explicit(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b g k e"],
        v: Float[Tensor, "b g k e"],
        frame: Frame,
        taps: AnyTaps,
    ) -> Float[Tensor, "b h p e"]:
        """The same in steps that can be read and edited."""
        g = k.shape[1]
        scores = _grouped(q * self.scale, k.mT, g)
        if self.cfg.attn_softcap:
            scores = torch.tanh(scores / self.cfg.attn_softcap) * self.cfg.attn_softcap
        mask = frame.mask(self.window)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        scores = taps(self.hook_attn_scores, scores)
        pattern = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(q.dtype)
        return _grouped(taps(self.hook_pattern, pattern), v, g)


def _grouped(a: Float[Tensor, "b h p x"], b: Float[Tensor, "b g x y"], g: int) -> Float[Tensor, "b h p y"]:
    """a @ b where r = h / g consecutive heads of `a` share each head of `b`, without repeating `b`."""
    if a.shape[1] == g:
        return a @ b
    p = a.shape[2]
    return (a.reshape(a.shape[0], g, -1, a.shape[3]) @ b).reshape(a.shape[0], -1, p, b.shape[3])


def _per_head_linear(
    x: Float[Tensor, "b p h d"], weight: Float[Tensor, "h d e"], linear: nn.Linear
) -> Float[Tensor, "b p h e"]:
    y = torch.einsum("bphd,hde->bphe", x, weight)
    return y if linear.bias is None else y + linear.bias.unflatten(0, y.shape[2:])


def _bias(linear: nn.Linear, heads: int) -> Tensor:
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
    return bias.unflatten(0, (heads, -1))
