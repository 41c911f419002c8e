"""The tokenizer against transformers, sentencepiece and its own promises."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lens import tokenizer_files
from lens.tokens import Tokenizer

PIECES = [
    "When", " Mary", " and John", "1234", " 2024", "  ", "\n", "\n\n", "\t", "\r\n", "é", "e\u0301", "ﬁ",
    "日本語", "😀", "👩‍👩‍👧", "def f(x):\n    return x**2", "<|start|>",
    "<|end|>", "don't", "I'll", "3.14", "Ω≈ç", "\u00a0",
    "\u200b", "A", " .", ",", "!?", "__init__", "٣٤", "½", "\x00", "the", " the",
]  # fmt: skip
CORPUS = ["the cat and the dog", "in the house of the king", "12 and 3.14", "déjà vu", "a\n\nb    c"] * 3


def texts(n: int = 300, pieces: list[str] = PIECES) -> list[str]:
    draw = random.Random(0)
    return ["", *pieces, *("".join(draw.choices(pieces, k=draw.randint(1, 12))) for _ in range(n))]


def byte_level() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def metaspace() -> tokenizers.Tokenizer:
    """In the style of Llama 2: a space is put before the text, unknown characters are bytes."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "M", "a", "r", "y"]
    words += ["Ma", "ry", "Mary", "▁Mary"]
    merges = [("M", "a"), ("r", "y"), ("Ma", "ry"), ("▁", "Mary")]
    vocabulary = {w: i for i, w in enumerate(words)}
    bpe = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(bpe)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


@pytest.fixture
def bpe() -> Tokenizer:
    return Tokenizer(byte_level(), bos="<|start|>", eos="<|end|>")


def test_text_comes_back(bpe: Tokenizer) -> None:
    for text in texts():
        assert bpe.decode(bpe.encode(text)) == text
        assert "".join(bpe.str_tokens(bpe.encode(text))) == text or "�" in "".join(
            bpe.str_tokens(bpe.encode(text))
        )


def test_str_tokens_are_readable(bpe: Tokenizer) -> None:
    assert bpe.str_tokens(bpe.encode(" the\n<|end|>")) == [" the", "\n", "<|end|>"]
    assert bpe.str_tokens(bpe.encode("日")) == ["�", "�", "�"]  # three bytes, no token of its own
    with pytest.raises(
        ValueError, match=f"{bpe.n_vocab} is not a token id: this vocabulary has {bpe.n_vocab}"
    ):
        bpe.str_tokens([bpe.n_vocab])
    with pytest.raises(ValueError, match="-1 is not a token id"):
        bpe.str_tokens([-1])


def test_offsets_point_into_the_text(bpe: Tokenizer) -> None:
    text = "the king\n 日 <|end|>"
    ids, offsets = bpe.encode_with_offsets(text)
    assert ids == bpe.encode(text)
    for piece, (start, end) in zip(bpe.str_tokens(ids), offsets, strict=True):
        assert text[start:end] == piece or (piece == "�" and text[start:end] == "日")


def test_single(bpe: Tokenizer) -> None:
    assert bpe.str_tokens([bpe.single(" the")]) == [" the"]
    with pytest.raises(ValueError, match=r"' zebra' is not a single token: .*'z'"):
        bpe.single(" zebra")
    with pytest.raises(ValueError, match="no token at all"):
        bpe.single("")


def test_single_inside_a_text_where_the_start_is_special() -> None:
    tokenizer = Tokenizer(metaspace(), bos="<s>")
    assert len(tokenizer.encode(" Mary")) == 2  # the start of a text has a space of its own
    assert tokenizer.backend.id_to_token(tokenizer.single(" Mary")) == "▁Mary"
    assert tokenizer.encode("aMary Mary")[-1] == tokenizer.single(" Mary")


def test_metaspace_and_byte_fallback_are_readable() -> None:
    tokenizer = Tokenizer(metaspace(), bos="<s>")
    assert tokenizer.str_tokens(tokenizer.encode("Mary\n Mary")) == [" Mary", "\n", " Mary"]
    assert tokenizer.str_tokens(tokenizer.encode("é"))[1:] == ["�", "�"]
    assert tokenizer.decode(tokenizer.encode("é Mary")) == "é Mary"


@pytest.mark.parametrize("template", [None, "<|start|> $A", "$A <|end|>", "<|start|> $A <|end|>"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"add_bos_token": True},
        {"add_prefix_space": True},
        {"add_prefix_space": True, "tokenizer_class": "GPT2Tokenizer", "unk_token": "<|end|>"},
    ],
)
def test_like_transformers_from_the_same_folder(tmp_path: Path, template: str | None, config: dict) -> None:
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|start|>"}
    named |= {"eos_token": {"content": "<|end|>", "__type": "AddedToken", "special": True}}
    backend = byte_level()
    if template:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=template, special_tokens=[("<|start|>", 0), ("<|end|>", 1)]
        )
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named | config))
    ours = tokenizer_files.read(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert ours is not None
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (0, 1, None)
    assert ours.prepends_bos == (template or "").startswith("<|start|>")
    for text in texts(100):
        assert ours.encode(text, add_special=True) == theirs(text).input_ids
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids


def test_special_tokens_from_the_map_and_from_the_model(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_files.read(tmp_path).bos_id is None  # type: ignore[union-attr]
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": [1, 7]}))
    by_id = tokenizer_files.read(tmp_path)
    assert by_id is not None
    assert (by_id.bos_id, by_id.eos_id) == (0, 1)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<|end|>"}))
    assert tokenizer_files.read(tmp_path).bos_id == 1  # type: ignore[union-attr]


def test_tokens_that_only_the_config_adds(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    n = byte_level().get_vocab_size()
    added = {str(n): {"content": "<|im|>", "special": True, "normalized": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    ours = tokenizer_files.read(tmp_path)
    assert ours is not None
    assert ours.encode("the<|im|>")[-1] == n
    assert ours.str_tokens([n]) == ["<|im|>"]


def test_settings_for_training_do_not_cut_or_pad(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(2)
    backend.enable_padding(length=8)
    ours = Tokenizer(backend)
    assert len(ours.encode("the cat and the dog")) > 2
    assert len(ours.encode("the")) < 8


def test_slow_files_only(tmp_path: Path) -> None:
    backend = byte_level()
    backend.model.save(str(tmp_path))  # vocab.json and merges.txt, as GPT-2 had them
    config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|start|>", "eos_token": "<|end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"unk_token": "<|end|>"}))
    ours = tokenizer_files.read(tmp_path)
    assert ours is not None
    assert ours.bos_id == 0
    for text in texts(100):
        assert ours.encode(text) == backend.encode(text).ids, text


def test_no_tokenizer_and_broken_tokenizer(tmp_path: Path) -> None:
    assert tokenizer_files.read(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "trunc')
    with pytest.raises(ValueError, match=r"tokenizer\.json' is not a tokenizer"):
        tokenizer_files.read(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json' is not valid JSON"):
        tokenizer_files.read(tmp_path)


@pytest.mark.parametrize("side", ["right", "left"])
def test_batch_pads_and_masks(bpe: Tokenizer, side: str) -> None:
    rows = ["the", "the cat and the dog", ""]
    ids, mask = bpe.batch(rows, prepend_bos=True, side=side)
    assert ids.dtype == torch.long
    assert mask.dtype == torch.bool
    assert ids.shape == mask.shape
    for row, i, m in zip(rows, ids, mask, strict=True):
        expected = [0, *bpe.encode(row)]
        assert i[m].tolist() == expected
        real = slice(None, len(expected)) if side == "right" else slice(-len(expected), None)
        assert m[real].all()
        assert m.sum() == len(expected)
        assert (i[~m] == bpe.eos_id).all()  # no padding token of its own


def test_prepend_bos(bpe: Tokenizer) -> None:
    plain = bpe.encode("the")
    assert bpe.prompt("the") == plain
    assert bpe.prompt("the", prepend_bos=True) == [0, *plain]
    adding = Tokenizer(byte_level(), bos="<|start|>", add_bos=True)
    assert adding.prompt("the") == [0, *plain]
    assert adding.prompt("the", prepend_bos=True) == [0, *plain]  # once, not twice
    assert adding.prompt("the", prepend_bos=False) == plain
    with pytest.raises(ValueError, match="no beginning-of-text token"):
        Tokenizer(byte_level()).prompt("the", prepend_bos=True)


@pytest.mark.parametrize("add_bos", [False, True])
def test_saved_and_read_back(tmp_path: Path, add_bos: bool) -> None:
    first = Tokenizer(
        byte_level(), bos="<|start|>", eos="<|end|>", add_bos=add_bos, chat_template="{{ messages }}"
    )
    first.save(tmp_path)
    again = tokenizer_files.read(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert again is not None
    assert again.special == first.special
    assert again.chat_template == "{{ messages }}"
    for text in texts(50):
        assert again.encode(text, add_special=True) == first.encode(text, add_special=True)
        assert theirs(text).input_ids == first.encode(text, add_special=True)


def test_as_a_transformers_object(bpe: Tokenizer) -> None:
    assert isinstance(bpe.hf, PreTrainedTokenizerFast)
    assert bpe.hf.bos_token_id == 0
    before = bpe.encode("the cat", add_special=True)
    assert bpe.hf("the cat").input_ids == before
    bpe.hf(["the", "the cat"], truncation=True, max_length=1)
    assert bpe.encode("the cat", add_special=True) == before  # its settings are its own


def test_words() -> None:
    words = Tokenizer.from_words(["<bos>", "<pad>", "a", "b"], bos="<bos>", pad="<pad>", add_bos=True)
    assert words.n_vocab == 4
    assert words.encode("b  a\nb") == [3, 2, 3]
    assert words.encode("b", add_special=True) == [0, 3]
    assert words.decode([0, 2, 3]) == "<bos> a b"
    assert words.str_tokens([2, 0]) == ["a", "<bos>"]
    assert words.single("a") == 2
    assert words.batch(["a", "a b"])[0].tolist() == [[0, 2, 1], [0, 2, 3]]
    with pytest.raises(
        ValueError, match="'c' is not a word of this tokenizer; choose from <bos>, <pad>, a, b"
    ):
        words.encode("a c")
    with pytest.raises(ValueError, match="'a b' is not a single token: 'a' \\+ 'b'"):
        words.single("a b")
    digits = Tokenizer.from_words([str(i) for i in range(20)], bos="0", eos="1")
    assert digits.encode("17 10 1") == [17, 10, 1]  # a special word counts only as a whole word
    unknown = Tokenizer.from_words(["?", "a"], unk="?")
    assert unknown.encode("a z") == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"words": ["a", "b c"]}, "'b c' cannot be a word"),
        ({"words": ["a", ""]}, "'' cannot be a word"),
        ({"words": ["a", "b", "a"]}, "'a' stands twice"),
        ({"words": ["a"], "bos": "<bos>"}, "'<bos>' is not one of the words"),
    ],
)
def test_words_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_words(**arguments)


def test_special_token_outside_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"the eos token '<eos>' is not in the vocabulary"):
        Tokenizer(byte_level(), eos="<eos>")


# ------------------------------------------------------------------ from GGUF metadata


def gguf_byte_level(pre: str) -> dict:
    backend = byte_level()
    state = json.loads(backend.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 2),
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in state["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def test_gguf_gpt2_is_the_tokenizer_it_came_from() -> None:
    from lens.sources._gguf_tokenizer import tokenizer

    ours, original = tokenizer(gguf_byte_level("gpt-2")), byte_level()
    assert ours is not None
    for text in texts():
        assert ours.encode(text) == original.encode(text).ids


def test_gguf_smollm_splits_digits() -> None:
    from lens.sources._gguf_tokenizer import tokenizer

    ours, original = tokenizer(gguf_byte_level("smollm")), byte_level()
    original.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), original.pre_tokenizer]
    )
    assert ours is not None
    assert ours.str_tokens(ours.encode("12")) == ["1", "2"]
    for text in texts():
        assert ours.encode(text) == original.encode(text).ids


def test_gguf_settings() -> None:
    from lens.sources._gguf_tokenizer import tokenizer

    values = gguf_byte_level("gpt-2")
    added = tokenizer(values | {"tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": "x"})
    assert added is not None
    assert added.prepends_bos
    assert added.chat_template == "x"
    assert tokenizer({}) is None
    with pytest.raises(
        ValueError, match=r"'rwkv' is not a known GGUF tokenizer type; choose from gpt2, llama"
    ):
        tokenizer(values | {"tokenizer.ggml.model": "rwkv"})
    with pytest.raises(
        ValueError, match=r"'smolm' is not a known GGUF pre-tokenizer .* did you mean 'smollm'"
    ):
        tokenizer(values | {"tokenizer.ggml.pre": "smolm"})


def test_gguf_sentencepiece() -> None:
    """Pieces and scores, as llama.cpp's converter stores them, against the sentencepiece package itself."""
    import sentencepiece

    from lens.sources._gguf_tokenizer import tokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20), model_writer=model, model_type="bpe", vocab_size=320,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        minloglevel=2, character_coverage=1.0, num_threads=1,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    n = pieces.get_piece_size()
    kinds = [
        3 if pieces.is_control(i) else 2 if pieces.is_unknown(i) else 6 if pieces.is_byte(i) else 1
        for i in range(n)
    ]
    ours = tokenizer(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": [pieces.id_to_piece(i) for i in range(n)],
            "tokenizer.ggml.scores": [pieces.get_score(i) for i in range(n)],
            "tokenizer.ggml.token_type": kinds,
            "tokenizer.ggml.bos_token_id": pieces.bos_id(),
            "tokenizer.ggml.eos_token_id": pieces.eos_id(),
            "tokenizer.ggml.unknown_token_id": pieces.unk_id(),
        }
    )
    assert ours is not None
    assert ours.prepends_bos  # llama.cpp's default for this type
    plain = [p for p in PIECES if not p.startswith("<|") and p != "\x00"]
    for text in texts(300, plain):
        assert ours.encode(text) == pieces.encode(text), text
        if text:
            assert ours.decode(ours.encode(text)) == text
