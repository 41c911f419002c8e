"""Mamba's selective state space (Gu & Dao 2023, arXiv 2312.00752, §3, algorithm 2).

1. Each position is projected to two branches of `d_inner` channels; one passes a short causal convolution and
   an activation function, and is x.
2. From x come a step size per channel, Δ = softplus(dt_proj(…)), and directions B and C of `d_state` entries.
3. A state per channel: h[t] = exp(Δ A) h[t-1] + Δ x B, with A = -exp(A_log).
4. y = C · h + D x, gated by the other branch, projected back.

Letters: b batch, p position, d d_model, c channel (d_inner), n d_state, j tokens that the convolution looks back.
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
from lens.norm import Norm, upcast
from lens.recurrent import CausalConv, Weight, first_steps, real
from lens.taps import OFF, AnyTaps
from lens.vocabulary import Kind, Where


@dataclass(frozen=True, kw_only=True)
class Mamba(MixerConfig):
    """Sizes of one layer: channels, state per channel, rank of the step sizes, width of the convolution.

    `norm_eps` is that of norms on what step sizes are made of, on B and on C (Jamba); None: there are none.
    """

    d_inner: int
    d_state: int
    dt_rank: int
    conv_width: int
    act_fn: str = "silu"
    bias: bool = False
    conv_bias: bool = True
    norm_eps: float | None = None
    kind: Literal["mamba"] = "mamba"
    endless: ClassVar[bool] = True


class SelectiveStateSpace(nn.Module):
    """The recurrence, step by step. States of all positions exist only where they are tapped."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__()
        m = cfg.mixer
        assert isinstance(m, Mamba)
        self.cfg, self.layer, self.act = m, layer, ACTIVATIONS[m.act_fn]
        self.in_proj = nn.Linear(cfg.d_model, 2 * m.d_inner, bias=m.bias)
        self.conv = CausalConv(m.d_inner, m.conv_width, m.conv_bias)
        self.x_proj = nn.Linear(m.d_inner, m.dt_rank + 2 * m.d_state, bias=False)
        self.dt_proj = nn.Linear(m.dt_rank, m.d_inner)
        self.A_log, self.D = Weight(m.d_inner, m.d_state), Weight(m.d_inner)
        self.out_proj = nn.Linear(m.d_inner, cfg.d_model, bias=m.bias)
        self.dt_norm = self.b_norm = self.c_norm = None
        if m.norm_eps is not None:
            self.dt_norm = Norm(f"{site}.dt_norm", m.dt_rank, "rms", m.norm_eps)
            self.b_norm = Norm(f"{site}.b_norm", m.d_state, "rms", m.norm_eps)
            self.c_norm = Norm(f"{site}.c_norm", m.d_state, "rms", m.norm_eps)
        self.hook_in_proj, self.hook_conv = f"{site}.hook_in_proj", f"{site}.hook_conv"
        self.hook_x, self.hook_dt = f"{site}.hook_x", f"{site}.hook_dt"
        self.hook_B, self.hook_C = f"{site}.hook_B", f"{site}.hook_C"
        self.hook_write, self.hook_state = f"{site}.hook_ssm_write", f"{site}.hook_ssm_state"
        self.hook_y, self.hook_gate = f"{site}.hook_y", f"{site}.hook_gate"

    def forward(
        self,
        inputs: Float[Tensor, "b p d"],
        frame: Frame,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream."""
        m, dtype = self.cfg, inputs.dtype
        branches = taps(self.hook_in_proj, self.in_proj(inputs))
        x, z = branches.chunk(2, -1)
        before = None if past is None else past.recall(self.layer, "conv", len(x))
        x, last = self.conv(x, before, frame)
        x = taps(self.hook_x, self.act(taps(self.hook_conv, x)))
        dt, b, c = self.x_proj(x).split([m.dt_rank, m.d_state, m.d_state], -1)
        if self.dt_norm is not None and self.b_norm is not None and self.c_norm is not None:
            dt, b, c = self.dt_norm(dt, taps), self.b_norm(b, taps), self.c_norm(c, taps)
        dt = taps(self.hook_dt, F.softplus(upcast(self.dt_proj(dt))))
        b, c = taps(self.hook_B, b), taps(self.hook_C, c)
        state = None if past is None else past.recall(self.layer, "state", len(x))
        y, state = self.scan(upcast(x), dt, upcast(b), upcast(c), state, frame, taps)
        if past is not None:
            past.keep(self.layer, conv=last, state=state)
        y = taps(self.hook_y, (y + upcast(x * self.D.weight)).to(dtype))
        return self.out_proj(y * taps(self.hook_gate, F.silu(z)))

    def scan(
        self,
        x: Float[Tensor, "b p c"],
        dt: Float[Tensor, "b p c"],
        b: Float[Tensor, "b p n"],
        c: Float[Tensor, "b p n"],
        state: Float[Tensor, "b c n"] | None,
        frame: Frame,
        taps: AnyTaps = OFF,
    ) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b c n"]]:
        """C · h at every position, and the last h. At padding the state stands still: its step is of size 0."""
        valid = real(frame)
        dt = dt if valid is None else dt * valid[:, :, None]
        a, dx = -torch.exp(upcast(self.A_log.weight)), dt * x
        writes = None
        if taps.wants(self.hook_write):
            writes = taps(self.hook_write, dx[..., None] * b[:, :, None])
        state = x.new_zeros(*x[:, 0].shape, self.cfg.d_state) if state is None else state
        keeps, states, ys = taps.wants(self.hook_state), list[Tensor](), list[Tensor]()
        for t in range(x.shape[1]):
            write = dx[:, t, :, None] * b[:, t, None] if writes is None else writes[:, t]
            state = torch.exp(dt[:, t, :, None] * a) * state + write
            ys.append(torch.einsum("bcn,bn->bc", state, c[:, t]))
            if keeps:
                states.append(state)
        if not keeps:
            return torch.stack(ys, 1), state
        seen = taps(self.hook_state, torch.stack(states, 1))
        return torch.einsum("bpcn,bpn->bpc", seen, c), state


def initial(c: StackConfig, layer: int, generator: Generator) -> Mapping[str, Tensor]:
    """Decays 1 to d_state in every channel, small steps, and x itself passed on (§3.6)."""
    m = c.mixer
    assert isinstance(m, Mamba)
    return {
        "A_log.weight": torch.arange(1.0, m.d_state + 1).log().repeat(m.d_inner, 1),
        "dt_proj.bias": first_steps(m.d_inner, generator),
    }


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, Mamba)
    return (
        f"Mamba: {m.d_inner:,} channels with a state of {m.d_state} each, behind a convolution over {m.conv_width} "
        "positions; a gate"
    )


NORMED = Where("norms inside", lambda c: c.mixer.norm_eps is not None)
CHANNELS, DIRECTION = "batch pos d_inner", "batch pos d_state"

MIXER = Mixer(
    "mamba",
    Mamba,
    SelectiveStateSpace,
    kinds=(
        Kind("mixer.hook_in_proj", "batch pos 2*d_inner", "both branches: x, then the gate"),
        Kind("mixer.hook_conv", CHANNELS, "x after the convolution, before its activation function"),
        Kind("mixer.hook_x", CHANNELS, "x as the state space reads it"),
        *(
            kind
            for name, what, width in (
                ("dt", "what step sizes are made of", "dt_rank"),
                ("b", "B", "d_state"),
                ("c", "C", "d_state"),
            )
            for kind in (
                Kind(
                    f"mixer.{name}_norm.hook_scale",
                    "batch pos 1",
                    f"what the norm on {what} divides by",
                    NORMED,
                ),
                Kind(
                    f"mixer.{name}_norm.hook_normalized",
                    f"batch pos {width}",
                    f"{what}: normalised, before gain",
                    NORMED,
                ),
            )
        ),
        Kind("mixer.hook_dt", CHANNELS, "step sizes Δ: how far each channel forgets and writes"),
        Kind("mixer.hook_B", DIRECTION, "where in the state is written"),
        Kind("mixer.hook_C", DIRECTION, "where in the state is read"),
        Kind(
            "mixer.hook_ssm_write",
            "batch pos d_inner d_state",
            "what each position adds to the state, Δ x B; edits act on all later states",
            extra=True,
        ),
        Kind(
            "mixer.hook_ssm_state",
            "batch pos d_inner d_state",
            "the state after each position; edits act on what that position reads",
            extra=True,
        ),
        Kind("mixer.hook_y", CHANNELS, "what is read from the state, and D x, before the gate"),
        Kind("mixer.hook_gate", CHANNELS, "the gate, after its activation function"),
    ),
    words=words,
    initial=initial,
)
