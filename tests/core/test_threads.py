"""One model, many threads: what one run reads and edits, no other run sees."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lens.model import Transformer
from tests.core.specimens import N_LAYERS, ids, model

THREADS, RUNS = 4, 400


def job(m: Transformer, n: int) -> list[Tensor]:
    """Run number n: its own prompt, its own edits at its own layer, reads, gradients, cached prefix or hooks."""
    prompt, layer, amount = ids(2, 6, seed=n % 7), n % N_LAYERS, 1 + n % 5
    site = ("hook_resid_pre", "attn.hook_z", "attn.hook_pattern", "hook_mlp_out")[n % 4]
    site = f"blocks.{layer}.{site}"
    kind = n % 6
    if kind == 0:
        return [m(prompt)]
    if kind == 1:
        logits, cache = m.run_with_cache(prompt, ["z", "resid_post"], edits={site: lambda x: x * amount})
        return [logits, *cache.values()]
    if kind == 2:
        return [m.run_with_hooks(prompt, [(site, lambda x, hook: x * amount)])]
    if kind == 3:
        with m.hooks([(site, lambda x, hook: x * amount)]):
            return [m(prompt), m.run_with_cache(prompt, "resid_post")[1].stack("resid_post")]
    if kind == 4:
        logits, cache = m.run_with_cache(prompt, ["resid_pre", "q"], grad=True)
        return [logits.detach(), *torch.autograd.grad(logits[:, -1, amount].sum(), list(cache.values()))]
    past = m.new_past()
    m(prompt[:, :3], past=past)
    return [m(prompt[:, 3:], past=past.freeze()), m.generate(prompt, 2).double()]


def test_every_run_equals_its_single_threaded_one() -> None:
    m = model("sandwich")
    alone = [job(m, n) for n in range(RUNS)]
    assert not torch.equal(alone[1][0], alone[1 + 7 * 6 * 4][0]), "edits differ from run to run"
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda n: job(m, n), range(RUNS)))
    for n, (found, expected) in enumerate(zip(together, alone, strict=True)):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b), f"run {n}"
    assert torch.equal(job(m, 0)[0], alone[0][0]), "nothing is left behind"


def test_one_frozen_past_serves_all_threads() -> None:
    m, prompt = model("windowed"), ids(2, 5)
    past = m.new_past()
    m(prompt, past=past)
    past.freeze()
    suffixes = [ids(2 * (1 + n % 3), 1 + n % 4, seed=n) for n in range(60)]
    alone = [m(suffix, past=past) for suffix in suffixes]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda suffix: m(suffix, past=past), suffixes))
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert past.length == 5
