"""Runs: the whole line, its folder, its probes on other data, its pictures."""

from __future__ import annotations

import random
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch

import probes
from lens.model import Transformer
from probes.config import Config
from probes.drawing.pictures import pictures, written
from probes.drawing.svg import Panel, spread, ticks
from probes.labelled import Labelled, Values
from probes.rerun import chosen, evaluated, held_out
from probes.store import Run
from probes.train import layers_of, sites_of
from tests.probes.conftest import WORDS

FAST = {"floors": ["majority"], "bootstrap": 50, "C": 0.1}


def words_data(n: int = 60, c: int = 2, seed: int = 0) -> Labelled:
    """The class is the last word's first letter, the group the last word."""
    draw = random.Random(seed)
    last = [w for w in WORDS if w[0] in "bmd"[:c]]
    texts = [" ".join([*draw.sample(WORDS, 2), last[i % len(last)]]) for i in range(n)]
    return Labelled.of(texts, [t.split()[-1][0] for t in texts], [t.split()[-1] for t in texts], name="words")


def test_the_line_is_its_parts(tiny: Transformer) -> None:
    data = words_data()
    run = probes.train(tiny, data, layers="1-2", seed=2, cv=3, **FAST)
    sites = sites_of(tiny, "resid_post", "1-2")
    store = probes.harvest(tiny, data, sites)
    found = probes.sweep(store, data, model=tiny, seed=2, cv=3, **FAST)
    pd.testing.assert_frame_equal(run.table, found.table)
    assert torch.equal(run.probe(sites[1]).coef, found.probe(sites[1]).coef)
    assert run.record["model"]["revision"] == tiny.revision and run.record["config"]["layers"] == "1-2"
    told = run.predictions["label"]
    assert told.site == "chosen inside" and told.names == ("b", "m")
    right = (told.decision > 0) == told.y
    assert run.inside().score == pytest.approx(right.mean())  # type: ignore[union-attr]
    assert held_out(run, "label").score[0] == pytest.approx(right.mean())


def test_folders_hold_everything_and_the_settings_make_it_again(tiny: Transformer, tmp_path: Path) -> None:
    data = words_data()
    first = probes.train(tiny, data, cv=3, permutations=2, mdl=True, **FAST).save(tmp_path / "a")
    again = probes.train(tiny, data, Config.read(tmp_path / "a" / "config.yaml")).save(tmp_path / "b")
    for name in ("table.csv", "probes.safetensors", "predictions.safetensors", "config.yaml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    kept = Run.load(tmp_path / "a")
    pd.testing.assert_frame_equal(kept.table, first.table)
    assert kept.config == first.config == again.config
    assert kept.predictions["label"].decision.tolist() == first.predictions["label"].decision.tolist()
    assert list(kept.probes) == list(first.probes)
    with pytest.raises(FileExistsError, match="already exists"):
        first.save(tmp_path / "a")
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b"}


def test_damaged_folders(tiny: Transformer, tmp_path: Path) -> None:
    folder = probes.train(tiny, words_data(), layers=1, cv=2, **FAST).save(tmp_path / "a").path
    assert folder is not None
    for name, content, message in (
        ("run.json", "[]", "is not the record of a run of probes"),
        ("run.json", None, r"is not a run of probes: no readable run\.json"),
        ("table.csv", "a,b\n1", "is not the table of a run of probes"),
        ("predictions.safetensors", "?", r"predictions\.safetensors' cannot be read"),
        ("probes.safetensors", "?", r"probes\.safetensors' cannot be read"),
        ("config.yaml", "seed: 1", "no dataset is named"),
    ):
        file = folder / name
        whole = file.read_bytes()
        file.unlink()
        if content is not None:
            file.write_text(content)
        with pytest.raises(ValueError, match=message):
            Run.load(folder)
        file.write_bytes(whole)
    file = folder / "run.json"
    file.write_text(file.read_text().replace('"version": 2', '"version": 9'))
    with pytest.raises(ValueError, match=r"'probes\.run' version 9, not 'probes\.run' version 2"):
        Run.load(folder)


def test_layers() -> None:
    assert layers_of("0-2, 7") == {0, 1, 2, 7} and layers_of("3") == {3}
    for text in ("", "a", "3-1", "1,,2", "-1"):
        with pytest.raises(ValueError, match="numbers and ranges such as 0-5,11"):
            layers_of(text)


def test_other_data(tiny: Transformer) -> None:
    run = probes.train(tiny, words_data(), layers="0,2", cv=3, **FAST)
    other = words_data(30, seed=5)
    table = evaluated(run, "label", tiny, other, run.config, layers="all")
    assert table.layer.tolist() == [0] * 4 + [2] * 4
    store = probes.harvest(tiny, other, "blocks.2.hook_resid_post")
    probe = run.probe("blocks.2.hook_resid_post")
    y = other.target().labels  # type: ignore[union-attr]
    expected = float((probe.predict(store["blocks.2.hook_resid_post"]).numpy() == y).mean())
    row = table[(table.layer == 2) & (table.metric == "accuracy")].iloc[0]
    assert row.score == pytest.approx(expected) and row.low <= row.score <= row.high and row.n == 30
    assert row.floor == pytest.approx(0.5)
    swapped = Labelled.of(other.texts, [{"b": "m", "m": "b"}[t.split()[-1][0]] for t in other.texts])
    turned = evaluated(run, "label", tiny, swapped, run.config)
    assert turned.score[0] == pytest.approx(1 - evaluated(run, "label", tiny, other, run.config).score[0])
    for data, message in (
        (words_data(30, c=3), "'d' is not a class of these probes"),
        (Labelled("v", other.texts, other.text, None, {"v": Values.of(np.arange(30.0), "v")}), "have values"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluated(run, "label", tiny, data, run.config)
    with pytest.raises(ValueError, match="layer 1 has no probe in this run; it has 0, 2"):
        chosen(run, "label", "1")


def test_another_model_is_refused(tiny: Transformer) -> None:
    from probes.floors.random_init import untrained

    run = probes.train(tiny, words_data(), layers=1, cv=2, **FAST)
    with pytest.raises(ValueError, match=r"the run was made with tiny .*; this is tiny "):
        evaluated(run, "label", untrained(tiny), words_data(), run.config)


def test_erasing_and_steering_a_run(tiny: Transformer) -> None:
    from probes.rerun import erased, steered

    data = words_data(80)
    run = probes.train(tiny, data, cv=3, groups=False, **FAST)
    eraser, test = erased(run, "label", tiny, data, layers="1", draws=1, equal_effect=False)
    assert eraser.site == "blocks.1.hook_resid_post" and eraser.rank == 1 and test.rows == 40
    dose = steered(run, "label", tiny, data, [-2.0, 0.0, 2.0], layers="1", examples=10)
    assert dose.site == "blocks.1.hook_resid_post" and dose.values.shape == (3, 10)
    assert "blocks.2" in dose.measure
    with pytest.raises(ValueError, match="no probe below"):
        steered(run, "label", tiny, data, [0.0, 1.0], layers="2")
    with pytest.raises(ValueError, match="which is 2 sites; one is erased at a time"):
        erased(run, "label", tiny, data, layers="0-1")


@pytest.mark.parametrize("c", [2, 3])
def test_pictures_of_classes(tiny: Transformer, tmp_path: Path, c: int) -> None:
    data = words_data(60, c=c)
    run = probes.train(tiny, data, cv=3, groups=False, floors=["majority", "surface"], bootstrap=50, C=0.1)
    found = pictures(run)
    assert set(found) == {"curve", "confusion"}
    for text in found.values():
        root = ElementTree.fromstring(text)
        assert root.tag.endswith("svg") and "http" not in text.replace("http://www.w3.org/2000/svg", "")
    confusion = ElementTree.fromstring(found["confusion"])
    titles = [e.text for e in confusion.iter("{http://www.w3.org/2000/svg}title")][1:]
    told = run.predictions["label"]
    counts = pd.crosstab(told.y, told.decision > 0 if c == 2 else told.decision.argmax(1))
    assert len(titles) == c * c
    assert (
        f"{told.names[0]} told to be {told.names[0]}: {counts.iloc[0, 0]} of {(told.y == 0).sum()}" in titles
    )
    assert "character n-grams" in found["curve"] and "chosen after the fact" in found["curve"]
    assert "layer chosen inside the folds" in found["curve"]
    paths = written(run, tmp_path / "plots", metric="auroc")
    assert [p.name for p in paths] == ["label-curve-auroc.svg", "label-confusion.svg"]
    with pytest.raises(ValueError, match="'auric' is not a metric of this run"):
        pictures(run, metric="auric")


@pytest.mark.parametrize("t", [1, 2])
def test_pictures_of_values(tiny: Transformer, t: int) -> None:
    data = words_data()
    values = np.random.default_rng(0).normal(size=(60, t)) * 30
    placed = Labelled(
        "places", data.texts, data.text, None, {"p": Values(values, ("lat", "lon")[:t], "degrees")}
    )
    run = probes.train(tiny, placed, estimator="ridge", layers=1, cv=3, floors=["mean"], bootstrap=20)
    found = pictures(run)
    assert set(found) == {"curve", "map" if t == 2 else "values"}
    name = "map" if t == 2 else "values"
    points = found[name].count('class="point')
    assert points == 60 * t
    ElementTree.fromstring(found[name])


def test_parts_of_pictures() -> None:
    panel = Panel(10, 20, 100, 50, (0, 2), (0, 1))
    assert panel.at(1, 1) == (60, 20) and panel.path([(0, 0), (float("nan"), 1), (2, 1)]) == "M10 70M110 20"
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and ticks(3, 3) == [3]
    assert ticks(-0.31, 1.02, 6) == [-0.25, 0, 0.25, 0.5, 0.75, 1.0]
    found = spread([5, 5.1, 80, 4], 10, 0, 100)
    assert all(b - a >= 10 - 1e-9 for a, b in zip(sorted(found), sorted(found)[1:], strict=False))
