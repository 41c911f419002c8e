"""A tokenizer that knows a text's bytes alone, with special tokens in front of them (Perceiver, arXiv 2107.14795)."""

from __future__ import annotations

from lens.tokens import Tokenizer

SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")


def perceiver() -> Tokenizer:
    """Ids 0 to 5 are special, byte b of the text in UTF-8 is b + 6; a text stands between [CLS] and [SEP]."""
    import tokenizers

    vocabulary = {letter: byte + len(SPECIAL) for byte, letter in enumerate(letters())}
    model = tokenizers.models.BPE({**{token: i for i, token in enumerate(SPECIAL)}, **vocabulary}, [])
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    return Tokenizer(
        backend, bos="[CLS]", eos="[SEP]", pad="[PAD]", mask="[MASK]", add_bos=True, add_eos=True
    )


def letters() -> list[str]:
    """The letter that stands for each byte: itself where it can be seen, else the next one after 255."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + hidden.index(byte)) for byte in range(256)]
