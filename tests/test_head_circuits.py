"""A head in tokens: QK, OV and examples, against the plain way."""

from __future__ import annotations

import pytest
import torch

from lens import head_circuits as module
from lens.config import Rotary
from lens.head_circuits import ov_circuit, qk_circuit, token_streams
from lens.head_examples import ATTENTION, NEXT, OUTPUT, examples, windows
from tests.circuits.conftest import tiny

IDS = [3, 1, 4, 1, 5]
ROTARY = (Rotary(dim=4),) * 2


def test_ov_is_the_product_of_its_matrices():
    model = tiny(norm="none", n_kv_heads=2)
    attn = model.block(1).attn
    full = model.W_E @ attn.W_V[1] @ attn.W_O[3] @ model.W_U  # head 3 of 4 reads key/value head 1 of 2
    full = full[IDS] - full[IDS].mean(-1, keepdim=True)
    found = ov_circuit(model, 1, 3, IDS, k=4)
    assert torch.allclose(found.high_values, full.topk(4).values, atol=1e-4)
    assert torch.equal(found.high, full.topk(4).indices)
    assert torch.equal(found.low, full.topk(4, largest=False).indices)
    own = full[torch.arange(5), IDS]
    assert torch.equal(found.own_rank, (full > own[:, None]).sum(-1))


@pytest.mark.parametrize("stack", [{}, {"norm": "rms", "norm_placement": frozenset({"in", "out"})}])
def test_ov_of_the_stream_is_what_the_head_writes(stack):
    model = tiny(**stack)
    found = ov_circuit(model, 1, 2, IDS, source="stream", k=3)
    block = model.block(1)
    v = model.activations(torch.tensor([IDS]), [block.attn.hook_v])[block.attn.hook_v][0, :, 2]
    wrote = v @ block.attn.W_O[2]
    if block.ln1_post is not None:
        wrote = block.ln1_post.linear(wrote, block.ln1_post.scale(wrote))
    assert model.ln_final is not None
    logits = model.ln_final.linear(wrote, torch.ones(1)) @ model.W_U
    assert torch.equal(found.high, logits.topk(3).indices)


def test_qk_scores_are_those_of_attention():
    """A prompt whose streams are bare embeddings: the first layer of a model with rotary positions."""
    model = tiny(rotary=ROTARY, attn_bias=frozenset("qk"))
    assert model.embed.positions is not None
    model.embed.positions.weight.data.zero_()
    attn = model.block(0).attn
    for distance in (1, 3):
        found = qk_circuit(model, 0, 1, [7], distance=distance, k=40)
        for token in (2, 30):
            ids = [token, *[9] * (distance - 1), 7]
            scores = model.activations(torch.tensor([ids]), [attn.hook_attn_scores])[attn.hook_attn_scores]
            place = found.high[0].tolist().index(token)
            assert float(found.high_values[0, place]) == pytest.approx(float(scores[0, 1, -1, 0]), abs=1e-4)


def test_the_vocabulary_in_parts_is_the_whole(monkeypatch):
    model = tiny(rotary=ROTARY)
    whole = qk_circuit(model, 1, 0, IDS, source="stream")
    monkeypatch.setattr(module, "CHUNK", 7)
    parts = qk_circuit(model, 1, 0, IDS, source="stream")
    assert torch.equal(whole.high, parts.high) and torch.equal(whole.own_rank, parts.own_rank)


def test_token_streams_are_the_embedding_without_positions():
    model = tiny()
    at = model(torch.tensor([IDS]), stop_at_layer=0)[0] - model.W_pos[: len(IDS)]
    assert torch.allclose(token_streams(model, IDS), at, atol=1e-6)


def test_what_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"a2.h0 is not a head of tiny, which has a0.h0 to a1.h3"):
        ov_circuit(tiny(), 2, 0, IDS)
    with pytest.raises(ValueError, match="'embed' is not where tokens are read"):
        qk_circuit(tiny(), 0, 0, IDS, source="embed")
    with pytest.raises(ValueError, match="a distance of 32"):
        qk_circuit(tiny(), 0, 0, IDS, distance=32)
    with pytest.raises(ValueError, match="did you mean 'attention'"):
        examples(tiny(), 0, 0, [IDS], by="attenton")
    with pytest.raises(ValueError, match=r"a0\.h4 is not a head"):
        examples(tiny(), 0, 4, [IDS])


# ---- examples


def test_examples_are_the_best_positions_of_windows_of_all_lengths():
    model = tiny()
    generator = torch.Generator().manual_seed(3)
    texts = [torch.randint(0, 40, (n,), generator=generator).tolist() for n in (6, 9, 6, 4)]
    found = examples(model, 1, 2, texts, k=3)
    best = {}
    for i, ids in enumerate(texts):
        pattern = model.activations(torch.tensor([ids]), [("pattern", 1)])["pattern", 1][0, 2]
        best[i] = (float(pattern[:, 1:].max()), divmod(int(pattern[:, 1:].argmax()), len(ids) - 1))
    order = sorted(best, key=lambda i: -best[i][0])[:3]
    assert [example.window for example in found] == order
    for example in found:
        value, (query, key) = best[example.window]
        assert example.value == pytest.approx(value, abs=1e-5)
        assert (example.query, example.key) == (query, key + 1)
        assert sum(example.attention) == pytest.approx(1, abs=1e-5)


def test_examples_by_what_is_written():
    model = tiny(attn_bias=frozenset())
    ids = torch.tensor([IDS])
    site = model.block(0).attn.hook_result
    result = model.activations(ids, [site])[site][0, :, 1]
    (found,) = examples(model, 0, 1, [IDS], by=OUTPUT)
    assert found.value == pytest.approx(float(result.norm(dim=-1).max()), abs=1e-4)
    (found,) = examples(model, 0, 1, [IDS], by=NEXT)
    assert model.ln_final is not None
    _, cache = model.run_with_cache(ids, [model.ln_final.hook_scale])
    logits = model.ln_final.linear(result, cache[model.ln_final.hook_scale][0]) @ model.W_U
    share = (logits - logits.mean(-1, keepdim=True))[torch.arange(4), IDS[1:]]
    assert found.value == pytest.approx(float(share.max()), abs=1e-4)
    assert found.query == int(share.argmax())


def test_a_text_in_windows(induction):
    text = induction.to_string(list(range(20, 120)))
    found = windows(induction, text, 16)
    plain = induction.to_tokens(text, prepend_bos=False)[0].tolist()
    bos = induction.tokenizer.bos_id
    assert all(window[0] == bos and 2 <= len(window) <= 16 for window in found)
    joined = [i for window in found for i in window[1:]]
    assert joined == plain[: len(joined)]
    with pytest.raises(ValueError, match="windows of 65 tokens"):
        windows(induction, text, 65)
    assert examples(induction, 1, 0, found, by=ATTENTION)[0].query > 0
