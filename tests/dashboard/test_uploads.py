"""Files that people upload: taken in as data only, and told in one line where they are not."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import tempfile
import zlib
from pathlib import Path

import pytest

from circuits.tasks import tasks as own_tasks
from dashboard import uploads
from tests.dashboard.conftest import MODEL, settled
from tests.dashboard.test_pages import texts

HEADER = "clean,corrupt,answer,wrong\n"
ROW = "the ship moved so the,the coat moved so the,ship,coat\n"
GOOD = (HEADER + ROW).encode()


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    uploads.tasks().clear()


class Harm:
    """A pickle that would write a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def refused(filename: str, content: bytes) -> str:
    """The line that an upload is refused with; nothing stays behind."""
    before = set(Path(tempfile.gettempdir()).glob("lens-upload-*"))
    with pytest.raises(ValueError) as error:
        uploads.add(filename, content)
    assert not uploads.tasks()
    assert set(Path(tempfile.gettempdir()).glob("lens-upload-*")) <= before
    assert "lens-upload-" not in str(error.value), "where it was read is nobody's business"
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_becomes_a_task(induction):
    name = uploads.add("my pairs.csv", GOOD)
    task = uploads.tasks()[name]
    assert name.startswith("upload-") and task.name == name and task.title == "my pairs.csv"
    pairs = task.pairs(induction, None)
    assert induction.to_str_tokens(pairs.answers) == ["ship"]
    assert uploads.add("my pairs.csv", GOOD) == name
    assert len(uploads.tasks()) == 1


def test_lines_of_json_do_too(induction):
    row = b'{"clean": "the ship moved so the", "corrupt": "the coat moved so the", "answer": "ship", "wrong": "coat"}\n'
    assert len(uploads.tasks()[uploads.add("pairs.JSONL", row)].pairs(induction, None)) == 1


def test_the_sample_is_a_good_file():
    task = uploads.tasks()[uploads.add("pairs.csv", uploads.SAMPLE.encode())]
    assert task.about.startswith("2 pairs")


@pytest.mark.model
@pytest.mark.slow
def test_the_sample_fits_a_language_model(smollm2):
    task = uploads.tasks()[uploads.add("pairs.csv", uploads.SAMPLE.encode())]
    assert len(task.pairs(smollm2, None)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "pairs.pkl",
        "pairs.pt",
        "pairs.zip",
        "pairs.json",
        "pairs.safetensors",
        "pairs.csv.pkl",
        "pairs",
        "",
        "pairs.exe",
        "pairs.html",
    ],
)
def test_other_kinds_of_files_are_refused(name):
    assert "neither a .csv nor a .jsonl" in refused(name, GOOD)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("protocol", [0, 4])
def test_a_pickle_by_another_name_is_not_opened(tmp_path, suffix, protocol):
    harm = tmp_path / "harm"
    refused(f"pairs{suffix}", pickle.dumps(Harm(harm), protocol=protocol))
    assert not harm.exists()


def test_a_file_that_is_too_large_is_refused():
    assert "at most 2,097,152 are taken" in refused("pairs.csv", GOOD + b"x" * uploads.LARGEST)


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("empty.csv", b""),
        ("columns.csv", b"a,b\n1,2\n"),
        ("header.csv", HEADER.encode()),
        ("bytes.csv", b"\xff\xfe\x00" + GOOD),
        ("zeros.csv", b"\x00" * 100),
        ("quotes.csv", HEADER.encode() + b'"the ship,the coat\n' * 3),
        ("empty.jsonl", b""),
        ("list.jsonl", b"[1, 2]\n"),
        ("half.jsonl", b'{"clean": "the'),
        ("deep.jsonl", b"[" * 100_000),
        ("number.jsonl", b"1e999\n"),
        ("wide.csv", b",".join(b"c%d" % i for i in range(200_000)) + b"\n"),
        ("commas.csv", b"," * 1_000_000 + b"\n" + b"," * 1_000_000),
        ("within.jsonl", b'{"clean": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}"),
        ("bomb.csv", b"PK\x03\x04" + zlib.compress(b"0" * 10**8)),
        ("gzip.jsonl", gzip.compress(b"0" * 10**8)),
        ("weights.csv", (2**62).to_bytes(8, "little") + b"{}"),
        ("cell.csv", b'clean,corrupt,answer,wrong\n"' + b"a " * 900_000 + b'"\n'),
    ],
)
def test_what_is_malformed_is_told_in_one_line(filename, content):
    assert refused(filename, content)


def test_a_row_that_does_not_fit_is_told_under_the_files_own_name(induction):
    task = uploads.tasks()[
        uploads.add("mine.csv", (HEADER + ROW + "the ship,the coat moved,so,moved\n").encode())
    ]
    with pytest.raises(ValueError, match=r"^mine\.csv, line 3: ") as error:
        task.pairs(induction, None)
    assert "lens-upload-" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd.csv", "/etc/cron.d/x.csv", "..\\..\\boot.csv", "a/\x00b.csv", "~/x.csv", "C:\\x.csv"],
)
def test_a_name_is_only_a_title(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = uploads.add(name, GOOD)
    task = uploads.tasks()[key]
    assert "/" not in task.title and "\\" not in task.title
    assert "/" not in key and ".." not in key
    assert not list(tmp_path.iterdir())


def test_only_some_are_kept():
    for i in range(uploads.MOST + 3):
        uploads.add(f"{i}.csv", (HEADER + ROW * (i + 1)).encode())
    assert len(uploads.tasks()) == uploads.MOST


def test_an_upload_cannot_take_the_place_of_a_task():
    assert uploads.add("ioi.csv", GOOD) not in own_tasks()


def test_markup_in_a_file_is_shown_as_text(app, empty_runs):
    title = "<img src=x onerror=alert(1)> [a](http://x.y) ![b](http://x.y).csv"
    row = '"the ship moved so the <script>","the coat moved so the <script>",ship,coat\n'
    name = uploads.add(title, (HEADER + row).encode())
    at = app(None, empty_runs, model=MODEL, task=name)
    assert not at.exception
    assert "<script>" in texts(at.error), "the shipped model has no such word, and says so"
    raw = [str(e.value) for e in [*at.error, *at.caption, *at.markdown, *at.info, *at.warning]]
    assert not any(re.search(r"(?<!\\)(<img|<script|\]\(http)", text) for text in raw)
    at.switch_page("dashboard/pages/heads.py")
    assert not settled(at).exception
