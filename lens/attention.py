"""Multi-head attention ("Attention Is All You Need", arXiv 1706.03762, §3.2), with grouped queries.

Letters: b batch, p query position, k key position, h head, g key/value head, r = h / g query heads per kv head,
d d_model, e d_head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lens import rotary
from lens.config import StackConfig
from lens.encoded import Encoded
from lens.frame import Frame
from lens.heads import Heads, Streams, placed, project
from lens.kv import KeyValues
from lens.norm import Norm
from lens.relative import BucketTable, DistanceTable
from lens.taps import OFF, AnyTaps

Relative = BucketTable | DistanceTable | None
Seers = tuple[Tensor, Tensor, Tensor]


class Attention(Heads):
    """softmax(q kᵀ · scale) v, one pattern per head.

    Untapped it is one fused kernel. Scores and pattern are materialised where tapped (or where scores are
    capped); per-head results only where tapped.
    """

    def __init__(self, site: str, cfg: StackConfig, layer: int, relative: Relative = None) -> None:
        super().__init__(site, cfg)
        self.layer = layer
        d, e, h, g = cfg.d_model, cfg.d_head, cfg.n_heads, cfg.n_kv_heads
        self.rotary, self.window = cfg.rotary_at(layer), cfg.window(layer)
        if cfg.qk_norm:
            widths = (e, e) if cfg.qk_norm == "head" else (h * e, g * e)
            self.q_norm = Norm(f"{site}.q_norm", widths[0], cfg.norm, cfg.norm_eps, cfg.norm_unit_offset)
            self.k_norm = Norm(f"{site}.k_norm", widths[1], cfg.norm, cfg.norm_eps, cfg.norm_unit_offset)
        self._relative = (relative,)  # the stack's, so not a part of this module
        for term in cfg.own_terms:
            setattr(self, f"pos_{term}", nn.Linear(d, h * e))
        if cfg.global_tokens:
            self.q_global, self.k_global, self.v_global = (nn.Linear(d, h * e) for _ in range(3))
        self.hook_rot_q, self.hook_rot_k = f"{site}.hook_rot_q", f"{site}.hook_rot_k"
        self.hook_q_global, self.hook_k_global = f"{site}.hook_q_global", f"{site}.hook_k_global"
        self.hook_v_global, self.hook_pos_scores = f"{site}.hook_v_global", f"{site}.hook_pos_scores"
        self.hook_attn_scores, self.hook_pattern = f"{site}.hook_attn_scores", f"{site}.hook_pattern"

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
        bias = None if self.cfg.relative is None else self.position_scores(q, k, frame, taps)
        seers = None if frame.global_tokens is None else self.seers(inputs, taps)
        return self.mix(q, k, v, frame, taps, bias, seers)

    def across(
        self,
        x: Float[Tensor, "b p d"],
        encoded: Encoded,
        taps: AnyTaps = OFF,
        keep: bool = False,
        where: Float[Tensor, "b2 p d"] | None = None,
    ) -> Float[Tensor, "b p d"]:
        """Cross-attention: queries of the stream x, keys and values of what the encoder made.

        With `keep`, keys and values are kept there for runs that continue this one. `where` is added to what queries
        read.
        """
        e = self.cfg.d_head
        q = taps(self.hook_q, self.q(x if where is None else x + where).unflatten(-1, (-1, e))).transpose(
            1, 2
        )
        found = encoded.kept.get(self.layer)
        if found is None or taps.wants(self.hook_k, self.hook_v):
            read = encoded.stream if encoded.where is None else encoded.stream + encoded.where
            k = taps(self.hook_k, self.k(read).unflatten(-1, (-1, e)))
            v = taps(self.hook_v, self.v(encoded.stream).unflatten(-1, (-1, e)))
            found = (k, v)
            if keep:
                encoded.kept[self.layer] = found
        k, v = (x.transpose(1, 2) for x in found)
        return self.mix(q, k, v, encoded, taps)

    def mix(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b g k e"],
        v: Float[Tensor, "b g k e"],
        frame: Frame | Encoded,
        taps: AnyTaps,
        bias: Float[Tensor, "b2 h p k"] | None = None,
        seers: Seers | None = None,
    ) -> Float[Tensor, "b p d"]:
        """Values mixed by the pattern, and what that adds to the stream."""
        if self.cfg.attn_softcap or taps.wants(self.hook_attn_scores, self.hook_pattern):
            z = self.explicit(q, k, v, frame, taps, bias, seers)
        else:
            z = self.fused(q, k, v, frame, bias, seers)
        return self.written(z.transpose(1, 2), taps)

    def project(
        self, inputs: Streams, frame: Frame, taps: AnyTaps
    ) -> tuple[Float[Tensor, "b p h e"], Float[Tensor, "b p g e"], Float[Tensor, "b p g e"]]:
        """Queries, keys and values as attention uses them: normed and rotated."""
        c, e = self.cfg, self.cfg.d_head
        q, k, v = self.projected(placed(inputs, frame.where), taps)
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

    def position_scores(
        self, q: Float[Tensor, "b h p e"], k: Float[Tensor, "b h k e"], frame: Frame, taps: AnyTaps
    ) -> Float[Tensor, "b2 h p k"]:
        """What the distances between positions add to the scores."""
        relative = self._relative[0]
        if isinstance(relative, DistanceTable):
            of_content = "" if relative.cfg.shared else "pos_"
            maps = {term: getattr(self, f"{of_content}{term}") for term in relative.cfg.terms}
            bias = relative.scores(q, k, maps.get("q"), maps.get("k"), frame) * self.scale
        else:
            assert relative is not None
            bias = relative.bias(frame)
        if taps.wants(self.hook_pos_scores):
            bias = taps(self.hook_pos_scores, bias.expand(q.shape[0], -1, -1, -1))
        return bias

    def seers(self, inputs: Streams, taps: AnyTaps) -> Seers:
        """Queries, keys and values of the tokens that see everything, [b h p e]."""
        h, maps = self.cfg.n_heads, (self.q_global, self.k_global, self.v_global)
        found = project(inputs, maps, (h, h, h))
        sites = (self.hook_q_global, self.hook_k_global, self.hook_v_global)
        q, k, v = (taps(site, x).transpose(1, 2) for site, x in zip(sites, found, strict=True))
        return q, k, v

    def fused(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b g k e"],
        v: Float[Tensor, "b g k e"],
        frame: Frame | Encoded,
        bias: Float[Tensor, "b2 h p k"] | None = None,
        seers: Seers | None = None,
    ) -> Float[Tensor, "b h p e"]:
        """One kernel; scores and pattern never exist."""
        triangle = frame.plainly_causal(self.window) and bias is None
        mask = None if triangle else frame.mask(self.window)
        if bias is not None:
            mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        z = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=triangle, scale=self.scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        if seers is None:
            return z
        of_seers = F.scaled_dot_product_attention(*seers, attn_mask=mask, scale=self.scale)
        return torch.where(_rows(frame), of_seers, z)

    def explicit(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b g k e"],
        v: Float[Tensor, "b g k e"],
        frame: Frame | Encoded,
        taps: AnyTaps,
        bias: Float[Tensor, "b2 h p k"] | None = None,
        seers: Seers | None = None,
    ) -> Float[Tensor, "b h p e"]:
        """The same in steps that can be read and edited."""
        g = k.shape[1]
        scores = _grouped(q * self.scale, k.mT, g)
        if seers is not None:
            scores = torch.where(_rows(frame), (seers[0] * self.scale) @ seers[1].mT, scores)
        if self.cfg.attn_softcap:
            scores = torch.tanh(scores / self.cfg.attn_softcap) * self.cfg.attn_softcap
        if bias is not None:
            scores = scores + bias
        mask = frame.mask(self.window)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        scores = taps(self.hook_attn_scores, scores)
        pattern = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(q.dtype)
        pattern = taps(self.hook_pattern, pattern)
        z = _grouped(pattern, v, g)
        return z if seers is None else torch.where(_rows(frame), pattern @ seers[2], z)


def _grouped(a: Float[Tensor, "b h p x"], b: Float[Tensor, "b g x y"], g: int) -> Float[Tensor, "b h p y"]:
    """a @ b where r = h / g consecutive heads of `a` share each head of `b`, without repeating `b`."""
    if a.shape[1] == g:
        return a @ b
    p = a.shape[2]
    return (a.reshape(a.shape[0], g, -1, a.shape[3]) @ b).reshape(a.shape[0], -1, p, b.shape[3])


def _rows(frame: Frame | Encoded) -> Bool[Tensor, "b 1 p 1"]:
    """True at the queries that see everything."""
    assert isinstance(frame, Frame) and frame.global_tokens is not None
    return frame.global_tokens[:, None, frame.past :, None]
