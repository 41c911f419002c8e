"""Exact patching in climbs, against one full run per patch."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from circuits import Pairs, attribute_nodes, patch
from circuits.moves import UNITS, full_site
from circuits.patch import SITES
from lens.progress import Cancelled
from tests.circuits.naive import KINDS, measure, pairs_for, patched_metric
from tests.parity import ours

POST_NORM = {"norm_placement": frozenset({"add"})}


@pytest.mark.parametrize("kind", [*KINDS, "post-norm"])
@pytest.mark.parametrize("padded", [False, True])
def test_every_patch_is_the_one_that_a_full_run_makes(make_tiny, kind, padded):
    model = make_tiny(**KINDS.get(kind, POST_NORM)).double()
    pairs = pairs_for(model, n=3, padded=padded)
    base = measure(model, pairs, pairs.clean)
    _, corrupt = model.run_with_cache(pairs.corrupt, attention_mask=pairs.attention_mask)
    sites = [s for s in SITES if full_site(0, s) in model.sites]
    for site in sites:
        found = patch(model, pairs, site)
        assert torch.allclose(found.clean, base, atol=1e-10)
        for layer, place in itertools.product(*map(range, found.effect.shape)):
            index = (slice(None), slice(None), place) if site in UNITS else (slice(None), place)
            slow = patched_metric(model, pairs, corrupt, full_site(layer, site), index) - base
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
    with pytest.raises(ValueError, match="has no mlp_out to patch; it has z, resid_pre"):
        patch(model, pairs_for(model), "mlp_out")


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("bart", "plain", "bart has an encoder; circuits are found in models of one stack"),
        ("perceiver", "twice", "perceiver has an encoder; circuits are found in models of one stack"),
        ("vit", "base", "vit looks in both directions; circuits are found in causal models"),
        ("mamba", "tied", "mamba mixes positions by mamba, not by attention"),
    ],
)
def test_models_without_circuits_are_told_so(family, name, message):
    """Not that they lack the site that was asked for."""
    ids = torch.randint(3, 50, (2, 6))
    pairs = Pairs(clean=ids, corrupt=ids.flip(1), answers=ids[:, 0], wrong=ids[:, 1])
    for measured in (patch, attribute_nodes):
        with pytest.raises(ValueError, match=message):
            measured(ours(family, name), pairs, site="z")


@pytest.mark.parametrize("kind", ["grouped", "sandwich", "capped, windows"])
@pytest.mark.parametrize("site", ["z", "resid_mid", "post", "mlp_out", "resid_post"])
def test_denoising_restores_a_clean_value_in_the_corrupt_run(make_tiny, kind, site):
    model = make_tiny(**KINDS[kind]).double()
    pairs = pairs_for(model, n=3, padded=True)
    found = patch(model, pairs, site, denoise=True)
    _, clean = model.run_with_cache(pairs.clean, attention_mask=pairs.attention_mask)
    base = measure(model, pairs, pairs.corrupt)
    assert torch.allclose(found.corrupt, base, atol=1e-10)
    for layer, place in itertools.product(*map(range, found.effect.shape)):
        index = (slice(None), slice(None), place) if site in UNITS else (slice(None), place)
        slow = patched_metric(model, pairs.swapped(), clean, full_site(layer, site), index) - base
        assert torch.allclose(found.per_example[layer, place], slow, atol=1e-10), (layer, place)
    assert found.effect.abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["sequential", "sandwich", "post-norm"])
@pytest.mark.parametrize("site", ["z", "post", "resid_pre"])
def test_zero_and_mean_patches_are_those_of_a_full_run(make_tiny, kind, site):
    model = make_tiny(**KINDS.get(kind, POST_NORM)).double()
    pairs = pairs_for(model, n=4, padded=True)
    base = measure(model, pairs, pairs.clean)
    _, clean = model.run_with_cache(pairs.clean, attention_mask=pairs.attention_mask)
    for layer in range(model.cfg.n_layers):
        name = full_site(layer, site)
        mean = clean[name][pairs.mask].mean(0)
        for ablation, value in (("zero", torch.zeros_like(mean)), ("mean", mean)):
            found = patch(model, pairs, site, by_position=False, ablation=ablation)
            places = range(found.effect.shape[1]) if site in UNITS else [...]
            values = {name: value.expand_as(clean[name])}
            for place in places:
                index = (slice(None), slice(None), place)
                slow = patched_metric(model, pairs, values, name, index) - base
                key = (layer,) if place is ... else (layer, place)
                assert torch.allclose(found.per_example[key], slow, atol=1e-10), (ablation, layer, place)


def test_spans_patch_each_pairs_own_position(make_tiny):
    model = make_tiny().double()
    pairs = pairs_for(model, n=3)
    labels = {"A": torch.tensor([3, 5, 3]), "B": torch.tensor([5, 5, 6])}
    pairs = replace(pairs, labels=labels)
    base = measure(model, pairs, pairs.clean)
    _, corrupt = model.run_with_cache(pairs.corrupt)
    for site in ("z", "mlp_out", "post"):
        found = patch(model, pairs, site, spans=["A", "A:B", 5, -1])
        assert found.axes == ("layer", "span", *([UNITS[site]] if site in UNITS else []))
        for layer in range(model.cfg.n_layers):
            name = full_site(layer, site)
            for i in range(3):
                a, b = int(labels["A"][i]), int(labels["B"][i])
                for place, at in enumerate([[a], list(range(a, b + 1)), [5], [6]]):
                    unit = (2,) if site in UNITS else ()
                    index = (i, at, *unit)
                    slow = (patched_metric(model, pairs, corrupt, name, index) - base)[i]
                    assert found.per_example[(layer, place, *unit, i)] == pytest.approx(
                        float(slow), abs=1e-10
                    )


def test_only_the_units_asked_for_are_patched(make_tiny):
    model = make_tiny().double()
    pairs = pairs_for(model)
    for site, units in (("z", [(0, 1), (1, 3)]), ("post", [(1, 7)])):
        every, some = patch(model, pairs, site).effect, patch(model, pairs, site, units=units).effect
        for unit in units:
            assert some[unit] == pytest.approx(float(every[unit]), abs=1e-12)
        assert int((~some.isnan()).sum()) == len(units)
    some = patch(model, pairs, "mlp_out", units=[(1,)])
    assert some.effect[0].isnan().all()
    assert torch.allclose(some.effect[1], patch(model, pairs, "mlp_out").effect[1])


def test_what_cannot_be_patched_is_said_in_one_line(make_tiny):
    model = make_tiny()
    pairs = pairs_for(model)
    for options, message in (
        ({"units": [(0, 99)]}, r"unit \(0, 99\): head 99 does not exist; there are 4"),
        ({"units": [(1,)]}, r"unit \(1,\) must be \(layer, head\) for z"),
        ({"spans": ["S2"]}, "'S2' is not a known named position"),
        ({"spans": [99]}, "span 99 is outside the prompts, which have 7 positions"),
        ({"spans": [1], "by_position": True}, "not both"),
        ({"ablation": "zero", "denoise": True}, "zero gives no run"),
        ({"ablation": "zeros"}, "'zeros' is not a known ablation; did you mean 'zero'"),
    ):
        with pytest.raises(ValueError, match=message):
            patch(model, pairs, "z", **options)


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
