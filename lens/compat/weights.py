"""A drop-in model's weights, stacked over layers, and what follows from them alone.

Letters: l layer, h head, d d_model, e d_head, m d_mlp, v vocabulary, p position.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lens.compat.factored_matrix import FactoredMatrix, composition_scores
from lens.model import Transformer
from lens.nearest import unknown


class Weights(Transformer):
    """What `HookedTransformer` knows of its weights. Keys and values that heads share are given to each of them."""

    @property
    def W_E(self) -> Float[Tensor, "v d"]:
        """What each token adds to the stream: scaled and projected, where the model does that."""
        e, tokens = self.cfg.embed, self.embed.tokens.weight
        tokens = tokens if e.scale == 1 else tokens * e.scale
        early = self.embed.project is not None and e.project == "tokens"
        return self.embed.project(tokens) if early and self.embed.project is not None else tokens

    @property
    def W_pos(self) -> Float[Tensor, "p d"]:
        """What each position adds to the stream.

        Raises:
            ValueError: the model has no learned positions.
        """
        if self.embed.positions is None:
            raise ValueError(f"{self.cfg.name} has no embedding of positions")
        return self.embed.positions.weight[self.cfg.embed.position_offset :]

    @property
    def W_E_pos(self) -> Float[Tensor, "vp d"]:
        """Tokens, then positions."""
        return torch.cat([self.W_E, self.W_pos])

    @property
    def W_U(self) -> Float[Tensor, "d v"]:
        """What the normalised stream is multiplied by, through a projection where there is one."""
        narrow, scale = self.unembed.project, self.cfg.unembed.scale if self.cfg.unembed else 1.0
        weight = self.unembed.linear.weight if narrow is None else self.unembed.linear.weight @ narrow.weight
        return weight.T if scale == 1 else weight.T * scale

    W_Q = property(lambda self: self._attention("W_Q"))  # [l, h, d, e]
    W_K = property(lambda self: self._attention("W_K"))  # [l, h, d, e]
    W_V = property(lambda self: self._attention("W_V"))  # [l, h, d, e]
    W_O = property(lambda self: self._attention("W_O"))  # [l, h, e, d]
    b_Q = property(lambda self: self._attention("b_Q"))  # [l, h, e]
    b_K = property(lambda self: self._attention("b_K"))  # [l, h, e]
    b_V = property(lambda self: self._attention("b_V"))  # [l, h, e]
    b_O = property(lambda self: self._attention("b_O"))  # [l, d]
    W_in = property(lambda self: self._mlp("W_in"))  # [l, d, m]
    W_gate = property(lambda self: self._mlp("W_gate") if self.cfg.stack.gated else None)  # [l, d, m]
    W_out = property(lambda self: self._mlp("W_out"))  # [l, m, d]
    b_in = property(lambda self: self._mlp("b_in"))  # [l, m]
    b_out = property(lambda self: self._mlp("b_out"))  # [l, d]

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_Kᵀ of every head, [l, h, d, d]."""
        return FactoredMatrix(self.W_Q, self.W_K.mT)

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O of every head, [l, h, d, d]."""
        return FactoredMatrix(self.W_V, self.W_O)

    @property
    def layers(self) -> list[Any]:
        """The blocks whose weights are stacked."""
        return list(self.stack.blocks)

    def _attention(self, name: str) -> Tensor:
        weights = torch.stack([getattr(block.attn, name) for block in self.layers])
        shared = name[-1] in "KV" and self.cfg.n_key_value_heads != self.cfg.n_heads
        return (
            weights.repeat_interleave(self.cfg.n_heads // self.cfg.n_key_value_heads, 1)
            if shared
            else weights
        )

    def _mlp(self, name: str) -> Tensor:
        if self.cfg.d_mlp is None or self.cfg.stack.experts is not None:
            what = "no MLP" if self.cfg.d_mlp is None else "an MLP per expert"
            raise ValueError(f"{self.cfg.name} has {what} in each block: there is no {name}")
        return torch.stack([getattr(block.mlp, name) for block in self.layers])

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d"]:
        """The sum of all output biases before `layer`, or before its MLP.

        Raises:
            ValueError: there are fewer layers.
        """
        n = self.cfg.n_layers
        if not 0 <= layer <= n - mlp_input:
            raise ValueError(f"layer is {layer} and {self.cfg.name} has {n} layers")
        total = torch.zeros(self.cfg.d_model, device=self.device, dtype=self.dtype)
        for l in range(layer + mlp_input):
            total = total + self.block(l).attn.b_O
            if include_mlp_biases and l < layer and self.cfg.d_mlp is not None:
                total = total + self.block(l).mlp.b_out  # type: ignore[union-attr]
        return total

    def all_composition_scores(self, mode: str) -> Float[Tensor, "l h l2 h2"]:
        """How much of each later head's queries, keys or values can be what an earlier head writes; 0 for others.

        Source: "A Mathematical Framework for Transformer Circuits" (2021).

        Raises:
            ValueError: mode is not Q, K or V.
        """
        if mode not in ("Q", "K", "V"):
            raise ValueError(unknown("mode", mode, ("Q", "K", "V")))
        right: Any = {"Q": lambda: self.QK, "K": lambda: self.QK.T, "V": lambda: self.OV}[mode]()
        scores = composition_scores(self.OV, right)
        layers = torch.arange(self.cfg.n_layers, device=scores.device)
        return scores * (layers[:, None, None, None] < layers[None, None, :, None])

    def all_head_labels(self) -> list[str]:
        """L0H0, L0H1, …"""
        return [f"L{l}H{h}" for l in range(self.cfg.n_layers) for h in range(self.cfg.n_heads)]
