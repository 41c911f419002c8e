"""RWKV-4: time mixing in attention's place, channel mixing in the MLP's (Peng et al. 2023, arXiv 2305.13048, §3).

Time mixing, per channel:

1. Keys k, values v and the receptance r are projections of the position mixed with the one before it.
2. Of all values so far the state knows the mean m, weighted by e^k, and the logarithm l of the weights' sum. A
   position reads the mean of m and its own v, which counts e^(k + first): that is wkv (eq. 16).
3. Then the old weights fade by e^-e^decay, and v counts e^k.
4. sigmoid(r) · wkv is projected back.

Channel mixing is an MLP with squared ReLUs that reads the position mixed with the one before, and has a receptance.

Letters: b batch, p position, d d_model, c channel (d_attn), s what a state holds (m and l).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from lens.config import MixerConfig, StackConfig
from lens.frame import Frame
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.norm import upcast
from lens.recurrent import Weight, real, shifted
from lens.taps import OFF, AnyTaps
from lens.vocabulary import Kind

NOTHING = -1e38
"""The logarithm of no weight at all, as far as sums go."""


@dataclass(frozen=True, kw_only=True)
class Rwkv(MixerConfig):
    """`d_attn` channels of time mixing."""

    d_attn: int
    kind: Literal["rwkv"] = "rwkv"
    endless: ClassVar[bool] = True


class TimeMix(nn.Module):
    """Weighted means of values, whose weights fade with time."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__()
        assert isinstance(cfg.mixer, Rwkv)
        d, c, self.layer = cfg.d_model, cfg.mixer.d_attn, layer
        self.mix_k, self.mix_v, self.mix_r = Weight(d), Weight(d), Weight(d)
        self.k, self.v, self.r = (nn.Linear(d, c, bias=False) for _ in range(3))
        self.decay, self.first = Weight(c), Weight(c)
        self.o = nn.Linear(c, d, bias=False)
        self.hook_k, self.hook_v, self.hook_r = f"{site}.hook_k", f"{site}.hook_v", f"{site}.hook_r"
        self.hook_state, self.hook_wkv = f"{site}.hook_state", f"{site}.hook_wkv"

    def forward(
        self,
        inputs: Float[Tensor, "b p d"],
        frame: Frame,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream."""
        before = None if past is None else past.recall(self.layer, "time", len(inputs))
        earlier, last = shifted(inputs, before, frame)
        k = taps(self.hook_k, self.k(_mixed(inputs, earlier, self.mix_k)))
        v = taps(self.hook_v, self.v(_mixed(inputs, earlier, self.mix_v)))
        r = taps(self.hook_r, torch.sigmoid(self.r(_mixed(inputs, earlier, self.mix_r))))
        state = None if past is None else past.recall(self.layer, "state", len(inputs))
        wkv, state = self.wkv(upcast(k), upcast(v), state, frame, taps)
        if past is not None:
            past.keep(self.layer, time=last, state=state)
        return self.o(r * taps(self.hook_wkv, wkv.to(inputs.dtype)))

    def wkv(
        self,
        k: Float[Tensor, "b p c"],
        v: Float[Tensor, "b p c"],
        state: Float[Tensor, "b s c"] | None,
        frame: Frame,
        taps: AnyTaps = OFF,
    ) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b s c"]]:
        """What each position reads, and the state after the last. At padding the state stands still."""
        valid = real(frame)
        fade, first = torch.exp(upcast(self.decay.weight)), upcast(self.first.weight)
        if state is None:
            mean, log = torch.zeros_like(k[:, 0]), torch.full_like(k[:, 0], NOTHING)
        else:
            mean, log = state.unbind(1)
        means, logs = [], []
        for t in range(k.shape[1]):
            means.append(mean)
            logs.append(log)
            now, faded = k[:, t], log - fade
            new_mean, new_log = (
                mean + torch.sigmoid(now - faded) * (v[:, t] - mean),
                torch.logaddexp(faded, now),
            )
            if valid is not None:
                here = valid[:, t, None]
                new_mean, new_log = torch.where(here, new_mean, mean), torch.where(here, new_log, log)
            mean, log = new_mean, new_log
        found = taps(self.hook_state, torch.stack([torch.stack(means, 1), torch.stack(logs, 1)], 2))
        old_mean, old_log = found.unbind(2)
        return old_mean + torch.sigmoid(k + first - old_log) * (v - old_mean), torch.stack([mean, log], 1)


class ChannelMix(nn.Module):
    """sigmoid(r) · down(relu(up(x))²), where x is mixed with the position before it."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__()
        assert cfg.d_mlp is not None
        d, self.layer = cfg.d_model, layer
        self.mix_k, self.mix_r = Weight(d), Weight(d)
        self.up = nn.Linear(d, cfg.d_mlp, bias=False)
        self.down = nn.Linear(cfg.d_mlp, d, bias=False)
        self.r = nn.Linear(d, d, bias=False)
        self.hook_pre, self.hook_post, self.hook_r = f"{site}.hook_pre", f"{site}.hook_post", f"{site}.hook_r"

    def forward(
        self, x: Float[Tensor, "b p d"], frame: Frame, taps: AnyTaps = OFF, past: KeyValues | None = None
    ) -> Float[Tensor, "b p d"]:
        before = None if past is None else past.recall(self.layer, "channel", len(x))
        earlier, last = shifted(x, before, frame)
        if past is not None:
            past.keep(self.layer, channel=last)
        pre = taps(self.hook_pre, self.up(_mixed(x, earlier, self.mix_k)))
        post = taps(self.hook_post, torch.relu(pre).square())
        r = taps(self.hook_r, torch.sigmoid(self.r(_mixed(x, earlier, self.mix_r))))
        return r * self.down(post)


def _mixed(x: Float[Tensor, "b p d"], earlier: Float[Tensor, "b p d"], mix: Weight) -> Float[Tensor, "b p d"]:
    return x * mix.weight + earlier * (1 - mix.weight)


def initial(c: StackConfig, layer: int, generator: Generator) -> Mapping[str, Tensor]:
    """Channels that forget at all speeds, and read more of the position before the lower they are."""
    assert isinstance(c.mixer, Rwkv)
    n, deep = c.mixer.d_attn, layer / max(c.n_layers - 1, 1)
    place = torch.arange(n) / max(n - 1, 1)
    own = torch.arange(c.d_model) / c.d_model
    up = 1 - layer / c.n_layers
    return {
        "decay.weight": -5 + 8 * place ** (0.7 + 1.3 * deep),
        "first.weight": math.log(0.3) + ((torch.arange(n) + 1) % 3 - 1) / 2,
        "mix_k.weight": own**up,
        "mix_v.weight": own**up + 0.3 * deep,
        "mix_r.weight": own ** (up / 2),
    }


def words(c: StackConfig) -> str:
    assert isinstance(c.mixer, Rwkv)
    return (
        f"RWKV-4: means of values over {c.mixer.d_attn:,} channels, weights fade with time; channel mixing of "
        f"{c.d_mlp:,} neurons; both read a mixture with the position before"
    )


CHANNELS = "batch pos d_attn"

MIXER = Mixer(
    "rwkv",
    Rwkv,
    TimeMix,
    kinds=(
        Kind("mixer.hook_k", CHANNELS, "keys: logarithms of how much a position's value counts"),
        Kind("mixer.hook_v", CHANNELS, "values"),
        Kind("mixer.hook_r", CHANNELS, "receptance: the gate on what is read, after its sigmoid"),
        Kind(
            "mixer.hook_state",
            "batch pos 2 d_attn",
            "what each position finds: the weighted mean of the values before it, and the logarithm of their weight; "
            "edits act on what that position reads",
        ),
        Kind("mixer.hook_wkv", CHANNELS, "what each position reads, before the gate"),
    ),
    words=words,
    initial=initial,
    mlp=ChannelMix,
    mlp_kinds=(
        Kind("mlp.hook_pre", "batch pos d_mlp", "neurons before the squared ReLU"),
        Kind("mlp.hook_post", "batch pos d_mlp", "neurons after the squared ReLU"),
        Kind("mlp.hook_r", "batch pos d_model", "receptance: the gate on the output, after its sigmoid"),
    ),
)
