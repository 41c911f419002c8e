"""Recurrent mixers against their definitions, written out naively, and against the states that Hugging Face keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lens.cache import ActivationCache
from lens.mixers.mamba2 import chunk, chunked
from lens.model import Transformer
from lens.train import Recipe, fresh, train
from tests import zoo
from tests.mixers import config, ids, model
from tests.parity import CLOSE, EXACT, ours, prompts, relative_error


def read(m: Transformer, *names: str, **options: Any) -> ActivationCache:
    wanted = [f"blocks.1.mixer.hook_{name}" for name in names]
    return m.run_with_cache(ids(2), wanted, **options)[1]


def naive_scan(decay: Tensor, write: Tensor) -> Tensor:
    """All states at once: each is the sum of all writes before it, times every decay since. [p, …]"""
    n = len(decay)
    states = []
    for t in range(n):
        terms = [write[s] * decay[s + 1 : t + 1].prod(0) for s in range(t + 1)]
        states.append(torch.stack(terms).sum(0))
    return torch.stack(states)


def test_mamba_is_the_sum_of_what_has_not_faded() -> None:
    m = model("mamba", "plain")
    seen = read(m, "x", "dt", "B", "C", "ssm_write", "ssm_state", "y")
    x, dt, b, c, write, state, y = (tensor[0] for tensor in seen.values())
    mixer: Any = m.block(1).get_submodule("mixer")
    a = -mixer.A_log.weight.exp()
    naive = naive_scan((dt[:, :, None] * a).exp(), (dt * x)[:, :, None] * b[:, None])
    assert relative_error(state, naive) < EXACT
    assert relative_error(write, (dt * x)[:, :, None] * b[:, None]) < EXACT
    assert relative_error(y, (naive * c[:, None]).sum(-1) + mixer.D.weight * x) < EXACT
    assert relative_error(read(m, "y")["y", 1], seen["y", 1]) < EXACT, "reading states changes what is read"


def test_mamba2_is_masked_attention() -> None:
    """Pattern times x, the recurrence, and chunks of any size."""
    m = model("mamba2", "plain")
    seen = read(m, "x", "dt", "B", "C", "ssm_state", "pattern", "y")
    x, dt, b, c, state, pattern, y = (tensor[0] for tensor in seen.values())
    mixer: Any = m.block(1).get_submodule("mixer")
    fade = dt * -mixer.A_log.weight.exp()
    by_head = [tensor.repeat_interleave(2, 1) for tensor in (b, c)]
    naive = naive_scan(fade.exp()[..., None, None], (dt[..., None] * x)[..., None] * by_head[0][:, :, None])
    assert relative_error(state, naive) < EXACT
    from_state = (naive * by_head[1][:, :, None]).sum(-1)
    assert relative_error(torch.einsum("hpk,khe->phe", pattern, x), from_state) < EXACT
    assert relative_error(y, from_state + mixer.D.weight[:, None] * x) < EXACT
    start = torch.randn(1, *state.shape[1:], dtype=torch.float64)
    given = [tensor[None] for tensor in (dt[..., None] * x, fade, *by_head)]
    whole, last = chunk(*given, start)  # type: ignore[call-arg]
    for size in (1, 2, 5, 64):
        found, after = chunked(*given, start, size)  # type: ignore[call-arg]
        assert relative_error(found, whole) < EXACT
        assert relative_error(after, last) < EXACT


def test_rwkv_is_a_weighted_mean_per_channel() -> None:
    """Eq. 16 of the paper, with weights as a softmax over the positions before, and the bonus of the newest."""
    m = model("rwkv", "plain")
    seen = read(m, "k", "v", "state", "wkv")
    k, v, state, wkv = (tensor[0] for tensor in seen.values())
    mixer: Any = m.block(1).get_submodule("mixer")
    fade, first = mixer.decay.weight.exp(), mixer.first.weight
    for t in range(len(k)):
        logits = torch.stack([k[s] - (t - 1 - s) * fade for s in range(t)] + [k[t] + first])
        assert relative_error(wkv[t], (logits.softmax(0) * v[: t + 1]).sum(0)) < EXACT
        if t:
            assert relative_error(state[t, 0], (logits[:t].softmax(0) * v[:t]).sum(0)) < EXACT
            assert relative_error(state[t, 1], logits[:t].logsumexp(0)) < EXACT


@pytest.mark.parametrize("mixer", ["mamba", "mamba2"])
def test_writes_last_and_states_are_read_once(mixer: str) -> None:
    m = model(mixer, "plain")

    def third(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 2] += 1
        return x

    for site, last in (("ssm_write", True), ("ssm_state", False)):
        clean = read(m, "ssm_state", "y")
        edits = {f"blocks.1.mixer.hook_{site}": third}
        edited = read(m, "ssm_state", "y", edits=edits)
        changed = (edited["y", 1] - clean["y", 1]).flatten(2).abs().amax((0, 2)) > 1e-12
        assert changed.tolist() == [False, False, True, *[last] * 6]


def test_edits_of_states_and_patterns_add_up() -> None:
    m = model("mamba2", "plain")
    edits = {
        "blocks.1.mixer.hook_pattern": lambda x: x * 0,
        "blocks.1.mixer.hook_ssm_state": lambda x: x * 3,
    }
    seen = read(m, "x", "y", edits=edits)
    mixer: Any = m.block(1).get_submodule("mixer")
    clean = read(m, "x", "y")
    skip = mixer.D.weight[:, None] * clean["x", 1]
    assert relative_error(seen["y", 1], (clean["y", 1] - skip) * 2 + skip) < EXACT


# ------------------------------------------------------------------ Hugging Face's states


@pytest.mark.parametrize("name", ["tied", "biased"])
def test_mamba_keeps_the_states_that_hugging_face_keeps(name: str) -> None:
    _same_states("mamba", name)


@pytest.mark.parametrize("name", ["untied", "tied"])
def test_mamba2_keeps_the_states_that_hugging_face_keeps(name: str) -> None:
    """Hugging Face's steps of one token forget the limits of step sizes, so they are compared without."""
    _same_states("mamba2", name, steps=name == "untied")


def _same_states(family: str, name: str, steps: bool = True) -> None:
    hf, m, given = zoo.hugging_face(family, name), ours(family, name), prompts()
    past = m.new_past()
    m(given[:, :8], past=past)
    with torch.no_grad():
        cache = hf(given[:, :8], use_cache=True).cache_params
    for layer in range(m.cfg.n_layers):
        mine = past.states[layer]
        conv = cache.get_conv_state(layer, state_idx=0)[..., -mine["conv"].shape[1] :]
        assert relative_error(mine["conv"].mT, conv) < CLOSE
        assert relative_error(mine["state"], cache.get_recurrent_state(layer, state_idx=0)) < CLOSE
    for t in range(8, given.shape[1] if steps else 8):
        with torch.no_grad():
            out = hf(given[:, t : t + 1], cache_params=cache, use_cache=True)
        assert relative_error(m(given[:, t : t + 1], past=past), out.logits) < CLOSE


def test_rwkv_keeps_the_states_that_hugging_face_keeps() -> None:
    """Of one row: Hugging Face's steps of one token mix the rows of a batch."""
    hf, m, given = zoo.hugging_face("rwkv", "rescaled"), ours("rwkv", "rescaled"), prompts(1)
    past = m.new_past()
    m(given[:, :8], past=past)
    with torch.no_grad():
        state = hf(given[:, :8], use_cache=True).state
    for layer in range(m.cfg.n_layers):
        channel, time, num, den, most = (x[:, :, layer] for x in state)
        mine = past.states[layer]
        assert relative_error(mine["channel"][:, 0], channel) < CLOSE
        assert relative_error(mine["time"][:, 0], time) < CLOSE
        assert relative_error(mine["state"][:, 0], num / den) < CLOSE
        assert relative_error(mine["state"][:, 1], den.log() + most) < CLOSE
    for t in range(8, given.shape[1]):
        with torch.no_grad():
            out = hf(given[:, t : t + 1], state=state, use_cache=True)
        state = out.state
        assert relative_error(m(given[:, t : t + 1], past=past), out.logits) < CLOSE


@pytest.mark.parametrize(("family", "name"), [("mamba", "tied"), ("mamba2", "untied"), ("rwkv", "rescaled")])
def test_generation_says_what_hugging_face_says(family: str, name: str) -> None:
    hf, m, given = zoo.hugging_face(family, name), ours(family, name), prompts(1)
    said = hf.generate(given, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(m.generate(given, 6), said)


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("mixer", ["mamba", "mamba2", "rwkv"])
def test_a_fresh_model_learns_to_say_what_it_read_before(mixer: str) -> None:
    """Two of ten tokens in turn: a model that remembers nothing is wrong by ln 10 at each, the best by a tenth."""

    def in_turn(n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(3, 13, (n, 2), generator=generator).repeat(1, 6)

    recipe = Recipe(steps=80, batch_size=16, learning_rate=2e-2, warmup=10)
    losses = train(fresh(config(mixer, "plain")), in_turn, recipe).losses
    assert losses[0] > math.log(10)
    assert losses[-1] < 0.5
