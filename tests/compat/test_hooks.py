"""Hooks that stand on a drop-in model, of a block, of a run; contexts; threads; what circuits and probes get."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import lens
from lens import HookedTransformer
from lens.compat import ActivationCache, HookPoint
from lens.compat.hook_points import checked
from lens.hooks import is_hooked
from lens.model import Transformer
from tests.core import specimens
from tests.core.specimens import N_LAYERS, ids

SITE = "blocks.1.hook_resid_post"
THREADS, RUNS = 4, 60


@cache
def model(kind: str = "llama") -> HookedTransformer:
    core = specimens.model(kind, tokenizer=True)
    return HookedTransformer.from_state(
        core.cfg, nn.Module.state_dict(core), tokenizer=core.tokenizer, dtype=torch.float64
    )


def add(amount: float):
    return lambda x, hook: x + amount


@pytest.mark.parametrize("kind", sorted(specimens.KINDS))
def test_it_is_the_core_with_another_interface(kind: str) -> None:
    core, ours, prompt = specimens.model(kind), model(kind), ids()
    assert isinstance(ours, Transformer)
    assert torch.equal(ours(prompt), core(prompt))
    mine, theirs = ours.run_with_cache(prompt)[1], core.run_with_cache(prompt)[1]
    assert list(mine) == list(theirs)
    for name, x in theirs.items():
        if not name.endswith("hook_normalized"):
            assert torch.equal(mine[name], x), name
    logits, graph = ours.run_with_cache(prompt, ["resid_pre", "z"], grad=True)
    for x in torch.autograd.grad(
        logits[0, -1, 3], list(graph.values()), retain_graph=True, allow_unused=True
    ):
        assert x is None or x.isfinite().all()


def test_hook_points_are_where_transformerlens_has_them() -> None:
    m = model()
    point = m.blocks[0].attn.hook_pattern
    assert isinstance(point, HookPoint) and point is m.hook_dict["blocks.0.attn.hook_pattern"]
    assert point.name == "blocks.0.attn.hook_pattern" and point.layer() == 0 and point.ctx == {}
    assert m.hook_embed.name == "hook_embed" and m.mod_dict["blocks.1.mlp"] is m.blocks[1].mlp
    assert m.mod_dict["blocks.2.ln1.hook_scale"] is m.blocks[2].ln1.hook_scale
    assert m.ln_final.hook_scale.name == "ln_final.hook_scale"
    with pytest.raises(ValueError, match="'hook_embed' is in no layer"):
        m.hook_embed.layer()
    with pytest.raises(AttributeError, match="hook_nothing"):
        _ = m.hook_nothing
    x = torch.ones(2)
    assert point(x) is x


def test_hooks_stand_until_they_are_reset() -> None:
    m, prompt = model(), ids()
    plain, hooked = m(prompt), m.run_with_hooks(prompt, fwd_hooks=[(SITE, add(1))])
    m.add_hook(SITE, add(1))
    assert torch.equal(m(prompt), hooked) and is_hooked(m)
    m.add_hook("resid_post", lambda x, hook: x * 2 if hook.layer() == 1 else None, prepend=True)
    first = m.run_with_cache(prompt, [], edits={})[0]
    m.reset_hooks()
    assert torch.equal(first, m.run_with_cache(prompt, [], edits={SITE: lambda x: x * 2 + 1})[0])
    assert torch.equal(m(prompt), plain) and not is_hooked(m)
    m.add_perma_hook(SITE, add(1))
    m.reset_hooks()
    assert torch.equal(m(prompt), hooked)
    m.blocks[1].hook_resid_post.remove_hooks(including_permanent=True)
    assert torch.equal(m(prompt), plain)
    m.blocks[1].hook_resid_post.add_hook(add(1))
    assert len(m.blocks[1].hook_resid_post.fwd_hooks) == 1
    m.remove_all_hook_fns("bwd")
    assert torch.equal(m(prompt), hooked)
    m.reset_hooks(direction="fwd")
    assert torch.equal(m(prompt), plain)


def test_hooks_that_cannot_act_in_a_run_are_left_out_of_it() -> None:
    m, prompt = model(), ids()
    m.add_hook("blocks.3.hook_resid_post", add(1))
    try:
        stream = m(prompt, stop_at_layer=2)
        assert torch.equal(stream, m.run_with_cache(prompt, "blocks.2.hook_resid_pre")[1]["resid_pre", 2])
        assert torch.equal(m(stream, start_at_layer=2), m(prompt))
        assert torch.equal(m.generate(prompt, 2, do_sample=False), m.generate(prompt, 2, temperature=0.0))
    finally:
        m.reset_hooks()
    with pytest.raises(ValueError, match="cannot fire in a run"):
        m.run_with_hooks(prompt, fwd_hooks=[("blocks.3.hook_resid_post", add(1))], stop_at_layer=2)
    last = m.run_with_hooks(prompt, fwd_hooks=[(lambda name: "resid_post" in name, add(1))], stop_at_layer=1)
    assert last.shape == (3, 9, 16)


def test_contexts_last_until_they_are_cleared() -> None:
    m, prompt = model(), ids()
    m.run_with_hooks(prompt, fwd_hooks=[(SITE, lambda x, hook: hook.ctx.update(mean=x.mean()))])
    assert set(m.hook_dict[SITE].ctx) == {"mean"}
    m.run_with_hooks(
        prompt, fwd_hooks=[(SITE, lambda x, hook: hook.ctx["mean"] * 0 + x)], clear_contexts=True
    )
    assert m.hook_dict[SITE].ctx == {}
    with m.hooks([(SITE, lambda x, hook: hook.ctx.update(seen=1))]):
        m(prompt)
    m.reset_hooks()
    assert m.hook_dict[SITE].ctx == {}


def test_blocks_of_hooks_nest_and_may_leave_theirs_behind() -> None:
    m, prompt = model(), ids()
    plain = m(prompt)
    m.add_hook(SITE, add(1))
    with m.hooks(fwd_hooks=[(SITE, lambda x, hook: x * 3)]) as same:
        assert same is m
        both = m(prompt)
    m.reset_hooks()
    assert torch.equal(both, m.run_with_cache(prompt, [], edits={SITE: lambda x: (x + 1) * 3})[0])
    with m.hooks(fwd_hooks=[(SITE, add(1))], reset_hooks_end=False):
        hooked = m(prompt)
    assert torch.equal(m(prompt), hooked) and not torch.equal(hooked, plain)
    m.reset_hooks()
    with pytest.raises(RuntimeError, match="stop"), m.hooks(fwd_hooks=[(SITE, add(1))]):
        raise RuntimeError("stop")
    assert torch.equal(m(prompt), plain)


def test_gradients_come_by_hooks() -> None:
    m, prompt, seen = model(), ids(), {}
    m.add_hook("resid_pre", lambda g, hook: seen.__setitem__(hook.name, g.clone()), dir="bwd")
    m(prompt)[:, -1, 4].sum().backward()
    m.reset_hooks()
    logits, kept = m.run_with_cache(prompt, "resid_pre", grad=True)
    expected = torch.autograd.grad(logits[:, -1, 4].sum(), list(kept.values()))
    assert all(torch.allclose(seen[name], g) for name, g in zip(kept, expected, strict=True))
    caching = m.add_caching_hooks(["resid_pre", "pattern"], incl_bwd=True)
    m(prompt)[:, -1, 4].sum().backward()
    m.reset_hooks()
    assert torch.allclose(caching["blocks.2.hook_resid_pre_grad"], seen["blocks.2.hook_resid_pre"])
    assert caching["blocks.0.attn.hook_pattern"].shape == (3, 4, 9, 9)


def test_sites_that_cost_memory_are_switched_on() -> None:
    m, prompt = model(), ids()
    assert "blocks.0.attn.hook_result" not in m.run_with_cache(prompt)[1]
    for switch, site in (
        (m.set_use_attn_result, "attn.hook_result"),
        (m.set_use_split_qkv_input, "hook_q_input"),
        (m.set_use_attn_in, "hook_attn_in"),
        (m.set_use_hook_mlp_in, "hook_mlp_in"),
    ):
        switch(True)
        assert f"blocks.0.{site}" in m.run_with_cache(prompt)[1]
        switch(False)
        assert f"blocks.0.{site}" in m.run_with_cache(prompt, names_filter=f"blocks.0.{site}")[1]
    m.cfg.use_attn_result = True
    assert "blocks.3.attn.hook_result" in m.run_with_cache(prompt)[1]
    m.cfg.use_attn_result = False
    with pytest.raises(ValueError, match="attention-only has no MLP"):
        model("attention-only").set_use_hook_mlp_in(True)


def test_names_that_do_not_exist_are_refused() -> None:
    m, prompt = model(), ids()
    for act in (
        lambda: m.add_hook("blocks.0.attn.hook_zz", add(1)),
        lambda: m.run_with_hooks(prompt, fwd_hooks=[("blocks.0.attn.hook_zz", add(1))]),
        lambda: m.run_with_cache(prompt, names_filter="blocks.0.attn.hook_zz"),
        lambda: m.run_with_cache(prompt)[1]["blocks.0.attn.hook_zz"],
    ):
        with pytest.raises(ValueError, match=r"did you mean 'blocks\.0\.attn\.hook_z'"):
            act()
    with pytest.raises(ValueError, match="'sideways' is not a known direction"):
        checked("sideways")
    with pytest.raises(
        ValueError, match="'probs' is not a known return type; choose from both, logits, loss"
    ):
        m(prompt, return_type="probs")
    with pytest.raises(ValueError, match="needs tokens="):
        m(m(prompt, stop_at_layer=1), start_at_layer=1, return_type="loss")


def test_a_copy_has_hooks_of_its_own() -> None:
    m, prompt = model(), ids()
    m.add_hook(SITE, add(1))
    other = copy.deepcopy(m)
    m.reset_hooks()
    assert torch.equal(other(prompt), m(prompt)), "a copy starts without hooks"
    other.blocks[1].hook_resid_post.add_hook(add(1))
    assert not torch.equal(other(prompt), m(prompt))


def job(m: HookedTransformer, n: int) -> list[Tensor]:
    """Run number n: its own prompt, edits, reads, gradients, text or cached prefix."""
    prompt, layer, amount = ids(2, 6, seed=n % 7), n % N_LAYERS, 1 + n % 5
    site = ("hook_resid_pre", "attn.hook_z", "attn.hook_pattern", "hook_mlp_out")[n % 4]
    site = f"blocks.{layer}.{site}"
    kind = n % 6
    if kind == 0:
        return [*m(prompt, return_type="both")]
    if kind == 1:
        loss, kept = m.run_with_cache(prompt, return_type="loss", incl_bwd=True)
        return [loss.detach(), *kept.values()]
    if kind == 2:
        return [m.run_with_hooks(prompt, fwd_hooks=[(site, lambda x, hook: x * amount)])]
    if kind == 3:
        with m.hooks(fwd_hooks=[(site, lambda x, hook: x * amount)]):
            return [m(prompt), m.run_with_cache(prompt)[1].stack_activation("resid_post")]
    if kind == 4:
        kept = m.run_with_cache(prompt)[1]
        return [
            kept.decompose_resid(apply_ln=True),
            kept.stack_head_results(),
            kept.logit_attrs(kept["mlp_out", 0][None], 4),
        ]
    past = m.new_past()
    m(prompt[:, :3], past_kv_cache=past)
    return [m(prompt[:, 3:], past_kv_cache=past.freeze()), m.generate(prompt, 2, do_sample=False).double()]


def test_every_run_equals_its_single_threaded_one() -> None:
    m = model("sandwich")
    alone = [job(m, n) for n in range(RUNS)]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda n: job(m, n), range(RUNS)))
    for n, (found, expected) in enumerate(zip(together, alone, strict=True)):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), f"run {n}"
    assert torch.equal(job(m, 0)[0], alone[0][0]), "nothing is left behind"


def test_a_run_goes_by_the_hooks_that_were_there_when_it_began() -> None:
    m, prompt = model(), ids()
    plain, begun, go = m(prompt), threading.Event(), threading.Event()
    found: dict[str, Tensor] = {}

    def wait(x: Tensor) -> None:
        begun.set()
        assert go.wait(20)

    run = threading.Thread(
        target=lambda: found.update(run=m.run_with_cache(prompt, [], edits={"hook_embed": wait})[0])
    )
    run.start()
    assert begun.wait(20)
    m.add_hook(SITE, add(1))  # while that run is in the embedding
    go.set()
    run.join()
    assert torch.equal(found["run"], plain)
    other = threading.Thread(target=lambda: found.update(other=m(prompt)))
    other.start()
    other.join()
    assert torch.equal(found["other"], m(prompt)) and not torch.equal(found["other"], plain)
    m.reset_hooks()
    with m.hooks(fwd_hooks=[(SITE, add(1))]):
        third = threading.Thread(target=lambda: found.update(third=m(prompt)))
        third.start()
        third.join()
    assert torch.equal(found["third"], plain), "a block's hooks are this thread's"


def test_circuits_and_probes_take_it() -> None:
    """And give for it what they give for the core. Hooks that stand on it are not passed over in silence."""
    from circuits import Pairs, attribute, patch
    from probes.harvest import harvest

    core, m = specimens.model("llama", tokenizer=True), model()
    found = []
    for each in (core, m):
        pairs = Pairs.from_tokens(each, ids(2, 6), ids(2, 6, seed=1), [4, 5], [6, 7])
        kept = harvest(each, ["w3 w4", "w5 w6 w7"], "resid_post", batch_size=2)
        found.append(
            [
                attribute(each, pairs, "eap-ig", steps=2).values,
                patch(each, pairs, "z").effect,
                kept["blocks.1.hook_resid_post"],
            ]
        )
    for a, b in zip(*found, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    m.add_hook(SITE, add(1))
    with pytest.raises(ValueError, match="does not pass through hooks"):
        patch(m, Pairs.from_tokens(m, ids(2, 6), ids(2, 6, seed=1), [4, 5], [6, 7]), "z")
    m.reset_hooks()


def test_import_stays_light() -> None:
    assert lens.HookedTransformer is HookedTransformer
    with pytest.raises(AttributeError, match="HookedTransfomer"):
        _ = lens.HookedTransfomer
    assert isinstance(model().run_with_cache(ids())[1], ActivationCache)
