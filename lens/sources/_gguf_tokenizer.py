"""The tokenizer in a GGUF file's metadata, as our `Tokenizer`.

Two kinds are read: `gpt2` (byte-level BPE with explicit merges, split as `tokenizer.ggml.pre` says) and
`llama` (SentencePiece BPE: a piece's score is its rank, and the merges follow from the pieces).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lens.nearest import unknown
from lens.tokens import Tokenizer

if TYPE_CHECKING:
    import tokenizers

_CONTROL, _USER_DEFINED = 3, 4

# The regular expressions are those of the models' own tokenizer.json files.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# `tokenizer.ggml.pre` -> (digits alone, regular expression; None: GPT-2's, whole words before merging)
_PRE: dict[str, tuple[bool, str | None, bool]] = {
    "default": (False, None, False),
    "gpt-2": (False, None, False),
    "gpt2": (False, None, False),
    "olmo": (False, None, False),
    "phi-2": (False, None, False),
    "smollm": (True, None, False),
    "starcoder": (True, None, False),
    "refact": (True, None, False),
    "llama-bpe": (False, _LLAMA3, True),
    "llama3": (False, _LLAMA3, True),
    "qwen2": (False, _QWEN2, False),
}


def tokenizer(metadata: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer, or None where the file has none.

    Raises:
        ValueError: it is of a kind that is not read; the message names the kind.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind in (None, "none", "no_vocab"):
        return None
    kinds = {"gpt2": _byte_level, "llama": _sentence_piece}
    if kind not in kinds:
        raise ValueError(unknown("GGUF tokenizer type", str(kind), kinds))
    tokens = metadata["tokenizer.ggml.tokens"]
    backend = kinds[kind](metadata, {token: i for i, token in enumerate(tokens)})
    _add_special(backend, tokens, metadata.get("tokenizer.ggml.token_type") or [])

    def token(role: str) -> str | None:
        token_id = metadata.get(f"tokenizer.ggml.{role}_token_id")
        return tokens[token_id] if token_id is not None and token_id < len(tokens) else None

    bos, eos, pad, unk = (token(role) for role in ("bos", "eos", "padding", "unknown"))
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama")  # the default is llama.cpp's
    add_eos = metadata.get("tokenizer.ggml.add_eos_token", False)
    chat = metadata.get("tokenizer.chat_template")
    return Tokenizer(
        backend, bos=bos, eos=eos, pad=pad, unk=unk, add_bos=add_bos, add_eos=add_eos, chat_template=chat
    )


def _byte_level(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    pre = metadata.get("tokenizer.ggml.pre", "default")
    if pre not in _PRE:
        raise ValueError(unknown("GGUF pre-tokenizer ('tokenizer.ggml.pre')", str(pre), _PRE))
    digits_alone, pattern, whole_words = _PRE[pre]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole_words))
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", False))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits_alone else []
    if pattern:
        steps.append(pre_tokenizers.Split(Regex(pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=pattern is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentence_piece(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens = metadata["tokenizer.ggml.tokens"]
    unknown_id = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    merges = _merges(tokens, metadata["tokenizer.ggml.scores"], vocabulary)
    model = models.BPE(vocabulary, merges, unk_token=tokens[unknown_id], fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    first = [normalizers.Prepend("▁")] if prefix else []
    backend.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    last = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last]
    )
    return backend


def _merges(tokens: list[str], scores: list[float], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, the best score first; ties keep the vocabulary's order."""
    found = []
    for token, score in zip(tokens, scores, strict=True):
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [(a, b) for a, b in cuts if a in vocabulary and b in vocabulary]
        pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(-score, pair) for pair in pairs]
    return [pair for _, pair in sorted(found, key=lambda item: item[0])]


def _add_special(backend: tokenizers.Tokenizer, tokens: list[str], kinds: list[int]) -> None:
    from tokenizers import AddedToken

    control = [
        AddedToken(t, normalized=False, special=True)
        for t, k in zip(tokens, kinds, strict=False)
        if k == _CONTROL
    ]
    added = [
        AddedToken(t, normalized=False) for t, k in zip(tokens, kinds, strict=False) if k == _USER_DEFINED
    ]
    backend.add_special_tokens(control)
    backend.add_tokens(added)
