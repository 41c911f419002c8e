"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from lens import atomic


def everything(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*"))


def test_write(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "deep" / "er" / "a.bin", b"123")
    atomic.write_json(tmp_path / "b.json", {"é": [1, 2]})
    assert (tmp_path / "deep/er/a.bin").read_bytes() == b"123"
    assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8")) == {"é": [1, 2]}
    assert everything(tmp_path) == ["b.json", "deep", "deep/er", "deep/er/a.bin"]


def test_failed_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as stream:
            stream.write(data[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(target, b"new")
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert everything(tmp_path) == ["a.bin"]


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with atomic.folder(target) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "x").write_text("1")
        assert not target.exists()
        assert partial.parent == target.parent  # same filesystem
    assert everything(tmp_path) == ["run", "run/sub", "run/sub/x"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_folder_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fill() -> None:
        with atomic.folder(tmp_path / "new" / "parents" / "run") as partial:
            (partial / "half").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fill()
    assert everything(tmp_path) == []


def test_parents_with_other_files_stay(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic.folder(tmp_path / "parent" / "run"):
            (tmp_path / "parent" / "other").write_text("of somebody else")
            raise ValueError

    with pytest.raises(ValueError):
        fill()
    assert everything(tmp_path) == ["parent", "parent/other"]


def test_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    worked = False

    def fill() -> None:
        nonlocal worked
        with atomic.folder(tmp_path / "run"):
            worked = True

    with pytest.raises(FileExistsError, match=r"run' already exists; choose another folder"):
        fill()
    assert not worked


def test_folder_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic.folder(tmp_path / "run") as partial:
            (partial / "x").write_text("mine")
            (tmp_path / "run").mkdir()

    with pytest.raises(FileExistsError):
        fill()
    assert everything(tmp_path) == ["run"]


def test_replace(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic.folder(tmp_path / "run", replace=True) as partial:
            (partial / text).write_text(text)
    assert everything(tmp_path) == ["run", "run/new"]


def test_failed_replace_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with atomic.folder(tmp_path / "run") as partial:
        (partial / "old").write_text("old")
    rename = os.rename

    def fails_once(source: Path, target: Path) -> None:
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_once)

    def fill() -> None:
        with atomic.folder(tmp_path / "run", replace=True) as partial:
            (partial / "new").write_text("new")

    with pytest.raises(OSError, match="Input/output"):
        fill()
    assert everything(tmp_path) == ["run", "run/old"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")

    def fill() -> None:
        with atomic.folder(tmp_path / "run", replace=True):
            pass

    with pytest.raises(FileExistsError, match="is a file"):
        fill()
