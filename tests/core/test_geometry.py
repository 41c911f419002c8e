"""Masks, positions, cached keys and values, rotary embedding and norms against the plainest way to write them."""

from __future__ import annotations

import cmath
import itertools

import pytest
import torch

from lens import rotary
from lens.config import Rotary, RotaryScaling
from lens.frame import Frame
from lens.kv import KeyValues
from lens.norm import Norm
from tests.core.specimens import ids, model

# ------------------------------------------------------------------ masks


def naive_mask(valid: list[bool], past: int, causal: bool, window: int | None) -> list[list[bool]]:
    """May query q look at key k? One row of the batch, one pair at a time."""
    rows = []
    for q in range(past, len(valid)):
        row = []
        for k in range(len(valid)):
            between = sum(valid[min(q, k) : max(q, k)])  # tokens from one to the other
            far = window is not None and between >= window
            row.append(q == k or (valid[k] and not far and (k <= q or not causal)))
        rows.append(row)
    return rows


VALID = {
    "all": [[True] * 7] * 2,
    "left": [[False, False, False, True, True, True, True], [False] + [True] * 6],
    "right": [[True] * 4 + [False] * 3, [True] * 7],
    "hole": [[True, True, False, False, True, True, True], [True, False, False, False, False, True, True]],
}


@pytest.mark.parametrize("padding", VALID)
@pytest.mark.parametrize("past", [0, 3, 6])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 2, 4, 7, 20])
def test_mask(padding: str, past: int, causal: bool, window: int | None) -> None:
    valid = torch.tensor(VALID[padding])
    given = None if padding == "all" else valid
    frame = Frame(7 - past, valid=given, past=past, causal=causal)
    expected = torch.tensor([naive_mask(row.tolist(), past, causal, window) for row in valid])[:, None]
    found = frame.mask(window)
    found = torch.ones_like(expected) if found is None else found.expand_as(expected)
    real = valid[:, None, past:, None].expand_as(expected)  # what padding looks at does not matter,
    assert torch.equal(found[real], expected[real])
    assert found.any(-1).all(), "but it looks at something"
    if frame.plainly_causal(window):
        assert torch.equal(expected[:, 0], torch.ones(7, 7, dtype=torch.bool).tril().expand(2, -1, -1))
    assert frame.mask(window) is frame.mask(window), "made once"


def test_positions_do_not_count_padding() -> None:
    assert Frame(4, past=2).positions.tolist() == [[2, 3, 4, 5]]
    for padding, expected in (
        ("left", [[0, 0, 0, 0, 1, 2, 3], [0, 0, 1, 2, 3, 4, 5]]),
        ("right", [[0, 1, 2, 3, 3, 3, 3], [0, 1, 2, 3, 4, 5, 6]]),
        ("hole", [[0, 1, 1, 1, 2, 3, 4], [0, 0, 0, 0, 0, 1, 2]]),
    ):
        valid = torch.tensor(VALID[padding])
        assert Frame(7, valid=valid).positions.tolist() == expected
        assert Frame(3, valid=valid, past=4).positions.tolist() == [row[4:] for row in expected]


# ------------------------------------------------------------------ keys and values


def rows_of(store: KeyValues) -> int:
    assert store.keys[0] is not None
    return len(store.keys[0])


def test_views_of_a_store() -> None:
    m, prompt = model(), ids(3, 6)
    past = m.new_past()
    assert past.n_rows is None and len(past) == 0
    m(prompt, past=past)
    assert past.n_rows == 3 and len(past) == 6 and not past.frozen
    new = ids(3, 2, seed=4)
    short = past.upto(4)
    assert short.frozen and torch.allclose(m(new, past=short), m(torch.cat([prompt[:, :4], new], 1))[:, 4:])
    for index, rows in ((slice(1, 3), [1, 2]), (torch.tensor([2, 0, 0]), [2, 0, 0])):
        chosen = past.rows(index)
        expected = m(torch.cat([prompt[rows], new[: len(rows)]], 1))[:, 6:]
        assert torch.allclose(m(new[: len(rows)], past=chosen), expected)
    double = past.copies(2)
    assert not double.frozen and rows_of(double) == 6
    m(torch.cat([new, new + 1]), past=double)
    assert len(double) == 8 and len(past) == 6, "copies grow, the original does not"
    with pytest.raises(ValueError, match="7 positions were asked for and 6 are cached"):
        past.upto(7)


def test_a_store_remembers_padding() -> None:
    m, prompt = model("gpt2"), ids(2, 4)
    real = torch.tensor([[False, False, True, True], [True] * 4])
    past = m.new_past()
    m(prompt, attention_mask=real, past=past)
    assert past.valid is not None and torch.equal(past.valid, real)
    m(ids(2, 1), past=past)
    assert past.valid.tolist() == [[False, False, True, True, True], [True] * 5]
    assert past.rows(slice(1, 2)).valid.tolist() == [[True] * 5]
    assert past.upto(2).valid.tolist() == [[False, False], [True, True]]


# ------------------------------------------------------------------ rotary

SPECS = [
    Rotary(dim=8),
    Rotary(dim=8, interleaved=True),
    Rotary(dim=4, theta=100.0),
    Rotary(dim=6, theta=50.0, interleaved=True),
    Rotary(dim=8, scaling=RotaryScaling(kind="linear", factor=4.0)),
    Rotary(
        dim=8,
        theta=100.0,
        scaling=RotaryScaling(kind="yarn", factor=4.0, original_n_ctx=16, attention_factor=1.25),
    ),
]


def naive_rotation(x: list[float], position: int, spec: Rotary, radians: list[float]) -> list[float]:
    """Each pair is a complex number, turned by position × frequency."""
    half, out = spec.dim // 2, list(x)
    gain = spec.scaling.attention_factor if spec.scaling else 1.0
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if spec.interleaved else (i, i + half)
        turned = complex(x[a], x[b]) * cmath.exp(1j * position * radians[i]) * gain
        out[a], out[b] = turned.real, turned.imag
    return out


@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_rotation_is_multiplication_by_complex_numbers(spec: Rotary) -> None:
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 7, 8, 30]])
    cos, sin = rotary.tables(spec, positions, torch.float64)
    found = rotary.rotate(x, cos, sin, spec.interleaved)
    radians = rotary.frequencies(spec).tolist()
    for b, p, h in itertools.product(range(2), range(5), range(3)):
        expected = naive_rotation(x[b, p, h].tolist(), int(positions[b, p]), spec, radians)
        assert torch.allclose(found[b, p, h], torch.tensor(expected, dtype=torch.float64), atol=1e-5)
    assert torch.equal(found[..., spec.dim :], x[..., spec.dim :]), "the rest passes through"


def test_frequencies() -> None:
    base = [100.0 ** (-2 * i / 8) for i in range(4)]
    assert torch.allclose(rotary.frequencies(Rotary(dim=8, theta=100.0)), torch.tensor(base))
    linear = Rotary(dim=8, theta=100.0, scaling=RotaryScaling(kind="linear", factor=2.0))
    assert torch.allclose(rotary.frequencies(linear), torch.tensor(base) / 2)
    stretched = RotaryScaling(
        kind="llama3", factor=8.0, original_n_ctx=64, low_freq_factor=1.0, high_freq_factor=4.0
    )
    found = rotary.frequencies(Rotary(dim=8, theta=100.0, scaling=stretched))
    for f, b in zip(found.tolist(), base, strict=True):
        turns = 64 * b / (2 * cmath.pi)
        blend = min(max((turns - 1) / 3, 0), 1)
        assert f == pytest.approx((1 - blend) * b / 8 + blend * b, rel=1e-6)


@pytest.mark.parametrize("spec", SPECS[:4], ids=range(4))
def test_scores_depend_on_distance_only(spec: Rotary) -> None:
    q, k = torch.randn(1, 1, 1, 8, dtype=torch.float64), torch.randn(1, 1, 1, 8, dtype=torch.float64)

    def score(i: int, j: int) -> float:
        turned = [
            rotary.rotate(x, *rotary.tables(spec, torch.tensor([[at]]), torch.float64), spec.interleaved)
            for x, at in ((q, i), (k, j))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(3, 1) == pytest.approx(score(22, 20), abs=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-4)


# ------------------------------------------------------------------ norms

NORMS = [("layer", False), ("rms", False), ("rms", True)]


def norm(kind: str, unit_offset: bool) -> Norm:
    made = Norm("ln", 6, kind, 1e-5, unit_offset).double().requires_grad_(False)
    made.weight.data = torch.randn(6, dtype=torch.float64)
    if made.bias is not None:
        made.bias.data = torch.randn(6, dtype=torch.float64)
    return made


@pytest.mark.parametrize(("kind", "unit_offset"), NORMS)
def test_norm_as_it_is_written(kind: str, unit_offset: bool) -> None:
    made, x = norm(kind, unit_offset), torch.randn(2, 3, 6, dtype=torch.float64)
    y = x - x.mean(-1, keepdim=True) if kind == "layer" else x
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    y = y * (made.weight + unit_offset) + (0 if made.bias is None else made.bias)
    assert torch.allclose(made(x), y)
    assert torch.allclose(made.linear(x, made.scale(x)) + (0 if made.bias is None else made.bias), y)


@pytest.mark.parametrize(("kind", "unit_offset"), NORMS)
def test_pull_back_is_what_autograd_gives(kind: str, unit_offset: bool) -> None:
    made, x = norm(kind, unit_offset), torch.randn(2, 3, 6, dtype=torch.float64)
    gradient = torch.randn(2, 3, 4, 6, dtype=torch.float64)  # those of four heads share one norm
    scale = made.scale(x)
    found = made.pull_back(gradient, (made.centre(x) / scale)[:, :, None], scale[:, :, None])
    for head in range(4):
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(made(leaf), leaf, gradient[:, :, head])
        assert torch.allclose(found[:, :, head], expected)
