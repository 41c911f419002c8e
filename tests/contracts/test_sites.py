"""The sites of every family: they fire, can be edited and differentiated; runs start and stop anywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lens.taps import Taps
from tests.parity import (
    EXACT,
    each_model,
    ends,
    inputs,
    matters,
    ours,
    outputs,
    padding,
    prompts,
    relative_error,
)


class Everything(Taps):
    """Reads whatever fires, declared or not."""

    __slots__ = ("fired",)

    def __init__(self) -> None:
        super().__init__()
        self.fired: list[str] = []

    def wants(self, *sites: str) -> bool:
        return True

    def __call__(self, site: str, x: Tensor) -> Tensor:
        self.fired.append(site)
        return x


@each_model
def test_declared_sites_are_those_that_fire(family: str, name: str) -> None:
    model, taps = ours(family, name, torch.float64), Everything()
    model(inputs(model, prompts()), taps=taps)
    declared = {site for site, s in model.sites.items() if not s.conditional}
    assert declared <= set(taps.fired) <= set(model.sites)
    first = list(dict.fromkeys(taps.fired))
    assert first == [site for site in model.sites if site in first], "declared out of order of firing"


def rewritten(site: str, x: Tensor) -> Tensor:
    """Row 0 as it is, row 1 zeroed, row 2 with noise, as makes sense at this site."""
    x = x.clone()
    if "indices" in site:
        x[1], x[2] = 0, (x[2] + 1) % 3
    elif "hook_scale" in site:
        x[1], x[2] = x[1] * 1.5, x[2] * 0.7
    else:
        x[1], x[2] = 0, x[2] + torch.randn(x[2].shape, dtype=x.dtype)
    return x


@each_model
def test_every_site_can_be_edited(family: str, name: str) -> None:
    """Replaced by itself nothing changes; zeroed or with noise, some output does."""
    model = ours(family, name, torch.float64)
    given = inputs(model, prompts(1).expand(3, -1))
    clean, taps = outputs(model, given), Everything()
    model(given, taps=taps)
    cache = model.run_with_cache(given, [site for site in model.sites if site in taps.fired])[1]
    for site, declared in model.sites.items():
        fires = site in taps.fired and ".experts." not in site
        if fires and matters(model, declared) and declared.layer in (None, 0, model.cfg.n_layers - 1):
            edited = outputs(model, given, edits={site: lambda x, site=site: rewritten(site, x)})
            itself, zeroed, noisy = (
                max(relative_error(edited[end][row], clean[end][row]) for end in clean) for row in range(3)
            )
            assert itself < EXACT, f"{site} replaced by itself changes the logits"
            if cache[site].any():
                assert zeroed > 1e-7, f"zeroing {site} does nothing"
            assert noisy > 1e-7, f"noise at {site} does nothing"


@each_model
def test_gradients_reach_every_site(family: str, name: str) -> None:
    model = ours(family, name, torch.float64)
    given = inputs(model, prompts(2))
    ordinary = [site for site, s in model.sites.items() if not s.extra and "indices" not in site]
    extra = [site for site, s in model.sites.items() if s.extra]
    for wanted in (ordinary, *([site] for site in extra)):
        out, cache = model.run_with_cache(given, [*wanted, *ends(model)], grad=True)
        last = [out, *(cache[end] for end in ends(model))]
        loss = torch.stack([(x * torch.randn(x.shape[-1], dtype=x.dtype)).sum() for x in last]).sum()
        gradients = torch.autograd.grad(loss, list(cache.values()), allow_unused=True)
        for site, gradient in zip(cache.keys(), gradients, strict=True):
            if (model.sites[site].conditional and gradient is None) or not matters(model, model.sites[site]):
                continue
            assert gradient is not None, f"no gradient reaches {site}"
            assert gradient.isfinite().all(), site
            assert model.sites[site].conditional or gradient.abs().max() > 0, (
                f"the gradient at {site} is zero"
            )


@pytest.mark.parametrize("side", ["none", "left"])
@each_model
def test_a_run_can_start_and_stop_at_every_layer(family: str, name: str, side: str) -> None:
    model, real = ours(family, name, torch.float64), padding(side)
    if model.cfg.embed.patches is not None and real is not None:
        return
    given = inputs(model, prompts(), real)
    logits, cache = model.run_with_cache(given, "resid_pre")
    for layer in range(model.cfg.n_layers):
        entering = cache["resid_pre", layer]
        stopped = model(given, stop_at_layer=layer)
        resumed = model(replace(given, ids=None, image=None, stream=entering), start_at_layer=layer)
        assert relative_error(stopped, entering) < EXACT
        assert relative_error(resumed, logits, real) < EXACT
