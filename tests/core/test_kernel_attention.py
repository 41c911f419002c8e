"""Linear attention and Performer: their definitions, written position by position, and what features estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import elu

from lens.frame import Frame
from lens.mixers import _faded_sums as sums
from lens.mixers import _kernel_attention as kernel
from lens.mixers.performer import Performer, drawn, orthogonal
from lens.model import Transformer
from lens.taps import Taps
from tests.mixers import config, ids, mixer_of, model
from tests.parity import EXACT, relative_error

SPECIMENS = [(m, n) for m in ("linear_attention", "performer") for n in ("causal", "both")]
each = pytest.mark.parametrize(("mixer", "name"), SPECIMENS)


def stream(n: int = 7, rows: int = 2, scale: float = 1.0) -> Tensor:
    made = torch.randn(rows, n, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return made * scale


def log_weight(m: Transformer, q: Tensor, k: Tensor) -> Tensor:
    """The logarithm of a query's weight of a key before normalising, as the papers give it."""
    if m.cfg.stack.mixers[0].kind == "linear_attention":  # type: ignore[union-attr]
        return ((elu(q) + 1) @ (elu(k) + 1)).log()
    omega, root = mixer_of(m).random.weight.double(), q.shape[-1] ** 0.25
    q, k = q / root, k / root
    return torch.stack([w @ q - q @ q / 2 + w @ k - k @ k / 2 for w in omega]).logsumexp(0)


def naive(m: Transformer, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output of layer 0's mixer for streams x, and its pattern: every weight by itself."""
    a, c = mixer_of(m), m.cfg.stack
    out, pattern = torch.zeros_like(x), torch.zeros(len(x), c.n_heads, x.shape[1], x.shape[1])
    pattern = pattern.double()
    for b, row in enumerate(x):
        for h in range(c.n_heads):
            g = h // (c.n_heads // c.n_kv_heads)
            e = slice(h * c.d_head, (h + 1) * c.d_head)
            kv = slice(g * c.d_head, (g + 1) * c.d_head)
            q, k, v = a.q(row)[:, e], a.k(row)[:, kv], a.v(row)[:, kv]
            for p in range(len(row)):
                seen = range(p + 1) if c.causal else range(len(row))
                w = torch.stack([log_weight(m, q[p], k[j]) for j in seen]).softmax(0)
                pattern[b, h, p, : len(w)] = w
                out[b, p] += a.o.weight[:, e] @ sum(w[j] * v[j] for j in seen)
        out[b] += 0 if a.o.bias is None else a.o.bias
    return out, pattern


def frame(m: Transformer, x: Tensor) -> Frame:
    return Frame(x.shape[1], causal=m.cfg.causal, dtype=x.dtype)


def mixed(m: Transformer, x: Tensor) -> Tensor:
    return mixer_of(m)(x, frame(m, x))


@each
@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_both_forms_are_the_definition(mixer: str, name: str, scale: float) -> None:
    """Also where single weights take almost everything."""
    m, x = model(mixer, name), stream(scale=scale)
    expected, pattern = naive(m, x)
    site = "blocks.0.attn.hook_pattern"
    taps = Taps([site])
    explicit = mixer_of(m)(x, frame(m, x), taps)
    assert relative_error(mixed(m, x), expected) < EXACT
    assert relative_error(explicit, expected) < EXACT
    assert relative_error(taps.seen[site], pattern) < EXACT
    torch.testing.assert_close(taps.seen[site].sum(-1), torch.ones(2, 4, 7, dtype=torch.float64))


@each
def test_texts_of_several_chunks(mixer: str, name: str) -> None:
    m, x = model(mixer, name), stream(2 * sums.CHUNK + 5, rows=1)
    explicit = mixer_of(m)(x, frame(m, x), Taps(["blocks.0.attn.hook_pattern"]))
    assert relative_error(mixed(m, x), explicit) < EXACT


@pytest.mark.parametrize("size", [1, 3, 11, 40])
def test_chunks_of_any_size_are_the_sum(size: int) -> None:
    """`_faded_sums` against its definition; levels rise and fall, and a state comes before."""
    made = torch.Generator().manual_seed(0)
    b, g, r, n, f, x = 2, 2, 3, 11, 4, 5

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made, dtype=torch.float64)

    q, k, v, level = draw(b, g, r, n, f), draw(b, g, n, f), draw(b, g, n, x), 5 * draw(b, g, n)
    old_k, old_v, old = draw(b, g, f), draw(b, g, x), draw(b, g)
    state = sums.State(old_k[..., None] * old_v[..., None, :], old)
    y, end = sums.in_chunks(q, k, v, level, state, size)
    for p in range(n):
        top = torch.maximum(level[..., : p + 1].amax(-1), old)
        expected = (q[..., p, :] * old_k[:, :, None]).sum(-1)[..., None] * old_v[:, :, None]
        expected = expected * (old - top).exp()[..., None, None]
        for j in range(p + 1):
            w = (q[..., p, :] * k[:, :, None, j]).sum(-1) * (level[..., j] - top).exp()[..., None]
            expected = expected + w[..., None] * v[:, :, None, j]
        assert relative_error(y[..., p, :], expected) < EXACT
    assert torch.equal(end.top, torch.maximum(level.amax(-1), old))
    faded = (level - end.top[..., None]).exp()[..., None, None]
    total = (k[..., None] * v[..., None, :] * faded).sum(2)
    total = total + state.sums * (old - end.top).exp()[..., None, None]
    assert relative_error(end.sums, total) < EXACT


@each
def test_edits_of_the_pattern_act(mixer: str, name: str) -> None:
    """With a pattern of the identity every position writes its own value."""
    m, given = model(mixer, name), ids(2)

    def own(pattern: Tensor) -> Tensor:
        return torch.eye(9, dtype=pattern.dtype).expand_as(pattern).clone()

    site = "blocks.0.attn.hook_pattern"
    _, cache = m.run_with_cache(given, ["blocks.0.attn.hook_z", "blocks.0.attn.hook_v"], edits={site: own})
    v = cache["blocks.0.attn.hook_v"]
    z = cache["blocks.0.attn.hook_z"]
    assert relative_error(z, v.repeat_interleave(4 // v.shape[2], 2)) < EXACT


def test_a_continued_run_says_what_fell_on_its_own_keys() -> None:
    for mixer in ("linear_attention", "performer"):
        m, given, site = model(mixer, "causal"), ids(2), "blocks.1.attn.hook_pattern"
        _, whole = m.run_with_cache(given, [site])
        past = m.new_past()
        m(given[:, :4], past=past)
        _, part = m.run_with_cache(given[:, 4:], [site], past=past)
        assert relative_error(part[site], whole[site][:, :, 4:, 4:]) < EXACT


# ------------------------------------------------------------------ planted bugs


def no_normaliser(y: Tensor) -> Tensor:
    return y[..., :-1]


def strictly_before(q: Tensor, k: Tensor, level: Tensor, top: Tensor) -> Tensor:
    return WEIGHTS(q, k, level, top).tril(-1)


WEIGHTS = sums.weights
BUGS: dict[str, tuple[object, str, Callable[..., Tensor]]] = {
    "no normaliser": (kernel, "_normalised", no_normaliser),
    "itself not seen": (sums, "weights", strictly_before),
    "everything seen": (sums, "weights", lambda q, k, level, top: q @ k[:, :, None].mT),
}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("mixer", ["linear_attention", "performer"])
def test_planted_bugs_are_seen(mixer: str, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, what, instead = BUGS[bug]
    m, x = model(mixer, "causal"), stream()
    expected, _ = naive(m, x)
    assert relative_error(mixed(m, x), expected) < EXACT
    monkeypatch.setattr(where, what, instead)
    assert relative_error(mixed(m, x), expected) > 1e-3


# ------------------------------------------------------------------ random features


def test_features_are_orthogonal_in_blocks_and_as_long_as_normal_vectors() -> None:
    omega = orthogonal(4000, 8, torch.Generator().manual_seed(0)).double()
    for block in omega.split(8)[:20]:
        gram = block @ block.T
        assert (gram - gram.diagonal().diag()).abs().max() < 1e-5 * gram.max()
    squares = omega.square().sum(-1)  # chi-squared with 8 degrees of freedom: mean 8, variance 16
    assert abs(squares.mean() - 8) < 5 * math.sqrt(16 / 4000)
    assert abs(squares.var() - 16) < 16 * 0.2
    # directions are uniform: coordinates have mean 0 and variance 1
    assert omega.mean(0).abs().max() < 5 / math.sqrt(4000)
    assert orthogonal(13, 8, torch.Generator().manual_seed(0)).shape == (13, 8)


def test_products_of_features_are_unbiased() -> None:
    """Over 2,000 seeds, the mean of φ(q)·φ(k) / n is exp(q·k) within five standard errors."""
    made = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 6, generator=made, dtype=torch.float64) * 0.5
    found = []
    for _ in range(2000):
        omega = orthogonal(9, 6, made).double()
        found.append(((omega @ q - q @ q / 2).exp() * (omega @ k - k @ k / 2).exp()).mean())
    estimates = torch.stack(found)
    error = estimates.std() / math.sqrt(len(estimates))
    assert abs(estimates.mean() - (q @ k).exp()) < 5 * error
    assert error < 0.02 * (q @ k).exp()


def performing(n_features: int, seed: int) -> tuple[Tensor, Tensor]:
    """Patterns of a Performer's first layer, and softmax's of its queries and keys."""
    cfg = config("performer", "causal")
    mixer = Performer(n_features=n_features, seed=seed)
    cfg = replace(cfg, stack=replace(cfg.stack, mixer=mixer, n_layers=1))
    m = Transformer(cfg).double()
    state = {k: v for k, v in model("performer", "causal").state_dict().items() if k in m.state_dict()}
    m.load_state_dict({k: v for k, v in state.items() if "random" not in k}, strict=False)
    x = stream(12, scale=0.15)
    names = [f"blocks.0.attn.hook_{name}" for name in ("pattern", "q", "k")]
    taps = Taps(names)
    mixer_of(m)(x, frame(m, x), taps)
    pattern, q, k = (taps.seen[name] for name in names)
    scores = torch.einsum("bphe,bkhe->bhpk", q, k.repeat_interleave(2, 2)) / 2
    later = torch.ones(12, 12, dtype=torch.bool).triu(1)
    return pattern, scores.masked_fill(later, -torch.inf).softmax(-1)


def test_the_estimate_goes_to_softmax_with_the_number_of_features() -> None:
    """The error falls as 1 / √n: from 32 to 2,048 features by 8; it must by 6, over the median of eight seeds."""
    errors = {}
    for n in (32, 2048):
        found = [a - b for a, b in (performing(n, seed) for seed in range(8))]
        errors[n] = torch.stack([x.square().mean().sqrt() for x in found]).median()
    assert errors[2048] < errors[32] / 6
    assert errors[2048] < 0.002


def test_seeds_and_layers_have_features_of_their_own() -> None:
    m = model("performer", "causal")
    a, b = (mixer_of(m, layer).random.weight for layer in (0, 1))
    assert not torch.equal(a, b)
    assert torch.equal(a.float(), drawn(m.cfg.stack, 0))
    assert "stack.blocks.0.attn.random.weight" in m.state_dict()
    assert all("random" not in name for name, _ in m.named_parameters())
