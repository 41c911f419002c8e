"""Texts or ids as a model's input, in batches of similar length, and places in them.

Letters: n prompt, b batch, p position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lens import arguments
from lens.text import tokenizer_of
from probes import given

if TYPE_CHECKING:
    from lens.model import Transformer

Inputs = str | Sequence[str] | Int[Tensor, "n p"] | Int[Tensor, " p"]
At = int | str | Sequence[int] | Int[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some of the prompts, padded on the right, on the model's device.

    Args:
        index: int64 [b], which prompts.
        ids: int64 [b, p].
        mask: True where a token is real.
    """

    index: Int[Tensor, " b"]
    ids: Int[Tensor, "b p"]
    mask: Bool[Tensor, "b p"]

    @property
    def lengths(self) -> Int[Tensor, " b"]:
        return self.mask.sum(1)

    @property
    def attention_mask(self) -> Bool[Tensor, "b p"] | None:
        """None where nothing is padded, so that the fused kernel makes its own."""
        return None if bool(self.mask.all()) else self.mask


@dataclass(frozen=True, eq=False)
class Prompts:
    """n prompts as ids, none of them empty, each within the model's context."""

    rows: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: Transformer, inputs: Inputs, prepend_bos: bool | None = None) -> Prompts:
        """From a text, texts (as the tokenizer begins them, or as `prepend_bos` says), or ids [n, p] without padding.

        Raises:
            ValueError: there are none, one is empty or longer than the context, or an id is outside the vocabulary.
        """
        if isinstance(inputs, Tensor):
            ids, d_vocab = inputs[None] if inputs.ndim == 1 else inputs, model.cfg.embed.d_vocab
            if ids.ndim != 2 or ids.is_floating_point() or not ids.numel():
                raise ValueError(
                    f"prompts are ids [n, p] with at least one of each, not {list(inputs.shape)}"
                )
            if int(ids.min()) < 0 or int(ids.max()) >= d_vocab:
                raise ValueError(f"an id is outside the vocabulary of {model.cfg.name} (0 to {d_vocab - 1})")
            rows = [tuple(row) for row in ids.tolist()]
        else:
            texts = [inputs] if isinstance(inputs, str) else given.texts(inputs)
            tokenizer = tokenizer_of(model)
            rows = [tuple(tokenizer.prompt(text, prepend_bos)) for text in texts]
        if not rows:
            raise ValueError("there are no prompts")
        for i, row in enumerate(rows):
            if not row:
                raise ValueError(f"prompt {i} is empty: it has no tokens")
            try:
                arguments.check_length(model.cfg, len(row))
            except ValueError as error:
                raise ValueError(f"prompt {i}: {error}") from error
        return cls(tuple(rows))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Int[Tensor, " n"]:
        return torch.tensor([len(row) for row in self.rows])

    def at(self, place: At) -> Int[Tensor, " n"]:
        """One position per prompt: "last", a number (negative: from the end of each prompt), or one number for each.

        Raises:
            ValueError: a place that a prompt does not have.
        """
        lengths = self.lengths
        if isinstance(place, str):
            if place != "last":
                raise ValueError(
                    f"{place!r} is not a place in a prompt; it is 'last', a number, or one for each"
                )
            return lengths - 1
        found = (
            torch.full_like(lengths, place) if isinstance(place, int) else torch.as_tensor(place).long().cpu()
        )
        if found.shape != lengths.shape:
            raise ValueError(f"there are {len(lengths)} prompts and places of shape {list(found.shape)}")
        if bool((bad := (found < -lengths) | (found >= lengths)).any()):
            i = int(bad.nonzero()[0])
            raise ValueError(
                f"position {int(found[i])} is past the end of prompt {i}, which has {lengths[i]} tokens"
            )
        return torch.where(found < 0, found + lengths, found)

    def batches(self, model: Transformer, size: int) -> Iterator[Batch]:
        """All prompts, those of similar length together.

        Raises:
            ValueError: size below 1.
        """
        if size < 1:
            raise ValueError(f"batch_size is {size}; it must be at least 1")
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i]))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            width = len(self.rows[chosen[-1]])
            ids = torch.tensor([[*self.rows[i], *[0] * (width - len(self.rows[i]))] for i in chosen])
            mask = torch.arange(width) < torch.tensor([len(self.rows[i]) for i in chosen])[:, None]
            yield Batch(torch.tensor(chosen), ids.to(model.device), mask.to(model.device))
