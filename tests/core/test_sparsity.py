"""Sparse patterns: their definition entry by entry, and attention with them against full attention under that mask."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lens.config import ModelConfig
from lens.description import in_words
from lens.frame import Frame
from lens.sparsity import Fixed, Sparsity, Strided
from tests.core.test_geometry import VALID
from tests.mixers import config, ids, mixer_of, model
from tests.parity import EXACT, relative_error

PATTERNS: list[Sparsity] = [
    Strided(stride=1),
    Strided(stride=3),
    Strided(stride=3, part="near"),
    Strided(stride=2, part="far"),
    Fixed(block=3),
    Fixed(block=4, summary=2),
    Fixed(block=3, part="near"),
    Fixed(block=3, summary=3, part="far"),
    Fixed(block=2, part="far"),
    Fixed(block=20),
]


def visible(pattern: Sparsity, i: int) -> set[int]:
    """What position i of a causal model sees, as §4.2 and §4.3 define the two parts."""
    if isinstance(pattern, Strided):
        stride = pattern.stride
        near = set(range(max(0, i - stride), i + 1))
        far = {j for j in range(i + 1) if (i - j) % stride == 0}
    else:
        block, summary = pattern.block, pattern.summary
        near = {j for j in range(i + 1) if math.floor(j / block) == math.floor(i / block)}
        far = {j for j in range(i + 1) if j % block in range(block - summary, block)}
    return {"both": near | far, "near": near, "far": far}[pattern.part] | {i}


def naive(pattern: Sparsity, real: list[bool], past: int, causal: bool) -> list[list[bool]]:
    """Places are counted in tokens; in both directions, a position is seen by those that it would see."""
    place = [sum(real[:k]) for k in range(len(real))]
    rows = []
    for q in range(past, len(real)):
        row = []
        for k in range(len(real)):
            back, front = visible(pattern, place[q]), seers(pattern, place[q])
            seen = place[k] in back if k <= q else not causal and place[k] in front
            row.append((seen and real[k]) or k == q)
        rows.append(row)
    return rows


def seers(pattern: Sparsity, i: int) -> set[int]:
    """Later positions that a two-sided pattern shows: by the same distances; or the same blocks and their ends."""
    if isinstance(pattern, Strided):
        return {j for j in range(i, 20) if i in visible(pattern, j)}
    block = {j for j in range(i, 20) if j // pattern.block == i // pattern.block}
    ends = {j for j in range(i, 20) if j % pattern.block >= pattern.block - pattern.summary}
    return {"both": block | ends, "near": block, "far": ends}[pattern.part]


@pytest.mark.parametrize("padding", VALID)
@pytest.mark.parametrize("past", [0, 3, 6])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_masks_are_the_definition(pattern: Sparsity, padding: str, past: int, causal: bool) -> None:
    valid = torch.tensor(VALID[padding])
    frame = Frame(7 - past, valid=None if padding == "all" else valid, past=past, causal=causal)
    expected = torch.tensor([naive(pattern, row.tolist(), past, causal) for row in valid])[:, None]
    found = frame.mask(pattern)
    assert found is not None
    found = found.expand_as(expected)
    real = valid[:, None, past:, None].expand_as(expected)
    assert torch.equal(found[real], expected[real])
    assert found.any(-1).all()
    assert not frame.plainly_causal(pattern)
    assert frame.mask(pattern) is frame.mask(pattern), "made once"


@pytest.mark.parametrize("name", ["strided", "fixed", "both"])
def test_it_is_full_attention_under_the_same_mask(name: str) -> None:
    """Layer 0 with its pattern, and softmax over all scores with those outside set to minus infinity."""
    m = model("attention", name)
    pattern, a, x = pattern_of(m, 0), mixer_of(m), stream(11)
    frame = Frame(11, causal=m.cfg.causal, dtype=x.dtype)
    q, k, v = (linear(x).unflatten(-1, (-1, 4)).transpose(1, 2) for linear in (a.q, a.k, a.v))
    scores = q @ k.repeat_interleave(2, 1).mT / 2
    rows = naive(pattern, [True] * 11, 0, m.cfg.causal)
    weights = scores.masked_fill(~torch.tensor(rows), -torch.inf).softmax(-1)
    expected = (weights @ v.repeat_interleave(2, 1)).transpose(1, 2).flatten(2) @ a.o.weight.T
    assert relative_error(a(x, frame), expected) < EXACT


def pattern_of(m: Any, layer: int) -> Sparsity:
    return m.cfg.stack.windows[layer]


def stream(n: int) -> Tensor:
    return torch.randn(2, n, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_nothing_is_seen_outside_the_pattern() -> None:
    m, given = model("attention", "fixed"), ids(2)
    _, cache = m.run_with_cache(given, "pattern")
    for layer in range(2):
        seen = torch.tensor(naive(pattern_of(m, layer), [True] * 9, 0, True))
        weights = cache["pattern", layer]
        assert (weights > 0).equal(seen.expand_as(weights))


def test_the_fused_kernel_makes_no_more_than_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """One mask for all rows and heads, made once per pattern; and no scores."""
    from lens import attention

    m, masks = model("attention", "strided"), list[Any]()
    fused = attention.F.scaled_dot_product_attention

    def watch(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        masks.append((options["attn_mask"], options["is_causal"]))
        return fused(q, k, v, **options)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", watch)
    m(ids(3))
    assert [None if x is None else (tuple(x.shape), x.dtype) for x, _ in masks] == [
        ((1, 1, 9, 9), torch.bool),
        None,
        ((1, 1, 9, 9), torch.bool),
    ]
    assert [causal for _, causal in masks] == [False, True, False]


def test_a_mask_shifted_by_one_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sees = Strided.sees
    m, given = model("attention", "strided"), ids(2)
    before = m(given)
    monkeypatch.setattr(Strided, "sees", lambda self, q, k: sees(self, q + 1, k) | (q == k))
    assert relative_error(m(given), before) > 1e-3


def test_the_card_says_what_is_seen() -> None:
    lines = "\n".join(in_words(config("attention", "fixed")))
    assert "1 of 3 layers see the last 2 positions" in lines
    assert "1 of 3 layers see their block of 3" in lines
    assert "1 of 3 layers see the last 2 of every block of 4" in lines
    lines = "\n".join(in_words(config("attention", "strided")))
    assert "1 of 3 layers see 3 positions around and every 3 positions" in lines
    assert ModelConfig.from_dict(config("attention", "both").to_dict()) == config("attention", "both")


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        (Strided, {"stride": 0}, "a stride is at least 1, not 0"),
        (Fixed, {"block": 0}, "a block has at least 1 position, not 0"),
        (Fixed, {"block": 4, "summary": 5}, "a block of 4 ends with 1 to 4 of them, not 5"),
    ],
)
def test_patterns_without_sense_are_refused(kind: Any, fields: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        kind(**fields)
