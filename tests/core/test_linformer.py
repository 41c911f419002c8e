"""Linformer: slots written out one by one; with identities for E and F it is our own attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lens.config import ModelConfig
from lens.mixers import linformer
from lens.mixers.linformer import Linformer, SlotAttention
from lens.model import Transformer
from lens.parameters import aliases_of
from lens.taps import Taps
from tests.mixers import config, ids, mixer_of, model
from tests.parity import EXACT, relative_error

NAMES = ["none", "head", "keys", "layer"]
SITES = [f"blocks.0.attn.hook_{name}" for name in ("attn_scores", "pattern")]
each = pytest.mark.parametrize("name", NAMES)


def stream(n: int = 7, rows: int = 2) -> Tensor:
    return torch.randn(rows, n, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def naive(m: Transformer, x: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q (E K)ᵀ / √d_head) (F V), one slot after another; and the pattern."""
    a, c = mixer_of(m), m.cfg.stack
    e = a.E.weight
    f = e if a.F is None else a.F.weight
    out = torch.zeros_like(x)
    pattern = torch.zeros(len(x), c.n_heads, x.shape[1], a.m.n_slots, dtype=x.dtype)
    for b, row in enumerate(x):
        for h in range(c.n_heads):
            g = h // (c.n_heads // c.n_kv_heads)
            q = a.q(row).unflatten(-1, (c.n_heads, -1))[:, h]
            k, v = (linear(row).unflatten(-1, (c.n_kv_heads, -1))[:, g] for linear in (a.k, a.v))
            of_k, of_v = (w[g] if w.ndim == 3 else w for w in (e, f))
            keys = [sum(of_k[s, p] * k[p] for p in range(len(row))) for s in range(a.m.n_slots)]
            values = [sum(of_v[s, p] * v[p] for p in range(len(row))) for s in range(a.m.n_slots)]
            for p in range(len(row)):
                scores = torch.stack([q[p] @ key / c.d_head**0.5 for key in keys])
                w = scores.exp() / scores.exp().sum()
                pattern[b, h, p] = w
                z = sum(weight * value for weight, value in zip(w, values, strict=True))
                out[b, p] += a.o.weight.unflatten(1, (c.n_heads, -1))[:, h] @ z
    return out, pattern


def mixed(m: Transformer, x: Tensor, *sites: str) -> tuple[Tensor, Taps]:
    taps = Taps(sites)
    return mixer_of(m)(x, m.frame(x.shape[1], batch=len(x)), taps), taps


@each
def test_fused_and_explicit_forms_are_the_definition(name: str) -> None:
    m, x = model("linformer", name), stream()
    expected, pattern = naive(m, x)
    assert relative_error(mixed(m, x)[0], expected) < EXACT
    explicit, taps = mixed(m, x, *SITES)
    assert relative_error(explicit, expected) < EXACT
    assert relative_error(taps.seen[SITES[1]], pattern) < EXACT


def with_identities(sharing: str) -> tuple[Transformer, Transformer]:
    """A Linformer of nine slots whose maps are identities, and the same weights with softmax attention."""
    cfg = config("linformer", "layer")
    mixer = Linformer(n_slots=9, n_ctx=9, sharing=sharing)  # type: ignore[arg-type]
    cfg = replace(cfg, stack=replace(cfg.stack, mixer=mixer, n_kv_heads=2))
    made = Transformer(cfg).double()
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64) * 0.5
    for layer in range(3):
        a = mixer_of(made, layer)
        for table in (a.E, a.F):
            if table is not None:
                table.weight.data = torch.eye(9, dtype=torch.float64).expand(table.weight.shape).clone()
    plain = Transformer(replace(cfg, stack=replace(cfg.stack, mixer=None))).double()
    state = {name: x for name, x in made.state_dict().items() if ".E." not in name and ".F." not in name}
    plain.load_state_dict(state, strict=True)
    return made, plain


@pytest.mark.parametrize("sharing", ["none", "head", "key_value", "layer"])
def test_with_identities_it_is_softmax_attention(sharing: str) -> None:
    made, plain = with_identities(sharing)
    given, names = ids(), ["pattern", "z", "attn_scores", "result"]
    logits, cache = made.run_with_cache(given, names)
    expected, oracle = plain.run_with_cache(given, names)
    assert relative_error(logits, expected) < EXACT
    assert set(cache.keys()) == set(oracle.keys())
    assert max(relative_error(cache[site], oracle[site]) for site in cache.keys()) < EXACT  # noqa: SIM118
    assert relative_error(made(given), plain(given)) < EXACT


def test_who_shares_what() -> None:
    def tables(name: str) -> dict[str, tuple[int, ...]]:
        m = model("linformer", name)
        return {
            k.removeprefix("stack.blocks."): tuple(x.shape)
            for k, x in m.state_dict().items()
            if ".E." in k or ".F." in k
        }

    assert tables("none")["0.attn.F.weight"] == (2, 4, 40)
    assert tables("head") == {
        **dict.fromkeys(("0.attn.E.weight", "0.attn.F.weight"), (3, 40)),
        **dict.fromkeys(("2.attn.E.weight", "2.attn.F.weight"), (5, 40)),
    }
    assert set(tables("keys")) == {f"{layer}.attn.E.weight" for layer in range(3)}
    m = model("linformer", "layer")
    weights = [mixer_of(m, layer).E.weight for layer in range(3)]
    assert weights[0] is weights[1] is weights[2]
    assert aliases_of(m.cfg) == {
        f"stack.blocks.{layer}.attn.E.weight": "stack.blocks.0.attn.E.weight" for layer in (1, 2)
    }
    again = Transformer.from_state(m.cfg, {k: x.clone() for k, x in m.state_dict().items()})
    assert mixer_of(again).E.weight is mixer_of(again, 2).E.weight
    assert torch.equal(again(ids()), m(ids()))


def test_there_is_nothing_to_stand_on() -> None:
    m = model("linformer", "head")
    with pytest.raises(ValueError, match="reads texts in both directions"):
        m.new_past()


# ------------------------------------------------------------------ planted bugs

SLOTS = SlotAttention.slots
BUGS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "maps shifted by one": (
        SlotAttention,
        "slots",
        lambda self, x, table, frame: SLOTS(self, x, table.roll(1, -1), frame),
    ),
    "one map for keys and values": (
        SlotAttention,
        "slots",
        lambda self, x, table, frame: SLOTS(self, x, self.E.weight, frame),
    ),
    "no scale": (
        linformer.F,
        "scaled_dot_product_attention",
        lambda q, k, v, scale, enable_gqa: SDPA(q, k, v, scale=1.0, enable_gqa=enable_gqa),
    ),
}
SDPA = linformer.F.scaled_dot_product_attention


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    m, x = model("linformer", "none"), stream()
    expected, _ = naive(m, x)
    where, what, instead = BUGS[bug]
    monkeypatch.setattr(where, what, instead)
    assert relative_error(mixed(m, x)[0], expected) > 1e-3


# ------------------------------------------------------------------ refusals


def changed(cfg: ModelConfig, **fields: object) -> ModelConfig:
    return replace(cfg, stack=replace(cfg.stack, **fields))


def test_what_does_not_fit_is_refused() -> None:
    cfg = config("linformer", "head")
    with pytest.raises(ValueError, match=r"^Linformer's slots see the whole text: causal must be false$"):
        Transformer(changed(cfg, causal=True))
    short = Transformer(changed(cfg, mixer=Linformer(n_slots=2, n_ctx=8)))
    with pytest.raises(ValueError, match=r"^the text has 9 tokens and Linformer's maps take at most 8$"):
        short(ids())
