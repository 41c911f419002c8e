"""The transformer: text → tokens → embed → stack of blocks → unembed → logits.

A model is frozen after loading; what a run reads and edits is an argument (`taps`), so threads and sessions share it.

Letters: b batch, p position, k cached and new positions, d d_model, v vocabulary, n image, m text, x column of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lens import arguments, contrast, text
from lens.block import Block
from lens.cache import ActivationCache
from lens.classifier import HEADS, classes, heads
from lens.config import ModelConfig
from lens.contrast import Contrast
from lens.embed import Embed
from lens.encoded import Encoded
from lens.encoder import Encoder, encoded
from lens.frame import Frame
from lens.generate import generate
from lens.hooks import Hooks, edits_from, hooked, joined
from lens.inputs import Array, ModelInputs
from lens.kv import KeyValues
from lens.norm import Norm
from lens.parameters import aliases_of
from lens.sites import NamesFilter, Site, resolve, sites_of
from lens.stack import Stack
from lens.taps import OFF, AnyTaps, Edits, Halt, Taps
from lens.unembed import LogitsAt, Unembed, positions
from lens.uninitialised import Uninitialised

Inputs = str | list[Any] | Mapping[str, Any] | Tensor | Array | ModelInputs


class Transformer(nn.Module):
    """A hooked transformer.

    Args:
        cfg: what the model is.
        tokenizer: text ↔ ids; without one, only ids are accepted.
        preprocessing: settings of the Hugging Face processor that makes its inputs of pictures or sounds.
        revision: a hash of the weights' source, for provenance and caching.
        origin: where the weights came from, in words.
    """

    unembed: Unembed  # absent where `cfg.unembed` is None
    standing: AnyTaps = OFF  # hooks on every run, in all threads; a plain model has none
    own: bool = True  # do our components compute it? Else whole runs are all there is: no blocks, no `past`

    def __init__(
        self, cfg: ModelConfig, tokenizer: Any = None, *, preprocessing: dict[str, Any] | None = None,
        revision: str = "", origin: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.cfg, self.tokenizer, self.revision, self.origin = cfg, tokenizer, revision, origin
        self.preprocessing = preprocessing
        self.encoder = None if cfg.source is None else Encoder(cfg.source)
        prefix, final = ("", "ln_final") if cfg.source is None else ("decoder.", "decoder_final_ln")
        self.embed = Embed(cfg.embed, cfg.stack.d_entry, prefix)
        self.stack = Stack(cfg.stack, prefix.removesuffix(".") or "blocks", final)
        self.pooler, self.classifier, self.boxes = heads(cfg)
        if cfg.unembed is not None:
            self.unembed = Unembed(cfg.unembed, cfg.d_model)
        self.vision = None if cfg.vision is None else Transformer(cfg.vision, preprocessing=preprocessing)
        self.contrast = None if cfg.vision is None else Contrast()
        self._tie()
        self.sites: dict[str, Site] = sites_of(cfg)
        self._text_sites = tuple(name for name in self.sites if name.startswith(HEADS))
        self.eval().requires_grad_(False)

    @classmethod
    def from_state(
        cls,
        cfg: ModelConfig,
        state: Mapping[str, Tensor],
        *,
        tokenizer: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **about: Any,
    ) -> Transformer:
        """A frozen model with the given weights, which it takes over without a copy where it can.

        `about` is what else a `Transformer` is made with.

        Raises:
            ValueError: a weight is missing, unknown, or of another shape.
        """
        with torch.device("meta"), Uninitialised():
            model = cls(cfg, tokenizer, **about)
        state = {name: t.to(device=device, dtype=dtype) for name, t in state.items()}
        state |= {name: state[same] for name, same in aliases_of(cfg).items() if same in state}
        try:
            model.load_state_dict(state, strict=True, assign=True)
        except RuntimeError as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[1:4])
            raise ValueError(f"these weights do not fit {cfg.name}: {reason}") from error
        model._tie()
        return model.eval().requires_grad_(False)

    def _tie(self) -> None:
        """Make parameters that are other names of parameters the same ones."""
        self.stack.share()
        if self.encoder is not None:
            self.encoder.stack.share()
            if self.encoder.cfg.shared:
                self.encoder.embed.tokens.weight = self.embed.tokens.weight
        if self.cfg.tied and self.cfg.unembed is not None:
            embeds = self.embed if self.encoder is None or self.cfg.embed.of_tokens else self.encoder.embed
            self.unembed.linear.weight = embeds.tokens.weight

    # ------------------------------------------------------------------ running

    def forward(
        self,
        inputs: Inputs | Float[Tensor, "b p d"],
        *,
        attention_mask: Bool[Tensor, "b k *x"] | Int[Tensor, "b k *x"] | None = None,
        taps: AnyTaps = OFF,
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
        past: KeyValues | None = None,
        logits_at: LogitsAt = None,
    ) -> Float[Tensor, "b *p v"]:
        """Logits; or, with `stop_at_layer`, the residual stream entering that layer, [b, p, d].

        A model without an unembedding gives the logits of its classifier, [b, classes] or [b, p, classes], or
        without one the last residual stream, [b, p, d].

        Args:
            inputs: text, texts, pairs of texts, ids [b, p] or [p], pictures, waveforms, or what `to_inputs` or
                a Hugging Face tokenizer gives; with `start_at_layer` > 0, a residual stream [b, p, d].
            attention_mask: True (1) where a token is real, over cached and new positions, or where a pixel is.
                Texts of different lengths, and pictures of different sizes, are padded and masked by themselves.
            taps: what this run reads and edits.
            start_at_layer: skip the embedding and the blocks before this one.
            stop_at_layer: run the blocks before this one only. Negative counts from the end.
            past: keys and values the run stands on, and adds its own to unless they are frozen.
            logits_at: unembed these positions only: one position (negative: from the end), a slice, or one
                position per row; the position axis stays. `ln_final` then sees only these.

        Raises:
            ValueError: a site cannot fire in this run, the prompt is longer than the context, an id is outside
                the vocabulary, or shapes disagree. Raised before anything runs.
        """
        span = arguments.Span.of(self.cfg, inputs, start_at_layer, stop_at_layer)
        arguments.check_sites(self, taps.names, span)
        taps = joined(self, taps)  # hooks of the context act where they can
        given = arguments.inputs(self, inputs, attention_mask, span.start)
        arguments.check_past(past, given.n_rows, span, self.cfg)
        n = arguments.n_positions(self.cfg.embed, given)
        arguments.check_logits_at(logits_at, given.n_rows, n, self.cfg.stack)
        frame = self.frame(n, attention_mask=given.mask, past=past, batch=given.n_rows)
        frame.global_tokens = arguments.global_tokens(self.cfg, given, frame.valid, self.device)
        frame.ends = arguments.ends(self, given, frame.valid, taps) if span.unembeds else None
        if self.encoder is not None:
            frame.encoded = encoded(self, given, past, taps)
        x = given.stream
        if x is None:
            x = self.embed(given.given, frame, taps, given.types)
        x = self.stack(x, frame, taps, past, span.start, span.stop)
        if past is not None:
            past.advance(frame.n, frame.valid, frame.encoded)
        return self.output(x, frame, taps, logits_at) if span.unembeds else x

    def encode(self, source: Inputs, taps: AnyTaps = OFF) -> Encoded:
        """What the encoder of an encoder–decoder makes of a source: give it as `ModelInputs.source` to many runs.

        Raises:
            ValueError: there is no encoder, or as for `forward`.
        """
        if self.encoder is None:
            raise ValueError(f"{self.cfg.name} has no encoder of its own")
        if isinstance(source, ModelInputs) and source.source is None:
            source = ModelInputs(source=source)
        given = arguments.inputs(self, source, None, 0)
        return encoded(self, given, None, taps)

    def output(
        self, x: Float[Tensor, "b p d"], frame: Frame, taps: AnyTaps = OFF, logits_at: LogitsAt = None
    ) -> Float[Tensor, "b *at v"]:
        """What a run gives for its last residual stream. Pooler and classifier run only where they are looked
        at, or the classifier is all there is."""
        if self.pooler is None and self.classifier is None:
            return self.to_logits(x, taps, logits_at)
        if self.ln_final is not None:
            x = self.ln_final(x, taps)
        said = classes(self, x, frame, taps) if self.pools(taps) else None
        if self.cfg.unembed is not None:
            return self.unembed(positions(x, logits_at), taps)
        return positions(x, logits_at) if said is None else said

    def pools(self, taps: AnyTaps = OFF) -> bool:
        """Do runs with these taps use the pooler and classifier?"""
        only = self.classifier is not None and self.cfg.unembed is None
        return only or taps.wants(*self._text_sites)

    def to_logits(
        self, x: Float[Tensor, "b p d"], taps: AnyTaps = OFF, logits_at: LogitsAt = None
    ) -> Float[Tensor, "b at v"]:
        """The last residual stream to logits, at all positions or at `logits_at`.

        Without an unembedding, the normalised stream.
        """
        x = positions(x, logits_at)
        if self.ln_final is not None:
            x = self.ln_final(x, taps)
        return x if self.cfg.unembed is None else self.unembed(x, taps)

    def frame(
        self,
        n: int,
        *,
        attention_mask: Tensor | None = None,
        past: KeyValues | None = None,
        batch: int = 1,
    ) -> Frame:
        """Positions, masks and rotary tables for `n` new positions.

        Raises:
            ValueError: the text would be longer than the context, or the mask has another shape.
        """
        cached = 0 if past is None else past.length
        arguments.check_length(self.cfg, cached + n)
        valid = arguments.validity(attention_mask, past, n, batch, self.device)
        return self.embed.placed(
            Frame(n, valid=valid, past=cached, causal=self.cfg.causal, device=self.device, dtype=self.dtype)
        )

    def run_with_cache(
        self,
        inputs: Inputs | Float[Tensor, "b p d"],
        names_filter: NamesFilter = None,
        *,
        edits: Edits | None = None,
        attention_mask: Tensor | None = None,
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
        pos_slice: int | slice | None = None,
        remove_batch_dim: bool = False,
        grad: bool = False,
        past: KeyValues | None = None,
        logits_at: LogitsAt = None,
    ) -> tuple[Tensor, ActivationCache]:
        """Logits (or the residual stream at `stop_at_layer`) and the activations asked for.

        Args:
            names_filter: None for all ordinary sites; a site name, a shorthand ("pattern" for every layer,
                ("pattern", 5) for one), a list of those, or a function of the full name. Sites marked `extra`
                (`result`, `q_input`, `attn_in`, …) must be asked for by name.
            edits: site → function of the activation, applied before reading.
            pos_slice: keep only these query positions.
            grad: the graph starts at the sites read: `torch.autograd.grad(metric, list(cache.values()))`.
            remove_batch_dim: drop the batch axis (batch of 1).

        Raises:
            ValueError: as for `forward`; or grad with a part of the activations only.
        """
        if grad and (remove_batch_dim or pos_slice is not None):
            raise ValueError("grad=True keeps whole activations: leave out pos_slice and remove_batch_dim")
        span = arguments.Span.of(self.cfg, inputs, start_at_layer, stop_at_layer)
        reads = arguments.reads(self, names_filter, span)
        keep = None if pos_slice is None else arguments.slicer(self.sites, pos_slice)
        taps = Taps(reads, edits, keep=keep, grad=grad)
        logits = self(
            inputs, taps=taps, attention_mask=attention_mask, start_at_layer=start_at_layer,
            stop_at_layer=stop_at_layer, past=past, logits_at=logits_at,
        )  # fmt: skip
        cache = ActivationCache(taps.seen, self.sites)
        return logits, cache.remove_batch_dim() if remove_batch_dim else cache

    def activations(
        self,
        inputs: Inputs,
        names_filter: NamesFilter,
        *,
        edits: Edits | None = None,
        attention_mask: Tensor | None = None,
        past: KeyValues | None = None,
    ) -> ActivationCache:
        """Only the activations asked for: the run stops at the deepest of them and makes no logits."""
        if past is not None and not past.frozen:
            raise ValueError("a run that may stop early takes a frozen `past`")
        taps = Taps(resolve(names_filter, self.sites), edits, halt=True)
        with suppress(Halt):
            self(inputs, taps=taps, attention_mask=attention_mask, past=past)
        return ActivationCache(taps.seen, self.sites)

    def run_with_hooks(
        self, inputs: Inputs, fwd_hooks: Hooks = (), bwd_hooks: Hooks = (), **options: Any
    ) -> Float[Tensor, "b p v"]:
        """Logits of one run through hook functions `fn(activation, hook)`; `options` as in `forward`."""
        taps = Taps(edits=edits_from(fwd_hooks, self.sites), gradients=edits_from(bwd_hooks, self.sites))
        return self(inputs, taps=taps, **options)

    def hooks(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> AbstractContextManager[Transformer]:
        """Every run inside the `with` block passes through these hooks, in this thread or task only."""
        return hooked(self, fwd_hooks, bwd_hooks)

    # ------------------------------------------------------------------ text

    def to_tokens(self, texts: str | list[str], prepend_bos: bool | None = None) -> Int[Tensor, "b p"]:
        """Ids, padded on the right. `prepend_bos=None`: as the tokenizer says.

        Raises:
            ValueError: the model has no tokenizer, or a text is empty.
        """
        return text.to_tokens(self, texts, prepend_bos)[0]

    def to_inputs(
        self, texts: Inputs, prepend_bos: bool | None = None, targets: Inputs | None = None
    ) -> ModelInputs:
        """Text, texts, pairs, ids, pictures or sounds as one value that every way of running takes; see
        `lens.text.to_inputs`.

        Raises:
            ValueError: as `to_tokens`; or ids do not fit the model.
        """
        if targets is None and isinstance(texts, ModelInputs | Tensor):
            return arguments.inputs(self, texts, None, 0)
        return text.to_inputs(self, texts, prepend_bos, targets)

    def to_str_tokens(self, inputs: str | Tensor | list[int], prepend_bos: bool | None = None) -> list[str]:
        """One readable string per token."""
        return text.to_str_tokens(self, inputs, prepend_bos)

    def to_string(self, ids: Tensor | list[int]) -> str:
        """Ids back to text."""
        return text.to_string(self, ids)

    def to_single_token(self, word: str) -> int:
        """The id of a text that is exactly one token.

        Raises:
            ValueError: it is none or several; the message shows the pieces.
        """
        return text.tokenizer_of(self).single(word)

    def generate(self, inputs: Inputs, max_new_tokens: int = 20, **options: Any) -> Any:
        """Continue text or ids; see `lens.generate.generate` for the options."""
        return generate(self, inputs, max_new_tokens, **options)

    def similarity(self, images: Inputs, texts: Inputs, **taps: AnyTaps) -> Float[Tensor, "n m"]:
        """Logits of images over texts, where `vision` reads images; see `lens.contrast.similarity`."""
        return contrast.similarity(self, images, texts, **taps)

    def new_past(self) -> KeyValues:
        """An empty store of keys and values for `past`.

        Raises:
            ValueError: the model reads texts in both directions, so no part of one can be computed first.
        """
        arguments.check_causal(self.cfg, "there is nothing that a run could stand on")
        return KeyValues(self.cfg.n_layers)

    # ------------------------------------------------------------------ looking

    @property
    def name(self) -> str:
        return self.cfg.name

    @property
    def blocks(self) -> Any:
        """The blocks, `model.blocks[layer].attn.W_Q` and so on."""
        return self.stack.blocks

    @property
    def ln_final(self) -> Norm | None:
        return self.stack.ln_final

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    W_E = property(lambda self: self.embed.tokens.weight)  # [v, d_embed]
    W_U = property(lambda self: self.unembed.linear.weight.T)  # [d_embed, v]
    b_U = property(lambda self: _zeros_or(self.unembed.linear.bias, self.W_U))  # [v]
    W_pos = property(lambda self: None if self.embed.positions is None else self.embed.positions.weight)

    def block(self, layer: int) -> Block:
        """Block `layer`, typed."""
        block = self.stack.blocks[layer]
        assert isinstance(block, Block)
        return block


def _zeros_or(bias: Tensor | None, like: Tensor) -> Tensor:
    return like.new_zeros(like.shape[-1]) if bias is None else bias
