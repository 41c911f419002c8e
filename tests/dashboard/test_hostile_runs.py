"""Folders of runs that others have made: links, damaged records, foreign weights; one line each, nothing breaks."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from circuits.store import list_runs
from dashboard import runs
from tests.dashboard.conftest import RUN

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def root(saved_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copytree(saved_runs / RUN, folder / RUN)
    shutil.copytree(saved_runs / RUN, folder / "other")
    monkeypatch.setenv("LENS_RUNS", str(folder))
    monkeypatch.setattr("sys.argv", ["app.py"])
    return folder


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("run.json", {"model": 3}), ("run.json", {"model": {"name": ["x"]}}), ("run.json", {"task": None}),
        ("run.json", {"examples": "many"}), ("summary.json", {"circuits": {}}), ("summary.json", {"circuits": [3]}),
        ("summary.json", {"metric_model": "high"}), ("summary.json", {"heads": 5}),
    ],
)  # fmt: skip
def test_records_of_other_types_are_passed_over(root, file, values):
    changed(root / "other" / file, **values)
    assert [run.path.name for run in list_runs(root)] == [RUN]
    assert list(runs.folders()) == [RUN]
    assert runs.models()
    with pytest.raises(ValueError, match="not a known saved run"):
        runs.open_run("other")


@pytest.mark.parametrize(
    "content", [DEEP, "", "\x00" * 50, "[1]", '{"format": "circuits.run", "version": 1}']
)
def test_records_that_are_none_are_passed_over(root, content):
    (root / "other" / "run.json").write_text(content)
    assert list(runs.folders()) == [RUN]


@pytest.mark.parametrize("file", ["circuit.json", "pairs.json"])
@pytest.mark.parametrize("content", [DEEP, "", "{}", '{"n_edges": 1e999}'])
def test_damaged_parts_are_told_in_one_line(root, file, content):
    (root / "other" / file).write_text(content)
    with pytest.raises(ValueError) as error:
        runs.open_run("other")
    assert "\n" not in str(error.value)
    assert runs.open_run(RUN).circuit.n_edges


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["scores.safetensors", "pairs.safetensors"])
def test_foreign_weights_are_not_opened(root, tmp_path, file):
    whole = (root / "other" / file).read_bytes()
    for content in (
        pickle.dumps(Harm(tmp_path / "harm")), b"", b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}",
        len(DEEP).to_bytes(8, "little") + DEEP.encode(), whole[:-7],
    ):  # fmt: skip
        (root / "other" / file).write_bytes(content)
        with pytest.raises(ValueError):
            runs.open_run("other")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "file", ["run.json", "summary.json", "pairs.json", "circuit.json", "notes.json", "evidence.json"]
)
def test_links_inside_a_run_are_not_followed(root, tmp_path, file):
    secret = tmp_path / "secret"
    inside = root / "other" / file
    if inside.exists():
        secret.write_bytes(inside.read_bytes())
        inside.unlink()
    else:
        secret.write_text('{"secret": 1}')
    inside.symlink_to(secret)
    with pytest.raises(ValueError, match="is a link, and is not followed"):
        runs.open_run("other")


@pytest.mark.parametrize(
    "name",
    [
        "../other",
        "..",
        ".",
        "",
        "/etc",
        "other/",
        "./other",
        "other/../other",
        "%2e%2e",
        "other\x00",
        "x" * 5000,
        "~",
    ],
)
def test_a_run_is_only_known_by_its_name(root, name):
    with pytest.raises(ValueError):
        runs.folder(name)
    with pytest.raises(ValueError):
        runs.delete(name)
    assert (root / "other").is_dir()


def test_pages_stand_beside_damaged_runs(root, app):
    """What lies in the folder of runs breaks no page."""
    changed(root / "other" / "run.json", model={"name": {}, "revision": 3, "origin": []})
    (root / "third").mkdir()
    (root / "third" / "run.json").write_text(DEEP)
    for page in (None, "circuit", "runs"):
        at = app(page, root, model="induction-2l", task="induction")
        assert not at.exception


def test_an_unknown_metric_is_told_in_one_line(root, app):
    changed(root / "other" / "run.json", metric="[x](http://a.example)")
    for page in ("heads", "circuit", "patching"):
        at = app(page, root, run="other")
        said = [
            text.value
            for text in (*at.sidebar.caption, *at.sidebar.error)
            if "is not a known metric" in text.value
        ]
        assert len(said) == 1 and "](http" not in said[0]
