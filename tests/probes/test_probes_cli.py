"""The command line `probes`: every command, its exit code, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import probes
from lens.cli_errors import run as run_app
from lens.load import save
from lens.model import Transformer
from lens.registry import names
from probes import commands
from probes.cli import ORDER, app
from probes.dataset import datasets
from probes.estimator import estimators
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


FAST = ("--floors", "majority", "--bootstrap", 50, "--C", 0.1)


@pytest.fixture
def made(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "new" / "run"
    assert call("train", data, "--model", model, "--folds", 3, "--no-groups", "--out", out, *FAST) == 0
    capsys.readouterr()
    return out


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    found = {name.rstrip("_").replace("_", "-") for name in names(commands)}
    assert found == set(ORDER) and all(f" {name} " in shown for name in found)


def test_json_is_what_the_functions_give(
    tiny: Transformer, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = [
        "--model",
        model,
        "--cv",
        4,
        "--seed",
        2,
        "--permutations",
        2,
        "--no-groups",
        "--out",
        out,
        *FAST,
    ]
    assert call("train", "--dataset", data, *options, "--layers", "0-1", "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    told = json.loads(captured.out)
    labelled = probes.Labelled.from_csv(data)
    store = probes.harvest(tiny, labelled, ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"])
    found = probes.sweep(
        store, labelled, groups=False, cv=4, seed=2, permutations=2, C=0.1, floors=["majority"], bootstrap=50
    )
    assert [row["score"] for row in told["table"]] == pytest.approx(found.table.score.tolist(), abs=1e-12)
    assert [row["p_value"] for row in told["table"][:2]] == pytest.approx(found.table.p_value[:2].tolist())
    assert told["path"] == str(out) and told["run"]["source"]["sha256"]
    assert told["run"]["sweep"]["targets"]["label"]["per_class"] == {"b": 20, "m": 20}


def test_table_of_a_run(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--model",
        model,
        "--groups",
        "--estimator",
        "mass-mean",
        "--position",
        "mean",
        "--floors",
        "majority",
    ]
    assert call("train", data, *options, "--out", tmp_path / "run") == 0
    captured = capsys.readouterr()
    lines = [line.rstrip() for line in captured.out.splitlines()]
    assert lines[0] == "resid_post of tiny, position mean: mass-mean, 5 folds, seed 0; words, 40 rows"
    assert lines[2] == "label: 20 b, 20 m; 10 groups kept together; 40 of 40 rows judged"
    assert lines[4].split() == "site layer accuracy 95% interval majority".split()
    assert [line.split()[:2] for line in lines[5:8]] == [
        [f"blocks.{l}.hook_resid_post", str(l)] for l in range(3)
    ]
    assert lines[8].startswith("chosen inside") and sum("← best" in line for line in lines) == 1
    assert any("best site by accuracy is chosen after the fact" in line for line in lines[9:])
    assert "reading activations" in captured.err and "judging probes" in captured.err
    assert call("table", tmp_path / "run") == 0
    assert capsys.readouterr().out.splitlines()[4:9] == captured.out.splitlines()[4:9]
    assert call("table", tmp_path / "run", "--metric", "auroc") == 0
    assert "auroc" in capsys.readouterr().out
    assert call("table", tmp_path / "run", "--csv") == 0
    assert capsys.readouterr().out == (tmp_path / "run" / "table.csv").read_text()
    assert call("table", tmp_path / "run", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 16


def test_a_config_makes_the_run_again_and_flags_override_it(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    assert call("train", "--config", made / "config.yaml", "--out", again) == 0
    for name in ("table.csv", "probes.safetensors", "predictions.safetensors", "config.yaml"):
        assert (again / name).read_bytes() == (made / name).read_bytes()
    assert call("train", "--config", made / "config.yaml", "--seed", 9, "--out", other) == 0
    assert probes.Run.load(other).config == probes.Run.load(made).config.with_(seed=9)
    assert (other / "table.csv").read_bytes() != (made / "table.csv").read_bytes()


def test_one_site_is_not_a_choice(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", data, "--model", model, "--site", "blocks.1.attn.hook_z", *FAST) == 0
    out = capsys.readouterr().out
    assert "blocks.1.attn.hook_z" in out and "best" not in out and "inside" not in out


def test_harvest_once_train_twice(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert call("harvest", data, "--model", model, "--layers", "1", "--out", store) == 0
    assert capsys.readouterr().out.startswith("40 rows at 1 site, 16 wide, position last")
    before = {p.name: p.stat().st_mtime_ns for p in store.iterdir() if p.suffix == ".safetensors"}
    options = ["--model", model, "--layers", "1", "--activations", store, *FAST]
    assert call("train", data, *options, "--json") == 0
    assert {p.name: p.stat().st_mtime_ns for p in store.iterdir() if p.suffix == ".safetensors"} == before
    capsys.readouterr()
    for more, message in (
        (["--layers", "2"], "was made otherwise: it has no 'blocks.2.hook_resid_post'"),
        (["--no-prepend-bos"], "was made otherwise: its prepend_bos is None, not False"),
        (["--positions", "mean"], "was made otherwise: its positions is 'last', not 'mean'"),
    ):
        assert call("train", data, *options, *more) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    other = tmp_path / "other.csv"
    other.write_text(data.read_text() + "bar bel,b,bel\n")
    assert call("train", other, *options) == 2
    told = "was made from other data: it has 40 texts, not 41 ('words', not 'other')"
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_the_beginning_of_text_token_is_a_setting(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert (
        call("train", data, "--model", model, "--layers", "1", "--no-prepend-bos", "--out", out, *FAST) == 0
    )
    run = probes.Run.load(out)
    assert run.config.prepend_bos is False and run.record["sweep"]["store"]["prepend_bos"] is False
    assert call("erase", out, "--draws", 1, "--no-equal-effect") == 0
    assert "no line for a random erasure" not in capsys.readouterr().out


def test_erase_says_why_there_is_no_equal_effect(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    amnesic = import_module("probes.amnesic")

    line = amnesic._Test._line

    def harmless(self: object, erasure: str, *rest: object) -> object:
        found = line(self, erasure, *rest)  # type: ignore[arg-type]
        return replace(found, score=0.9, score_low=0.8, score_high=0.95)

    monkeypatch.setattr(amnesic._Test, "_line", harmless)
    assert call("erase", made, "--layer", "1", "--draws", 1) == 0
    told = "no line for a random erasure of equal effect: this erasure did not hurt the task: the interval of its"
    assert told in capsys.readouterr().out.replace("\n", " ")
    assert call("erase", made, "--layer", "1", "--draws", 1, "--json") == 0
    assert "did not hurt the task" in json.loads(capsys.readouterr().out)["without_equal_effect"]


def test_evaluate(made: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("eval", made) == 0
    out = capsys.readouterr().out
    assert "rows that folds held out, at chosen inside" in out and "recall of b" in out
    assert call("eval", made, data, "--layers", "all", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
    assert call("eval", made, "--dataset", data) == 0
    assert "40 rows; nothing was fitted to them" in capsys.readouterr().out


def test_plot(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plot", made) == 0
    paths = capsys.readouterr().out.split()
    assert [Path(path).name for path in paths] == ["label-curve.svg", "label-confusion.svg"]
    assert all(Path(path).read_text().startswith("<svg") for path in paths)
    assert call("plot", made, "--out", tmp_path / "p", "--metric", "auroc", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0] == str(tmp_path / "p" / "label-curve-auroc.svg")


def test_erase_and_steer(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--layer", "1", "--draws", 2, "--no-equal-effect", "--out", tmp_path / "eraser"]
    assert call("erase", made, *options) == 0
    out = capsys.readouterr().out
    assert "leace" in out and "random, same rank" in out
    assert probes.Eraser.load(tmp_path / "eraser").rank == 1
    assert call("erase", made, "--layer", "1", "--draws", 1, "--no-equal-effect", "--json") == 0
    assert [line["erasure"] for line in json.loads(capsys.readouterr().out)["lines"]][:2] == ["none", "leace"]
    assert call("steer", made, "--layer", "1", "--doses=-2,0,2", "--examples", 10) == 0
    assert "rank correlation with the dose" in capsys.readouterr().out
    assert (
        call(
            "steer", made, "--layer", "1", "--doses=-2,0,2", "--towards", "b", "--words", "bar/mop", "--json"
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["site"] == "blocks.1.hook_resid_post" and len(told["doses"]) == 3


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("estimators") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == estimators()
    assert call("estimators", "--json") == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} == set(estimators())
    assert call("datasets") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == datasets()
    assert call("datasets", "truth", "--data-option", "n=40", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 40 and told["licence"]


TRAIN_MISTAKES = {
    "'resid_pots' is not a site of this model; did you mean 'resid_post'": ["--site", "resid_pots"],
    "cannot be probed": ["--site", "pattern"],
    "layer 7 of 'resid_post' is not in this model: it has layers 0 to 2": ["--layers", "7"],
    "numbers and ranges such as 0-5,11": ["--layers", "a"],
    "'logistc' is not a known estimator; did you mean 'logistic'?": ["--estimator", "logistc"],
    "'frist' is not a known choice of positions; did you mean 'first'": ["--positions", "frist"],
    "the class 'b' has 20 rows, fewer than the 21 folds": ["--folds", "21", "--no-groups"],
    "there are 10 groups that can be split, fewer than the 11 folds": ["--folds", "11"],
    "the setting cv (how many folds) is 1; it must be a whole number from 2 on": ["--folds", "1"],
    "'contry' is not a column": ["--group-by", "contry"],
    "C is 'much'; it is a number": ["--C", "much"],
    "C is -1.0; it must be positive": ["--C=-1"],
    "logistic probes have no alpha; its penalty is C": ["--alpha", "1"],
    "'majorty' is not a known floor; did you mean 'majority'": ["--floors", "majorty"],
    "'auric' is not a metric of classes": ["--metrics", "auric"],
    "needs the word type of each row": ["--controls", "1"],
    "already exists; choose another folder": ["--out", "."],
    "'nowhere' is not a known model": ["--model", "nowhere"],
    "'maxiter' is not NAME=VALUE": ["--option", "maxiter"],
    "layers is 'x-3'; it is all, or numbers and ranges": ["--layers", "x-3", "--model", "nowhere"],
    "cannot write to '/proc/xx/yy'": ["--out", "/proc/xx/yy", "--model", "nowhere"],
    "cannot write to '/proc/xx/zz'": ["--activations", "/proc/xx/zz", "--model", "nowhere"],
}


@pytest.mark.parametrize("message", TRAIN_MISTAKES)
def test_train_mistakes(message: str, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", data, "--json", "--model", model, *TRAIN_MISTAKES[message]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("probes: ") and message in captured.err


def test_other_mistakes(made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("dataset: truth\nestimatr: ridge\n")
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("text,label\na,x\nb\n")
    for arguments, message in (
        (["train"], "no data set is named; give a .csv or .jsonl file, or one of cities"),
        (["train", "truht"], "'truht' is not a known data set; did you mean 'truth'?"),
        (["train", data, "--dataset", "truth"], "two data sets are named"),
        (["train", tmp_path / "absent.csv"], "cannot be read: No such file or directory"),
        (["train", ragged], "line 3"),
        (["train", "--config", config], "'estimatr' is not a known setting; did you mean 'estimator'"),
        (["train", data, "--data-option", "txt=a"], "txt"),
        (["table", tmp_path], "is not a run of probes: no readable run.json"),
        (["table", made, "--target", "lable"], "'lable' is not a target of this run; did you mean 'label'?"),
        (["plot", made, "--metric", "auric"], "'auric' is not a metric of this run; did you mean 'auroc'"),
        (["eval", made, data, "--layers", "9"], "layer 9 has no probe in this run; it has 0, 1, 2"),
        (["eval", made, data, "--dataset", data], "two data sets are named"),
        (["eval", made, "--layers", "3"], "layer 3 has no probe in this run; it has 0, 1, 2"),
        (["eval", made, "--layers", "1"], "--layers is for other data, and none is named"),
        (["eval", made, "--positions", "mean"], "--positions is for other data, and none is named"),
        (["harvest", data, "--out", "/proc/xx", "--model", "nowhere"], "cannot write to '/proc/xx'"),
        (
            ["harvest", data, "--out", tmp_path / "s", "--layers", "x-3", "--model", "nowhere"],
            "layers is 'x-3'",
        ),
        (["erase", made, "--out", "/proc/xx/yy", "--model", "nowhere"], "cannot write to '/proc/xx/yy'"),
        (["plot", made, "--out", "/proc/xx/yy"], "cannot write to '/proc/xx/yy'"),
        (["steer", made, "--words", "bar"], "it is two words with a slash"),
        (["steer", made, "--doses", "a"], "doses is 'a'; it is numbers with commas"),
        (["steer", made, "--layer", "2"], "no probe below blocks.2.hook_resid_post"),
        (["erase", made, "--layer", "all"], "which is 3 sites; one is erased at a time"),
        (["erase", made, "--method", "leece"], "did you mean 'leace'"),
        (["datasets", "truht"], "did you mean 'truth'"),
        (["harvest", data, "--out", made / "run.json"], "is a file; a folder is written there"),
    ):
        assert call(*arguments) == 2, arguments
        captured = capsys.readouterr()
        last = captured.err.splitlines()[-1]
        assert captured.out == "" and last.startswith("probes: ") and message in last, (arguments, last)
