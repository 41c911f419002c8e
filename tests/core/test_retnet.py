"""Retention: the paper's recurrence, with complex numbers and one position at a time, against every form of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lens.frame import Frame
from lens.mixers import _faded_sums as sums
from lens.mixers import retnet
from lens.mixers.retnet import Retention, RetNet
from lens.model import Transformer
from lens.taps import Taps
from tests.mixers import config, ids, mixer_of, model
from tests.parity import EXACT, relative_error

PATTERN = "blocks.0.attn.hook_pattern"
each = pytest.mark.parametrize("name", ["plain", "hybrid"])


def stream(n: int = 7, rows: int = 2) -> Tensor:
    return torch.randn(rows, n, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def decays(m: Transformer) -> tuple[float, ...]:
    """γ of each head: 1 - 2^(-5 - i) (eq. 8), unless the configuration says otherwise."""
    mixer = m.cfg.stack.mixers[0]
    assert isinstance(mixer, RetNet)
    return mixer.decays or (31 / 32, 63 / 64, 127 / 128, 255 / 256)


def turned(x: Tensor, n: int) -> Tensor:
    """Neighbouring entries as complex numbers, times e^(i n θ)."""
    theta = torch.tensor([10_000.0 ** (-2 * i / len(x)) for i in range(len(x) // 2)], dtype=torch.float64)
    return torch.complex(x[::2], x[1::2]) * torch.polar(torch.ones_like(theta), n * theta)


def naive(m: Transformer, x: Tensor) -> Tensor:
    """S[n] = γ S[n-1] + k[n] v[n]ᵀ, o[n] = Re(q[n] S[n]) (eq. 6), group norm, swish gate, W_O."""
    a = mixer_of(m)
    out = torch.zeros_like(x)
    for b, row in enumerate(x):
        for h, gamma in enumerate(decays(m)):
            q, k, v = (linear(row).unflatten(-1, (4, -1))[:, h] for linear in (a.q, a.k, a.v))
            gate = a.gate(row).unflatten(-1, (4, -1))[:, h]
            state = torch.zeros(q.shape[1] // 2, v.shape[1], dtype=torch.complex128)
            for n in range(len(row)):
                state = gamma * state + turned(k[n], n).conj()[:, None] * v[n]
                o = (turned(q[n], n) @ state).real / q.shape[1] ** 0.5
                o = (o - o.mean()) / (o.var(correction=0) + 1e-5).sqrt()
                o = o * gate[n] * torch.sigmoid(gate[n])
                out[b, n] += a.o.weight.unflatten(1, (4, -1))[:, h] @ o
        out[b] += 0 if a.o.bias is None else a.o.bias
    return out


def mixed(m: Transformer, x: Tensor, *sites: str) -> tuple[Tensor, Taps]:
    taps = Taps(sites)
    return mixer_of(m)(x, Frame(x.shape[1], dtype=x.dtype), taps), taps


@each
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_parallel_chunkwise_and_recurrent_forms_are_the_definition(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, x = model("retnet", name), stream()
    monkeypatch.setattr(retnet, "in_chunks", lambda *given: sums.in_chunks(*given, size=chunk))
    expected = naive(m, x)
    assert relative_error(mixed(m, x)[0], expected) < EXACT
    assert relative_error(mixed(m, x, PATTERN)[0], expected) < EXACT


def test_long_texts() -> None:
    """Several chunks; and a slow head and a fast one, whose weights differ by hundreds of orders of magnitude."""
    for name in ("plain", "hybrid"):
        m, x = model("retnet", name), stream(2 * sums.CHUNK + 5, rows=1)
        found = mixed(m, x)[0]
        assert found.isfinite().all()
        assert relative_error(found, mixed(m, x, PATTERN)[0]) < EXACT
        assert relative_error(found, naive(m, x)) < EXACT


@each
def test_the_pattern_is_the_decayed_scores(name: str) -> None:
    """Q Kᵀ ⊙ D with D[n, m] = γ^(n - m) (eq. 5), and an edit of it acts."""
    m, x = model("retnet", name), stream()
    sites = [f"blocks.0.attn.hook_{name}" for name in ("pattern", "q", "k", "v")]
    _, taps = mixed(m, x, *sites)
    pattern, q, k, v = (taps.seen[site] for site in sites)
    for h, gamma in enumerate(decays(m)):
        for n in range(7):
            for j in range(7):
                score = (turned(q[0, n, h], n) * turned(k[0, j, h], j).conj()).real.sum() / 2
                expected = score * gamma ** (n - j) if n >= j else 0.0
                assert abs(pattern[0, h, n, j] - expected) < 1e-12
    doubled = Taps(["blocks.0.attn.hook_z"], {PATTERN: lambda x: 2 * x.tril(-1)})
    mixer_of(m)(x, Frame(7, dtype=x.dtype), doubled)
    z = 2 * torch.einsum("bhpk,bkhx->bphx", pattern.tril(-1), v)
    assert relative_error(doubled.seen["blocks.0.attn.hook_z"], z) < EXACT


def test_a_continued_run_shows_its_own_keys() -> None:
    m, given = model("retnet", "plain"), ids(2)
    _, whole = m.run_with_cache(given, [PATTERN])
    past = m.new_past()
    m(given[:, :4], past=past)
    _, part = m.run_with_cache(given[:, 4:], [PATTERN], past=past)
    assert relative_error(part[PATTERN], whole[PATTERN][:, :, 4:, 4:]) < EXACT


# ------------------------------------------------------------------ planted bugs


OF_STATE, WEIGHTS = sums.of_state, sums.weights
ROTATE, NORMALISED = retnet.rotary.rotate, Retention.normalised
BUGS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "decay off by one": (sums, "of_state", lambda q, state, top: OF_STATE(q, state, top + 0.03)),
    "no decay": (sums, "weights", lambda q, k, level, top: WEIGHTS(q, k, level * 0, top * 0)),
    "no rotation": (retnet.rotary, "rotate", lambda x, cos, sin, interleaved: x),
    "halves rotated, not neighbours": (
        retnet.rotary,
        "rotate",
        lambda x, cos, sin, interleaved: ROTATE(x, cos, sin, interleaved=False),
    ),
    "no norm": (Retention, "normalised", lambda self, z, taps: z),
    "norm over all heads": (
        Retention,
        "normalised",
        lambda self, z, taps: NORMALISED(self, z.flatten(2)[:, :, None], taps).view_as(z),
    ),
    "gate dropped": (retnet.F, "silu", torch.ones_like),
    "sigmoid for swish": (retnet.F, "silu", torch.sigmoid),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    m, x = model("retnet", "plain"), stream()
    expected = naive(m, x)
    monkeypatch.setattr(retnet, "in_chunks", lambda *given: sums.in_chunks(*given, size=3))
    assert relative_error(mixed(m, x)[0], expected) < EXACT
    where, what, instead = BUGS[bug]
    monkeypatch.setattr(where, what, instead)
    assert relative_error(mixed(m, x)[0], expected) > 1e-3


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"causal": False}, "RetNet reads a text from its first token to its last: causal must be true"),
        ({"n_kv_heads": 2}, "RetNet has as many key/value heads as heads, 4; not 2"),
        ({"d_head": 3}, "RetNet rotates pairs of entries: d_head must be even, not 3"),
        ({"mixer": RetNet(d_value=2, decays=(0.5,))}, "RetNet's decays are 4 numbers above 0 and up to 1"),
        ({"mixer": RetNet(d_value=2, decays=(0.5, 1.0, 2.0, 1.0))}, "RetNet's decays are 4 numbers"),
    ],
)
def test_what_cannot_retain_is_refused(fields: dict[str, object], reason: str) -> None:
    cfg = config("retnet", "plain")
    with pytest.raises(ValueError, match=f"^{reason}"):
        Transformer(replace(cfg, stack=replace(cfg.stack, **fields)))
