"""The activations of one run, taken apart: what each layer, head and neuron writes to the stream, and to the logits.

The methods are TransformerLens's and mean the same. `remove_batch_dim`, `to` and `compute_head_results` change this
cache, as there; everything else leaves it alone.

Letters: c component, b batch, p position, h head, n neuron, d d_model, l layer; `...` leading axes (b p, or what a
slice leaves of them).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lens.cache import ActivationCache as CoreCache
from lens.compat.slices import Slice

if TYPE_CHECKING:
    from lens.compat.mounted import Mounted

Labelled = Tensor | tuple[Tensor, list[str]]
NORMS = ("scale", "normalized")


class ActivationCache(CoreCache):
    """Site name → activation, of a `HookedTransformer`.

    `cache["blocks.5.attn.hook_pattern"]`, `cache["pattern", 5]`, `cache["pattern5"]`, `cache["resid_post", -1]` (the
    last layer), `cache["scale"]` (the final norm's). Gradients, where a run kept them, are `name + "_grad"`.
    """

    def __init__(self, cache_dict: Mapping[str, Tensor], model: Mounted, has_batch_dim: bool = True) -> None:
        super().__init__(cache_dict, model.sites, has_batch_dim)
        self._activations |= {name: x for name, x in cache_dict.items() if name not in self._activations}
        self.model = model

    @property
    def cache_dict(self) -> dict[str, Tensor]:
        """The activations themselves."""
        return self._activations

    @property
    def has_batch_dim(self) -> bool:
        return self.batched

    @property
    def has_embed(self) -> bool:
        return "hook_embed" in self._activations

    @property
    def has_pos_embed(self) -> bool:
        return "hook_pos_embed" in self._activations

    def __getitem__(self, key: str | tuple) -> Tensor:
        if isinstance(key, tuple) and len(key) > 1 and isinstance(key[1], int) and key[1] < 0:
            key = (key[0], self.model.cfg.n_layers + key[1], *key[2:])
        name = key[0] if isinstance(key, tuple) and key else key
        if name in NORMS and (isinstance(key, str) or len(key) < 2 or key[1] is None):
            key = f"ln_final.hook_{name}"
        return super().__getitem__(key)

    # ------------------------------------------------------------------ the cache itself

    def remove_batch_dim(self) -> ActivationCache:
        """Drop the batch axis here; gives this cache back.

        Raises:
            ValueError: the batch has more than one row.
        """
        wide = next((name for name, x in self.items() if self.batched and x.shape[0] != 1), None)
        if wide is not None:
            rows = self._activations[wide].shape[0]
            raise ValueError(
                f"the batch axis can only be removed from a batch of 1; {wide!r} has {rows} rows"
            )
        if self.batched:
            self._activations = {name: x[0] for name, x in self.items()}
        self.batched = False
        return self

    def to(self, device: torch.device | str, move_model: bool = False) -> ActivationCache:
        """Move every activation here, and with `move_model` the model; gives this cache back."""
        self._activations = {name: x.to(device) for name, x in self.items()}
        if move_model:
            self.model.to(device)
        return self

    def toggle_autodiff(self, mode: bool = False) -> None:
        """Switch torch's gradients off or on, for this thread."""
        torch.set_grad_enabled(mode)

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> ActivationCache:
        """A new cache of these rows of the batch; an int takes the axis away.

        Raises:
            ValueError: there is no batch axis.
        """
        cut = Slice.of(batch_slice)
        if not self.batched and cut.mode != "identity":
            raise ValueError("this cache has no batch axis to slice")
        cache = {name: cut.apply(x, 0) for name, x in self.items()} if self.batched else dict(self)
        return ActivationCache(cache, self.model, self.batched and cut.mode != "int")

    def stack_activation(
        self, activation_name: str, layer: int = -1, sublayer_type: str | None = None
    ) -> Tensor:
        """One kind of activation in all layers before `layer` (-1: all), [l, …]."""
        key = (activation_name,) if sublayer_type is None else (activation_name, sublayer_type)
        return torch.stack([self[(key[0], l, *key[1:])] for l in range(self._layer(layer))])

    # ------------------------------------------------------------------ the stream

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: Any = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Labelled:
        """The stream as it enters each layer up to `layer` (None, -1: as it leaves the last), [c, ..., d].

        Args:
            incl_mid: with the stream between attention and MLP.
            apply_ln: through the norm in front of `layer`, with that norm's divisor; at the end of the model
                through the final norm, each with a divisor of its own (the logit lens).
            mlp_input: up to the MLP of `layer`.
        """
        layer, cut = self._layer(layer), Slice.of(pos_slice)
        names: list[tuple[str, int, str]] = []
        for l in range(layer + 1):
            if l == self.model.cfg.n_layers:
                names.append(("resid_post", l - 1, "final_post"))
                continue
            names.append(("resid_pre", l, f"{l}_pre"))
            if (incl_mid and l < layer) or (mlp_input and l == layer):
                names.append(("resid_mid", l, f"{l}_mid"))
        stack = torch.stack([cut.apply(self[name, l], -2) for name, l, _ in names])
        if apply_ln:
            at_end = layer == self.model.cfg.n_layers
            stack = self.apply_ln_to_stack(
                stack, layer, mlp_input=mlp_input, pos_slice=cut, recompute_ln=at_end
            )
        return (stack, [label for *_, label in names]) if return_labels else stack

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: Literal["all", "mlp", "attn"] = "all",
        apply_ln: bool = False,
        pos_slice: Any = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Labelled:
        """What embeddings, attention and MLPs add to the stream before `layer`, [c, ..., d]; they add up to it."""
        layer, cut = self._layer(layer), Slice.of(pos_slice)
        attn, mlp = mode != "mlp", mode != "attn" and not self.model.cfg.attn_only
        names: list[tuple[Any, str]] = []
        if incl_embeds:
            kept = (("hook_embed", self.has_embed), ("hook_pos_embed", self.has_pos_embed))
            names += [(site, site.removeprefix("hook_")) for site, there in kept if there]
        for l in range(layer):
            names += [(("attn_out", l), f"{l}_attn_out")] if attn else []
            names += [(("mlp_out", l), f"{l}_mlp_out")] if mlp else []
        if mlp_input and attn:
            names.append((("attn_out", layer), f"{layer}_attn_out"))
        stack = torch.stack([cut.apply(self[key], -2) for key, _ in names])
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layer, mlp_input=mlp_input, pos_slice=cut)
        return (stack, [label for _, label in names]) if return_labels else stack

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: Any = None,
        return_labels: bool = False,
    ) -> Labelled:
        """Heads, neurons (or MLPs), embeddings and the sum of biases before `layer`, [c, ..., d]; they add up to it."""
        layer, cut = self._layer(layer), Slice.of(pos_slice)
        parts: list[Any] = [self.stack_head_results(layer + mlp_input, pos_slice=cut, return_labels=True)]
        if not self.model.cfg.attn_only and layer > 0:
            if expand_neurons:
                parts.append(self.stack_neuron_results(layer, pos_slice=cut, return_labels=True))
            else:
                parts.append(
                    self.decompose_resid(
                        layer, mode="mlp", pos_slice=cut, incl_embeds=False, return_labels=True
                    )
                )
        for site, there in (("hook_embed", self.has_embed), ("hook_pos_embed", self.has_pos_embed)):
            if there:
                parts.append((cut.apply(self[site], -2)[None], [site.removeprefix("hook_")]))
        bias = self.model.accumulated_bias(layer, mlp_input, include_mlp_biases=expand_neurons)
        parts.append((bias.expand(1, *parts[0][0].shape[1:]), ["bias"]))
        stack = torch.cat([x for x, _ in parts])
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layer, mlp_input=mlp_input, pos_slice=cut)
        return (stack, [label for _, some in parts for label in some]) if return_labels else stack

    # ------------------------------------------------------------------ heads and neurons

    def compute_head_results(self) -> None:
        """Keep each head's own contribution, z W_O, in this cache, for all layers."""
        for l in range(self.model.cfg.n_layers):
            name = f"blocks.{l}.attn.hook_result"
            if name not in self._activations:
                out = self.model.block(l).attn.W_O
                self._activations[name] = torch.einsum("...he,hed->...hd", self["z", l], out)

    def stack_head_results(
        self,
        layer: int = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: Any = None,
        apply_ln: bool = False,
    ) -> Labelled:
        """What each head before `layer` adds to the stream, [c, ..., d]; with `incl_remainder` the rest of it."""
        layer, cut = self._layer(layer), Slice.of(pos_slice)
        self.compute_head_results()
        found = [cut.apply(self["result", l], -3).movedim(-2, 0) for l in range(layer)]
        labels = [f"L{l}H{h}" for l in range(layer) for h in range(self.model.cfg.n_heads)]
        return self._stacked(found, labels, layer, cut, incl_remainder, apply_ln, return_labels)

    def get_neuron_results(self, layer: int, neuron_slice: Any = None, pos_slice: Any = None) -> Tensor:
        """What each neuron of a layer adds to the stream, [..., n, d]."""
        neurons = Slice.of(neuron_slice)
        post = Slice.of(pos_slice).apply(self[f"blocks.{layer}.mlp.hook_post"], -2)
        out = neurons.apply(self.model.block(layer).mlp.W_out, 0)  # type: ignore[union-attr]
        return neurons.apply(post, -1)[..., None] * out

    def stack_neuron_results(
        self,
        layer: int,
        pos_slice: Any = None,
        neuron_slice: Any = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
    ) -> Labelled:
        """What each neuron before `layer` adds to the stream, [c, ..., d]; with `incl_remainder` the rest of it."""
        layer, cut, neurons = self._layer(layer), Slice.of(pos_slice), Slice.of(neuron_slice)
        if neurons.mode == "int":
            neurons = Slice([neurons.slice])
        found = [self.get_neuron_results(l, neurons, cut).movedim(-2, 0) for l in range(layer)]
        chosen = neurons.apply(torch.arange(self.model.cfg.d_mlp or 0)).tolist()
        labels = [f"L{l}N{n}" for l in range(layer) for n in chosen]
        return self._stacked(found, labels, layer, cut, incl_remainder, apply_ln, return_labels)

    def _stacked(
        self,
        found: list[Tensor],
        labels: list[str],
        layer: int,
        cut: Slice,
        rest: bool,
        norm: bool,
        told: bool,
    ) -> Labelled:
        """Components of several layers as one stack, with what they leave of the stream."""
        stream = self["resid_post", layer - 1] if layer else self["resid_pre", 0]
        stream = cut.apply(stream, -2)
        stack = torch.cat(found) if found else stream.new_zeros(0, *stream.shape)
        if rest:
            stack, labels = torch.cat([stack, (stream - stack.sum(0))[None]]), [*labels, "remainder"]
        if norm:
            stack = self.apply_ln_to_stack(stack, layer, pos_slice=cut)
        return (stack, labels) if told else stack

    # ------------------------------------------------------------------ norms and logits

    def apply_ln_to_stack(
        self,
        residual_stack: Tensor,
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Tensor:
        """Components of a stream [c, ..., d] as the norm in front of `layer` (None, -1: the final one) passes them
        on: centred for LayerNorm, over the divisor that this run had. Gain and bias are left out.

        With `recompute_ln`, at the end of the model, each goes through the whole final norm with a divisor of
        its own.
        """
        cfg, rows, cut = self.model.cfg, Slice.of(batch_slice), Slice.of(pos_slice)
        if cfg.stack.norm == "none":
            return residual_stack
        layer = self._layer(layer)
        if has_batch_dim:
            residual_stack = rows.apply(residual_stack, 1)
        if recompute_ln and layer == cfg.n_layers and self.model.ln_final is not None:
            return self.model.ln_final(residual_stack)
        if cfg.stack.norm == "layer":
            residual_stack = residual_stack - residual_stack.mean(-1, keepdim=True)
        norm = "ln1" if not mlp_input or cfg.stack.shared_norm else "ln2"
        name = "ln_final.hook_scale" if layer == cfg.n_layers else f"blocks.{layer}.{norm}.hook_scale"
        scale = cut.apply(self[name], -2)
        return residual_stack / (rows.apply(scale) if self.batched else scale)

    def logit_attrs(
        self,
        residual_stack: Tensor,
        tokens: Any,
        incorrect_tokens: Any = None,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
    ) -> Tensor:
        """What components of the last stream [c, ..., d] add to the logits of `tokens`, or to how much these are
        above those of `incorrect_tokens`, [c, ...]. Tokens are one, one per row, or one per row and position.

        Raises:
            ValueError: the two kinds of tokens have different shapes.
        """
        model = self.model
        direction = model.tokens_to_residual_directions(tokens)
        if incorrect_tokens is not None:
            other = model.tokens_to_residual_directions(incorrect_tokens)
            if other.shape != direction.shape:
                raise ValueError(
                    f"tokens and incorrect_tokens have different shapes: {tuple(direction.shape[:-1])} and "
                    f"{tuple(other.shape[:-1])}"
                )
            direction = direction - other
        scaled = self.apply_ln_to_stack(
            residual_stack, -1, pos_slice=pos_slice, batch_slice=batch_slice, has_batch_dim=has_batch_dim
        )
        return (scaled * direction).sum(-1)

    def _layer(self, layer: int | None) -> int:
        """A number of layers.

        Raises:
            ValueError: there are fewer.
        """
        n = self.model.cfg.n_layers
        if layer is None or layer == -1:
            return n
        if not 0 <= layer <= n:
            raise ValueError(f"layer is {layer} and {self.model.cfg.name} has {n} layers")
        return layer
