"""How encoders and encoder–decoders are loaded, and text in and out of them, in TransformerLens's words.

Letters: b batch, p position, d d_model, v vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from lens.arguments import is_stream
from lens.compat.tokenizer import HookedTokenizer
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.text import tokenizer_of

Made = TypeVar("Made", bound="EncoderTexts")


class EncoderTexts(Transformer):
    """What `HookedEncoder` and `HookedEncoderDecoder` share beside their hooks: how they are loaded, and text."""

    shaped_like: ClassVar[Literal["BERT", "T5"]]

    @classmethod
    def from_pretrained(cls: type[Made], model_name: str, *args: Any, **options: Any) -> Made:
        """A loaded model, its weights as they are; see `lens.compat.loading.encoder_from_pretrained`.

        Raises:
            ValueError: unknown name or option, or a model of another shape; one line says which.
        """
        from lens.compat.loading import encoder_from_pretrained

        return encoder_from_pretrained(cls, model_name, cls.shaped_like, *args, **options)

    def set_tokenizer(self, tokenizer: Any, default_padding_side: str = "right") -> None:
        """Use this tokenizer: one of lens, or a fast one of transformers.

        Raises:
            ValueError: it is neither.
        """
        self.tokenizer = HookedTokenizer.of(tokenizer, default_padding_side)

    def tokenized(
        self, input: Any, move_to_device: bool = True, truncate: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ids [b, p], types [b, p] (0 or 1: which text of a pair) and mask [b, p] (1 where a token is real).

        Args:
            input: a text, texts, or pairs of texts.
            truncate: leave out what is too long for the context; of a pair, of the longer text.

        Raises:
            ValueError: there is no tokenizer, or nothing to tokenise.
        """
        rows, types = self._rows(input, truncate)
        tokenizer = tokenizer_of(self)
        assert isinstance(tokenizer, HookedTokenizer)
        ids, mask = tokenizer.pad(rows, tokenizer.padding_side, tokenizer.pad_token_id)
        found = ids, tokenizer.pad(types, tokenizer.padding_side, 0)[0], mask.long()
        return tuple(x.to(self.device) if move_to_device else x for x in found)  # type: ignore[return-value]

    def _rows(self, input: Any, truncate: bool) -> tuple[list[list[int]], list[list[int]]]:
        """Ids and types of each text or pair."""
        backend = tokenizer_of(self).backend
        texts = [input] if isinstance(input, str) else list(input) if isinstance(input, list | tuple) else []
        rows, types = [], []
        for text in texts:
            parts = (text,) if isinstance(text, str) else text
            if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
                raise ValueError(f"expected texts or pairs of texts, got {str(text)[:40]!r}")
            encoded = [backend.encode(part, add_special_tokens=False) for part in parts]
            room = self.cfg.n_ctx - backend.num_special_tokens_to_add(len(parts) == 2)
            while truncate and (over := sum(map(len, encoded)) - room) > 0:
                longest = max(encoded, key=len)
                others = max((len(e) for e in encoded if e is not longest), default=0)
                longest.truncate(max(len(longest) - over, others - 1, 0))
            whole = backend.post_process(encoded[0], encoded[1] if len(parts) == 2 else None)
            rows.append(list(whole.ids))
            types.append(list(whole.type_ids))
        if not rows or not all(rows):
            raise ValueError("there are no texts" if not rows else "a text has no tokens")
        return rows, types

    def given(self, input: Any, types: Tensor | None, mask: Tensor | None) -> ModelInputs:
        """What the core is to read."""
        if isinstance(input, ModelInputs):
            return input
        if isinstance(input, Tensor):
            if is_stream(input, self.cfg):
                return ModelInputs(stream=input, mask=mask)
            return padded(input.to(self.device), types, mask)
        ids, of_tokenizer, real = self.tokenized(input)
        types = of_tokenizer if types is None and self.cfg.embed.n_types > 1 else types
        return padded(ids, types, real if mask is None else mask)

    def check_predicts(self, given: ModelInputs) -> None:
        """Raise unless there are masked words, and a head that says what they are."""
        tokenizer = tokenizer_of(self)
        if self.cfg.unembed is None or tokenizer.mask_id is None:
            what = "head" if self.cfg.unembed is None else "tokenizer"
            raise ValueError(f"the {what} of {self.cfg.name} knows of no masked words")
        if given.ids is None or not bool((given.ids == tokenizer.mask_id).any()):
            raise ValueError(
                f"there is no {tokenizer.special['mask']} in these texts whose word could be predicted"
            )

    def predictions(self, logits: Tensor, ids: Tensor | None) -> str | list[str]:
        """The likeliest words where words are masked: one, or with several a list that numbers them."""
        tokenizer = tokenizer_of(self)
        assert ids is not None
        said = tokenizer.decode(logits[ids == tokenizer.mask_id].argmax(-1))
        return [f"Prediction {i}: {word}" for i, word in enumerate(said.split(" "))] if " " in said else said


def padded(ids: Tensor, types: Tensor | None, mask: Tensor | None) -> ModelInputs:
    """Ids with their types and mask, all on the ids' device."""
    ids = ids[None] if ids.ndim == 1 else ids
    valid = None if mask is None else mask.to(device=ids.device, dtype=torch.bool)
    valid = None if valid is None or bool(valid.all()) else valid
    return ModelInputs(ids=ids, types=None if types is None else types.to(ids.device), mask=valid)
