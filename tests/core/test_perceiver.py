"""Perceiver IO: against a naive definition, bytes as tokens, what can be given in the text's place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lens import byte_tokens
from lens.description import in_words
from lens.family import find
from lens.family import read as read_checkpoint
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.tokenizer_files import read
from tests import zoo
from tests.parity import EXACT, ours, relative_error

N = 9


def ids(n: int = N, rows: int = 2) -> Tensor:
    return torch.randint(3, zoo.D_VOCAB, (rows, n), generator=torch.Generator().manual_seed(6))


def of(prompt: Tensor, mask: Tensor | None = None) -> ModelInputs:
    return ModelInputs(source=ModelInputs(ids=prompt, mask=mask))


def layer(
    state: dict[str, Tensor], path: str, x: Tensor, source: Tensor | None, heads: int, adds: bool
) -> Tensor:
    """One block for one text, head by head: the formulas of arXiv 2107.14795, appendix E."""

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ state[f"{path}.{name}.weight"].T + state[f"{path}.{name}.bias"]

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, y.shape[-1:], state[f"{path}.{name}.weight"], state[f"{path}.{name}.bias"])

    normed = norm("ln1", x)
    given = normed if source is None else norm("attn.ln_source", source)
    q, k, v = linear("attn.q", normed), linear("attn.k", given), linear("attn.v", given)
    found = []
    for a, b, c in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        scores = torch.einsum("ie,je->ij", a, b) / a.shape[-1] ** 0.5
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        found.append(torch.einsum("ij,jx->ix", weights, c))
    out = linear("attn.o", torch.cat(found, -1))
    x = x + out if adds else out
    return x + linear("mlp.down", F.gelu(linear("mlp.up", norm("ln2", x))))


@pytest.mark.parametrize("name", ["twice", "replacing"])
def test_is_what_the_paper_says(name: str) -> None:
    model, prompt = ours("perceiver", name, torch.float64), ids(rows=1)
    state = dict(model.state_dict())
    text = state["encoder.embed.tokens.weight"][prompt[0]] + state["encoder.embed.positions.weight"][:N]
    source = model.cfg.source
    assert source is not None
    x = layer(
        state, "encoder.stack.blocks.0", state["encoder.embed.latents.weight"], text, 2, name == "twice"
    )
    for number in range(1, source.stack.n_layers):
        x = layer(state, f"encoder.stack.blocks.{number}", x, None, 4, True)
    x = layer(state, "stack.blocks.0", state["embed.positions.weight"], x, 8, False)
    logits = x @ state["encoder.embed.tokens.weight"].T + state["unembed.linear.bias"]
    assert relative_error(model(of(prompt))[0], logits) < EXACT


def test_what_latents_read_can_be_given_and_what_they_say_be_kept() -> None:
    model = ours("perceiver", "wide", torch.float64)
    expected = model(of(ids()))
    embedded = model.embed.positions
    assert embedded is not None and model.encoder is not None
    table = model.encoder.embed
    assert table.positions is not None
    stream = table.tokens.weight[ids()] + table.positions.weight[:N]
    assert relative_error(model(ModelInputs(source=ModelInputs(stream=stream))), expected) < EXACT
    kept = model.encode(of(ids()))
    assert kept.stream.shape == (2, 7, 24)
    assert (
        relative_error(model(ModelInputs(ids=model.to_inputs(of(ids())).ids, source=kept)), expected) < EXACT
    )
    with pytest.raises(ValueError, match=r"a residual stream is \[batch, pos, 16\], not \(2, 9, 24\)"):
        model(ModelInputs(source=ModelInputs(stream=torch.zeros(2, 9, 24, dtype=torch.float64))))


def test_latents_and_patterns_are_edited_as_any_site() -> None:
    """A latent that no position reads does not matter to what is said."""
    model = ours("perceiver", "wide", torch.float64)

    def unread(scores: Tensor) -> Tensor:
        return scores.index_fill(-1, torch.tensor(3), -torch.inf)

    edits = {"decoder.0.attn.hook_attn_scores": unread}
    logits, cache = model.run_with_cache(of(ids()), ["encoder.0.attn.hook_pattern"], edits=edits)
    assert cache["encoder.0.attn.hook_pattern"].shape == (2, 2, 7, N)
    last = model.cfg.source.stack.n_layers - 1 if model.cfg.source else 0
    other = {**edits, f"encoder.{last}.hook_resid_post": lambda x: x.index_fill(1, torch.tensor(3), 5.0)}
    assert relative_error(model.run_with_cache(of(ids()), [], edits=other)[0], logits) < EXACT
    moved = model.run_with_cache(of(ids()), [], edits={"encoder.hook_latents": lambda x: x.flip(-1)})[0]
    assert relative_error(moved, logits) > 1e-3


def test_bytes_are_tokens_as_hugging_faces(tmp_path: Path) -> None:
    from transformers import PerceiverTokenizer

    theirs = PerceiverTokenizer()
    theirs.save_pretrained(tmp_path)
    tokenizer = read(tmp_path)
    assert tokenizer is not None and tokenizer.n_vocab == 262
    for text in ("An incomplete sentence.", "a [MASK] b", "héllo 日本 🎉", " two  spaces\n", "a" * 300):
        assert tokenizer.prompt(text) == theirs(text)["input_ids"]
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("é") == [0xC3 + 6, 0xA9 + 6]


def test_texts_go_in_and_every_position_says_a_byte() -> None:
    config = {**zoo.PERCEIVER, "vocab_size": 262, "max_position_embeddings": 20}
    hf = zoo.fresh(zoo.Specimen("perceiver", config, auto="AutoModelForMaskedLM"))
    cfg, state = read_checkpoint(hf.config.to_dict(), hf.state_dict())
    model = Transformer.from_state(cfg, state, tokenizer=byte_tokens.perceiver())
    texts = ["a [MASK] in", "bytes of words"]
    logits = model(texts)
    assert logits.shape == (2, 20, 262)
    batch = [model.tokenizer.prompt(text) for text in texts]
    for row, prompt in enumerate(batch):
        with torch.no_grad():
            assert relative_error(logits[row], hf(torch.tensor([prompt])).logits[0]) < 1e-5


def test_in_words_and_what_is_refused() -> None:
    lines = in_words(ours("perceiver", "twice").cfg)
    assert lines[0].endswith("which 7 latents of 24 dimensions read in its place")
    assert "decoder: 13 positions, whose embeddings the stream begins as" in lines
    hf = json.loads(json.dumps(zoo.config(zoo.ZOO["perceiver"]["twice"]).to_dict()))
    with pytest.raises(ValueError, match="cross_attention_widening_factor=3"):
        find(hf).config({**hf, "cross_attention_widening_factor": 3})
    lines = in_words(ours("reformer", "causal").cfg)
    assert lines[0] == "embedding of 61 tokens in 16 dimensions, 2 times side by side"
    assert lines[1].startswith("learned places on a map of 6 × 8")
    assert "over two streams" in lines[2]
