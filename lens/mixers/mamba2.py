"""Mamba-2's state spaces, one per head (Dao & Gu 2024, arXiv 2405.21060, §6 and §7).

1. Each position is projected to a gate, to x, B and C, which pass a short causal convolution and an activation
   function, and to a step size per head, Δ = softplus(dt + dt_bias).
2. A head's state: h[t] = exp(Δ a) h[t-1] + Δ x Bᵀ with a = -exp(A_log), one number. Heads of a group share B and C.
3. y = h C + D x; y · silu(gate) is normalised group by group and projected back.

Over a chunk of positions the same is masked attention (§3.2): y = P x, where P[t, s] = C[t]·B[s] exp(Σ Δ a) Δ[s], the
sum over s < r ≤ t, and what the state of the chunk before adds. Chunks follow one another; where writes or
states are tapped, positions do.

Letters: b batch, p position, k position of the same chunk, d d_model, c channel of the convolution, h head, e d_head,
g group, n d_state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from lens.config import MixerConfig, StackConfig
from lens.frame import Frame
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.mlp import ACTIVATIONS
from lens.norm import upcast
from lens.recurrent import CausalConv, Weight, first_steps, real
from lens.taps import OFF, AnyTaps
from lens.vocabulary import Kind

CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Mamba2(MixerConfig):
    """Sizes of one layer, beside the heads: groups that share B and C, state, width of the convolution.

    Step sizes lie between `dt_min` and `dt_max` (None: any).
    """

    d_state: int
    n_groups: int
    conv_width: int
    act_fn: str = "silu"
    bias: bool = False
    conv_bias: bool = True
    dt_min: float = 0.0
    dt_max: float | None = None
    norm_eps: float = 1e-5
    kind: Literal["mamba2"] = "mamba2"
    endless: ClassVar[bool] = True


class StateSpaceDual(nn.Module):
    """State spaces with one decay per head, in chunks or position by position."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__()
        m = cfg.mixer
        assert isinstance(m, Mamba2)
        self.cfg, self.layer, self.act = m, layer, ACTIVATIONS[m.act_fn]
        self.n_heads, self.d_head, self.d_inner = cfg.n_heads, cfg.d_head, cfg.n_heads * cfg.d_head
        self.widths = [self.d_inner, m.n_groups * m.d_state, m.n_groups * m.d_state]
        self.in_proj = nn.Linear(cfg.d_model, self.d_inner + sum(self.widths) + cfg.n_heads, bias=m.bias)
        self.conv = CausalConv(sum(self.widths), m.conv_width, m.conv_bias)
        self.dt_bias, self.A_log, self.D = Weight(cfg.n_heads), Weight(cfg.n_heads), Weight(cfg.n_heads)
        self.norm = Weight(self.d_inner)
        self.out_proj = nn.Linear(self.d_inner, cfg.d_model, bias=m.bias)
        self.hook_in_proj, self.hook_conv = f"{site}.hook_in_proj", f"{site}.hook_conv"
        self.hook_x, self.hook_dt = f"{site}.hook_x", f"{site}.hook_dt"
        self.hook_B, self.hook_C = f"{site}.hook_B", f"{site}.hook_C"
        self.hook_write, self.hook_state = f"{site}.hook_ssm_write", f"{site}.hook_ssm_state"
        self.hook_pattern, self.hook_y = f"{site}.hook_pattern", f"{site}.hook_y"
        self.hook_gate, self.hook_scale = f"{site}.hook_gate", f"{site}.hook_scale"
        self.hook_normalized = f"{site}.hook_normalized"

    def forward(
        self,
        inputs: Float[Tensor, "b p d"],
        frame: Frame,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream."""
        m, rows = self.cfg, len(inputs)
        whole = taps(self.hook_in_proj, self.in_proj(inputs))
        gate, xbc, dt = whole.split([self.d_inner, sum(self.widths), self.n_heads], -1)
        before = None if past is None else past.recall(self.layer, "conv", rows)
        xbc, last = self.conv(xbc, before, frame)
        x, b, c = self.act(taps(self.hook_conv, xbc)).split(self.widths, -1)
        x = taps(self.hook_x, x.unflatten(-1, (self.n_heads, -1)))
        dt = F.softplus(upcast(dt + self.dt_bias.weight)).clamp(m.dt_min, m.dt_max)
        dt = taps(self.hook_dt, dt)
        b, c = (taps(s, y.unflatten(-1, (m.n_groups, -1))) for s, y in ((self.hook_B, b), (self.hook_C, c)))
        valid = real(frame)
        dt = dt if valid is None else dt * valid[:, :, None]  # at padding the state stands still
        state = None if past is None else past.recall(self.layer, "state", rows)
        y, state = self.scan(upcast(x), dt, self._by_head(b), self._by_head(c), state, taps)
        if past is not None:
            past.keep(self.layer, conv=last, state=state)
        y = taps(self.hook_y, y + upcast(x) * upcast(self.D.weight)[:, None])
        return self.out_proj(self.gated(y.flatten(2), gate, taps).to(inputs.dtype))

    def scan(
        self,
        x: Float[Tensor, "b p h e"],
        dt: Float[Tensor, "b p h"],
        b: Float[Tensor, "b p h n"],
        c: Float[Tensor, "b p h n"],
        state: Float[Tensor, "b h e n"] | None,
        taps: AnyTaps = OFF,
    ) -> tuple[Float[Tensor, "b p h e"], Float[Tensor, "b h e n"]]:
        """What every position reads, and the state after the last."""
        fade, dx = dt * -torch.exp(upcast(self.A_log.weight)), dt[..., None] * x
        if state is None:
            state = x.new_zeros(len(x), self.n_heads, self.d_head, self.cfg.d_state)
        if taps.wants(self.hook_write, self.hook_state):
            y, state = self.stepwise(dx, fade, b, c, state, taps)
        else:
            y, state = chunked(dx, fade, b, c, state)
        if taps.wants(self.hook_pattern):
            found = pattern(fade, b, c) * dt.transpose(1, 2)[:, :, None]
            edited = taps(self.hook_pattern, found)
            if taps.alters(self.hook_pattern):
                y = y + torch.einsum("bhpk,bkhe->bphe", edited - found, x)
        return y, state

    def stepwise(
        self,
        dx: Float[Tensor, "b p h e"],
        fade: Float[Tensor, "b p h"],
        b: Float[Tensor, "b p h n"],
        c: Float[Tensor, "b p h n"],
        state: Float[Tensor, "b h e n"],
        taps: AnyTaps = OFF,
    ) -> tuple[Float[Tensor, "b p h e"], Float[Tensor, "b h e n"]]:
        """The recurrence, whose writes and states can be read and edited."""
        writes = taps(self.hook_write, dx[..., None] * b[:, :, :, None])
        keep, states = torch.exp(fade)[..., None, None], []
        for t in range(dx.shape[1]):
            state = keep[:, t] * state + writes[:, t]
            states.append(state)
        seen = taps(self.hook_state, torch.stack(states, 1))
        return torch.einsum("bphen,bphn->bphe", seen, c), state

    def gated(
        self, y: Float[Tensor, "b p c"], gate: Float[Tensor, "b p c"], taps: AnyTaps
    ) -> Float[Tensor, "b p c"]:
        """y · silu(gate), divided by its root mean square in each group."""
        y = y * taps(self.hook_gate, F.silu(upcast(gate)))
        groups = y.unflatten(-1, (self.cfg.n_groups, -1))
        scale = taps(self.hook_scale, (groups.square().mean(-1, keepdim=True) + self.cfg.norm_eps).sqrt())
        return taps(self.hook_normalized, (groups / scale).flatten(2)) * self.norm.weight

    def _by_head(self, x: Float[Tensor, "b p g n"]) -> Float[Tensor, "b p h n"]:
        return upcast(x).repeat_interleave(self.n_heads // self.cfg.n_groups, 2)


def pattern(
    fade: Float[Tensor, "b p h"], b: Float[Tensor, "b k h n"], c: Float[Tensor, "b p h n"]
) -> Float[Tensor, "b h p k"]:
    """How much of what each position wrote another one reads: C[t]·B[s] times all that faded after s, up to t."""
    n = fade.shape[1]
    later = torch.ones(n, n, dtype=torch.bool, device=fade.device).tril(-1)
    sums = fade.transpose(1, 2)[..., None].expand(-1, -1, -1, n).masked_fill(~later, 0).cumsum(2)
    seen = torch.ones_like(later).tril()
    return torch.einsum("bphn,bkhn->bhpk", c, b) * sums.masked_fill(~seen, -torch.inf).exp()


def chunked(
    dx: Float[Tensor, "b p h e"],
    fade: Float[Tensor, "b p h"],
    b: Float[Tensor, "b p h n"],
    c: Float[Tensor, "b p h n"],
    state: Float[Tensor, "b h e n"],
    size: int = CHUNK,
) -> tuple[Float[Tensor, "b p h e"], Float[Tensor, "b h e n"]]:
    """Chunk after chunk: the same as the recurrence."""
    ys = list[Tensor]()
    for start in range(0, dx.shape[1], size):
        here = slice(start, start + size)
        y, state = chunk(dx[:, here], fade[:, here], b[:, here], c[:, here], state)
        ys.append(y)
    return torch.cat(ys, 1), state


def chunk(
    dx: Float[Tensor, "b p h e"],
    fade: Float[Tensor, "b p h"],
    b: Float[Tensor, "b p h n"],
    c: Float[Tensor, "b p h n"],
    state: Float[Tensor, "b h e n"],
) -> tuple[Float[Tensor, "b p h e"], Float[Tensor, "b h e n"]]:
    """What the positions of one chunk read of each other and of the state before it, and the state after it."""
    faded = fade.cumsum(1)
    y = torch.einsum("bhpk,bkhe->bphe", pattern(fade, b, c), dx)
    y = y + torch.einsum("bphn,bhen->bphe", c, state) * faded.exp()[..., None]
    left = (faded[:, -1:] - faded).exp()[..., None]
    after = torch.einsum("bphe,bphn->bhen", dx * left, b)
    return y, state * faded[:, -1].exp()[..., None, None] + after


def initial(c: StackConfig, layer: int, generator: Generator) -> Mapping[str, Tensor]:
    """Decays 1 to the number of heads, small steps, and x itself passed on."""
    decays = torch.arange(1.0, c.n_heads + 1)
    return {"A_log.weight": decays.log(), "dt_bias.weight": first_steps(c.n_heads, generator)}


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, Mamba2)
    groups = f" in {m.n_groups} groups" if m.n_groups > 1 else ""
    return (
        f"Mamba-2: {c.n_heads} heads of {c.d_head}{groups} with a state of {m.d_state} per dimension, behind a "
        f"convolution over {m.conv_width} positions; a gate and a norm"
    )


BY_HEAD, DIRECTION, STATE = (
    "batch pos head d_head",
    "batch pos group d_state",
    "batch pos head d_head d_state",
)

MIXER = Mixer(
    "mamba2",
    Mamba2,
    StateSpaceDual,
    kinds=(
        Kind("mixer.hook_in_proj", "batch pos d_in_proj", "gate, x, B, C and dt side by side"),
        Kind(
            "mixer.hook_conv",
            "batch pos d_inner+2*group*d_state",
            "x, B and C after the convolution, before their activation function",
        ),
        Kind("mixer.hook_x", BY_HEAD, "x as the state spaces read it"),
        Kind("mixer.hook_dt", "batch pos head", "step sizes Δ: how far each head forgets and writes"),
        Kind("mixer.hook_B", DIRECTION, "where in the state is written"),
        Kind("mixer.hook_C", DIRECTION, "where in the state is read"),
        Kind(
            "mixer.hook_ssm_write",
            STATE,
            "what each position adds to the state, Δ x Bᵀ; edits act on all later states",
            extra=True,
        ),
        Kind(
            "mixer.hook_ssm_state",
            STATE,
            "the state after each position; edits act on what that position reads",
            extra=True,
        ),
        Kind(
            "mixer.hook_pattern",
            "batch head pos pos",
            "how much of each position's x another one reads; rows do not sum to one, and new positions alone count",
            extra=True,
        ),
        Kind("mixer.hook_y", BY_HEAD, "what is read from the state, and D x, before the gate"),
        Kind("mixer.hook_gate", "batch pos d_inner", "the gate, after its activation function"),
        Kind("mixer.hook_scale", "batch pos group 1", "what the norm behind the gate divides by"),
        Kind("mixer.hook_normalized", "batch pos d_inner", "normalised, before gain"),
    ),
    words=words,
    initial=initial,
)
