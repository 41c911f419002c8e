"""`HookedEncoder`: TransformerLens's BERT on the core, and the head that tells whether one sentence follows another.

Sites have TransformerLens's names, `embed.hook_embed` and `nsp_head.hook_nsp_out`. The pooler and the head of next
sentences fire where they are asked for. A query that is padding looks at itself as well.

Letters: b batch, p position, d d_model, v vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lens.compat.encoder_config import encoder_config
from lens.compat.encoder_texts import EncoderTexts, padded
from lens.compat.mounted import Mounted
from lens.compat.placed import hook_points_shown
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.nearest import unknown
from lens.taps import OFF, AnyTaps, Joined, Taps
from lens.unembed import LogitsAt

RETURNS = ("logits", "predictions")
FOLLOWS = "nsp_head.hook_nsp_out"
THEIRS = {
    "hook_embed": "embed.hook_embed",
    "hook_pos_embed": "embed.hook_pos_embed",
    "hook_token_type_embed": "embed.hook_token_type_embed",
}


class HookedEncoder(Mounted, EncoderTexts):  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    """An encoder trained on masked words, with TransformerLens's interface; see `Mounted` for its arguments."""

    described_by = staticmethod(encoder_config)
    shaped_like = "BERT"

    def their_name(self, site: str) -> str:
        if site == "classifier.hook_logits" and self.follows:
            return FOLLOWS
        return THEIRS.get(site, site)

    def their_path(self, path: str) -> str:
        path = path.replace("unembed.transform", "mlm_head", 1)
        return super().their_path(path.replace("classifier", "nsp_head", 1) if self.follows else path)

    @property
    def follows(self) -> bool:
        """Does this model say whether one sentence follows another?"""
        return self.cfg.classifier is not None and self.cfg.classifier.task == "follows"

    # ------------------------------------------------------------------ running

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Any,
        return_type: str | None = "logits",
        token_type_ids: Tensor | None = None,
        one_zero_attention_mask: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        taps: AnyTaps = OFF,
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
        logits_at: LogitsAt = None,
        past: None = None,
    ) -> Any:
        """Logits [b, p, v] of masked words; or the words that are likeliest there ("predictions"), or nothing.

        Args:
            input: a text, texts, pairs of texts, ids [b, p], or a stream [b, p, d] with `start_at_layer`.
            token_type_ids: 0 for the first text of a pair, 1 for the second, [b, p].
            one_zero_attention_mask: 1 where a token is real, [b, p]; `attention_mask` is the same.

        `taps`, `start_at_layer`, `stop_at_layer` and `logits_at` are the core's. A model without a head for masked
        words gives what the core gives: logits of its classes, or the last stream.

        Raises:
            ValueError: as for `Transformer.forward`; or an unknown return type, or there are no words to predict.
        """
        if return_type not in (*RETURNS, None):
            raise ValueError(unknown("return type", return_type, RETURNS))
        mask = attention_mask if one_zero_attention_mask is None else one_zero_attention_mask
        given = self.given(input, token_type_ids, mask)
        if return_type == "predictions":
            self.check_predicts(given)
        out = super().forward(
            given, taps=taps, start_at_layer=start_at_layer, stop_at_layer=stop_at_layer, logits_at=logits_at
        )
        if return_type == "predictions":
            return self.predictions(out, given.ids)
        return out if return_type == "logits" else None

    def to_tokens(  # type: ignore[override]
        self, input: Any, move_to_device: bool = True, truncate: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, types and mask of a text, texts or pairs of texts, [b, p] each; see `EncoderTexts.tokenized`.

        Raises:
            ValueError: there is no tokenizer, or nothing to tokenise.
        """
        return self.tokenized(input, move_to_device, truncate)

    def encoder_output(
        self,
        tokens: Tensor,
        token_type_ids: Tensor | None = None,
        one_zero_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """The last stream [b, p, d], which the heads read, of ids [b, p]."""
        about = {"token_type_ids": token_type_ids, "one_zero_attention_mask": one_zero_attention_mask}
        return self(tokens, **about, stop_at_layer=self.cfg.n_layers)

    def next_sentence(self, given: ModelInputs, taps: AnyTaps = OFF) -> Tensor:
        """Logits [b, 2]: the second text follows the first, or it does not.

        Raises:
            ValueError: the model has no such head.
        """
        if not self.follows:
            raise ValueError(f"{self.cfg.name} has no head that says whether one sentence follows another")
        said: list[Tensor] = []
        with hook_points_shown(self):
            taps = _also(taps, Taps(edits={FOLLOWS: said.append}))
            Transformer.forward(self, given, taps=taps, logits_at=0)
        return said[0]

    # ------------------------------------------------------------------ parts

    @property
    def mlm_head(self) -> Any:
        """The hidden layer in front of the vocabulary: `W`, `b`, `ln`.

        Raises:
            ValueError: there is none.
        """
        head = None if self.cfg.unembed is None else self.unembed.transform
        if head is None:
            raise ValueError(f"{self.cfg.name} has no head for masked words")
        return head

    @property
    def nsp_head(self) -> Any:
        """The map from the pooled vector to whether a sentence follows: `W`, `b`.

        Raises:
            ValueError: there is none.
        """
        if not self.follows:
            raise ValueError(f"{self.cfg.name} has no head that says whether one sentence follows another")
        return self.classifier


def _also(taps: AnyTaps, last: Taps) -> AnyTaps:
    """`taps`, and `last` behind them."""
    return last if taps is OFF else Joined(taps, last)  # type: ignore[arg-type]


class BertNextSentencePrediction:
    """Does the second of two texts follow the first? A `HookedEncoder` asked for that instead of for masked words."""

    def __init__(self, model: HookedEncoder) -> None:
        self.model = model

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.forward(*args, **options)

    def to_tokens(
        self, input: Any, move_to_device: bool = True, truncate: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, types and mask of two texts, [1, p] each.

        Raises:
            ValueError: these are not two texts.
        """
        if not isinstance(input, list | tuple) or len(input) != 2:
            raise ValueError("next sentences are of exactly two texts: give a list of two")
        return self.model.to_tokens([tuple(input)], move_to_device, truncate)

    def forward(
        self,
        input: Any,
        return_type: str | None = "logits",
        token_type_ids: Tensor | None = None,
        one_zero_attention_mask: Tensor | None = None,
        *,
        taps: AnyTaps = OFF,
    ) -> Any:
        """Logits [b, 2], or in words ("predictions", of one pair), of two texts or of ids with their types.

        Raises:
            ValueError: ids come without types, or there are not two texts; or as for `HookedEncoder`.
        """
        if return_type not in (*RETURNS, None):
            raise ValueError(unknown("return type", return_type, RETURNS))
        mask = one_zero_attention_mask
        if not isinstance(input, Tensor):
            input, types, real = self.to_tokens(input)
            token_type_ids = types if token_type_ids is None else token_type_ids
            mask = real if mask is None else mask
        elif token_type_ids is None:
            raise ValueError("ids of two texts need token_type_ids, which tell the texts apart")
        logits = self.model.next_sentence(padded(input, token_type_ids, mask), taps)
        if return_type == "predictions":
            if len(logits) != 1:
                raise ValueError(f"a prediction in words is of one pair, not of {len(logits)}")
            answers = ("The sentences are sequential", "The sentences are NOT sequential")
            return answers[int(logits.argmax(-1))]
        return logits if return_type == "logits" else None

    def run_with_cache(self, *model_args: Any, names_filter: Any = None, **options: Any) -> tuple[Any, Any]:
        """What `forward` gives, and the activations asked for; without a filter, all but those of masked words."""
        if names_filter is None:
            names_filter = _of_pairs
        return self.model.run_with_cache(
            *model_args, names_filter=names_filter, instead=self.forward, **options
        )


def _of_pairs(site: str) -> bool:
    return not site.startswith(("mlm_head.", "hook_logits"))
