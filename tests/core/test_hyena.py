"""Hyena: filters and convolutions written out entry by entry, causality by gradients, and planted bugs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lens.frame import Frame
from lens.mixers import hyena
from lens.mixers.hyena import Filters, Hyena
from lens.model import Transformer
from lens.recurrent import CausalConv
from lens.taps import Taps
from tests.mixers import config, ids, mixer_of, model
from tests.parity import EXACT, relative_error

each = pytest.mark.parametrize("name", ["two", "three"])


def stream(n: int = 7, rows: int = 2) -> Tensor:
    return torch.randn(rows, n, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def operator(m: Transformer) -> tuple[Any, Any]:
    return mixer_of(m), m.cfg.stack.mixers[0]


def filter_at(m: Transformer, n: int, t: int) -> Tensor:
    """The n-th filter at distance t: a window times a network of sines of the distance and its waves."""
    op, cfg = operator(m)
    part = t / cfg.length
    waves = [2 * math.pi * k * t / cfg.length for k in range(cfg.n_waves)]
    x = torch.tensor([part, *map(math.cos, waves), *map(math.sin, waves)], dtype=torch.float64)
    for linear in op.filters.hidden:
        x = torch.sin(cfg.frequency * (linear.weight @ x + linear.bias))
    h = (op.filters.out.weight @ x)[n * cfg.d_inner : (n + 1) * cfg.d_inner]
    window = []
    for channel in range(cfg.d_inner):
        speed = 1 / cfg.slow + (1 / cfg.fast - 1 / cfg.slow) * channel / (cfg.d_inner - 1)
        window.append(0.01 ** (part * speed) + cfg.floor)
    return h * torch.tensor(window, dtype=torch.float64)


def naive(m: Transformer, x: Tensor) -> Tensor:
    """z[1] = v; z[n+1][t] = x[n][t] Σ over s ≤ t of h[n][t - s] z[n][s], plus the skip; y = z[N+1]."""
    op, cfg = operator(m)
    out = torch.zeros_like(x)
    for b, row in enumerate(x):
        before = op.in_proj(row)
        parts = torch.zeros_like(before)
        for t in range(len(row)):
            parts[t] = op.conv.bias
            for back in range(min(t + 1, cfg.conv_width)):
                parts[t] += op.conv.weight[:, cfg.conv_width - 1 - back] * before[t - back]
        z, *gates = parts.split(cfg.d_inner, -1)
        for n, gate in enumerate(gates):
            after = torch.zeros_like(z)
            for t in range(len(row)):
                for s in range(t + 1):
                    after[t] += filter_at(m, n, t - s) * z[s]
                after[t] += op.skip.weight[n] * z[t]
                after[t] *= gate[t]
            z = after
        out[b] = op.out_proj(z)
    return out


def mixed(m: Transformer, x: Tensor) -> Tensor:
    return operator(m)[0](x, Frame(x.shape[1], dtype=x.dtype))


@each
def test_the_transform_is_the_direct_convolution(name: str) -> None:
    m, x = model("hyena", name), stream()
    assert relative_error(mixed(m, x), naive(m, x)) < EXACT


@each
def test_filters_fade_along_their_channels(name: str) -> None:
    """After the `slow` and `fast` parts of the length, the first and last window are at a hundredth."""
    op, cfg = operator(model("hyena", name))
    t = torch.tensor([[0.0], [cfg.fast], [cfg.slow]], dtype=torch.float64)
    window = op.filters.window(t)
    torch.testing.assert_close(window[0], torch.full_like(window[0], 1 + cfg.floor))
    assert float(window[1, -1]) == pytest.approx(0.01 + cfg.floor)
    assert float(window[2, 0]) == pytest.approx(0.01 + cfg.floor)
    assert (window[1].diff() < 0).all()


@each
def test_no_position_depends_on_what_follows_it(name: str) -> None:
    """By gradients: nothing but the transform's rounding comes from later inputs, and something from all earlier."""
    op, _ = operator(model("hyena", name))
    x = stream(6, rows=1)

    def run(inputs: Tensor) -> Tensor:
        return op(inputs, Frame(6, dtype=inputs.dtype))

    jacobian: Any = torch.autograd.functional.jacobian(run, x)
    size = jacobian[0, :, :, 0].abs()  # [p, d, p, d]
    size = size.amax((1, 3))
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)
    assert size[later].max() < 1e-13 * size.max()
    assert size[~later].min() > 1e-6 * size.max()


@each
def test_edits_of_filters_act_and_persist(name: str) -> None:
    """A filter of nothing leaves the skip: each position then sees what its short convolution does."""
    m, given = model("hyena", name), ids(2)
    site = "blocks.0.mixer.hook_filter"
    names = [f"blocks.0.mixer.hook_{what}" for what in ("v", "long1")]
    _, cache = m.run_with_cache(given, names, edits={site: lambda x: x * 0})
    expected = cache[names[0]] * operator(m)[0].skip.weight[0]
    assert relative_error(cache[names[1]], expected) < EXACT


def test_what_was_convolved_is_kept_as_it_was_edited() -> None:
    """A value that is edited in one run is what later runs look back at, as keys and values are."""
    m, given = model("hyena", "two"), ids(2)

    def edit(x: Tensor) -> Tensor:
        return x + (torch.arange(x.shape[1]) == 1)[:, None]

    edits = {"blocks.0.mixer.hook_v": edit}
    whole, _ = m.run_with_cache(given, [], edits=edits)
    past = m.new_past()
    first, _ = m.run_with_cache(given[:, :4], [], edits=edits, past=past)
    second = m(given[:, 4:], past=past)
    assert relative_error(torch.cat([first, second], 1), whole) < EXACT


def test_the_filter_site_is_as_long_as_the_text() -> None:
    m, given = model("hyena", "three"), ids(2)
    site = "blocks.2.mixer.hook_filter"
    past = m.new_past()
    m(given[:, :4], past=past)
    _, cache = m.run_with_cache(given[:, 4:], [site], past=past)
    assert cache[site].shape == (2, 3, 9, 6)
    _, whole = m.run_with_cache(given, [site])
    assert relative_error(cache[site], whole[site]) < EXACT
    assert "blocks.0.mixer.hook_long3" in m.sites and "blocks.0.mixer.hook_long4" not in m.sites


# ------------------------------------------------------------------ planted bugs

CONVOLVED, FILTERS, CONV = hyena.convolved, Filters.forward, CausalConv.forward
BUGS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "filter shifted by one": (Filters, "forward", lambda self, n: FILTERS(self, n + 1)[:, 1:]),
    "filters in the wrong order": (Filters, "forward", lambda self, n: FILTERS(self, n).flip(0)),
    "no window": (Filters, "window", lambda self, t: torch.ones(len(t), self.cfg.d_inner, dtype=t.dtype)),
    "window over the text, not the length": (
        Filters,
        "window",
        lambda self, t: WINDOW(self, t / t.max()),
    ),
    "wrapped around": (
        hyena,
        "convolved",
        lambda z, h, frame: torch.fft.irfft(
            torch.fft.rfft(z, dim=1) * torch.fft.rfft(h, dim=-2), z.shape[1], 1
        ),
    ),
    "another skip": (hyena, "convolved", lambda z, h, frame: CONVOLVED(z, h, frame) - z),
    "short convolution dropped": (CausalConv, "forward", lambda self, x, before, frame: (x, x[:, :0])),
}
WINDOW = Filters.window


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    m, x = model("hyena", "two"), stream()
    expected = naive(m, x)
    where, what, instead = BUGS[bug]
    monkeypatch.setattr(where, what, instead)
    assert relative_error(mixed(m, x), expected) > 1e-3


def test_gates_matter() -> None:
    m, x = model("hyena", "two"), stream()
    ones = Taps((), {"blocks.0.mixer.hook_x2": torch.ones_like})
    dropped = operator(m)[0](x, Frame(7, dtype=x.dtype), ones)
    assert relative_error(dropped, naive(m, x)) > 1e-3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"causal": False}, "Hyena's filters look at what came before: causal must be true"),
        ({"mixer": Hyena(d_inner=4, length=9, order=1)}, "Hyena's order is 2 to 4, not 1"),
        ({"mixer": Hyena(d_inner=4, length=9, order=5)}, "Hyena's order is 2 to 4, not 5"),
    ],
)
def test_what_cannot_be_made_is_refused(fields: dict[str, object], reason: str) -> None:
    cfg = config("hyena", "two")
    with pytest.raises(ValueError, match=f"^{reason}"):
        Transformer(replace(cfg, stack=replace(cfg.stack, **fields)))
