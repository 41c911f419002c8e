"""Attention whose weights are products of positive features of queries and keys, normalised to sum to one.

    z[p] = Σ_k w[p, k] v[k],   w[p, k] = φ(q[p]) · φ(k[k]) / Σ_j φ(q[p]) · φ(k[j])

Sums over keys are made once and for all queries (Katharopoulos et al. 2020, arXiv 2006.16236, §3.2), so the cost grows
with the length of a text and not with its square; patterns are made where they are tapped.

Letters: b batch, p position, k key position, h head, g key/value head, r = h / g, d d_model, e d_head, f features,
x = e + 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lens.config import StackConfig
from lens.frame import Frame
from lens.heads import Heads, Streams
from lens.kv import KeyValues
from lens.mixers._faded_sums import NOTHING, State, after, beginning, in_chunks, of_state, tops, weights
from lens.norm import upcast
from lens.recurrent import real
from lens.taps import OFF, AnyTaps
from lens.vocabulary import PATTERN, RESULT, K, Kind, Q, V, Z


class KernelAttention(Heads):
    """Causal or in both directions. `features` says what φ is; values carry a 1, whose sum is the normaliser."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__(site, cfg)
        self.layer = layer
        self.hook_phi_q, self.hook_phi_k = f"{site}.hook_phi_q", f"{site}.hook_phi_k"
        self.hook_pattern = f"{site}.hook_pattern"

    def features(
        self, x: Float[Tensor, "b p h e"]
    ) -> tuple[Float[Tensor, "b p h f"], Float[Tensor, "b p h"]]:
        """Positive features of queries or keys, and the logarithm of what they were divided by."""
        raise NotImplementedError

    def forward(
        self, inputs: Streams, frame: Frame, taps: AnyTaps = OFF, past: KeyValues | None = None
    ) -> Float[Tensor, "b p d"]:
        """`inputs` is one normalised stream, or one per head for q [b p h d], k and v [b p g d]."""
        q, k, v = self.projected(inputs, taps)
        phi_q, phi_k, level = self.features(upcast(q))[0], *self.features(upcast(k))
        phi_q, phi_k = taps(self.hook_phi_q, phi_q), taps(self.hook_phi_k, phi_k)
        valid = real(frame)
        if valid is not None:
            phi_k = phi_k * valid[:, :, None, None]
            level = level.masked_fill(~valid[:, :, None], NOTHING)
        phi_q = phi_q.transpose(1, 2).unflatten(1, (self.cfg.n_kv_heads, -1))
        phi_k, level, ones = phi_k.transpose(1, 2), level.transpose(1, 2), torch.ones_like(v[..., :1])
        one_v = upcast(torch.cat([v, ones], -1)).transpose(1, 2)
        z = self.mix(phi_q, phi_k, one_v, level, taps, past)
        return self.written(z.flatten(1, 2).transpose(1, 2).to(v.dtype), taps)

    def mix(
        self,
        q: Float[Tensor, "b g r p f"],
        k: Float[Tensor, "b g p f"],
        v: Float[Tensor, "b g p x"],
        level: Float[Tensor, "b g p"],
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b g r p e"]:
        """Values mixed; by a pattern where that is looked at."""
        explicit = taps.wants(self.hook_pattern)
        if not self.cfg.causal:
            top = level.amax(-1, keepdim=True).detach()
            k = k * (level - top).exp()[..., None]
            if explicit:
                return self.patterned(q @ k[:, :, None].mT, None, v, taps)
            return _normalised(q @ (k.mT @ v)[:, :, None])
        state = self.recalled(past, len(q)) or beginning(q, v, NOTHING)
        if explicit:
            top = tops(level, state.top)
            z = self.patterned(weights(q, k, level, top), of_state(q, state, top), v, taps)
            state = after(k, v, level, top, state)
        else:
            y, state = in_chunks(q, k, v, level, state)
            z = _normalised(y)
        if past is not None:
            past.keep(self.layer, sums=state.sums, top=state.top)
        return z

    def patterned(
        self,
        scores: Float[Tensor, "b g r p k"],
        before: Float[Tensor, "b g r p x"] | None,
        v: Float[Tensor, "b g k x"],
        taps: AnyTaps,
    ) -> Float[Tensor, "b g r p e"]:
        """The same through weights that can be read and edited; `before` is what earlier runs' keys add."""
        total = scores.sum(-1, keepdim=True) + (0 if before is None else before[..., -1:])
        total = _not_zero(total)
        pattern = taps(self.hook_pattern, (scores / total).flatten(1, 2)).unflatten(1, scores.shape[1:3])
        z = pattern @ v[:, :, None, :, :-1]
        return z if before is None else z + before[..., :-1] / total

    def recalled(self, past: KeyValues | None, rows: int) -> State | None:
        """What the runs so far left."""
        sums = None if past is None else past.recall(self.layer, "sums", rows)
        top = None if past is None else past.recall(self.layer, "top", rows)
        return None if sums is None or top is None else State(sums, top)


def _normalised(y: Float[Tensor, "b g r p x"]) -> Float[Tensor, "b g r p e"]:
    return y[..., :-1] / _not_zero(y[..., -1:])


def _not_zero(total: Tensor) -> Tensor:
    """Padding in front of a text sees no keys; what it mixes is zero."""
    return torch.where(total == 0, 1.0, total)


def heads(c: StackConfig) -> str:
    """The heads in words."""
    shared = "" if c.n_kv_heads == c.n_heads else f" sharing {c.n_kv_heads} key/value heads"
    return f"{c.n_heads} heads of {c.d_head}{shared}{', causal' if c.causal else ', in both directions'}"


def kinds(features: str) -> tuple[Kind, ...]:
    """The sites, given what features are in words."""
    of = f"features of {{}}: {features}"
    meaning = "weights of values; with what fell on keys of earlier runs (`past`), each row sums to one"
    return (
        Kind(Q.suffix, Q.shape, "queries"),
        Kind(K.suffix, K.shape, "keys"),
        V,
        Kind("attn.hook_phi_q", "batch pos head feature", of.format("queries")),
        Kind("attn.hook_phi_k", "batch pos kv feature", of.format("keys")),
        Kind(PATTERN.suffix, PATTERN.shape, meaning, extra=True),
        Z,
        RESULT,
    )
