"""Reformer's hashes and chunks: Hugging Face at other lengths and with padding, full attention, two streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lens.axial import AxialPositions
from lens.family import find, read
from lens.inputs import ModelInputs
from lens.mixers.lsh import Lsh, unit
from lens.model import Transformer
from tests import mixers, reformer_oracle, zoo
from tests.parity import EXACT, relative_error

AXIAL = zoo.ZOO["reformer"]["causal"]


def both(name: str, **fields: Any) -> tuple[Any, Transformer]:
    specimen = zoo.ZOO["reformer"][name]
    given = zoo.Specimen("reformer", {**specimen.config, **fields}, auto=specimen.auto)
    hf = zoo.fresh(given, torch.float64)
    return hf, Transformer.from_state(*read(hf.config.to_dict(), hf.state_dict()))


def ids(n: int) -> Tensor:
    return torch.randint(3, zoo.D_VOCAB, (2, n), generator=torch.Generator().manual_seed(4))


LENGTHS = [1, 2, 3, 4, 5, 8, 13, 16, 29, 48]


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("name", ["causal", "factors", "masked"])
def test_agrees_with_hugging_face_at_every_length(name: str, n: int) -> None:
    """Texts of one chunk of either kind, of a multiple of both, and of what is padded to be one.

    In float64: at -100,000, where a token meets nothing but itself, and twice, float32 leaves the library's
    probabilities three digits.
    """
    hf, model = both(name, lsh_num_chunks_before=1, num_hashes=1 if n == 8 else 3)
    expected = reformer_oracle.seen(hf, ModelInputs(ids=ids(n)))
    for taps in (["resid_pre"], ["resid_pre", "pattern"]):
        logits, cache = model.run_with_cache(ids(n), taps)
        assert relative_error(logits, expected["logits"]) < EXACT
        for layer in range(3):
            assert relative_error(cache["resid_pre", layer], expected[f"resid_pre {layer}"]) < EXACT
            if "pattern" in taps:
                assert relative_error(cache["pattern", layer], expected[f"pattern {layer}"]) < EXACT


def test_padding_up_to_a_multiple_is_hugging_faces_too() -> None:
    """Beyond that the library's chunks depend on how long the other texts are."""
    for name in ("causal", "masked"):
        hf, model = both(name)
        real = torch.ones(2, 16, dtype=torch.bool)
        real[1, 13:] = False
        with torch.no_grad():
            logits = hf(ids(16), attention_mask=real.long(), use_cache=False).logits + hf.lm_head.bias
        assert relative_error(model(ModelInputs(ids=ids(16), mask=real)), logits, real) < EXACT


def test_the_number_of_buckets_is_that_of_the_longest_text() -> None:
    """Where it is not stated; the library takes it from the first text it sees."""
    for chunk, n_ctx in ((2, 48), (8, 48), (4, 12)):
        sizes = {
            "lsh_attn_chunk_length": chunk,
            "local_attn_chunk_length": 4,
            "max_position_embeddings": n_ctx,
        }
        hf, model = both("masked", num_buckets=None, **sizes)
        with torch.no_grad():
            expected = hf(ids(n_ctx)).logits + hf.lm_head.bias
        assert relative_error(model(ids(n_ctx)), expected) < EXACT
        mixer = model.cfg.stack.mixers[1]
        stated = hf.config.num_buckets
        assert isinstance(mixer, Lsh) and mixer.n_buckets == (
            (stated,) if isinstance(stated, int) else tuple(stated)
        )


def test_a_config_of_the_hub() -> None:
    """That of a model of bytes of one novel; ids and training aside."""
    kinds = ["local", "lsh", "local", "lsh", "local", "lsh"]
    hf = {
        "model_type": "reformer", "attention_head_size": 64, "attn_layers": kinds, "axial_norm_std": 1.0,
        "axial_pos_embds": True, "axial_pos_embds_dim": [64, 192], "axial_pos_shape": [512, 1024],
        "chunk_size_feed_forward": 0, "chunk_size_lm_head": 0, "feed_forward_size": 512, "hash_seed": None,
        "hidden_act": "relu", "hidden_size": 256, "is_decoder": True, "layer_norm_eps": 1e-12,
        "local_attention_probs_dropout_prob": 0.05, "local_attn_chunk_length": 64, "local_num_chunks_after": 0,
        "local_num_chunks_before": 1, "lsh_attention_probs_dropout_prob": 0.0, "lsh_attn_chunk_length": 64,
        "lsh_num_chunks_after": 0, "lsh_num_chunks_before": 1, "max_position_embeddings": 524288,
        "num_attention_heads": 2, "num_buckets": [64, 128], "num_hashes": 1, "num_hidden_layers": 6, "vocab_size": 320,
    }  # fmt: skip
    cfg = find(hf).config(hf)
    assert (cfg.n_ctx, cfg.d_model, cfg.stack.branch.d_model, cfg.stack.causal) == (524288, 512, 256, True)
    assert [m and m.kind for m in cfg.stack.mixers] == ["local_chunks", "lsh"] * 3
    lsh = cfg.stack.mixers[1]
    assert isinstance(lsh, Lsh) and (lsh.n_buckets, lsh.seed, lsh.multiple) == ((64, 128), 0, 64)


def test_unknown_layers_are_refused() -> None:
    hf = zoo.config(AXIAL).to_dict()
    with pytest.raises(ValueError, match="attn_layers: 'lsj' is not a known layer type; did you mean 'lsh'"):
        find(hf).config({**hf, "attn_layers": ["local", "lsj"], "num_hidden_layers": 2})


def lsh_model(**fields: Any) -> Transformer:
    """One of `tests/mixers.py` with another mixer in every layer."""
    made = mixers.model("lsh", "causal")
    mixer = Lsh(**{"n_buckets": (4,), "chunk": 3, "least": 3, "multiple": 3, **fields})
    cfg = replace(made.cfg, stack=replace(made.cfg.stack, mixer=mixer, causal=fields.pop("causal", True)))
    return Transformer.from_state(cfg, dict(made.state_dict()))


def full(model: Transformer, prompt: Tensor) -> Tensor:
    """The first layer's pattern as full attention with shared queries and keys has it, a token not to itself."""
    cache = model.run_with_cache(prompt, ["attn.hook_qk"])[1]
    qk = cache["blocks.0.attn.hook_qk"].transpose(1, 2)
    scores = qk @ unit(qk).mT / model.cfg.d_head**0.5
    n = prompt.shape[1]
    if model.cfg.causal:
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
    return scores.masked_fill(torch.eye(n).bool(), -1e5).softmax(-1)


@pytest.mark.parametrize("n", [2, 3, 12, 11])
def test_where_every_chunk_is_seen_it_is_full_attention(n: int) -> None:
    """Each exactly once: then neither buckets nor their number matter, in either form."""
    prompt = mixers.ids(2, n)
    around = {"before": 3, "after": 0} if n > 3 else {}
    for n_buckets in ((2,), (4, 6)):
        model = lsh_model(n_buckets=n_buckets, **around)
        out, cache = model.run_with_cache(prompt, "pattern")
        assert relative_error(cache["pattern", 0], full(model, prompt)) < EXACT
        assert relative_error(model(prompt), out) < EXACT


def test_with_more_hashes_fewer_pairs_are_missed() -> None:
    """Near full attention it comes in whom it sees; but keys count as often as they are met."""
    prompt, missed = mixers.ids(2, 18), []
    seen = full(lsh_model(), prompt) > 0
    for n_hashes in (1, 8, 64):
        model = lsh_model(n_hashes=n_hashes, before=0, n_buckets=(4,))
        pattern = model.run_with_cache(prompt, "pattern")[1]["pattern", 0]
        missed.append(float((seen & (pattern == 0)).double().mean()))
    assert missed[0] > 1.5 * missed[1] > 3 * missed[2], missed


def test_like_vectors_fall_into_one_bucket_and_opposite_ones_do_not() -> None:
    model = lsh_model(n_hashes=5)

    def opposed(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 4], x[:, 7] = 3 * x[:, 2], -x[:, 2]
        return x

    cache = model.run_with_cache(
        mixers.ids(2, 12), ["bucket_indices"], edits={"blocks.1.attn.hook_qk": opposed}
    )[1]
    buckets = cache["blocks.1.attn.hook_bucket_indices"]
    assert torch.equal(buckets[..., 4], buckets[..., 2])
    assert bool((buckets[..., 7] != buckets[..., 2]).all())


def test_edited_buckets_decide_who_sees_whom() -> None:
    """Twelve tokens in two buckets by hand, evens and odds, no chunk looks around: nobody sees the others."""
    model = lsh_model(n_hashes=1, before=0, chunk=6, least=6, multiple=6)
    even = torch.arange(12) % 2

    def by_hand(x: Tensor) -> Tensor:
        return even.expand(x.shape)

    edits = {"blocks.0.attn.hook_bucket_indices": by_hand}
    out, cache = model.run_with_cache(mixers.ids(1, 12), "pattern", edits=edits)
    assert bool((cache["pattern", 0][..., even[:, None] != even] == 0).all())
    assert relative_error(model.run_with_cache(mixers.ids(1, 12), [], edits=edits)[0], out) < EXACT


def test_attention_writes_one_stream_and_the_mlp_the_other() -> None:
    model = mixers.model("lsh", "two_streams")
    names = ["hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post"]
    _, cache = model.run_with_cache(mixers.ids(), [f"blocks.1.{name}" for name in names])
    pre, attn, mid, mlp, post = (cache[f"blocks.1.{name}"] for name in names)
    d = model.cfg.d_model // 2
    assert torch.equal(mid[..., d:], pre[..., d:]) and torch.equal(post[..., :d], mid[..., :d])
    assert relative_error(mid[..., :d] - pre[..., :d], attn) < EXACT
    assert relative_error(post[..., d:] - mid[..., d:], mlp) < EXACT
    block = model.block(1)  # reversible: what entered can be told from what left
    second = post[..., d:] - block.mlp_out(post[..., :d])
    assert relative_error(second, pre[..., d:]) < EXACT
    first = model.run_with_cache(mixers.ids(), "resid_pre")[1]["resid_pre", 0]
    assert torch.equal(first[..., :d], first[..., d:])
    assert dict(model.sites["blocks.1.hook_attn_out"].sizes) == {"d_model": d}
    assert model.sites["blocks.1.hook_resid_mid"].sizes == ()


def test_axial_positions_are_a_table() -> None:
    model = both("causal")[1]
    tables, table = model.embed.positions, model.W_pos
    assert isinstance(tables, AxialPositions) and table is not None and table.shape == (48, 16)
    assert torch.equal(table[2 * 8 + 5, :6], tables.rows.weight[2])
    assert torch.equal(table[2 * 8 + 5, 6:], tables.columns.weight[5])
