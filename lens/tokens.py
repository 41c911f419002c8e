"""Text to token ids and back: a light wrapper around the `tokenizers` package.

`transformers` is imported only for `.hf`, and for folders that hold nothing but a slow tokenizer's files.

Shapes: b batch, p position.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lens.nearest import unknown

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

ROLES = ("bos", "eos", "pad", "unk", "mask")


class Tokenizer:
    """Immutable after construction, so threads share it.

    Args:
        backend: owned by this object from here on; its truncation and padding are switched off.
        bos, eos, pad, unk, mask: the special tokens' texts, each in the vocabulary. BERT's [CLS] and [SEP]
            are bos and eos.
        add_bos, add_eos: whether `encode(…, add_special=True)` adds them; None leaves it to the backend.
        chat_template: a Jinja template, kept for `hf` and `save`.

    Raises:
        ValueError: a special token is not in the vocabulary.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos: str | None = None,
        eos: str | None = None,
        pad: str | None = None,
        unk: str | None = None,
        mask: str | None = None,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
        chat_template: str | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.special = {r: t for r, t in zip(ROLES, (bos, eos, pad, unk, mask), strict=True) if t is not None}
        self.chat_template = chat_template
        ids = {role: self._special_id(role, text) for role, text in self.special.items()}
        self.bos_id, self.eos_id, self.pad_id, self.unk_id, self.mask_id = map(ids.get, ROLES)
        self._template(add_bos, add_eos)
        self.prepends_bos = self._adds()[0]

    @property
    def n_vocab(self) -> int:
        """Number of tokens, special ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, add_special: bool = False) -> list[int]:
        """Ids of `text`. With `add_special`, with whatever the tokenizer itself adds around a text.

        Raises:
            ValueError: a closed vocabulary lacks a word of `text`; the message names it.
        """
        return self._encode(text, add_special).ids

    def encode_with_offsets(
        self, text: str, add_special: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the half-open range of characters of `text` it stands for.

        Tokens that the tokenizer added stand for `(0, 0)`. Tokens that share a character (bytes of one
        emoji) have the same range.
        """
        encoding = self._encode(text, add_special)
        return encoding.ids, encoding.offsets

    def prompt(self, text: str, prepend_bos: bool | None = None) -> list[int]:
        """Ids of `text` as a model's input.

        `prepend_bos=None` adds what the tokenizer itself adds; True adds exactly the beginning-of-text
        token in front, False adds nothing.

        Raises:
            ValueError: `prepend_bos=True` and the tokenizer has no such token.
        """
        if prepend_bos is None:
            return self.encode(text, add_special=True)
        if not prepend_bos:
            return self.encode(text)
        if self.bos_id is None:
            raise ValueError("prepend_bos=True, but this tokenizer has no beginning-of-text token")
        return [self.bos_id, *self.encode(text)]

    def pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Ids of two texts as one input, with what the tokenizer adds around them, and each token's type.

        Raises:
            ValueError: a closed vocabulary lacks a word.
        """
        encoding = self._encode(first, True, second)
        return encoding.ids, encoding.type_ids

    def batch(
        self,
        texts: Sequence[str],
        prepend_bos: bool | None = None,
        side: Literal["right", "left"] = "right",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids `[b, p]` (int64) padded on `side`, and the attention mask `[b, p]` (bool, True where real).

        Padding is the padding token, else the end-of-text token, else id 0; the mask is what counts.
        """
        return self.pad([self.prompt(text, prepend_bos) for text in texts], side)

    def pad(
        self, rows: Sequence[Sequence[int]], side: Literal["right", "left"] = "right", fill: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of ids as one tensor `[b, p]`, padded with `fill` (see `batch`), and its mask."""
        if side not in ("right", "left"):
            raise ValueError(unknown("padding side", str(side), ("right", "left")))
        width = max((len(row) for row in rows), default=0)
        if fill is None:
            fill = next((i for i in (self.pad_id, self.eos_id) if i is not None), 0)
        ids = torch.full((len(rows), width), fill, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            real = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
            ids[i, real] = torch.tensor(row, dtype=torch.long)
            mask[i, real] = True
        return ids, mask

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """The text of `ids`, special tokens included."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=False)

    def str_tokens(self, ids: Iterable[int] | torch.Tensor) -> list[str]:
        """One readable string per id: spaces kept, byte-level spelling undone, broken UTF-8 shown as "�".

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        return [self._readable(int(i)) for i in ids]

    def single(self, text: str) -> int:
        """The id of `text`, which must be one token, as it stands inside a longer text.

        Raises:
            ValueError: it is none or several; the message shows the pieces.
        """
        ids = self.encode(text)
        if len(ids) == 1:
            return ids[0]
        if text.startswith("##") and (piece := self.backend.token_to_id(text)) is not None:
            return piece  # a word piece, which no text spells
        inside = self._after_anchor(text)
        if len(inside) == 1 and self.str_tokens(inside) == [text]:
            return inside[0]
        pieces = " + ".join(repr(s) for s in self.str_tokens(ids)) or "no token at all"
        raise ValueError(f"{text!r} is not a single token: {pieces}")

    @cached_property
    def hf(self) -> PreTrainedTokenizerFast:
        """The same tokenizer as a transformers object, for code that wants one."""
        from transformers import PreTrainedTokenizerFast

        names = {f"{role}_token": text for role, text in self.special.items()}
        hf = PreTrainedTokenizerFast(tokenizer_object=self.backend, **names)
        hf.chat_template = self.chat_template
        return hf

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into an existing `folder`."""
        folder = Path(folder)
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        config |= {f"{role}_token": text for role, text in self.special.items()}
        if self.chat_template:
            config["chat_template"] = self.chat_template
        self.backend.save(str(folder / "tokenizer.json"))
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def from_words(
        cls,
        words: Sequence[str],
        *,
        bos: str | None = None,
        eos: str | None = None,
        pad: str | None = None,
        unk: str | None = None,
        add_bos: bool = False,
    ) -> Tokenizer:
        """A closed vocabulary, one id per word in the order given; text is split at white space.

        Raises:
            ValueError: a word repeats, is empty or has white space in it; or a special token is not a word.
        """
        import tokenizers

        vocabulary = {word: i for i, word in enumerate(words)}
        for i, word in enumerate(words):
            if word.split() != [word]:
                raise ValueError(f"{word!r} cannot be a word: it is empty or has white space in it")
            if vocabulary[word] != i:
                raise ValueError(f"the word {word!r} stands twice in the vocabulary")
        for text in (bos, eos, pad, unk):
            if text is not None and text not in vocabulary:
                raise ValueError(f"the special token {text!r} is not one of the words")
        backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=unk or ""))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        special = [t for t in dict.fromkeys((bos, eos, pad, unk)) if t is not None]
        backend.add_special_tokens(
            [tokenizers.AddedToken(t, single_word=True, normalized=False, special=True) for t in special]
        )
        return cls(backend, bos=bos, eos=eos, pad=pad, unk=unk, add_bos=add_bos if bos else None)

    def _special_id(self, role: str, text: str) -> int:
        token_id = self.backend.token_to_id(text)
        if token_id is None:
            raise ValueError(f"the {role} token {text!r} is not in the vocabulary")
        return token_id

    def _adds(self) -> tuple[bool, bool]:
        """Whether the backend puts bos before and eos after a text."""
        ids = self.backend.encode("", add_special_tokens=True).ids
        first, last = (ids[0], ids[-1]) if ids else (None, None)
        bos = first is not None and first == self.bos_id
        return bos, last is not None and last == self.eos_id and len(ids) > bos

    def _template(self, add_bos: bool | None, add_eos: bool | None) -> None:
        """Make the backend add bos and eos as asked, unless it already does."""
        import tokenizers

        now = self._adds()
        want = (
            now[0] if add_bos is None else add_bos and self.bos_id is not None,
            now[1] if add_eos is None else add_eos and self.eos_id is not None,
        )
        if want == now:
            return
        bos = [self.special["bos"]] if want[0] else []
        eos = [self.special["eos"]] if want[1] else []
        self.backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=[*bos, "$A", *eos],
            pair=[*bos, "$A", *eos, "$B:1", *eos],
            special_tokens=[(t, self.backend.token_to_id(t)) for t in dict.fromkeys([*bos, *eos])],
        )

    def _encode(self, text: str, add_special: bool, second: str | None = None) -> tokenizers.Encoding:
        try:
            return self.backend.encode(text, second, add_special_tokens=add_special)
        except Exception as error:  # the backend raises plain Exception
            vocabulary = self.backend.get_vocab()
            words = f"{text} {second or ''}".split()
            missing = next((w for w in words if w not in vocabulary), None)
            if missing is None:
                raise ValueError(f"{text!r} cannot be tokenized: {error}") from error
            raise ValueError(unknown("word", missing, vocabulary, of="this tokenizer")) from error

    def _after_anchor(self, text: str) -> list[int]:
        """Ids of `text` behind a letter: some tokenizers treat the start of a text in their own way."""
        try:
            anchor, both = self.encode("a"), self.encode("a" + text)
        except ValueError:
            return []
        return both[len(anchor) :] if both[: len(anchor)] == anchor else []

    @cached_property
    def _spelling(self) -> Literal["bytes", "metaspace", "plain"]:
        decoder = self.backend.decoder
        state = decoder.__getstate__().decode() if decoder is not None else ""
        if "ByteLevel" in state:
            return "bytes"
        return "metaspace" if "Metaspace" in state or "\\u2581" in state or "▁" in state else "plain"

    @cached_property
    def _added(self) -> dict[int, str]:
        return {i: token.content for i, token in self.backend.get_added_tokens_decoder().items()}

    def _readable(self, token_id: int) -> str:
        if token_id in self._added:
            return self._added[token_id]
        token = self.backend.id_to_token(token_id) if token_id >= 0 else None
        if token is None:
            raise ValueError(f"{token_id} is not a token id: this vocabulary has {self.n_vocab}")
        if self._spelling == "bytes":
            table = _byte_of_character()
            if all(c in table for c in token):
                return _one_mark(bytes(table[c] for c in token))
        if self._spelling == "metaspace":
            if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                return _one_mark(bytes([int(token[3:5], 16)]))
            return token.replace("▁", " ")
        return token


def _one_mark(data: bytes) -> str:
    """UTF-8 text; a run of bytes that is not valid is one "�", not one for each byte."""
    text = data.decode("utf-8", errors="replace")
    while "��" in text:
        text = text.replace("��", "�")
    return text


@cache
def _byte_of_character() -> dict[str, int]:
    """The byte-level spelling of GPT-2: printable Latin-1 stands for itself, the rest for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(rest)}
