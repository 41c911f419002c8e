"""`HookedTransformer`: TransformerLens's model on the core, as a `Transformer` that circuits and probes take.

What is different from TransformerLens, on purpose:

- Hooks of `run_with_hooks` and `with model.hooks(…)` are seen by the runs of one thread or task alone; those of
  `add_hook` by all, from the moment they are there. A run in another thread goes on with the hooks it began with.
- Names that do not exist raise, with the nearest. Sites that cost memory (`hook_result`, …) need no switch when they
  are named; the switches (`cfg.use_attn_result`, …) count them among the ordinary ones.
- A loaded model is frozen; one made from a configuration learns. `requires_grad_` changes that.

Letters: b batch, p position, d d_model, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lens import processing
from lens.arguments import Span, check_sites
from lens.compat.cache import ActivationCache
from lens.compat.config import HookedTransformerConfig, model_config
from lens.compat.ends import PositionEmbed, TokenEmbed, TokenUnembed
from lens.compat.generation import continued
from lens.compat.hook_points import Board, HookPoint
from lens.compat.hooked import RETURNS, Hooked, points, sliced
from lens.compat.initial import initial_weights
from lens.compat.loss import next_token_loss
from lens.compat.settings import Settings
from lens.compat.slices import Slice
from lens.compat.stored import Stored
from lens.compat.texts import Side, Texts
from lens.compat.tokenizer import HookedTokenizer
from lens.compat.weights import Weights
from lens.config import ModelConfig
from lens.generate import generate
from lens.kv import KeyValues
from lens.model import Transformer
from lens.nearest import unknown
from lens.norm import Norm
from lens.taps import OFF, AnyTaps, Taps
from lens.unembed import LogitsAt
from lens.uninitialised import Uninitialised


class Output(NamedTuple):
    """What `return_type="both"` gives."""

    logits: Tensor
    loss: Tensor


class HookedTransformer(Hooked, Stored, Texts, Weights):  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    """A model with TransformerLens's interface.

    Args:
        cfg: TransformerLens's configuration, or a dictionary of its fields, for a model with random weights that can
            be trained; or a `ModelConfig`.
        tokenizer: one of lens, or a fast one of transformers; without one, only ids are accepted.
        move_to_device: to `cfg.device`.
        default_padding_side: of texts of different lengths.
    """

    def __init__(
        self,
        cfg: Any,
        tokenizer: Any = None,
        move_to_device: bool = True,
        default_padding_side: Side = "right",
        **about: Any,
    ) -> None:
        if isinstance(cfg, str):
            raise ValueError(
                f"give a configuration, or load {cfg!r} by HookedTransformer.from_pretrained({cfg!r})"
            )
        if tokenizer is not None:
            tokenizer = HookedTokenizer.of(tokenizer, default_padding_side)
        fresh = cfg.hooked if isinstance(cfg, Settings) else None
        if not isinstance(cfg, ModelConfig):
            fresh = _completed(HookedTransformerConfig.unwrap(cfg), tokenizer)
            cfg = model_config(fresh)
        with nullcontext() if fresh is None else Uninitialised():
            super().__init__(replace(cfg, tied=False), tokenizer, **about)
        self.cfg = Settings.of(self.cfg, fresh)
        self._mount()
        if fresh is not None:
            if fresh.init_weights and self.device.type != "meta":
                nn.Module.load_state_dict(self, initial_weights(self.cfg, fresh))
            self.to(dtype=fresh.dtype).requires_grad_(True)
            if move_to_device and fresh.device is not None and self.device.type != "meta":
                self.to(fresh.device)

    def _mount(self) -> None:
        """TransformerLens's parts in the core's places, and a hook point at every site."""
        if self.cfg.embed.of_tokens:
            self.embed = TokenEmbed.of(self.embed)
        if self.cfg.unembed is not None:
            self.unembed = TokenUnembed.of(self.unembed)
        self.board, self.hook_dict = Board(), {}
        norms = {
            norm.hook_normalized: norm for norm in self.modules() if isinstance(norm, Norm) and norm.centred
        }
        for name, site in self.sites.items():
            self.hook_dict[name] = HookPoint.at(site, self.board, norms.get(name))
        for module in self.modules():
            for name, value in list(vars(module).items()):
                if name.startswith("hook_") and isinstance(value, str) and value in self.hook_dict:
                    setattr(module, name, self.hook_dict[value])

    def __getattr__(self, name: str) -> Any:
        points = self.__dict__.get("hook_dict", {})
        return points[name] if name in points else super().__getattr__(name)

    @classmethod
    def from_state(cls, cfg: ModelConfig, state: Mapping[str, Tensor], **about: Any) -> HookedTransformer:
        """A frozen model with the given weights under our names; an unembedding that is tied gets its own."""
        cfg, state = processing.untied(cfg, state)
        model = super().from_state(cfg, state, **about)
        assert isinstance(model, HookedTransformer)
        return model._located()

    @classmethod
    def from_pretrained(cls, model_name: str, **options: Any) -> HookedTransformer:
        """A loaded model, processed as TransformerLens does by default; see `lens.compat.loading.from_pretrained`.

        Raises:
            ValueError: unknown name or option, unsupported model; one line says which.
        """
        from lens.compat.loading import from_pretrained

        return from_pretrained(cls, model_name, **options)

    @classmethod
    def from_pretrained_no_processing(cls, model_name: str, **options: Any) -> HookedTransformer:
        """The same with its weights as they are."""
        off = dict.fromkeys(
            ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False
        )
        return cls.from_pretrained(model_name, **{**off, **options})

    # ------------------------------------------------------------------ running

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Any,
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        start_at_layer: int | None = None,
        tokens: Tensor | None = None,
        shortformer_pos_embed: Tensor | None = None,
        attention_mask: Tensor | None = None,
        stop_at_layer: int | None = None,
        past_kv_cache: KeyValues | None = None,
        *,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
        logits_at: LogitsAt = None,
    ) -> Any:
        """Logits [b, p, v], the loss, both, or nothing; with `stop_at_layer` the stream [b, p, d] there.

        Args:
            input: text, texts, ids [b, p] or [p], a residual stream [b, p, d], or `ModelInputs`.
            return_type: "logits", "loss" (mean cross-entropy of each next token, in nats), "both", or None.
            loss_per_token: the loss of each token but the first, [b, p - 1].
            start_at_layer, stop_at_layer: run these blocks only; negative counts from the end.
            tokens: ids [b, p] for the loss of a run that starts from a stream.
            past_kv_cache: keys and values that the run stands on and adds to; `past` is the same.

        `taps` and `logits_at` are the core's.

        Raises:
            ValueError: as for `Transformer.forward`; or an unknown return type; or a loss of no tokens.
        """
        if return_type not in RETURNS:
            raise ValueError(unknown("return type", return_type, [r for r in RETURNS if r]))
        if shortformer_pos_embed is not None:
            raise ValueError("no model here has positions that attention alone is given (shortformer)")
        given, ids, mask = self.read(input, prepend_bos, padding_side, attention_mask)
        ids = ids if tokens is None else tokens
        if return_type in ("loss", "both") and stop_at_layer is None and ids is None:
            raise ValueError(
                f"return_type={return_type!r} of a residual stream needs tokens=, the ids of its text"
            )
        past = past_kv_cache if past is None else past
        start = (start_at_layer or 0) + (self.cfg.n_layers if (start_at_layer or 0) < 0 else 0)
        out = super().forward(
            given, attention_mask=mask, taps=taps, start_at_layer=start, stop_at_layer=stop_at_layer, past=past,
            logits_at=logits_at,
        )  # fmt: skip
        if stop_at_layer is not None or return_type == "logits":
            return out
        if return_type is None:
            return None
        assert ids is not None
        loss = self.loss_fn(out, ids, mask, loss_per_token)
        return loss if return_type == "loss" else Output(out, loss)

    def input_to_embed(
        self,
        input: Any,
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        attention_mask: Tensor | None = None,
        past_kv_cache: KeyValues | None = None,
    ) -> tuple[Tensor, Tensor | None, None, Tensor | None]:
        """The first stream [b, p, d], ids, nothing (positions that attention alone is given), and the mask."""
        given, ids, mask = self.read(input, prepend_bos, padding_side, attention_mask)
        past = None if past_kv_cache is None else past_kv_cache.upto(past_kv_cache.length)
        return self(given, attention_mask=mask, stop_at_layer=0, past=past), ids, None, mask

    def loss_fn(
        self, logits: Tensor, tokens: Tensor, attention_mask: Tensor | None = None, per_token: bool = False
    ) -> Tensor:
        """Cross-entropy of each next token in nats: the mean, or `per_token` [b, p - 1]; see `lens.compat.loss`."""
        return next_token_loss(logits, tokens, attention_mask, per_token)

    def run_with_cache(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *model_args: Any,
        names_filter: Any = None,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        pos_slice: Any = None,
        return_cache_object: bool = True,
        edits: Any = None,
        grad: bool = False,
        **model_kwargs: Any,
    ) -> tuple[Any, Any]:
        """What `forward` gives, and the activations asked for.

        Args:
            names_filter: None for all ordinary sites and those that are switched on; a name, shorthand, list of
                those, or a function of the full name.
            device: where to keep them.
            incl_bwd: run the backward pass of what comes out, which must be one number, and keep the gradient of
                each site as `name + "_grad"`.
            pos_slice: keep these query positions only: an int, (start, stop, step), or a list.
            return_cache_object: False for a dictionary.
            edits, grad: the core's; with `grad`, activations are kept with their graph.

        Raises:
            ValueError: a name is none of this model's, or was named and cannot fire in this run.
        """
        inputs, *rest = model_args
        if rest and not (rest[0] is None or rest[0] in RETURNS):  # the core's order: (inputs, names_filter)
            names_filter, rest = rest[0], []
        reads = self._reads(inputs, names_filter, model_kwargs)
        cut, gradients = Slice.unwrap(pos_slice), {}

        def keep(name: str, x: Tensor) -> Tensor:
            if grad:
                return x
            x = sliced(self.hook_dict[name], self.hook_dict[name].shown(x.detach()), cut)
            return x if device is None else x.to(device)

        def note(g: Tensor, hook: HookPoint) -> None:
            g = sliced(hook, g.detach(), cut)
            gradients[f"{hook}_grad"] = g if device is None else g.to(device)

        backward = {name: self.hook_dict[name].gradient(note) for name in reads} if incl_bwd else None
        taps = Taps(reads, edits, gradients=backward, keep=keep, grad=grad)
        out = self(inputs, *rest, taps=taps, **model_kwargs)
        if incl_bwd:
            out.backward()
        cache = ActivationCache({**taps.seen, **gradients}, self)
        cache = cache.remove_batch_dim() if remove_batch_dim else cache
        if clear_contexts:
            self.clear_contexts()
        return out, cache if return_cache_object else dict(cache)

    def _reads(self, inputs: Any, names_filter: Any, options: Mapping[str, Any]) -> list[str]:
        """The sites a run is to keep; those it cannot reach are left out, unless they were named."""
        start = options.get("start_at_layer") or 0
        start += self.cfg.n_layers if start < 0 else 0
        span = Span.of(self.cfg, inputs, start, options.get("stop_at_layer"))
        found: list[str] = [point.name for point in points(self, names_filter)]
        named = names_filter if isinstance(names_filter, list | tuple | set | frozenset) else [names_filter]
        check_sites(self, [name for name in found if name in named], span)
        return [name for name in found if span.fires(self.sites[name])]

    def generate(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Any = "",
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: Any = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        freq_penalty: float = 0.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        return_type: str | None = "input",
        verbose: bool = True,
        **core: Any,
    ) -> Any:
        """Text or ids continued by sampling; hooks act on every step. See `lens.compat.generation`.

        `verbose` is taken and nothing is printed. With an option of the core's (`seed`, `stop`, `edits`, …), the core
        generates (`lens.generate.generate`), greedily unless there is a `temperature` other than 1.

        Raises:
            ValueError: an option is out of range, or prompt and new tokens do not fit the context.
        """
        if core:
            drawn = 0.0 if temperature == 1.0 else temperature
            return generate(
                self, input, max_new_tokens, stop_at_eos=stop_at_eos, top_k=top_k, top_p=top_p, temperature=drawn,
                prepend_bos=prepend_bos, **core,
            )  # fmt: skip
        with torch.no_grad():
            return continued(
                self, input, max_new_tokens, stop_at_eos=stop_at_eos, eos_token_id=eos_token_id, do_sample=do_sample,
                top_k=top_k, top_p=top_p, temperature=temperature, freq_penalty=freq_penalty,
                use_past_kv_cache=use_past_kv_cache, prepend_bos=prepend_bos, padding_side=padding_side,
                return_type=return_type,
            )  # fmt: skip

    # ------------------------------------------------------------------ parts

    @property
    def pos_embed(self) -> PositionEmbed:
        """The embedding of positions: `model.pos_embed.W_pos`, `model.pos_embed(tokens)`."""
        return PositionEmbed(self.W_pos)

    @property
    def mod_dict(self) -> dict[str, Any]:
        """Every part and hook point by TransformerLens's name."""
        parts = {
            name.removeprefix("stack."): part
            for name, part in self.named_modules()
            if name not in ("", "stack")
        }
        return {**parts, **self.hook_dict}

    # ------------------------------------------------------------------ where it is

    def to(self, *args: Any, print_details: bool = False, **options: Any) -> HookedTransformer:
        """Move or cast the model; gives it back."""
        Transformer.to(self, *args, **options)
        return self._located()

    def cuda(self, device: Any = None) -> HookedTransformer:
        """Move the model to a CUDA device."""
        return self.to("cuda" if device is None else device)

    def cpu(self) -> HookedTransformer:
        """Move the model to the CPU."""
        return self.to("cpu")

    def _located(self) -> HookedTransformer:
        """The settings say where the model is, and of which type."""
        self.cfg.hooked.device, self.cfg.hooked.dtype = str(self.device), self.dtype
        return self


def _completed(c: HookedTransformerConfig, tokenizer: HookedTokenizer | None) -> HookedTransformerConfig:
    """The vocabulary's size from the tokenizer, where it is not given."""
    if c.d_vocab == -1 and tokenizer is not None:
        c.d_vocab = tokenizer.n_vocab
        c.d_vocab_out = c.d_vocab if c.d_vocab_out == -1 else c.d_vocab_out
    return c
