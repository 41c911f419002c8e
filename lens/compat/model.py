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

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lens.compat.datapoints import Datapoints
from lens.compat.ends import PositionEmbed
from lens.compat.generation import continued
from lens.compat.loss import next_token_loss
from lens.compat.mounted import Mounted
from lens.compat.state_steps import StateSteps
from lens.compat.texts import Side, Texts
from lens.generate import generate
from lens.kv import KeyValues
from lens.nearest import unknown
from lens.taps import OFF, AnyTaps
from lens.unembed import LogitsAt

RETURNS = ("logits", "loss", "both")


class Output(NamedTuple):
    """What `return_type="both"` gives."""

    logits: Tensor
    loss: Tensor


class HookedTransformer(Mounted, Texts, StateSteps, Datapoints):  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    """A language model with TransformerLens's interface; see `Mounted` for its arguments."""

    @classmethod
    def from_pretrained(cls, model_name: str, *args: Any, **options: Any) -> HookedTransformer:
        """A loaded model, processed as TransformerLens does by default; see `lens.compat.loading.from_pretrained`.

        Raises:
            ValueError: unknown name or option, unsupported model; one line says which.
        """
        from lens.compat.loading import from_pretrained

        return from_pretrained(cls, model_name, *args, **options)

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
        if return_type not in (*RETURNS, None):
            raise ValueError(unknown("return type", return_type, RETURNS))
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
