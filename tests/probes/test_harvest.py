"""Harvesting against runs of one text at a time, where there is no padding."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lens.model import Transformer
from lens.progress import Cancelled
from probes import shards
from probes.harvest import harvest
from probes.labelled import Classes, Labelled
from probes.manifest import Manifest
from tests.probes.test_activations import SITES, content, counted_reads, texts

TEXTS = ["bar", "bel bin bop but dar", "del din", "dop dut far fel fin fop fut", "gar gel gin"]


def words_of(texts: list[str], picked: list[tuple[int, str]], name: str = "words") -> Labelled:
    """Rows for words of the texts, by their text."""
    starts = [texts[i].index(word) for i, word in picked]
    spans = [(start, start + len(word)) for start, (_, word) in zip(starts, picked, strict=True)]
    labels = Classes.of([i % 2 for i in range(len(picked))])
    return Labelled(name, tuple(texts), np.array([i for i, _ in picked]), np.array(spans), {"label": labels})


@pytest.mark.parametrize("positions", ["last", "first", "mean"])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("shard_size", [1, 3000, 2**28])
def test_against_texts_one_by_one(
    tiny: Transformer, positions: str, batch_size: int, shard_size: int
) -> None:
    found = harvest(
        tiny, TEXTS, ["resid_post", "z"], positions=positions, batch_size=batch_size, shard_size=shard_size
    )
    assert list(found.sites) == [
        f"blocks.{l}.{s}" for l in range(3) for s in ("attn.hook_z", "hook_resid_post")
    ]
    assert [found.layer(site) for site in found.sites] == [0, 0, 1, 1, 2, 2] and found.n == 5
    for i, text in enumerate(TEXTS):
        cache = tiny.run_with_cache(text, ["resid_post", "z"])[1]
        for name in found.sites:
            own = cache[name][0].flatten(1)[1:]  # without the beginning-of-text token
            expected = {"last": own[-1], "first": own[0], "mean": own.mean(0)}[positions]
            torch.testing.assert_close(found[name][i], expected)
    assert found.position.tolist() == [1] * 5 if positions == "first" else [len(t.split()) for t in TEXTS]


def test_words_of_texts_in_any_order(tiny: Transformer) -> None:
    rows = words_of(TEXTS, [(3, "fel fin"), (1, "bop"), (3, "dop"), (0, "bar"), (1, "bel")])
    for shard_size in (1, 200, 2**28):
        for how in ("last", "first", "mean"):
            found = harvest(tiny, rows, ("resid_post", 1), positions=how, batch_size=2, shard_size=shard_size)
            for i, (text, tokens) in enumerate([(3, [4, 5]), (1, [3]), (3, [1]), (0, [1]), (1, [1])]):
                own = tiny.run_with_cache(TEXTS[text], ("resid_post", 1))[1]["resid_post", 1][0][tokens]
                expected = {"last": own[-1], "first": own[0], "mean": own.mean(0)}[how]
                torch.testing.assert_close(found[found.sites[0]][i], expected)
                torch.testing.assert_close(found.take(found.sites[0], [i])[0], expected)
            assert found.text.tolist() == [3, 1, 3, 0, 1]
            assert found.rows_of(rows).tolist() == [0, 1, 2, 3, 4]


def test_all_tokens_serve_any_words(tiny: Transformer) -> None:
    store = harvest(tiny, TEXTS, "resid_post", positions="all", batch_size=2, shard_size=1500)
    assert store.n == sum(len(text.split()) for text in TEXTS)
    assert store.text.tolist() == sorted(store.text.tolist()) and store.position[:3].tolist() == [1, 1, 2]
    rows = words_of(TEXTS, [(3, "fel fin"), (1, "bop"), (3, "dop"), (0, "bar"), (1, "bel")])
    for how in ("last", "first", "mean"):
        own = harvest(tiny, rows, "resid_post", positions=how)
        for site in store.sites:
            torch.testing.assert_close(store.take(site, store.rows_of(rows, how)), own[site])
    with pytest.raises(ValueError, match="was made from other data: it has 5 texts, not 1"):
        store.rows_of(words_of(TEXTS[:1], [(0, "bar")]))
    with pytest.raises(ValueError, match="'lst' is not a known choice of tokens; did you mean 'last'"):
        store.rows_of(rows, "lst")


def test_named_places_numbers_and_functions(tiny: Transformer) -> None:
    texts = ["bar bel bin", "bop but"]
    places = {"middle": np.array([[4, 7], [4, 7]])}
    rows = Labelled("places", tuple(texts), np.arange(2), None, {}, places=places)
    one_by_one = [tiny.run_with_cache(text, ("resid_post", 2))[1]["resid_post", 2][0] for text in texts]

    def second(text: str, characters: object, row: tuple[int, int]) -> int:
        return row[0] + 1

    for positions in ("middle", "middle:mean", second, 2):
        found = harvest(tiny, rows, ("resid_post", 2), positions=positions)
        torch.testing.assert_close(found[found.sites[0]], torch.stack([x[2] for x in one_by_one]))
    assert harvest(tiny, rows, "hook_embed", positions=0).position.tolist() == [0, 0]
    with pytest.raises(ValueError, match="'midle' is not a known choice of positions; did you mean 'middle:"):
        harvest(tiny, rows, "hook_embed", positions="midle")
    with pytest.raises(ValueError, match="text 1 'bop but': position 3 is past the end of 3 tokens"):
        harvest(tiny, rows, "hook_embed", positions=3)
    with pytest.raises(ValueError, match="text 1 'bop but': position -4 is past the end of 3 tokens"):
        harvest(tiny, rows, "hook_embed", positions=-4)
    with pytest.raises(ValueError, match="text 1 'bop but': position 4 is past the end of 3 tokens"):
        harvest(tiny, rows, "hook_embed", positions=lambda text, characters, row: 3 if len(text) > 8 else 4)


def test_one_forward_per_batch_that_stops_at_the_deepest_site(
    tiny: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    for layer in range(3):
        tiny.block(layer).register_forward_hook(lambda *_, layer=layer: runs.append(layer))
    seen: list[tuple[int, int]] = []
    harvest(
        tiny, TEXTS, ["blocks.0.hook_resid_post", "blocks.1.hook_resid_mid"], batch_size=2,
        progress=lambda done, total, label: seen.append((done, total)) if "reading" in label else None,
    )  # fmt: skip
    assert runs == [0, 0, 0, 0]  # one to learn the widths, three batches; block 1 is left in its middle
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_results_do_not_depend_on_chunks_but_for_the_last_bits(tiny: Transformer) -> None:
    rng = np.random.default_rng(0)
    from tests.probes.conftest import WORDS

    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 11))) for _ in range(60)]
    reference = harvest(tiny, texts, "resid_post", batch_size=1, shard_size=2**28)
    for batch_size, shard_size in [(7, 2**28), (64, 700), (3, 5000)]:
        found = harvest(tiny, texts, "resid_post", batch_size=batch_size, shard_size=shard_size)
        for site in reference.sites:
            torch.testing.assert_close(found[site], reference[site])


def test_half_precision_is_averaged_in_float32(tiny: Transformer) -> None:
    found = harvest(tiny.to(torch.bfloat16), TEXTS, "resid_post", positions="mean")
    assert {found[site].dtype for site in found.sites} == {torch.float32}


@pytest.mark.parametrize("shard_size", [200, 2**28])
def test_float32_where_float16_would_overflow(tiny: Transformer, shard_size: int) -> None:
    exact = harvest(tiny, TEXTS, ["hook_embed", "resid_post"])
    tiny.embed.tokens.weight[tiny.to_tokens("gin")[0, -1]] = 1e5
    found = harvest(tiny, TEXTS, ["hook_embed", "resid_post"], dtype="float16", shard_size=shard_size)
    wide = harvest(tiny, TEXTS, ["hook_embed", "resid_post"])
    assert (
        found.dtype("hook_embed") == torch.float32
        and found.dtype("blocks.0.hook_resid_post") == torch.float32
    )
    assert found.record["dtype"] == "float16" and found.record["kept_float32"]["hook_embed"] == 1
    assert (found["hook_embed"][4] == wide["hook_embed"][4]).all() and found["hook_embed"].isfinite().all()
    torch.testing.assert_close(found["hook_embed"][:4], exact["hook_embed"][:4], rtol=1e-3, atol=1e-3)


def test_dtypes(tiny: Transformer) -> None:
    for name in ("float16", "bfloat16", "float32", "float64"):
        found = harvest(tiny, TEXTS, "resid_post", dtype=name)
        assert str(found[found.sites[0]].dtype) == f"torch.{name}"
        wide = torch.float64 if name == "float64" else torch.float32
        assert found.take(found.sites[0], [1, 3]).dtype == wide
    with pytest.raises(ValueError, match="'float23' is not a known dtype; did you mean 'float32'"):
        harvest(tiny, TEXTS, "resid_post", dtype="float23")
    assert harvest(tiny.double(), TEXTS, "resid_post").take("blocks.0.hook_resid_post").dtype == torch.float64


def test_memory_that_runs_out_halves_the_batch(tiny: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    from probes import shards

    reference = harvest(tiny, TEXTS, "resid_post", batch_size=1)
    sizes: list[int] = []
    read = shards.read

    def cramped(model: object, ids: list[list[int]], *rest: object) -> object:
        sizes.append(len(ids))
        if len(ids) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return read(model, ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "read", cramped)
    limit = 1
    found = harvest(tiny, TEXTS, "resid_post", batch_size=5)
    assert sizes == [1, 5, 3, 2, 1, 1, 1, 1, 1]
    for site in found.sites:
        assert (found[site] == reference[site]).all()
    limit = 0
    monkeypatch.setattr(shards.Shards, "widths", {"blocks.0.hook_resid_post": 16})
    with pytest.raises(MemoryError, match="reading activations: one text alone does not fit"):
        harvest(tiny, TEXTS, ("resid_post", 0))


def test_text_and_site_of_an_activation_that_is_not_finite(tiny: Transformer) -> None:
    ids = tiny.to_tokens("din")[0]
    rows = words_of(TEXTS, [(0, "bar"), (2, "din")])
    tiny.embed.tokens.weight[ids[-1]] = float("nan")
    with pytest.raises(ValueError, match=r"text 2 'del din' at 'blocks\.1\.hook_resid_post' is NaN"):
        harvest(tiny, TEXTS, [("resid_post", 1)])
    with pytest.raises(
        ValueError, match=r"of text 2 'del din', the word 'din' at 4 at 'blocks\.1\.hook_resid_p"
    ):
        harvest(tiny, rows, [("resid_post", 1)])
    with pytest.raises(ValueError, match=r"text 2 'del din', token 2 at 'hook_embed' is NaN"):
        harvest(tiny, TEXTS, "hook_embed", positions="all")
    tiny.embed.tokens.weight[ids[-1]] = float("inf")
    with pytest.raises(ValueError, match=r"text 2 'del din' at 'hook_embed' is infinite"):
        harvest(tiny, TEXTS, "hook_embed")


def test_mistakes(tiny: Transformer) -> None:
    for sites, message in {
        "resid_pots": "'resid_pots' is not a site of this model; did you mean 'resid_post' or",
        "pattern": r"blocks\.0\.attn\.hook_pattern' cannot be probed: it is \[batch head pos key\]",
        (): "no sites are named",
    }.items():
        with pytest.raises(ValueError, match=message):
            harvest(tiny, TEXTS, sites)
    with pytest.raises(ValueError, match="'lst' is not a known choice of positions; did you mean 'last'"):
        harvest(tiny, TEXTS, "resid_post", positions="lst")
    with pytest.raises(ValueError, match="batch_size is 0"):
        harvest(tiny, TEXTS, "resid_post", batch_size=0)
    with pytest.raises(
        ValueError, match=r"text 1 'bar bar .*…': the prompt has 13 tokens and tiny takes at most 12"
    ):
        harvest(tiny, ["bar", "bar " * 11 + "bar"], "resid_post")
    with pytest.raises(ValueError, match="text 1 'zzz': 'zzz' is not a word"):
        harvest(tiny, ["bar", "zzz"], "resid_post")
    with pytest.raises(ValueError, match="text 1 is empty"):
        harvest(tiny, ["bar", ""], "resid_post")
    with pytest.raises(ValueError, match="at least one text"):
        harvest(tiny, [], "resid_post")
    with pytest.raises(ValueError, match=r"row 0: the characters 3 to 4 \(word\) of text 0 are blank"):
        Labelled("x", ("bar bel",), np.array([0]), np.array([[3, 4]]), {})


def test_spans_inside_a_token_are_told(tiny: Transformer) -> None:
    spans = np.array([[4, 7], [3, 7], [5, 7], [4, 9]])
    rows = Labelled("x", ("bar bel bin",), np.zeros(4, dtype=int), spans, {}, places={"p": spans[::-1]})
    told = "2 rows begin or end inside a token, which is read whole; the first is row 2, 'el' at 5 of text 0, read as"
    for positions in ("last", "mean"):
        with pytest.warns(UserWarning, match=told):
            harvest(tiny, rows, "hook_embed", positions=positions)
    with pytest.warns(UserWarning, match=r"the first is row 0, 'bel b' at 4 of text 0, read as 'bel bin'"):
        harvest(tiny, rows, "hook_embed", positions="p")
    harvest(tiny, rows, "hook_embed", positions=0)  # no token of the row's
    store = harvest(tiny, rows, "hook_embed", positions="all")
    with pytest.warns(UserWarning, match=told):
        store.rows_of(rows)
    store.rows_of(rows.subset([0, 1]))  # a blank besides the word is nothing


def test_a_beginning_of_text_token_or_none(tiny: Transformer) -> None:
    one_by_one = [tiny.run_with_cache(tiny.to_tokens(text, False), "resid_post")[1] for text in TEXTS]
    without = harvest(tiny, TEXTS, "resid_post", prepend_bos=False, batch_size=2)
    assert without.position.tolist() == [len(text.split()) - 1 for text in TEXTS]
    for site in without.sites:
        torch.testing.assert_close(without[site], torch.stack([cache[site][0, -1] for cache in one_by_one]))
    usual, asked = harvest(tiny, TEXTS, "resid_post"), harvest(tiny, TEXTS, "resid_post", prepend_bos=True)
    assert all((usual[site] == asked[site]).all() for site in usual.sites)
    assert [x.record["prepend_bos"] for x in (usual, asked, without)] == [None, True, False]
    every = harvest(tiny, TEXTS, "resid_post", positions="all", prepend_bos=False)
    assert every.n == sum(len(text.split()) for text in TEXTS) and every.position[0] == 0
    from lens.tokens import Tokenizer
    from tests.probes.conftest import WORDS

    tiny.tokenizer = Tokenizer.from_words(["<eos>", *WORDS])
    with pytest.raises(ValueError, match="prepend_bos is true, and this tokenizer has no beginning-of-text"):
        harvest(tiny, TEXTS, "resid_post", prepend_bos=True)


def test_a_short_harvest_keeps_what_is_done(
    tiny: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far below the size of a shard in bytes: shards end after so many tokens as well."""
    monkeypatch.setattr(shards, "WORK", 60)
    harvest(tiny, texts(), SITES, out=tmp_path / "undisturbed", batch_size=4)
    bounds = Manifest.read(tmp_path / "undisturbed").bounds
    lengths = [1 + len(text.split()) for text in texts()]
    assert len(bounds) > 6 and all(sum(lengths[a:b]) <= 60 for a, b in pairwise(bounds))

    def stop(done: int, total: int, label: str) -> None:
        if done >= 40 and label == "reading activations":
            raise Cancelled

    with pytest.raises(Cancelled):
        harvest(tiny, texts(), SITES, out=tmp_path / "cut", batch_size=4, progress=stop)
    held = Manifest.read(tmp_path / "cut")
    finished = held.bounds[len(held.shards)]
    assert finished >= 30
    monkeypatch.setattr(shards, "WORK", 10**6)  # the cuts are those that were begun with
    runs = counted_reads(monkeypatch)
    harvest(tiny, texts(), SITES, out=tmp_path / "cut", batch_size=4)
    assert sum(runs) == 1 + 60 - finished and content(tmp_path / "cut") == content(tmp_path / "undisturbed")
    monkeypatch.setattr(shards, "WORK", 1)
    monkeypatch.setattr(shards, "MOST_SHARDS", 5)  # however long the work is
    harvest(tiny, texts(), SITES, out=tmp_path / "few", batch_size=4)
    assert 5 <= Manifest.read(tmp_path / "few").n_shards <= 8
