"""Linformer (Wang et al. 2020, arXiv 2006.04768): keys and values of all positions become those of a few slots.

    softmax(q (E K)ᵀ · scale) (F V)   (eq. 7)

E and F map positions to slots, so that the cost grows with the length of a text and not with its square. A text that is
shorter than `n_ctx` uses the first columns: what is missing adds nothing to a slot. Every slot sees all positions, so
this reads in both directions, and texts as a whole.

Letters: b batch, p position, h head, g key/value head, d d_model, e d_head, s slot, n column of E and F.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from lens.config import MixerConfig, StackConfig
from lens.frame import Frame
from lens.heads import Heads, Streams
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.recurrent import Weight, packed, real
from lens.taps import OFF, AnyTaps
from lens.vocabulary import RESULT, K, Kind, Q, V, Z


@dataclass(frozen=True, kw_only=True)
class Linformer(MixerConfig):
    """Slots, the longest text, and who shares E and F (§4).

    `none`: each key/value head has its own two. `head`: two per layer. `key_value`: one per layer, for keys and values.
    `layer`: one in the whole model.
    """

    n_slots: int
    n_ctx: int
    sharing: Literal["none", "head", "key_value", "layer"] = "head"
    kind: Literal["linformer"] = "linformer"
    by_head: ClassVar[bool] = True
    continues: ClassVar[bool] = False


class SlotAttention(Heads):
    """Softmax attention to slots."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__(site, cfg)
        m = cfg.mixer
        assert isinstance(m, Linformer)
        if cfg.causal:
            raise ValueError("Linformer's slots see the whole text: causal must be false")
        self.m = m
        shapes = tables(cfg, m)
        self.E = Weight(*shapes["E"])
        self.F = Weight(*shapes["F"]) if "F" in shapes else None
        self.hook_slot_k, self.hook_slot_v = f"{site}.hook_slot_k", f"{site}.hook_slot_v"
        self.hook_attn_scores, self.hook_pattern = f"{site}.hook_attn_scores", f"{site}.hook_pattern"

    def forward(
        self, inputs: Streams, frame: Frame, taps: AnyTaps = OFF, past: KeyValues | None = None
    ) -> Float[Tensor, "b p d"]:
        """`inputs` is one normalised stream, or one per head for q [b p h d], k and v [b p g d].

        Raises:
            ValueError: the text is longer than E and F are wide.
        """
        if frame.n > self.m.n_ctx:
            raise ValueError(
                f"the text has {frame.n} tokens and Linformer's maps take at most {self.m.n_ctx}"
            )
        q, k, v = self.projected(inputs, taps)
        of_v = self.E if self.F is None else self.F
        k = taps(self.hook_slot_k, self.slots(k, self.E.weight, frame)).transpose(1, 2)
        v = taps(self.hook_slot_v, self.slots(v, of_v.weight, frame)).transpose(1, 2)
        q = q.transpose(1, 2)
        if not taps.wants(self.hook_attn_scores, self.hook_pattern):
            z = F.scaled_dot_product_attention(q, k, v, scale=self.scale, enable_gqa=q.shape[1] != k.shape[1])
            return self.written(z.transpose(1, 2), taps)
        r = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(r, 1), v.repeat_interleave(r, 1)
        scores = taps(self.hook_attn_scores, (q * self.scale) @ k.mT)
        pattern = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(q.dtype)
        return self.written((taps(self.hook_pattern, pattern) @ v).transpose(1, 2), taps)

    def slots(self, x: Float[Tensor, "b p g e"], table: Tensor, frame: Frame) -> Float[Tensor, "b s g e"]:
        """Keys or values, mixed along positions; of padding there is nothing."""
        valid = real(frame)
        if valid is not None:
            x = packed((x * valid[:, :, None, None]).flatten(2), frame).unflatten(2, x.shape[2:])
        return torch.einsum("bpge,gsp->bsge", x, table[..., : frame.n].expand(x.shape[2], -1, -1))


def tables(c: StackConfig, m: Linformer) -> dict[str, tuple[int, ...]]:
    """Names and shapes of E and F."""
    shape = (m.n_slots, m.n_ctx)
    shape = (c.n_kv_heads, *shape) if m.sharing == "none" else shape
    return {"E": shape} if m.sharing in ("key_value", "layer") else {"E": shape, "F": shape}


def initial(c: StackConfig, layer: int, generator: Generator) -> Mapping[str, Tensor]:
    """Normal entries of variance 1 / n_slots (theorem 2)."""
    m = c.mixer
    assert isinstance(m, Linformer)
    return {
        f"{name}.weight": torch.randn(shape, generator=generator) * m.n_slots**-0.5
        for name, shape in tables(c, m).items()
    }


def common(c: StackConfig) -> tuple[str, ...]:
    assert isinstance(c.mixer, Linformer)
    return ("E.weight",) if c.mixer.sharing == "layer" else ()


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, Linformer)
    shared = "" if c.n_kv_heads == c.n_heads else f" sharing {c.n_kv_heads} key/value heads"
    of = {
        "none": "per head",
        "head": "of its own per layer",
        "key_value": "per layer, the same for keys and values",
        "layer": "in all layers",
    }
    return (
        f"Linformer: {c.n_heads} heads of {c.d_head}{shared}, keys and values of up to {m.n_ctx:,} positions become "
        f"{m.n_slots:,} slots by a map {of[m.sharing]}"
    )


SLOTS, TO_SLOTS = "batch slot kv d_head", "batch head pos slot"

MIXER = Mixer(
    "linformer",
    Linformer,
    SlotAttention,
    kinds=(
        Kind(Q.suffix, Q.shape, "queries"),
        Kind(K.suffix, K.shape, "keys, before they are mixed along positions"),
        Kind(V.suffix, V.shape, "values, before they are mixed along positions"),
        Kind("attn.hook_slot_k", SLOTS, "keys of slots, E K"),
        Kind("attn.hook_slot_v", SLOTS, "values of slots, F V"),
        Kind("attn.hook_attn_scores", TO_SLOTS, "scaled scores of slots"),
        Kind("attn.hook_pattern", TO_SLOTS, "attention to slots; each row sums to one"),
        Z,
        RESULT,
    ),
    words=words,
    path="attn",
    initial=initial,
    common=common,
)
