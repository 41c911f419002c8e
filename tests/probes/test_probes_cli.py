"""The command line `probes`, the line below it, and its folder on disk."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
import torch

import probes
from lens.cli_errors import run as run_app
from lens.load import save
from lens.model import Transformer
from probes.cli import app
from probes.texts import Labelled
from probes.store import Trained
from tests.probes.conftest import WORDS


def call(*arguments: object) -> int:
    return run_app(app, [str(a) for a in arguments], name="probes")


@pytest.fixture
def model(tiny: Transformer, tmp_path: Path) -> Path:
    return save(tiny, tmp_path / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The label is the last word's first letter; the group is the last word."""
    draw = random.Random(0)
    path = tmp_path / "words.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "group"])
        for word in [w for w in WORDS if w[0] in "bm"] * 4:
            writer.writerow([" ".join([*draw.sample(WORDS, draw.randint(1, 4)), word]), word[0], word])
    return path


def test_json_is_what_the_functions_give(
    tiny: Transformer, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "probes"
    options = ["--model", model, "--folds", 4, "--seed", 2, "--shuffles", 2, "--no-groups", "--out", out]
    assert call("train", data, *options, "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    told = json.loads(captured.out)
    labelled = Labelled.from_csv(data)
    labelled = Labelled(labelled.texts, labelled.labels, labelled.classes)
    store = probes.harvest(tiny, labelled.texts, "resid_post")
    activations = {site: store[site] for site in store.sites}
    rows = probes.evaluate(activations, labelled, folds=4, seed=2, shuffles=2)
    assert told["sites"] == [{"layer": i, **vars(row)} for i, row in enumerate(rows)]
    assert told["data"]["per_class"] == {"b": 20, "m": 20} and told["data"]["groups"] is None
    assert told["path"] == str(out)

    kept = Trained.load(out)
    assert kept.rows == tuple(rows) and kept.classes == ("b", "m")
    assert kept.record["data"]["sha256"] and kept.record["model"]["revision"]
    for site, x in activations.items():
        fitted = probes.get_estimator("logistic").new().fit(x.double().numpy(), labelled.labels)
        torch.testing.assert_close(kept.coef[site], torch.tensor(fitted.coef_))
        assert kept.predict(site, x).tolist() == fitted.predict(x.double().numpy()).tolist()
    with pytest.raises(ValueError, match="is not a known probed site"):
        kept.predict("blocks.7.hook_resid_post", x)
    with pytest.raises(ValueError, match="reads 16 features, not 4"):
        kept.predict(rows[0].site, x[:, :4])


def test_table(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", model, "--groups", "--estimator", "mass-mean", "--position", "mean"]
    assert call("train", data, *options) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "resid_post of tiny, position mean: mass-mean, 5 folds, seed 0"
    assert lines[1] == "40 texts: 20 b, 20 m, 10 groups kept together"
    assert lines[3].split() == "site layer accuracy 95% interval majority shuffled".split()
    assert [line.split()[:2] for line in lines[4:7]] == [
        [f"blocks.{l}.hook_resid_post", str(l)] for l in range(3)
    ]
    assert sum("← best" in line for line in lines) == 1
    assert "chosen after the fact" in lines[-1]
    assert "reading activations" in captured.err and "fitting probes" in captured.err


def test_one_site_is_not_a_choice(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", data, "--model", model, "--site", "blocks.1.attn.hook_z", "--shuffles", 1) == 0
    out = capsys.readouterr().out
    assert "blocks.1.attn.hook_z" in out and "best" not in out


def test_estimators(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("estimators") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["logistic", "mass-mean"]
    assert call("estimators", "--json") == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} == {"logistic", "mass-mean"}


MISTAKES = {
    "did you mean 'blocks.": ["--site", "resid_pots"],
    "cannot be probed": ["--site", "pattern"],
    "'logistc' is not a known estimator; did you mean 'logistic'?": ["--estimator", "logistc"],
    "'lats' is not a known choice of positions; did you mean 'last'": ["--position", "lats"],
    "the class 'b' has 20 texts, fewer than the 21 folds": ["--folds", "21", "--no-groups"],
    "there are 10 groups, fewer than the 11 folds": ["--folds", "11"],
    "folds is 1": ["--folds", "1"],
    "shuffles is 0": ["--shuffles", "0"],
    "already exists; choose another folder": ["--out", "."],
    "'nowhere' is not a known model": ["--model", "nowhere"],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message: str, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", data, "--json", "--model", model, *MISTAKES[message]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("probes: ") and message in captured.err


def test_mistakes_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "data.csv"
    assert call("train", file) == 2
    file.write_text("text,label\n" + "a,x\nb,y\n" * 5)
    assert call("train", file, "--groups") == 2
    file.write_text("text,label\na,x\nb\n")
    assert call("train", file) == 2
    absent, no_groups, ragged = capsys.readouterr().err.splitlines()
    assert absent.endswith("cannot be read: No such file or directory")
    assert "--groups needs a column 'group'" in no_groups
    assert "line 3: 1 values for 2 columns" in ragged


def test_damaged_folders(tmp_path: Path) -> None:
    rows = (probes.Row("s", 4, 0.5, 0.2, 0.8, 0.5, 0.5),)
    trained = Trained({"s": torch.ones(1, 3).double()}, {"s": torch.zeros(1).double()}, ("x", "y"), rows, {})
    folder = trained.save(tmp_path / "kept")
    assert Trained.load(folder).rows == rows
    with pytest.raises(FileExistsError, match="already exists"):
        trained.save(folder)
    tensors, record = folder / "probes.safetensors", folder / "probes.json"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"probes\.safetensors' cannot be read"):
        Trained.load(folder)
    tensors.write_bytes(whole)
    text = record.read_text()
    record.write_text(text.replace('"site": "s"', '"site": "t"'))
    with pytest.raises(ValueError, match=r"has no tensor 't\.coef'"):
        Trained.load(folder)
    record.write_text(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match=r"version 2, not 'probes\.trained' version 1"):
        Trained.load(folder)
    record.write_text("[]")
    with pytest.raises(ValueError, match="is not a record of probes"):
        Trained.load(folder)
    with pytest.raises(ValueError, match=r"not a folder of probes: no readable probes\.json"):
        Trained.load(tmp_path)
