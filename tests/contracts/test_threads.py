"""Every family: runs in two threads, each with edits and reads of its own, do not disturb each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from lens.inputs import ModelInputs
from lens.model import Transformer
from tests import zoo
from tests.parity import FAMILIES, inputs, ours, prompts

RUNS = 24


def job(model: Transformer, given: ModelInputs, sites: list[str], n: int) -> list[Tensor]:
    """Run number n: nothing but the run, or an edit of its own beside reads, hooks of the context, or a gradient."""
    site, amount = sites[n % len(sites)], 1.0 + n % 5
    if n % 4 == 0:
        return [model(given)]
    if n % 4 == 1:
        out, cache = model.run_with_cache(given, sites, edits={site: lambda x: x * amount})
        return [out, *cache.values()]
    if n % 4 == 2:
        with model.hooks([(site, lambda x, hook: x * amount)]):
            return [model(given)]
    out, cache = model.run_with_cache(given, sites, grad=True)
    return [out.detach(), *torch.autograd.grad(out.sum() * amount, list(cache.values()), allow_unused=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_runs_in_threads_equal_runs_alone(family: str) -> None:
    model = ours(family, next(iter(zoo.ZOO[family])))
    given = inputs(model, prompts(2))
    ends = ("hook_resid_pre", "hook_attn_out", "hook_resid_post")
    sites = [name for name, site in model.sites.items() if name.endswith(ends) and not site.extra]
    alone = [job(model, given, sites, n) for n in range(RUNS)]
    assert not torch.equal(alone[1][0], alone[0][0]), "an edit that changes nothing cannot disturb"
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda n: job(model, given, sites, n), range(RUNS)))
    for n, (found, expected) in enumerate(zip(together, alone, strict=True)):
        for a, b in zip(found, expected, strict=True):
            assert (a is b is None) or torch.equal(a, b), f"run {n}"
