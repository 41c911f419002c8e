"""Hooks of one run and of one context."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch

from lens.hooks import HookPoint
from tests.core.specimens import N_LAYERS, ids, model

SITE = "blocks.1.hook_resid_post"


def add(amount: float):
    return lambda x, hook: x + amount


def test_a_hook_is_told_where_it_runs() -> None:
    m, told = model(), []

    def note(x, hook: HookPoint) -> None:
        told.append((hook.name, hook.layer(), hook.site.shape))

    m.run_with_hooks(ids(), [("z", note)])
    assert told == [(f"blocks.{l}.attn.hook_z", l, "batch pos head d_head") for l in range(N_LAYERS)]
    with pytest.raises(ValueError, match="'hook_embed' is in no layer"):
        m.run_with_hooks(ids(), [("embed", lambda x, hook: hook.layer())])


def test_hooks_of_one_run_act_in_order_and_are_gone_after_it() -> None:
    m, prompt = model(), ids()
    plain = m(prompt)
    doubled = m.run_with_hooks(prompt, [(SITE, add(1)), (SITE, lambda x, hook: x * 2)])
    by_edits = m.run_with_cache(prompt, [], edits={SITE: lambda x: (x + 1) * 2})[0]
    assert torch.equal(doubled, by_edits) and not torch.equal(doubled, plain)
    assert torch.equal(m(prompt), plain)


def test_hooks_by_filter_and_options_of_the_run() -> None:
    m, prompt = model(), ids()
    by_name = m.run_with_hooks(prompt, [("mlp_out", lambda x, hook: x * 0)])
    by_function = m.run_with_hooks(
        prompt, [(lambda name: name.endswith("hook_mlp_out"), lambda x, hook: x * 0)]
    )
    assert torch.equal(by_name, by_function) and not torch.equal(by_name, m(prompt))
    last = m.run_with_hooks(prompt, [("mlp_out", lambda x, hook: x * 0)], logits_at=-1)
    assert torch.allclose(last[:, 0], by_name[:, -1])


def test_context_hooks_act_on_every_run_inside() -> None:
    m, prompt = model(), ids()
    plain, hooked = m(prompt), m.run_with_hooks(prompt, [(SITE, add(1))])
    with m.hooks([(SITE, add(1))]) as same:
        assert same is m
        assert torch.equal(m(prompt), hooked)
        logits, cache = m.run_with_cache(prompt, SITE)
        assert torch.equal(logits, hooked)
        assert torch.allclose(m(cache[SITE], start_at_layer=2), hooked), (
            "a run it cannot act on goes on without"
        )
        ids_out = m.generate(prompt, 3)
    assert torch.equal(m(prompt), plain)
    expected = m.generate(prompt, 3, edits={SITE: lambda x: x + 1})
    assert torch.equal(ids_out, expected)


def test_context_hooks_nest_outermost_first() -> None:
    m, prompt = model(), ids()
    with m.hooks([(SITE, add(1))]), m.hooks([(SITE, lambda x, hook: x * 3)]):
        both = m.run_with_hooks(prompt, [(SITE, lambda x, hook: x - 2)])
    assert torch.equal(both, m.run_with_cache(prompt, [], edits={SITE: lambda x: (x + 1) * 3 - 2})[0])


def test_context_hooks_end_when_their_block_raises() -> None:
    m, prompt = model(), ids()
    plain = m(prompt)
    with pytest.raises(RuntimeError, match="stop"), m.hooks([(SITE, add(1))]):
        raise RuntimeError("stop")
    assert torch.equal(m(prompt), plain)

    def fail(x, hook) -> None:
        raise RuntimeError("in a hook")

    with pytest.raises(RuntimeError, match="in a hook"), m.hooks([(SITE, fail)]):
        m(prompt)
    assert torch.equal(m(prompt), plain)


def test_hooks_of_two_models_do_not_mix() -> None:
    a, b, prompt = model("llama"), model("gpt2"), ids()
    plain = b(prompt)
    with a.hooks([(SITE, add(1))]):
        assert torch.equal(b(prompt), plain)
        with b.hooks([(SITE, add(2))]):
            assert torch.equal(a(prompt), a.run_with_hooks(prompt, []))
            assert not torch.equal(b(prompt), plain)
        assert torch.equal(b(prompt), plain)


def test_other_threads_do_not_see_context_hooks() -> None:
    m, prompt, found = model(), ids(), {}
    plain = m(prompt)
    with m.hooks([(SITE, add(1))]):
        thread = threading.Thread(target=lambda: found.update(other=m(prompt)))
        thread.start()
        thread.join()
        assert not torch.equal(m(prompt), plain)
    assert torch.equal(found["other"], plain)


def test_tasks_do_not_see_each_others_context_hooks() -> None:
    m, prompt = model(), ids()
    expected = [m.run_with_hooks(prompt, [(SITE, add(i))]) for i in range(3)]

    async def hooked(i: int) -> torch.Tensor:
        with m.hooks([(SITE, add(i))]):
            await asyncio.sleep(0)
            return m(prompt)

    async def together() -> list[torch.Tensor]:
        return await asyncio.gather(*map(hooked, range(3)))

    for found, alone in zip(asyncio.run(together()), expected, strict=True):
        assert torch.equal(found, alone)


def test_backward_hooks_see_and_replace_gradients() -> None:
    m, prompt, seen = model(), ids(), {}

    def note(gradient, hook) -> None:
        seen[hook.name] = gradient.clone()

    names = ["blocks.0.hook_resid_post", SITE]
    m.run_with_hooks(prompt, bwd_hooks=[(names, note)])[:, -1, 4].sum().backward()
    logits, cache = m.run_with_cache(prompt, names, grad=True)
    expected = torch.autograd.grad(logits[:, -1, 4].sum(), list(cache.values()))
    for name, gradient in zip(names, expected, strict=True):
        assert torch.allclose(seen[name], gradient)
    with m.hooks(bwd_hooks=[(names[0], note), (SITE, lambda gradient, hook: gradient * 2)]):
        m(prompt)[:, -1, 4].sum().backward()
    assert torch.allclose(seen[names[0]], expected[0] * 2), "gradients upstream follow the replaced one"
