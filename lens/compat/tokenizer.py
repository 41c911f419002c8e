"""The core's tokenizer, which also answers to the names that transformers' tokenizers have."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lens.nearest import unknown
from lens.tokens import ROLES, Tokenizer

SIDES = ("right", "left")


class HookedTokenizer(Tokenizer):
    """`Tokenizer`, with transformers' names beside its own: whatever it does not have itself is asked of `hf`.

    As in TransformerLens, a text that has no token for padding is padded with its end-of-text token, which also begins
    texts where nothing else does. `padding_side` can be set.
    """

    padding_side: Literal["right", "left"]

    @classmethod
    def of(cls, tokenizer: Any, padding_side: str = "right") -> HookedTokenizer:
        """The core's tokenizer, or a fast one of transformers.

        Raises:
            ValueError: it is neither, or there is no such side.
        """
        if padding_side not in SIDES:
            raise ValueError(unknown("padding side", padding_side, SIDES))
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = _from_transformers(tokenizer)
        made = cls.__new__(cls)
        made.__dict__.update(tokenizer.__dict__)
        made.padding_side = padding_side  # type: ignore[assignment]
        return made

    bos_token_id = property(lambda self: self.eos_id if self.bos_id is None else self.bos_id)
    eos_token_id = property(lambda self: self.eos_id)
    pad_token_id = property(lambda self: self.eos_id if self.pad_id is None else self.pad_id)
    unk_token_id = property(lambda self: self.unk_id)
    bos_token = property(lambda self: self.special.get("bos", self.special.get("eos")))
    eos_token = property(lambda self: self.special.get("eos"))
    pad_token = property(lambda self: self.special.get("pad", self.special.get("eos")))
    unk_token = property(lambda self: self.special.get("unk"))
    vocab = property(lambda self: self.backend.get_vocab())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.hf, name)

    def __call__(self, *texts: Any, **options: Any) -> Any:
        return self.hf(*texts, **options)

    def __len__(self) -> int:
        return self.n_vocab

    def decode(self, ids: Any, skip_special_tokens: bool = False, **options: Any) -> str:
        """The text of an id or of ids; `options` of transformers that change nothing here are taken."""
        ids = [ids] if isinstance(ids, int) else torch.as_tensor(ids).flatten().tolist()
        return self.backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, rows: Any, **options: Any) -> list[str]:
        """The text of each row, or of each id."""
        return [self.decode(row, **options) for row in rows]

    def begun(self, text: str, prepend_bos: bool) -> list[int]:
        """Ids of a text, with everything that the tokenizer puts around it; the token in front as asked.

        Raises:
            ValueError: there is no token that could begin a text.
        """
        ids = self.encode(text, add_special=True)
        if prepend_bos and not self.prepends_bos:
            if self.bos_token_id is None:
                raise ValueError(
                    "prepend_bos=True, and this tokenizer has no token that begins or ends a text"
                )
            return [self.bos_token_id, *ids]
        return ids[1:] if self.prepends_bos and not prepend_bos else ids

    def mask(self, ids: Tensor, prepend_bos: bool) -> Tensor:
        """1 where a token is real, [b, p]: padding is what stands at the padded side alone.

        Where texts begin with the token that they are padded with, the last of those in front is no padding.
        """
        real = ids != self.pad_token_id
        if self.padding_side == "right":
            return (real.flip(-1).cumsum(-1) > 0).flip(-1).long()
        kept = real.cumsum(-1) > 0
        if prepend_bos and self.bos_token_id == self.pad_token_id:
            last = ((~kept).sum(-1) - 1).clamp(min=0)
            kept[torch.arange(len(ids), device=ids.device), last] = True
        return kept.long()


def _from_transformers(tokenizer: Any) -> Tokenizer:
    from transformers import PreTrainedTokenizerBase

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or backend is None:
        raise ValueError(
            f"a tokenizer is one of lens or a fast one of transformers, not {type(tokenizer).__name__}"
        )
    import tokenizers

    own = tokenizers.Tokenizer.from_str(backend.to_str())
    special: dict[str, Any] = {role: getattr(tokenizer, f"{role}_token", None) for role in ROLES}
    special = {
        role: str(t) for role, t in special.items() if t is not None and own.token_to_id(str(t)) is not None
    }
    return Tokenizer(own, **special, chat_template=getattr(tokenizer, "chat_template", None))
