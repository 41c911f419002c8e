"""Which tokens stand for a word: against the tokens of the text before and after it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lens.tokens import Tokenizer
from probes.labelled import Labelled
from probes.words import token_ranges

TEXT = "He said: “don't touch the naïve 🙂 robot's arm!”"
WORDS = ["He", "said", "do", "n't", "touch", "naïve", "🙂", "robot", "'s", "arm", "!”"]


def tokenizer(kind: str) -> Tokenizer:
    """Trained on the text and on noise, so that tokens cut across words."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    rng = random.Random(0)
    noise = ["".join(rng.choices("abcdefghij klmnop'", k=30)) for _ in range(40)]
    if kind == "bytes":
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=330,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<s>"],
            show_progress=False,
        )
    else:
        backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<s>", "<unk>"], show_progress=False)
    backend.train_from_iterator([TEXT, "the robot's arm", "don't touch"] * 3 + noise, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A <s>", special_tokens=[("<s>", 0)])
    return Tokenizer(backend, bos="<s>")


def rows_of(text: str, words: list[str]) -> Labelled:
    spans, at = [], 0
    for word in words:
        at = text.index(word, at)
        spans.append((at, at + len(word)))
        at += len(word)
    return Labelled("words", (text,), np.zeros(len(words), dtype=np.int64), np.array(spans), {})


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_a_word_is_all_tokens_that_share_a_character_with_it(kind: str) -> None:
    used = tokenizer(kind)
    ids, offsets = used.encode_with_offsets(TEXT, add_special=True)
    rows = rows_of(TEXT, WORDS)
    found = token_ranges(rows, np.arange(rows.n), offsets)
    assert rows.spans is not None
    for (first, stop), (start, end) in zip(found.tolist(), rows.spans.tolist(), strict=True):
        assert 0 < first < stop < len(ids)  # never what the tokenizer added
        covered = {c for a, b in offsets[first:stop] for c in range(a, b)}
        assert set(range(start, end)) <= covered
        outside = [*offsets[1:first], *offsets[stop:-1]]
        assert all(b <= start or a >= end for a, b in outside)
    assert (np.diff(found[:, 0]) >= 0).all()


def test_a_token_that_two_words_share_is_of_both() -> None:
    rows = rows_of("don't", ["do", "n't"])
    assert token_ranges(rows, np.arange(2), [(0, 0), (0, 3), (3, 5)]).tolist() == [[1, 2], [1, 3]]


def test_whole_texts_are_without_added_tokens() -> None:
    rows = Labelled.unlabelled(["don't"])
    assert token_ranges(rows, np.arange(1), [(0, 0), (0, 3), (3, 5), (0, 0)]).tolist() == [[1, 3]]
    with pytest.raises(ValueError, match='text 0 "don\'t": no token stands for it'):
        token_ranges(rows, np.arange(1), [(0, 0)])


def test_a_word_without_tokens_is_named() -> None:
    rows = rows_of("a \u200b b" + " and so on" * 5, ["a", "\u200b", "b"])
    with pytest.raises(
        ValueError, match=r"text 0 'a .* and…', the word '\\u200b' at 2: no token stands for it"
    ):
        token_ranges(rows, np.arange(3), [(0, 1), (4, 5)])
