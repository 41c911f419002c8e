"""One block: attention, or the mixer in its place, and a feed-forward network around the residual stream.

Letters: b batch, p position, h head, g key/value head, d d_model.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lens.attention import Attention, Relative
from lens.config import StackConfig
from lens.experts import MixtureOfExperts
from lens.frame import Frame
from lens.kv import KeyValues
from lens.merge import Merge
from lens.mixer import mixer_at
from lens.mlp import MLP
from lens.norm import Norm
from lens.taps import OFF, AnyTaps


def _own(site: str, x: Tensor, taps: AnyTaps) -> Tensor:
    """The stream as one reader alone sees it: what an edit writes into it in place reaches nobody else."""
    return x.clone() if taps.alters(site) else x.view_as(x)


class Block(nn.Module):
    """x + attention, then + MLP; in sequence or in parallel, with norms where `norm_placement` puts them.

    In a decoder that reads what an encoder made, + cross-attention comes between.
    """

    def __init__(self, site: str, cfg: StackConfig, layer: int, relative: Relative = None) -> None:
        super().__init__()
        self.cfg, self.layer = cfg, layer
        assert cfg.streams == 1 or not (cfg.parallel or cfg.cross or cfg.norm_placement != {"in"})
        cfg = cfg.branch
        self.pre = "in" in cfg.norm_placement
        self.after_sum = "add" in cfg.norm_placement and cfg.norm != "none"
        has_mlp = cfg.d_mlp is not None
        self.halves = cfg.halve_every is not None and (layer + 1) % cfg.halve_every == 0
        self.share = 1.0 if cfg.halve_every is None else 0.5 ** (layer // cfg.halve_every)
        mixer = mixer_at(cfg)
        self._mixes = "attn" if mixer is None else mixer.path
        self._by_head = mixer is None or mixer.config.by_head
        self._adds = cfg.mixer is None or isinstance(cfg.mixer, tuple) or cfg.mixer.adds
        if mixer is None:
            self.attn = Attention(f"{site}.attn", cfg, layer, relative)
        else:
            self.add_module(mixer.path, mixer.module(f"{site}.{mixer.path}", cfg, layer))
        self.cross_attn = Attention(f"{site}.cross_attn", cfg.across, layer) if cfg.cross else None
        self._reads_on = mixer is not None and mixer.mlp is not None  # the MLP knows of other positions
        if mixer is not None and mixer.mlp is not None:
            self.add_module("mlp", mixer.mlp(f"{site}.mlp", cfg, layer))
        else:
            self.mlp = (MixtureOfExperts if cfg.experts else MLP)(f"{site}.mlp", cfg) if has_mlp else None

        def norm(name: str, here: bool) -> Norm | None:
            if not here or cfg.norm == "none":
                return None
            return Norm(f"{site}.{name}", cfg.d_model, cfg.norm, cfg.norm_eps, cfg.norm_unit_offset)

        branch = bool(cfg.norm_placement & {"in", "add"})
        self.ln1 = norm("ln1", branch)
        self.ln2 = norm("ln2", branch and has_mlp and not cfg.shared_norm)
        self.ln3 = norm("ln3", branch and cfg.cross)
        self.ln1_post = norm("ln1_post", "out" in cfg.norm_placement)
        self.ln2_post = norm("ln2_post", "out" in cfg.norm_placement and has_mlp)
        self.merge = None
        if cfg.merge_to is not None and cfg.grid is not None:
            self.merge = Merge(site, cfg.grid, cfg.d_model, cfg.merge_to)
        self.hook_resid_pre, self.hook_resid_mid = f"{site}.hook_resid_pre", f"{site}.hook_resid_mid"
        self.hook_cross_attn_out = f"{site}.hook_cross_attn_out"
        self.hook_resid_mid_cross = f"{site}.hook_resid_mid_cross"
        self.hook_resid_post = f"{site}.hook_resid_post"
        self.hook_normalized_resid_post = f"{site}.hook_normalized_resid_post"
        self.hook_attn_in, self.hook_mlp_in = f"{site}.hook_attn_in", f"{site}.hook_mlp_in"
        self.hook_q_input, self.hook_k_input = f"{site}.hook_q_input", f"{site}.hook_k_input"
        self.hook_v_input = f"{site}.hook_v_input"
        self.hook_attn_out, self.hook_mlp_out = f"{site}.hook_attn_out", f"{site}.hook_mlp_out"

    @property
    def mlp_norm(self) -> Norm | None:
        """The norm in front of the MLP, if there is one."""
        return (self.ln1 if self.cfg.shared_norm else self.ln2) if self.pre else None

    @property
    def attn_norm(self) -> Norm | None:
        """The norm in front of attention, if there is one."""
        return self.ln1 if self.pre else None

    def forward(
        self, x: Float[Tensor, "b p d"], frame: Frame, taps: AnyTaps = OFF, past: KeyValues | None = None
    ) -> Float[Tensor, "b p2 d2"]:
        x = self.first(x, frame, taps, past)
        if self.cross_attn is not None:
            x = self.cross(x, frame, taps, past)
        return self.finish(self.second(x, taps, frame, past), taps)

    def first(
        self, x: Float[Tensor, "b p d"], frame: Frame, taps: AnyTaps = OFF, past: KeyValues | None = None
    ) -> Float[Tensor, "b p d"]:
        """The stream after attention: `resid_mid`. In a parallel or attention-only block the whole sum."""
        x = taps(self.hook_resid_pre, x)
        read = self.read(self._stream(x, 1), taps)
        attn_out = self._shared(getattr(self, self._mixes)(read, frame, taps, past))
        if self.ln1_post is not None:
            attn_out = self.ln1_post(attn_out, taps)
        attn_out = taps(self.hook_attn_out, attn_out)
        x = x if self._adds else torch.zeros_like(x)
        if self.mlp is None:
            return self._sum(x, attn_out, 0)
        if self.cfg.parallel:
            shared = read if self.cfg.shared_norm and isinstance(read, Tensor) else None
            return x + attn_out + self.mlp_out(x, taps, shared, frame, past)
        return taps(self.hook_resid_mid, self._sum(x, attn_out, 0))

    def cross(
        self, x: Float[Tensor, "b p d"], frame: Frame, taps: AnyTaps = OFF, past: KeyValues | None = None
    ) -> Float[Tensor, "b p d"]:
        """From `resid_mid` to `resid_mid_cross`: the stream after a look at what the encoder made."""
        assert self.cross_attn is not None and frame.encoded is not None
        if self.after_sum and self.ln1 is not None:
            x = self.ln1(x, taps)
        read = self.ln3(x, taps) if self.pre and self.ln3 is not None else x
        keep = past is not None and not past.frozen
        out = self.cross_attn.across(read, frame.encoded, taps, keep, frame.where)
        return taps(self.hook_resid_mid_cross, x + taps(self.hook_cross_attn_out, out))

    def second(
        self,
        x: Float[Tensor, "b p d"],
        taps: AnyTaps = OFF,
        frame: Frame | None = None,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """From `resid_mid` (or `resid_mid_cross`) to `resid_post`.

        In a parallel or attention-only block nothing is left to do. `frame` and `past`: see `mlp_out`.
        """
        if self.one_sum:
            return x
        norm = self.ln1 if self.cross_attn is None else self.ln3
        if self.after_sum and norm is not None:
            x = norm(x, taps)
        return self._sum(x, self.mlp_out(self._stream(x, 0), taps, None, frame, past), 1)

    def finish(self, x: Float[Tensor, "b p d"], taps: AnyTaps = OFF) -> Float[Tensor, "b p2 d2"]:
        """`resid_post`, and the post-norm or merged positions where there are such: what the next block reads."""
        x = taps(self.hook_resid_post, x)
        x = x / 2 if self.halves else x
        norm = (self.ln1 if self.one_sum else self.ln2) if self.after_sum else None
        x = x if norm is None else taps(self.hook_normalized_resid_post, norm(x, taps))
        return x if self.merge is None else self.merge(x, taps)

    def _stream(self, x: Float[Tensor, "b p d"], which: int) -> Float[Tensor, "b p d2"]:
        """One of two streams side by side, or the only one."""
        return x if self.cfg.streams == 1 else x.chunk(2, -1)[which]

    def _sum(
        self, x: Float[Tensor, "b p d"], out: Float[Tensor, "b p d2"], which: int
    ) -> Float[Tensor, "b p d"]:
        """x with what a branch adds to one of two streams, or to the only one."""
        if self.cfg.streams == 1:
            return x + out
        first, second = x.chunk(2, -1)
        return torch.cat([first + out, second] if which == 0 else [first, second + out], -1)

    def _shared(self, out: Tensor) -> Tensor:
        """What a branch adds to a stream that has been halved before."""
        return out if self.share == 1 else out * self.share

    @property
    def one_sum(self) -> bool:
        """Is everything added to the stream at once (parallel, or attention only)?"""
        return self.mlp is None or self.cfg.parallel

    def read(self, x: Float[Tensor, "b p d"], taps: AnyTaps) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """What attention or a mixer reads: the normalised stream, or one per head where per-head inputs are altered.

        In the per-head case the sites of `ln1` fire for q, k and v in turn, with a head axis.
        """
        norm = self.attn_norm
        split = (self.hook_attn_in, self.hook_q_input, self.hook_k_input, self.hook_v_input)
        if not self._by_head or not taps.wants(*split):
            return x if norm is None else norm(x, taps)
        altered = taps.alters(*split)
        h, g = self.cfg.n_heads, self.cfg.n_kv_heads
        heads = taps(self.hook_attn_in, x[:, :, None].expand(-1, -1, h, -1))
        if taps.alters(self.hook_attn_in):
            kv = heads if g == h else heads.unflatten(2, (g, -1)).mean(3)
        else:
            kv = x[:, :, None].expand(-1, -1, g, -1)
        q, k, v = (
            taps(name, _own(name, read, taps)) for name, read in zip(split[1:], (heads, kv, kv), strict=True)
        )
        if not altered:
            return x if norm is None else norm(x, taps)
        return (q, k, v) if norm is None else (norm(q, taps), norm(k, taps), norm(v, taps))

    def mlp_out(
        self,
        x: Float[Tensor, "b p d"],
        taps: AnyTaps = OFF,
        normalized: Float[Tensor, "b p d"] | None = None,
        frame: Frame | None = None,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """What the MLP adds to the stream x.

        `normalized` is the norm's output where attention already has it. `frame` is for experts of limited
        capacity, which padding does not fill, and with `past` for MLPs that look at the position before.
        """
        assert self.mlp is not None
        if taps.wants(self.hook_mlp_in):
            x = taps(self.hook_mlp_in, _own(self.hook_mlp_in, x, taps))
            normalized = None if taps.alters(self.hook_mlp_in) else normalized
        if normalized is None:
            normalized = x if self.mlp_norm is None else self.mlp_norm(x, taps)
        if isinstance(self.mlp, MixtureOfExperts):
            out = self.mlp(normalized, taps, None if frame is None else frame.valid)
        elif self._reads_on:
            out = self.mlp(normalized, frame, taps, past)
        else:
            out = self.mlp(normalized, taps)
        out = self._shared(out)
        if self.ln2_post is not None:
            out = self.ln2_post(out, taps)
        return taps(self.hook_mlp_out, out)
