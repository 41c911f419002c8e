"""Text in and out of a drop-in model, in TransformerLens's words.

Letters: b batch, p position, d d_model; `...` any axes.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lens import arguments
from lens.compat.tokenizer import SIDES, HookedTokenizer
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.nearest import unknown
from lens.text import tokenizer_of

Side = Literal["right", "left"]


def begun_by_hand(tokenizer: Any, input: Any) -> Any:
    """A text or texts with the token in front that begins texts, in words; `tokenizer` may be that token."""
    bos = tokenizer if isinstance(tokenizer, str) else tokenizer.bos_token
    return bos + input if isinstance(input, str) else [bos + text for text in input]


class Texts(Transformer):
    """What `HookedTransformer` knows of text. `prepend_bos=None` is `cfg.default_prepend_bos`, `padding_side=None`
    is `tokenizer.padding_side`."""

    def set_tokenizer(self, tokenizer: Any, default_padding_side: str = "right") -> None:
        """Use this tokenizer: one of lens, or a fast one of transformers.

        Raises:
            ValueError: it is neither.
        """
        self.tokenizer = HookedTokenizer.of(tokenizer, default_padding_side)
        settings: Any = self.cfg
        settings.tokenizer_prepends_bos = self.tokenizer.prepends_bos

    def to_tokens(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: str | list[str],
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        move_to_device: bool = True,
        truncate: bool = True,
    ) -> Tensor:
        """Ids [b, p] of a text or texts, padded, and cut to the context with `truncate`.

        Raises:
            ValueError: there is no tokenizer, or nothing to tokenise.
        """
        tokenizer, side = self._tokenizer(padding_side)
        texts = [input] if isinstance(input, str) else list(input)
        if not texts or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"expected a text or texts, got {type(input).__name__} {str(input)[:40]!r}")
        rows = [tokenizer.begun(text, self._begins(prepend_bos)) for text in texts]
        rows = [row[: self.cfg.n_ctx] if truncate else row for row in rows]
        ids = tokenizer.pad(rows, side, tokenizer.pad_token_id)[0]
        return ids.to(self.device) if move_to_device else ids

    def to_inputs(self, texts: Any, prepend_bos: bool | None = None, targets: Any = None) -> ModelInputs:
        """Text, texts or ids as one value that every way of running takes; padding is masked.

        Raises:
            ValueError: as `to_tokens`; or ids do not fit the model.
        """
        one = isinstance(texts, str)
        if targets is not None or not (
            one or (isinstance(texts, list) and all(isinstance(t, str) for t in texts))
        ):
            return super().to_inputs(texts, prepend_bos, targets)
        tokenizer, _ = self._tokenizer(None)
        rows = [tokenizer.begun(text, self._begins(prepend_bos)) for text in ([texts] if one else texts)]
        empty = next((i for i, row in enumerate(rows) if not row), None)
        if empty is not None or not rows:
            raise ValueError(f"prompt {empty or 0} is empty: it has no tokens")
        ids, mask = tokenizer.pad(rows)
        return ModelInputs(ids=ids, mask=None if bool(mask.all()) else mask).to(self.device)

    def to_string(self, tokens: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The text of ids [p], or of each row of ids [b, p].

        Raises:
            ValueError: ids have more axes.
        """
        tokenizer, _ = self._tokenizer(None)
        ids = torch.as_tensor(tokens)
        if ids.ndim > 2:
            raise ValueError(f"ids are [pos] or [batch, pos], not {tuple(ids.shape)}")
        return tokenizer.batch_decode(ids) if ids.ndim == 2 else tokenizer.decode(ids)

    def to_str_tokens(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input: Any, prepend_bos: bool | None = None, padding_side: Side | None = None
    ) -> Any:
        """One readable string per token of a text or of ids [p] or [1, p]; of several texts, a list each."""
        if isinstance(input, list) and input and not isinstance(input[0], int | np.integer):
            return [self.to_str_tokens(one, prepend_bos, padding_side) for one in input]
        if isinstance(input, str):
            input = self.to_tokens(input, prepend_bos, padding_side)[0]
        ids = torch.as_tensor(input)
        if ids.ndim > 1 and ids.shape[0] != 1:
            raise ValueError(f"to_str_tokens takes one row of ids, not {ids.shape[0]}")
        return self._tokenizer(None)[0].str_tokens(ids.flatten().tolist())

    def to_single_token(self, string: str) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The id of a text that is exactly one token.

        Raises:
            ValueError: it is none or several; the message shows the pieces.
        """
        return tokenizer_of(self).single(string)

    def to_single_str_token(self, int_token: int) -> str:
        """The text of one id."""
        return self.to_str_tokens(torch.tensor([int_token]))[0]

    def get_token_position(
        self,
        single_token: str | int | Tensor,
        input: str | Tensor,
        mode: str = "first",
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
    ) -> int:
        """Where a token is in a text or ids [p] or [1, p]: at its first or last place.

        Raises:
            ValueError: it is nowhere, or there is no such mode.
        """
        if mode not in ("first", "last"):
            raise ValueError(unknown("mode", mode, ("first", "last")))
        ids = self.to_tokens(input, prepend_bos, padding_side) if isinstance(input, str) else input
        if ids.ndim == 2 and ids.shape[0] != 1:
            raise ValueError(f"a token is looked for in one row of ids, not {ids.shape[0]}")
        token = self.to_single_token(single_token) if isinstance(single_token, str) else int(single_token)
        found = (ids.flatten() == token).nonzero().flatten()
        if not len(found):
            raise ValueError(f"token {token} does not occur in the prompt")
        return int(found[0 if mode == "first" else -1])

    def tokens_to_residual_directions(self, tokens: Any) -> Tensor:
        """What the last stream is multiplied by for the logits of tokens, [..., d]: columns of W_U.

        One token (a text, an id) gives [d]. Gains of a final norm that has not been folded are not in it.
        """
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        ids = torch.as_tensor(tokens, device=self.device)
        if ids.numel() == 1:
            ids = ids.reshape(())
        return self.W_U.T[ids]

    # ------------------------------------------------------------------ what a run is given

    def read(
        self, input: Any, prepend_bos: bool | None, padding_side: Side | None, attention_mask: Tensor | None
    ) -> tuple[Any, Tensor | None, Tensor | None]:
        """What the core is to run, the ids [b, p] where there are any, and their mask.

        As in TransformerLens, padding on the right is read as text, since nothing before it sees it; padding on
        the left is masked, of ids as well.
        """
        if isinstance(input, ModelInputs) or (
            isinstance(input, Tensor) and arguments.is_stream(input, self.cfg)
        ):
            ids = input.ids if isinstance(input, ModelInputs) else None
            return input, ids, attention_mask
        if input is None:
            raise ValueError("there is nothing to run: give a text, texts, ids or a residual stream")
        if isinstance(input, str) or (isinstance(input, list) and input and not isinstance(input[0], int)):
            input = self.to_tokens(input, prepend_bos, padding_side)
        ids = torch.as_tensor(input)
        ids = (ids[None] if ids.ndim == 1 else ids).to(self.device)
        if attention_mask is None and self.tokenizer is not None:
            tokenizer, side = self._tokenizer(padding_side)
            if side == "left":
                mask = HookedTokenizer.of(tokenizer, side).mask(ids, self._begins(prepend_bos))
                attention_mask = None if bool(mask.all()) else mask
        return ids, ids, attention_mask

    def _begins(self, prepend_bos: bool | None) -> bool:
        settings: Any = self.cfg
        return settings.default_prepend_bos if prepend_bos is None else prepend_bos

    def _tokenizer(self, padding_side: Side | None) -> tuple[HookedTokenizer, Side]:
        tokenizer = tokenizer_of(self)
        assert isinstance(tokenizer, HookedTokenizer)
        if padding_side not in (None, *SIDES):
            raise ValueError(unknown("padding side", padding_side, SIDES))
        return tokenizer, padding_side or tokenizer.padding_side
