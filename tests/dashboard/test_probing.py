"""Probes behind the page: rows, training, a layer in a plane, continuations; and their pictures."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dashboard import probe_runs, probing
from dashboard.figures import probe_rows, probe_scores
from dashboard.jobs import Runner
from dashboard.models import Shelf
from dashboard.probing import REPEATS, Source
from lens.progress import Cancelled
from probes.config import Config
from probes.labelled import Classes, Labelled
from probes.probe import Probe
from probes.store import Predictions
from probes.train import train

FAST = {"floors": ["majority"], "bootstrap": 20, "C": 0.01, "cv": 2}


def cells(payload) -> np.ndarray:
    shape = len(payload["rows"]), len(payload["columns"])
    return np.frombuffer(base64.b64decode(payload["packed"]), "<f4").reshape(shape)


@pytest.fixture(scope="module")
def made(tmp_path_factory, induction):
    """A run with the table that it was trained on in its folder."""
    source, folder = Source(REPEATS), tmp_path_factory.mktemp("run") / "one"
    labelled = source.rows(induction, 60)
    run = train(induction, labelled, Config.of({"dataset": REPEATS, "model": "induction-2l", **FAST})).save(
        folder
    )
    (folder / probing.TABLE).write_bytes(source.content(induction, 60) or b"")
    return run


# ---- rows


def test_words_come_again_in_half_of_the_texts_and_nothing_else_tells(induction):
    labelled = Source(REPEATS).rows(induction, 200)
    target = labelled.target()
    assert isinstance(target, Classes)
    again = [text.split()[-1] in text.split()[:-1] for text in labelled.texts]
    assert [target.names[label] for label in target.labels] == ["again" if a else "new" for a in again]
    assert sum(again) == 100
    assert {len(text.split()) for text in labelled.texts} == {6}
    assert len(induction.to_tokens(labelled.texts[0])[0]) == 7
    assert Source(REPEATS).rows(induction, 200).fingerprint == labelled.fingerprint


def test_rows_of_a_run_are_found_in_its_folder_only(made, tmp_path):
    assert made.path is not None
    assert probe_runs.data_of(made).fingerprint == made.record["sweep"]["data"]["fingerprint"]
    outside = tmp_path / "rows.csv"
    outside.write_bytes((made.path / probing.TABLE).read_bytes())
    (tmp_path / "run").mkdir()
    moved = replace(made, path=tmp_path / "run")
    for dataset in (str(outside), "../rows.csv"):
        with pytest.raises(ValueError, match=r"copy 'rows.csv' into its folder"):
            probe_runs.data_of(replace(moved, config=made.config.with_(dataset=dataset)))
    (tmp_path / "run" / "rows.csv").symlink_to(outside)
    with pytest.raises(ValueError, match="copy"):
        probe_runs.data_of(replace(moved, config=made.config.with_(dataset="../rows.csv")))
    (tmp_path / "run" / "rows.csv").unlink()
    (tmp_path / "run" / "rows.csv").write_text("text,label\na b,x\nb a,y\n")
    with pytest.raises(ValueError, match="does not hold the rows"):
        probe_runs.data_of(replace(moved, config=made.config.with_(dataset="../rows.csv")))


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("pos", {"path": "/etc/passwd"}, "copy 'pos' into its folder"),
        ("sentiment-sentences", {"archive": "/etc/passwd"}, "came from a file, by the option archive"),
    ],
)
def test_a_record_cannot_make_the_page_read_a_file(made, tmp_path, dataset, options, message):
    config = made.config.with_(dataset=dataset, dataset_options=options)
    with pytest.raises(ValueError, match=message):
        probe_runs.data_of(replace(made, path=tmp_path, config=config))


def test_a_menu_without_files():
    assert {"truth", "cities", "templates"} <= set(probe_runs.menu())
    assert not {"pos", "dependencies"} & set(probe_runs.menu())
    assert probing.options_of("truth") == {"negated": False}
    assert probing.options_of("templates") == {"task": "order"}
    assert probing.options_of("sentiment-sentences") == {}


def test_uploaded_tables():
    source = probing.uploaded("..\\my rows.csv", b"text,label\na b,x\nc d,y\n")
    assert source.name == "my rows.csv"
    with pytest.raises(ValueError, match=r"at most 2,097,152 are taken"):
        probing.uploaded("x.csv", b"a" * (probing.LARGEST + 1))
    with pytest.raises(ValueError, match=r"x.csv: .*label"):
        probing.uploaded("x.csv", b"text,lable\na,x\n")


# ---- training


def test_a_cancelled_training_leaves_nothing(induction, tmp_path):
    def load(name, progress):
        raise Cancelled

    job = probing.start(
        Runner(), Shelf(load), Source(REPEATS), 60, Config.of({"dataset": REPEATS, "model": "x", **FAST}), ["last"],
        tmp_path,
    )  # fmt: skip
    assert job.wait(20)
    assert job.state == "cancelled"
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no position is chosen"):
        probing.start(
            Runner(), Shelf(load), Source(REPEATS), 60, Config.of({"dataset": REPEATS, **FAST}), [], tmp_path
        )


# ---- a layer


def test_a_layer_in_two_dimensions(made, induction):
    from sklearn.decomposition import PCA

    labelled, site = probe_runs.data_of(made), "blocks.1.hook_resid_post"
    every = probing.layers(induction, labelled, made, "label")
    assert list(every) == ["blocks.0.hook_resid_post", site]
    found = every[site]
    x = np.stack(
        [induction.activations(induction.to_tokens(t), [site])[site][0, -1].numpy() for t in labelled.texts]
    )
    expected = PCA(2).fit(x)
    assert np.allclose(np.abs(found.pca), np.abs(expected.transform(x)), atol=1e-3)
    assert np.allclose(found.explained, expected.explained_variance_ratio_, atol=1e-5)
    u = made.probe(site).direction("again").numpy()
    assert found.sd["again"] == pytest.approx((x @ u).std(), rel=1e-4)
    assert found.lda.shape == (len(found.lda_rows), 2)


def test_a_part_of_the_rows_keeps_their_numbers(made, induction, monkeypatch):
    monkeypatch.setattr(probing, "MOST_ROWS", 21)
    labelled = probe_runs.data_of(made)
    found = probing.layers(induction, labelled, made, "label")["blocks.0.hook_resid_post"]
    assert found.pca.shape == (21, 2)
    assert (found.rows[0], found.rows[-1]) == (0, 59)
    assert set(found.lda_rows) < set(found.rows)


def test_discriminants_do_not_flatter():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    noise = rng.normal(size=(80, 200))
    rows, points = probing.discriminants(noise, labels)
    assert len(rows) == 40
    assert abs(np.corrcoef(points[:, 0], labels[rows])[0, 1]) < 0.4, "nothing to tell in noise"
    signal = noise + 6 * np.outer(labels, np.eye(200)[3])
    rows, points = probing.discriminants(signal, labels)
    assert abs(np.corrcoef(points[:, 0], labels[rows])[0, 1]) > 0.8


# ---- steering


def test_without_a_dose_the_model_writes_what_it_would(made, induction):
    probe = made.probe("blocks.0.hook_resid_post")
    prompt = "the ship saw the"
    found = probing.continued(induction, probe, "again", prompt, (0.0, 400.0), 1.0, new=5)
    assert prompt + found.texts[0] == induction.generate(prompt, 5)
    assert found.texts[1] != found.texts[0]
    with pytest.raises(ValueError, match="The prompt is empty"):
        probing.continued(induction, probe, "again", " ", (0.0,), 1.0)


def test_a_probe_that_found_nothing_has_no_direction(made):
    flat = Probe.of(torch.zeros(1, 4).double(), torch.zeros(1).double(), "s", ("a", "b"), target="label")
    assert probing.probe_at(replace(made, probes={"x": flat}), "label", "s") is None
    assert probing.probe_at(made, "label", "blocks.0.hook_resid_post") is not None


# ---- pictures


def told(decision, y, names, reads="classes") -> Predictions:
    rows = np.arange(len(y))[::-1].copy()
    return Predictions("s", rows, np.array(y), np.array(decision), np.zeros(len(y), int), names, reads)


def test_confusion_is_scikit_learns():
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(0)
    y, decision = rng.integers(0, 3, 50), rng.normal(size=(50, 3))
    payload = probe_rows.confusion(told(decision, y, ("a", "b", "c")))
    expected = confusion_matrix(y, decision.argmax(1), normalize="true")
    assert np.allclose(cells(payload), expected)
    assert payload["rows"][0] == f"a ({(y == 0).sum()})"


def test_failures_worst_first():
    labelled = Labelled.of([f"text {i}" for i in range(4)], ["no", "yes", "no", "yes"])
    two = probe_rows.judged(told([2.0, -1.0, 0.5, -3.0], [1, 1, 0, 1], ("no", "yes")), labelled)
    assert list(two.error) == [3.0, 1.0, 0.5, 0.0]
    assert list(two.text) == ["text 0", "text 2", "text 1", "text 3"], "by the row's number, not its place"
    assert list(two.told) == ["no", "no", "yes", "yes"]
    three = probe_rows.judged(told([[3.0, 1.0, 0.0], [0.0, 5.0, 4.0]], [2, 1], ("a", "b", "c")), labelled)
    assert list(three.error) == [3.0, 0.0]
    assert list(three.sure) == [2.0, 1.0]


def test_errors_on_a_map_are_kilometres():
    paris, london, sydney = [48.8566, 2.3522], [51.5074, -0.1278], [-33.8688, 151.2093]
    names = ("latitude", "longitude")
    found = probe_rows.distance(np.array([paris, paris, paris]), np.array([london, sydney, paris]), names)
    assert found == pytest.approx([344, 16_960, 0], rel=0.005, abs=0.1)
    assert probe_rows.distance(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]), ("x", "y"))[0] == 5


def test_a_map_has_every_row_on_both_sides():
    rng = np.random.default_rng(0)
    y = rng.uniform(-50, 50, (30, 2))
    found = told(y + 200, y, ("latitude", "longitude"), "values")
    figure: Any = probe_rows.value_map(found, [f"city {i}" for i in range(30)], "degrees", selected=3)
    left = [trace for trace in figure.data if trace.xaxis == "x" and trace.text is not None]
    right = [trace for trace in figure.data if trace.xaxis == "x2" and trace.text is not None]
    for side in (left, right):
        assert sorted(n for trace in side for n in trace.customdata) == list(range(30))
    assert np.allclose(sorted(v for t in left for v in t.y), sorted(y[:, 0])), "latitude goes up"
    assert max(v for t in right for v in t.x) <= figure.layout.xaxis2.range[1], "drawn at the edge"


def test_many_classes_share_one_look():
    labels = [f"c{i // 2}" for i in range(40)]
    figure: Any = probe_rows.projection(np.zeros((40, 2)), np.arange(40), labels, ["t"] * 40, ("a", "b"))
    assert len(figure.data) == len(probe_rows.CLASSES)
    assert figure.data[0].name == probe_rows.OTHERS
    assert sorted(n for trace in figure.data for n in trace.customdata) == list(range(40))


def curve(scores, floor, layers=(0, 1)) -> pd.DataFrame:
    frame = pd.DataFrame({
        "site": [f"blocks.{l}.hook_resid_post" for l in layers], "layer": layers, "metric": "accuracy", "score": scores,
        "low": np.array(scores) - 0.1, "high": np.array(scores) + 0.1, "floor_majority": 0.5, "floor_surface": floor,
        "control": np.nan, "selectivity": np.nan, "note": "",
    })  # fmt: skip
    return frame.astype({"layer": "Int64"})


def test_scores_by_position_and_layer():
    curves = {"last": curve([0.6, 0.9], [0.7, 0.55]), "first": curve([0.4], [0.3], (1,))}
    payload, positions, layers = probe_scores.score_grid(curves, probe_scores.SCORE, title="t")
    assert (positions, layers) == (["last", "first"], [0, 1])
    assert np.allclose(cells(payload), [[0.6, 0.9], [np.nan, 0.4]], equal_nan=True)
    assert "character n-grams 0.700" in payload["about"][0]
    above, _, _ = probe_scores.score_grid(curves, probe_scores.ABOVE, title="t")
    assert np.allclose(cells(above), [[-0.1, 0.35], [np.nan, -0.1]], equal_nan=True)
    assert above["diverging"]


def test_the_curve_stands_above_its_floors():
    found = curve([0.6, 0.9], [0.7, 0.55])
    inside = pd.Series({"score": 0.8, "low": 0.7, "high": 0.85, "layers": "1"})
    figure: Any = probe_scores.layer_curve(found, inside, found.site[1])
    named = {trace.name: trace for trace in figure.data if trace.name}
    assert {"probe", "most common class", "character n-grams", "layer chosen inside the folds"} <= set(named)
    assert list(named["probe"].y) == [0.6, 0.9]
    assert list(figure.layout.xaxis.ticktext) == ["0", "1", "chosen"]
    assert figure.data[-1].x == (1,), "the ring is at the selected layer"


def test_the_verdict_asks_for_the_whole_interval():
    row = curve([0.6, 0.9], [0.7, 0.55]).iloc[1]
    names = {"floor_surface": "character n-grams", "floor_majority": "most common class"}
    assert probe_scores.best_floor(row, names) == ("character n-grams", 0.55)
    assert probe_scores.verdict(row, ("x", 0.55))[0]
    assert "reaches down" in probe_scores.verdict(row, ("x", 0.85))[1]
    assert "not above" in probe_scores.verdict(row, ("x", 0.9))[1]
    assert "No floor" in probe_scores.verdict(row, None)[1]
