"""RetNet's multi-scale retention (Sun et al. 2023, arXiv 2307.08621, §2.1-2.2).

1. Queries, keys and values of each head; queries and keys are rotated by their positions (xPos without its own decay,
   which is the next line).
2. A position's value counts q · k / √d_head times γ^distance at every later one (eq. 5); γ is the head's own, from
   1 - 1/32 on, each next one twice as near to 1 (eq. 8).
3. What a head read is normalised over its entries (the group norm, without gain or bias, which the output map has).
4. A gate, swish of another map of the stream, multiplies it; what is left is mapped back.

The parallel, recurrent and chunkwise forms are those of `_faded_sums`: the level of a position is -log γ times its
number. The score normalisations of §2.2 are left out: the group norm takes any factor of a row away.

Letters: b batch, p position, k key position, h head, d d_model, e d_head, x d_value, g = h key/value head,
r = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens import rotary
from lens.config import MixerConfig, StackConfig
from lens.frame import Frame
from lens.heads import Heads
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.mixers._faded_sums import State, after, beginning, in_chunks, of_state, tops, weights
from lens.norm import upcast
from lens.recurrent import real
from lens.taps import OFF, AnyTaps
from lens.vocabulary import PATTERN, RESULT, K, Kind, Q


@dataclass(frozen=True, kw_only=True)
class RetNet(MixerConfig):
    """Entries of each head's values (the paper has twice those of its keys), and what positions and norm are made with.

    `decays` gives γ of each head; None: the paper's.
    """

    d_value: int
    decays: tuple[float, ...] | None = None
    theta: float = 10_000.0
    norm_eps: float = 1e-5
    kind: Literal["retnet"] = "retnet"
    endless: ClassVar[bool] = True


class Retention(Heads):
    """Scores that fade with distance; there is no softmax."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__(site, cfg)
        m, h = cfg.mixer, cfg.n_heads
        assert isinstance(m, RetNet)
        check(cfg, m)
        self.m, self.layer = m, layer
        self.v = nn.Linear(cfg.d_model, h * m.d_value, bias="v" in cfg.attn_bias)
        self.gate = nn.Linear(cfg.d_model, h * m.d_value, bias=False)
        self.o = nn.Linear(h * m.d_value, cfg.d_model, bias="o" in cfg.attn_bias)
        decays = m.decays or tuple(1 - 2.0 ** (-5 - i) for i in range(h))
        self.rises = [-math.log(decay) for decay in decays]  # of the level, from a position to the next
        self.hook_rot_q, self.hook_rot_k = f"{site}.hook_rot_q", f"{site}.hook_rot_k"
        self.hook_pattern, self.hook_gate = f"{site}.hook_pattern", f"{site}.hook_gate"
        self.hook_scale = f"{site}.group_norm.hook_scale"
        self.hook_normalized = f"{site}.group_norm.hook_normalized"
        self.hook_gated = f"{site}.hook_gated"

    def forward(
        self,
        inputs: Float[Tensor, "b p d"],
        frame: Frame,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream."""
        q, k, v = self.projected(inputs, taps)
        cos, sin = frame.once(("xpos", self.m.theta), lambda: xpos(self.m.theta, self.cfg.d_head, frame))
        q = taps(self.hook_rot_q, rotary.rotate(q, cos, sin, interleaved=True))
        k = taps(self.hook_rot_k, rotary.rotate(k, cos, sin, interleaved=True))
        valid = real(frame)
        k = k if valid is None else k * valid[:, :, None, None]
        n = torch.arange(1, frame.n + 1, device=q.device) if valid is None else valid.cumsum(-1)
        level = n.to(upcast(q).dtype)[..., None] * upcast(q).new_tensor(self.rises)
        level = level.expand(len(q), -1, -1).transpose(1, 2)
        q, k, v = (upcast(x).transpose(1, 2) for x in (q * self.scale, k, v))
        z = self.retained(q[:, :, None], k, v, level, taps, past)[:, :, 0].transpose(1, 2)
        z = self.normalised(taps(self.hook_z, z), taps).to(inputs.dtype)
        gate = taps(self.hook_gate, F.silu(self.gate(inputs)).view_as(z))
        return self.summed(taps(self.hook_gated, gate * z), taps)

    def retained(
        self,
        q: Float[Tensor, "b g r p e"],
        k: Float[Tensor, "b g p e"],
        v: Float[Tensor, "b g p x"],
        level: Float[Tensor, "b g p"],
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b g r p x"]:
        """Values so far, faded, by each head. The level of what earlier runs left is zero."""
        left = None if past is None else past.recall(self.layer, "sums", len(q))
        state = beginning(q, v, 0.0)
        state = state if left is None else State(left, state.top)
        if taps.wants(self.hook_pattern):
            top = tops(level, state.top)
            pattern = taps(self.hook_pattern, weights(q, k, level, top)[:, :, 0])
            z = pattern[:, :, None] @ v[:, :, None] + of_state(q, state, top)
            state = after(k, v, level, top, state)
        else:
            z, state = in_chunks(q, k, v, level, state)
        if past is not None:
            past.keep(self.layer, sums=state.sums)
        return z

    def normalised(self, z: Float[Tensor, "b p h x"], taps: AnyTaps = OFF) -> Float[Tensor, "b p h x"]:
        """The group norm: each head by itself."""
        z = z - z.mean(-1, keepdim=True)
        scale = taps(self.hook_scale, (z.square().mean(-1, keepdim=True) + self.m.norm_eps).sqrt())
        return taps(self.hook_normalized, z / scale)


def xpos(theta: float, e: int, frame: Frame) -> tuple[Float[Tensor, "b p 1 e"], Float[Tensor, "b p 1 e"]]:
    """Cosines and sines of the new positions; pairs of entries turn at θ^(-2i / d_head) per position."""
    dtype = torch.promote_types(frame.dtype, torch.float32)
    speeds = theta ** (-torch.arange(0, e, 2, device=frame.device, dtype=dtype) / e)
    angles = (frame.positions.to(dtype)[..., None] * speeds).repeat_interleave(2, -1)[:, :, None]
    return angles.cos().to(frame.dtype), angles.sin().to(frame.dtype)


def check(c: StackConfig, m: RetNet) -> None:
    """Raise unless a stack of these sizes can retain.

    Raises:
        ValueError: it reads in both directions, has fewer heads of keys than of queries, or decays do not fit.
    """
    if not c.causal:
        raise ValueError("RetNet reads a text from its first token to its last: causal must be true")
    if c.n_kv_heads != c.n_heads:
        raise ValueError(f"RetNet has as many key/value heads as heads, {c.n_heads}; not {c.n_kv_heads}")
    if c.d_head % 2:
        raise ValueError(f"RetNet rotates pairs of entries: d_head must be even, not {c.d_head}")
    if m.decays is not None and (len(m.decays) != c.n_heads or not all(0 < x <= 1 for x in m.decays)):
        raise ValueError(f"RetNet's decays are {c.n_heads} numbers above 0 and up to 1, not {m.decays}")


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, RetNet)
    slow = f"1 - 1/{2 ** (4 + c.n_heads):,}"
    fade = f"from {min(m.decays):g} to {max(m.decays):g}" if m.decays else f"from 1 - 1/32 to {slow}"
    return (
        f"retention: {c.n_heads} heads of {c.d_head} with values of {m.d_value}, scores fade with distance ({fade} per "
        "position); rotary positions, a norm per head, a gate"
    )


VALUES = "batch pos head d_value"

MIXER = Mixer(
    "retnet",
    RetNet,
    Retention,
    kinds=(
        Kind(Q.suffix, Q.shape, "queries, before rotary positions"),
        Kind(K.suffix, K.shape, "keys, before rotary positions"),
        Kind("attn.hook_v", VALUES, "values"),
        Kind("attn.hook_rot_q", Q.shape, "queries after rotary positions"),
        Kind("attn.hook_rot_k", K.shape, "keys after rotary positions"),
        Kind(
            PATTERN.suffix,
            PATTERN.shape,
            "scaled scores, faded: what each value counts (any sign, not normalised); keys of this run alone",
            extra=True,
        ),
        Kind("attn.hook_z", VALUES, "values mixed by the pattern, before the norm"),
        Kind("attn.group_norm.hook_scale", "batch pos head 1", "what the norm of each head divides by"),
        Kind("attn.group_norm.hook_normalized", VALUES, "each head's mixed values, normalised"),
        Kind("attn.hook_gate", VALUES, "the gate, after its activation function"),
        Kind("attn.hook_gated", VALUES, "normalised values times the gate"),
        replace(RESULT, meaning="each head's own contribution: its gated values, times W_O"),
    ),
    words=words,
    path="attn",
)
