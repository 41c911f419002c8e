"""all-MiniLM-L6-v2 as it is fetched: its numbers and its text against Hugging Face's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lens.load import available
from lens.model import Transformer
from lens.sentences import sentence_embeddings
from tests.parity import relative_error

pytestmark = [pytest.mark.model, pytest.mark.slow]

TEXTS = [
    "A man is playing the guitar.",
    "Someone strums an instrument, unbelievably well!",
    "Der Zug kommt um 7.45 Uhr an, naïvely tokenized.",
    "Stocks fell.",
]


@pytest.fixture(scope="module")
def original(minilm: Transformer) -> tuple[Any, Any]:
    """The same files as transformers reads them: model and tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    where = {model.name: model for model in available()}["minilm"].where
    return AutoModel.from_pretrained(
        where, attn_implementation="eager"
    ).eval(), AutoTokenizer.from_pretrained(where)


def test_what_it_is(minilm: Transformer) -> None:
    assert (minilm.cfg.n_layers, minilm.cfg.n_heads, minilm.cfg.d_model) == (6, 12, 384)
    assert minilm.cfg.family == "bert" and not minilm.cfg.causal and minilm.cfg.unembed is None
    assert minilm.revision == "sha256:9a4bd86ecd66aa95"


@torch.no_grad()
def test_streams_patterns_and_pooled_vector(minilm: Transformer, original: tuple[Any, Any]) -> None:
    hf, tokenizer = original
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    out = hf(**batch, output_hidden_states=True, output_attentions=True)
    wanted = ["pattern", "normalized_resid_post", "pooler_out"]
    last, cache = minilm.run_with_cache(TEXTS, wanted)
    real = batch["attention_mask"].bool()
    assert relative_error(last, out.last_hidden_state, real) < 1e-5
    assert relative_error(minilm(TEXTS), out.last_hidden_state, real) < 1e-5, "fused attention"
    assert relative_error(cache["pooler_out"], out.pooler_output) < 1e-5
    for layer in range(6):
        stream = cache["normalized_resid_post", layer]
        assert relative_error(stream, out.hidden_states[layer + 1], real) < 1e-5
        assert relative_error(cache["pattern", layer], out.attentions[layer], real) < 1e-5


@torch.no_grad()
def test_sentence_embeddings(minilm: Transformer, original: tuple[Any, Any]) -> None:
    """The recipe of the model's own card: the mean over the mask, of length one."""
    hf, tokenizer = original
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    stream, mask = hf(**batch).last_hidden_state, batch["attention_mask"][..., None].float()
    expected = torch.nn.functional.normalize((stream * mask).sum(1) / mask.sum(1), dim=-1)
    for size in (1, 3, 32):
        found = sentence_embeddings(minilm, TEXTS, batch_size=size)
        assert torch.allclose(found, expected, atol=1e-6)
    cosines = expected @ expected.T
    assert cosines[0, 1] > 0.4 > cosines[0, 2:].max(), "the paraphrase is nearest"
    first = sentence_embeddings(minilm, TEXTS, pooling="first", normalize=False)
    assert torch.allclose(first, stream[:, 0], atol=1e-5)
    with pytest.raises(ValueError, match="'max' is not a known pooling"):
        sentence_embeddings(minilm, TEXTS, pooling="max")


def test_attention_can_be_edited(minilm: Transformer) -> None:
    """Every head made to look at [SEP] alone: all z of a layer are the value of that position."""
    text = TEXTS[:1]

    def to_last(pattern: torch.Tensor) -> torch.Tensor:
        edited = torch.zeros_like(pattern)
        edited[..., -1] = 1
        return edited

    _, cache = minilm.run_with_cache(text, ["z", "v"], edits={"blocks.2.attn.hook_pattern": to_last})
    z, v = cache["z", 2], cache["v", 2]
    assert torch.allclose(z, v[:, -1:].expand_as(z), atol=1e-6)
    plain = sentence_embeddings(minilm, text)
    edited = sentence_embeddings(minilm, text, edits={"blocks.2.attn.hook_pattern": to_last})
    assert 0.3 < float((plain * edited).sum()) < 0.999


def test_words_in_pieces(minilm: Transformer, original: tuple[Any, Any]) -> None:
    ours, theirs = minilm.tokenizer, original[1]
    for text in TEXTS:
        encoding = theirs(text, return_offsets_mapping=True)
        ids, offsets = ours.encode_with_offsets(text, add_special=True)
        assert ids == encoding["input_ids"] == minilm.to_tokens(text)[0].tolist()
        assert offsets == [tuple(pair) for pair in encoding["offset_mapping"]]
        for piece, (start, end) in zip(ours.str_tokens(ids), offsets, strict=True):
            assert start == end or text[start:end].lower().replace("ï", "i") == piece.removeprefix("##")
    assert minilm.to_str_tokens("unbelievably")[:3] == ["[CLS]", "un", "##bel"]
    assert ours.special == {"bos": "[CLS]", "eos": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
    assert ours.decode(ours.encode("Stocks fell.")) == "stocks fell."
    assert ours.str_tokens([minilm.to_single_token("##bel"), minilm.to_single_token("guitar")]) == [
        "##bel",
        "guitar",
    ]
    assert ours.mask_id == theirs.mask_token_id


@torch.no_grad()
def test_pairs_of_texts(minilm: Transformer, original: tuple[Any, Any]) -> None:
    hf, tokenizer = original
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[3], TEXTS[0])]
    batch = tokenizer([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt")
    given = minilm.to_inputs(pairs)
    assert given.ids.tolist() == batch["input_ids"].tolist()
    assert given.types.tolist() == batch["token_type_ids"].tolist()
    assert given.mask.long().tolist() == batch["attention_mask"].tolist()
    assert relative_error(minilm(pairs), hf(**batch).last_hidden_state, given.mask) < 1e-5
    with pytest.raises(ValueError, match="prepend_bos is for single texts"):
        minilm.to_inputs(pairs, prepend_bos=True)
