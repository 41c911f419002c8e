"""Notes, deletion and the bundle of saved runs, without a browser."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from circuits import Circuit, Run, evidence
from dashboard import bundle, notes, runs, truth
from dashboard.notes import Notes
from tests.dashboard.conftest import RUN


@pytest.fixture
def root(saved_runs, tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "runs"
    shutil.copytree(saved_runs, folder)
    monkeypatch.setenv("LENS_RUNS", str(folder))
    monkeypatch.setattr("sys.argv", ["app.py"])
    return folder


# ---- notes


def test_notes_come_back_as_they_were(tmp_path):
    written = Notes("*bold* <b>", ("a1.h0",), {"movers": ("a1.h0", "a1.h2")})
    notes.write(tmp_path, written)
    assert notes.read(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["notes.json"], "nothing half-written stays"
    assert notes.read(tmp_path / "nowhere") == Notes()


def test_pins_and_groups_change_one_by_one():
    first = Notes().pinned("a0.h1", True).pinned("m3", True).pinned("a0.h1", True)
    assert first.pins == ("m3", "a0.h1")
    assert first.pinned("m3", False).pins == ("a0.h1",)
    grouped = first.grouped("x", ("m1", "m1", "m2"))
    assert grouped.groups == {"x": ("m1", "m2")}
    assert grouped.grouped("x", ()).groups == {}


@pytest.mark.parametrize(
    "values",
    [
        {"text": "x" * (notes.LONGEST + 1)}, {"pins": ("../../etc",)}, {"groups": {" ": ("m1",)}},
        {"groups": {"x" * 61: ("m1",)}}, {"groups": {"a": ("<script>",)}}, {"groups": {"a\n": ("m1",)}},
    ],
)  # fmt: skip
def test_notes_refuse_what_they_do_not_keep(values):
    with pytest.raises(ValueError, match=r"at most|not the name|letters"):
        Notes(**values)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "x"}', '{"format": "dashboard.notes", "text": 3}'])
def test_damaged_notes_are_one_clear_line(tmp_path, text):
    (tmp_path / "notes.json").write_text(text)
    with pytest.raises(ValueError, match="holds no notes that can be read") as error:
        notes.read(tmp_path)
    assert "\n" not in str(error.value)


# ---- delete


def test_a_run_is_deleted_whole(root):
    runs.delete(RUN)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "/etc", "nowhere", "runs/../outside"])
def test_only_known_runs_are_deleted(root, name):
    outside = root.parent / "outside"
    shutil.copytree(root / RUN, outside)
    with pytest.raises(ValueError, match="saved run"):
        runs.delete(name)
    assert (outside / "run.json").is_file()
    assert (root / RUN / "run.json").is_file()


def test_a_link_out_of_the_folder_is_not_followed(root):
    outside = root.parent / "outside"
    shutil.copytree(root / RUN, outside)
    os.symlink(outside, root / "link")
    with pytest.raises(ValueError, match="is not deleted"):
        runs.delete("link")
    assert (outside / "run.json").is_file()
    os.symlink(outside, root / RUN / "inner")
    runs.delete(RUN)
    assert (outside / "run.json").is_file(), "links inside a run are removed, not followed"


def test_the_run_given_on_the_command_line_is_not_deleted(root, monkeypatch):
    given = root.parent / "given"
    shutil.copytree(root / RUN, given)
    monkeypatch.setattr("sys.argv", ["app.py", "--run", str(given)])
    with pytest.raises(ValueError, match="is not deleted"):
        runs.delete("given")
    assert (given / "run.json").is_file()


# ---- the bundle


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def zipped(root) -> zipfile.ZipFile:
    evil = "<script>alert(1)</script><img src=https://example.com/x.png>"
    notes.write(root / RUN, Notes(evil, ("a1.h0", "a9.h9"), {evil[:40]: ("a1.h0",)}))
    (root / RUN / "secret.txt").write_text("not a part of a run")
    shown = {"n_edges": 5, "mean": 0.5, "interval": [0.4, 0.6], "floor": 0.1}
    evidence.save(root / RUN, {"ablation": "counterfactual", "stability": shown, "curve": {"damaged": True}})
    return zipfile.ZipFile(io.BytesIO(bundle.bundle(Run.load(root / RUN), RUN)))


def test_the_bundle_holds_data_tables_and_pictures(zipped, root):
    names = {Path(name).name for name in zipped.namelist()}
    assert all(name.startswith(f"{RUN}/") for name in zipped.namelist())
    assert {"run.json", "scores.safetensors", "pairs.json", "notes.json", "evidence.json"} <= names
    assert {"edges.csv", "nodes.csv", "pairs.csv", "circuit.svg", "circuit.png", "circuit.html"} <= names
    assert "secret.txt" not in names
    assert zipped.read(f"{RUN}/circuit.png").startswith(b"\x89PNG")
    edges = root.parent / "edges.csv"
    edges.write_bytes(zipped.read(f"{RUN}/edges.csv"))
    assert Circuit.read(edges).edges() == Run.load(root / RUN).circuit.edges()


def test_the_report_stands_alone_and_shows_texts_as_texts(zipped):
    text = zipped.read(f"{RUN}/report.html").decode()
    page = Tags()
    page.feed(text)
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert page.targets == []
    assert "&lt;script&gt;alert(1)" in text
    assert "share 50% of their edges" in text
    assert "default-src 'none'" in text


def test_the_report_counts_one_edge_as_one():
    circuits = [{"n_edges": n, "faithfulness": 0.5, "random": {"faithfulness": 0.0}} for n in (1, 2000)]
    rows = bundle._found({"metric_model": 1.0, "metric_corrupt": 0.0, "circuits": circuits})
    assert rows[2:] == [
        ("Faithfulness of 1 edge", "50% (random sets 0%)"),
        ("Faithfulness of 2,000 edges", "50% (random sets 0%)"),
    ]


def test_no_cell_of_a_table_is_a_formula():
    assert bundle._csv(["x"], [["=1+1"], [-2.5]]) == "x\n'=1+1\n-2.5\n"


# ---- known circuits


def test_planted_models_are_known_by_name():
    made = truth.planted("planted-induction-easy-3")
    assert made is not None
    assert made.model.name == "planted-induction-easy-3"
    for name in (
        "planted-nonsense-easy-0",
        "planted-induction-easy",
        "smollm2",
        "planted-induction-easy-0/../x",
    ):
        assert truth.planted(name) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pt", b"PK\x03\x04rest", "pickle"),
        ("../../x.json", b"{", "not a circuit that this program can read"),
        ("x.csv", b"sender,receiver,score\nembed,nowhere,1\n", "not a circuit that this program can read"),
        ("x.csv", b"sender,receiver,score\n", "nothing to rank"),
    ],
)
def test_what_is_no_known_circuit_is_refused(root, name, content, message):
    run = Run.load(root / RUN)
    with pytest.raises(ValueError, match=message) as error:
        truth.keep(run, name, content)
    assert "/tmp" not in str(error.value)
    assert not (root / RUN / "truth.json").exists()


def test_a_given_circuit_is_measured(root):
    run = Run.load(root / RUN)
    truth.keep(run, "known.json", json.dumps(run.circuit.to_dict()).encode())
    found = truth.measure(run, "induction-2l")
    assert list(found) == ["given"]
    assert found["given"]["auroc"] > 0.9
    assert found["given"]["n_positive"] == run.circuit.n_edges
