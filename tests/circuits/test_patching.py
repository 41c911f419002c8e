"""Exact patching in climbs, against one full run per patch."""

from __future__ import annotations

import itertools

import pytest
import torch

from circuits import patch
from circuits.patch import SITES
from lens.progress import Cancelled
from tests.circuits.naive import KINDS, measure, pairs_for, patched_metric

POST_NORM = {"norm_placement": frozenset({"add"})}


@pytest.mark.parametrize("kind", [*KINDS, "post-norm"])
@pytest.mark.parametrize("padded", [False, True])
def test_every_patch_is_the_one_that_a_full_run_makes(make_tiny, kind, padded):
    model = make_tiny(**KINDS.get(kind, POST_NORM)).double()
    pairs = pairs_for(model, n=3, padded=padded)
    base = measure(model, pairs, pairs.clean)
    _, corrupt = model.run_with_cache(pairs.corrupt, attention_mask=pairs.attention_mask)
    sites = [s for s in SITES if any(name.endswith(f"hook_{s}") for name in model.sites)]
    for site in sites:
        found = patch(model, pairs, site)
        assert torch.allclose(found.clean, base, atol=1e-10)
        for layer, place in itertools.product(*map(range, found.effect.shape)):
            index = (slice(None), slice(None), place) if site == "z" else (slice(None), place)
            name = f"blocks.{layer}.{'attn.' if site == 'z' else ''}hook_{site}"
            slow = patched_metric(model, pairs, corrupt, name, index) - base
            assert torch.allclose(found.per_example[layer, place], slow, atol=1e-10), (site, layer, place)
        assert found.effect.abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["grouped", "parallel", "sandwich"])
def test_heads_by_position_and_branches_at_all_positions(make_tiny, kind):
    model = make_tiny(**KINDS[kind]).double()
    pairs = pairs_for(model, n=3)
    base = measure(model, pairs, pairs.clean)
    _, corrupt = model.run_with_cache(pairs.corrupt)
    heads = patch(model, pairs, "z", by_position=True)
    assert heads.axes == ("layer", "position", "head")
    for layer, position, head in itertools.product(*map(range, heads.effect.shape)):
        slow = (
            patched_metric(
                model, pairs, corrupt, f"blocks.{layer}.attn.hook_z", (slice(None), position, head)
            )
            - base
        )
        assert torch.allclose(heads.per_example[layer, position, head], slow, atol=1e-10)
    mlps = patch(model, pairs, "mlp_out", by_position=False)
    assert mlps.axes == ("layer",)
    for layer in range(model.cfg.n_layers):
        slow = patched_metric(model, pairs, corrupt, f"blocks.{layer}.hook_mlp_out", (slice(None),)) - base
        assert torch.allclose(mlps.per_example[layer], slow, atol=1e-10)


@pytest.mark.parametrize("site", ["z", "resid_pre", "mlp_out"])
def test_prefix_and_budget_do_not_matter(make_tiny, site):
    model = make_tiny(n_kv_heads=2).double()
    pairs = pairs_for(model, n=5, padded=True)
    found = patch(model, pairs, site).per_example
    for options in ({"share_prefix": False}, {"max_memory": 1}, {"max_memory": 40_000}):
        assert torch.allclose(patch(model, pairs, site, **options).per_example, found, atol=1e-12)


def test_patches_in_the_shared_prefix_are_zero(make_tiny):
    model = make_tiny()
    effect = patch(model, pairs_for(model, first=3), "resid_pre").effect
    assert (effect[:, :3] == 0).all()
    assert (effect[:, 3] != 0).all()


def test_patching_the_whole_first_stream_is_the_corrupt_run(make_tiny):
    model = make_tiny().double()
    found = patch(model, pairs_for(model), "resid_pre", by_position=False)
    assert torch.allclose(found.clean + found.per_example[0], found.corrupt, atol=1e-10)
    assert found.normalized[0] == pytest.approx(1)


def test_bad_sites_are_named(make_tiny):
    model = make_tiny(d_mlp=None)
    with pytest.raises(
        ValueError, match="'resid_prev' is not a known site to patch; did you mean 'resid_pre'"
    ):
        patch(model, pairs_for(model), "resid_prev")
    with pytest.raises(ValueError, match="'mlp_out' is not a known site to patch"):
        patch(model, pairs_for(model), "mlp_out")


def test_context_hooks_are_refused(make_tiny):
    model, other = make_tiny(), make_tiny()
    pairs = pairs_for(model)
    with model.hooks(fwd_hooks=[("z", lambda z, hook: z * 0)]):
        patch(other, pairs)
        with pytest.raises(ValueError, match="does not pass through hooks"):
            patch(model, pairs)


def test_progress_can_cancel(make_tiny):
    model = make_tiny()

    def cancel(done: int, total: int, label: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        patch(model, pairs_for(model), "z", progress=cancel)
