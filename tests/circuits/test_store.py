"""Runs on disk: whole or not at all, and told apart from everything else."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from circuits.circuit import Circuit
from circuits.discover import discover
from circuits.graph import Graph
from circuits.scores import Scores
from circuits.store import Run, check_destination, list_runs
from lens.model import Transformer


@pytest.fixture(scope="module")
def run(words: Transformer) -> Run:
    return discover(words, task="induction", examples=4, edges=20, budgets=[5], random_sets=2)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_saved_and_loaded(run: Run, tmp_path: Path) -> None:
    saved = run.save(tmp_path / "deep" / "run")
    assert saved.path == tmp_path / "deep" / "run"
    assert left(saved.path) == [
        "circuit.graphml", "circuit.json", "pairs.json", "pairs.safetensors", "run.json", "scores.safetensors",
        "summary.json",
    ]  # fmt: skip
    loaded = Run.load(saved.path)
    assert loaded.info == run.info
    assert loaded.summary == run.summary
    assert loaded.scores.values.equal(run.scores.values)
    assert loaded.circuit.mask.equal(run.circuit.mask)
    assert loaded.pairs.digest == run.pairs.digest
    assert loaded.path == saved.path
    assert left(tmp_path) == ["deep"]


def test_an_existing_folder_is_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ValueError, match="already exists"):
        run.save(tmp_path / "thesis")
    with pytest.raises(ValueError, match=r"is not a run folder: it has no run.json"):
        run.save(tmp_path / "thesis", overwrite=True)
    (tmp_path / "note.txt").write_text("a file")
    with pytest.raises(ValueError, match="is not a run folder: it is a file"):
        run.save(tmp_path / "note.txt", overwrite=True)
    assert left(tmp_path) == ["note.txt", "thesis"]
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_run_is_overwritten_when_asked(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path / "run")
    (tmp_path / "run" / "old").write_text("from before")
    with pytest.raises(ValueError, match="already exists"):
        run.save(tmp_path / "run")
    run.save(tmp_path / "run", overwrite=True)
    assert "old" not in left(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    run.save(tmp_path / "empty", overwrite=True)
    assert left(tmp_path) == ["empty", "run"]


def test_a_full_disk_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Circuit, directory: Path) -> Path:
        (directory / "circuit.json").write_text("half of")
        raise OSError(errno.ENOSPC, "No space left on device")

    run.save(tmp_path / "before")
    monkeypatch.setattr(Circuit, "save", full)
    for target, overwrite in ((tmp_path / "a" / "run", False), (tmp_path / "before", True)):
        with pytest.raises(OSError, match="No space left"):
            run.save(target, overwrite=overwrite)
    assert left(tmp_path) == ["before"]
    assert Run.load(tmp_path / "before").info == run.info


def test_too_little_room_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000))
    check_destination(tmp_path / "run", graph=Graph(2, 2, 2), n_edges=10)
    with pytest.raises(ValueError, match=r"22.5 MB are needed, 2.0 MB are free"):
        check_destination(tmp_path / "run", graph=Graph(30, 9, 3), n_edges=67_700)
    assert left(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to '.*file/run': Not a directory"):
        check_destination(tmp_path / "file" / "run")
    if Path("/proc").is_dir():
        with pytest.raises(ValueError, match=r"cannot write to '/proc/runs/new'"):
            check_destination("/proc/runs/new")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="already exists"):
        check_destination(tmp_path / "dangling")


def spoil(folder: Path, name: str, text: str | None) -> None:
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", None, "is not a run folder: it has no run.json"),
        ("run.json", "{", "run.json' cannot be read"),
        ("run.json", "[]", "run.json' cannot be read: it holds no object"),
        ("run.json", "{}", "is not a run folder: its run.json is not of format"),
        ("run.json", '{"format": "circuits.run", "version": 7}', "is of version 7; this program reads 1"),
        ("summary.json", None, "summary.json' cannot be read: No such file"),
        ("circuit.json", "{}", "circuit.json is not a circuit"),
        ("scores.safetensors", "", "scores.safetensors holds no scores"),
        ("pairs.safetensors", None, "no pairs that this program can read"),
        ("pairs.json", "{}", "no pairs that this program can read"),
    ],
)
def test_damaged_runs(run: Run, tmp_path: Path, name: str, text: str | None, message: str) -> None:
    run.save(tmp_path / "run")
    spoil(tmp_path / "run", name, text)
    with pytest.raises(ValueError, match=message) as raised:
        Run.load(tmp_path / "run")
    assert "\n" not in str(raised.value)


def test_parts_of_different_models(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path / "run")
    graph = Graph(1, 1, 1)
    Scores(graph=graph, values=torch.zeros(graph.valid.shape), method="eap", metric="m").save(
        tmp_path / "run"
    )
    with pytest.raises(ValueError, match="belong to different models"):
        Run.load(tmp_path / "run")


def test_list_runs(run: Run, tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nowhere") == []
    for name, created in (
        ("a", "2024-01-02T00:00:00"),
        ("b", "2024-01-03T00:00:00"),
        ("c", "2024-01-01T00:00:00"),
    ):
        run.save(tmp_path / name)
        info = json.loads((tmp_path / name / "run.json").read_text())
        (tmp_path / name / "run.json").write_text(json.dumps({**info, "created": created}))
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    found = list_runs(tmp_path)
    assert [entry.path.name for entry in found] == ["b", "a", "c"]
    assert found[0].summary == run.summary
    assert found[0].info["task"] == "induction"


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run folder: it is not there"):
        Run.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is not a run folder: it has no"):
        Run.load(tmp_path)
