"""What probes' results say of themselves in a notebook: one line."""

from __future__ import annotations

import pandas as pd
import pytest
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


def test_a_short_table_shows_the_score_in_a_narrow_terminal() -> None:
    g = torch.Generator().manual_seed(0)
    y = [i % 2 for i in range(40)]
    x = torch.randn(40, 4, generator=g)
    sites = {f"blocks.{l}.hook_resid_post": x + l * torch.tensor(y)[:, None] for l in range(3)}
    labelled = probes.Labelled.of([f"t{i}" for i in range(40)], y, [i // 2 for i in range(40)])
    found = probes.sweep(sites, labelled, cv=4, C=0.1, bootstrap=50, permutations=3)
    table = probes.short(found)
    assert list(table.columns)[:6] == ["layer", "accuracy", "low", "high", "floor", "of"]
    assert table.layer.tolist() == ["0", "1", "2", ""] and "p_value" in table
    whole = found.table[found.table.metric == "accuracy"]
    assert table.accuracy.tolist() == whole.score.round(3).tolist()
    floors = whole[[name for name in whole if name.startswith("floor_")]]
    assert table.floor.tolist() == floors.max(axis=1).round(3).tolist()
    assert list(table[""]).count("best (after)") == 1
    assert list(table[""])[-1] == "chosen inside"
    with pd.option_context("display.width", 80, "display.max_columns", 0):
        assert "..." not in str(table) and max(map(len, str(table).splitlines())) <= 80
    assert "auroc" in probes.short(found, metric="auroc")
    other = probes.sweep({"z": x, "mlp": x}, labelled, cv=4, C=0.1, bootstrap=20, floors=[])
    assert probes.short(other).site.tolist() == ["z", "mlp", "chosen inside"]
    assert "floor" not in probes.short(other)
    for options, message in (
        ({"metric": "auric"}, "'auric' is not a metric of this table; did you mean 'auroc'"),
        ({"target": "lable"}, "'lable' is not a target of this table; did you mean 'label'"),
    ):
        with pytest.raises(ValueError, match=message):
            probes.short(found, **options)
