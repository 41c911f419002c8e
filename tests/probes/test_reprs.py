"""What probes' results say of themselves in a notebook: one line."""

from __future__ import annotations

import torch

import probes


def test_results_are_one_line() -> None:
    g = torch.Generator().manual_seed(0)
    y = [i % 2 for i in range(40)]
    site = "blocks.0.hook_resid_post"
    x = torch.randn(40, 4, generator=g) + 2 * torch.tensor(y)[:, None]
    labelled = probes.Labelled.of([f"t{i}" for i in range(40)], y)
    store = probes.Activations.of({site: x})
    found = probes.sweep(store, labelled, cv=4)
    told = {
        "Labelled(texts: 40 rows of 40 texts, label)": labelled,
        "Activations(40 rows at 1 site from blocks.0.hook_resid_post, in memory)": store,
        "Probe(logistic at blocks.0.hook_resid_post, 4 features: 0, 1)": found.probe(),
    }
    for text, result in told.items():
        assert repr(result) == text
    assert repr(found).startswith("Sweep(logistic on label: 1 place, accuracy ")
    assert len(repr(found)) < 200
