"""Harvesting against runs of one text at a time, where there is no padding."""

from __future__ import annotations

import pytest
import torch

from lens.model import Transformer
from probes.harvest import harvest

TEXTS = ["bar", "bel bin bop but dar", "del din", "dop dut far fel fin fop fut", "gar gel gin"]


@pytest.mark.parametrize("position", ["last", "mean"])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_against_texts_one_by_one(tiny: Transformer, position: str, batch_size: int) -> None:
    found = harvest(tiny, TEXTS, ["resid_post", "z"], position=position, batch_size=batch_size)
    assert list(found) == [f"blocks.{l}.{s}" for l in range(3) for s in ("attn.hook_z", "hook_resid_post")]
    for i, text in enumerate(TEXTS):
        cache = tiny.run_with_cache(text, ["resid_post", "z"])[1]
        for name, x in found.items():
            own = cache[name][0].flatten(1)
            torch.testing.assert_close(x[i], own[-1] if position == "last" else own.mean(0))


def test_one_forward_per_batch_that_stops_at_the_deepest_site(
    tiny: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    for layer in range(3):
        tiny.block(layer).register_forward_hook(lambda *_, layer=layer: runs.append(layer))
    seen: list[tuple[int, int]] = []
    harvest(
        tiny, TEXTS, ["blocks.0.hook_resid_post", "blocks.1.hook_resid_mid"], batch_size=2,
        progress=lambda done, total, label: seen.append((done, total)),
    )  # fmt: skip
    assert runs == [0, 0, 0]  # three batches; block 1 is left in its middle, block 2 never entered
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_half_precision_is_averaged_in_float32(tiny: Transformer) -> None:
    found = harvest(tiny.to(torch.bfloat16), TEXTS, "resid_post", position="mean")
    assert {x.dtype for x in found.values()} == {torch.float32}


def test_text_and_site_of_an_activation_that_is_not_finite(tiny: Transformer) -> None:
    ids = tiny.to_tokens("din")[0]
    tiny.embed.tokens.weight[ids[-1]] = float("nan")
    with pytest.raises(ValueError, match=r"text 2 'del din' at 'blocks\.1\.hook_resid_post' is NaN"):
        harvest(tiny, TEXTS, [("resid_post", 1)])
    tiny.embed.tokens.weight[ids[-1]] = float("inf")
    with pytest.raises(ValueError, match=r"text 2 'del din' at 'hook_embed' is infinite"):
        harvest(tiny, TEXTS, "hook_embed")


def test_mistakes(tiny: Transformer) -> None:
    for arguments, message in {
        ("resid_pots",): "'hook_resid_pots' is not a site of this model; did you mean",
        ("pattern",): r"blocks\.0\.attn\.hook_pattern' cannot be probed: it is \[batch head pos key\]",
        ((),): "no sites are named",
    }.items():
        with pytest.raises(ValueError, match=message):
            harvest(tiny, TEXTS, *arguments)
    with pytest.raises(ValueError, match="'lst' is not a known position; did you mean 'last'"):
        harvest(tiny, TEXTS, "resid_post", position="lst")
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
