"""The notebooks in `examples/` run from top to bottom in a kernel of their own, and print what their text promises.

A new notebook is found by globbing. One that loads SmolLM2 is marked `model`; all are `slow`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SECONDS_PER_CELL = 600
ABSOLUTE = re.compile(r"(?<![\w.:/<)\]}])/[\w.-]+/|\b[A-Z]:\\|file://")


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def needs_smollm2(path: Path) -> bool:
    return re.search(r"""lens\.load\(["']smollm2["']\)""", code_of(read(path))) is not None


def code_of(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def printed_by(notebook: NotebookNode) -> str:
    """What the cells printed, and their results as text."""
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    texts = [out.text if out.output_type == "stream" else out.data.get("text/plain", "") for out in outputs]
    return "\n".join(texts)


def to_run(path: Path) -> object:
    marks = [pytest.mark.slow, *([pytest.mark.model] if needs_smollm2(path) else [])]
    return pytest.param(path, marks=marks, id=path.stem)


# ---- what each notebook's text promises of its outputs


def numbers(printed: str, row: str) -> list[float]:
    """The numbers in what follows `row` at the start of a printed line, whatever its spaces."""
    start = r"\s+".join(map(re.escape, row.split()))
    found = re.search(rf"^{start}(?!\w)(.*)$", printed, re.MULTILINE)
    assert found, f"nothing printed starts with {row!r}"
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", found[1])]


def plant_and_find(printed: str) -> None:
    assert numbers(printed, "right:") == [1.0]
    assert "0 and 0 alone; Jaccard 1.00" in printed
    assert numbers(printed, "easy") == [1.0, 1.0, 1.0]
    eap, eap_ig, exact = numbers(printed, "hard")
    assert eap < 0.92 and eap < eap_ig and exact > 0.98


def ioi_walkthrough(printed: str) -> None:
    assert numbers(printed, "right name above wrong name:")[0] == 100
    spearman = {m: numbers(printed, f"{m} head")[4] for m in ("eap", "eap-ig")}
    pearson = {m: numbers(printed, f"{m} head")[1] for m in ("eap", "eap-ig")}
    assert pearson["eap-ig"] > pearson["eap"] > 0.9 and spearman["eap"] > spearman["eap-ig"]
    for prompts in ("searched prompts", "fresh prompts"):
        assert 0.55 < numbers(printed, prompts)[-1] < 0.7
    assert numbers(printed, "same sign:")[0] >= 98
    share = {r: numbers(printed, r)[1] for r in ("name mover", "subject suppressor", "previous-token")}
    assert (
        share["subject suppressor"] > 1.8 * share["name mover"] > 0.3 and abs(share["previous-token"]) < 0.01
    )
    before, after = numbers(printed, "4 negative name mover direct")
    assert before < -0.5 and after > 0.5
    assert numbers(printed, "resampled pairs:")[0] > 0.6 and numbers(printed, "random sets:")[0] < 0.02


def truth_probe(printed: str) -> None:
    score, low, high = numbers(printed, "AUROC, layer chosen inside the folds:")
    assert low > 0.75 and low < score < high
    statements, negations = numbers(printed, "fitted to statements")
    assert statements > 0.85 and negations < 0.3  # it turns around
    assert min(numbers(printed, "fitted to both")) > 0.75
    before, after = (numbers(printed, f"{name}, other rows: AUROC") for name in ("as it is", "erased"))
    assert before[1] > 0.5 and after[1] < 0.5 < after[2]
    before, after = (numbers(printed, f"{name}, fitted rows:")[0] for name in ("as it is", "erased"))
    assert before > 0.01 and after < 0.0005
    large, small = (numbers(printed, f"{name} background:")[0] for name in ("without", "with"))
    assert small < 0.1 * large


def city_map(printed: str) -> None:
    random, held_out = (numbers(printed, f"{name}: R²") for name in ("random cities", "held-out countries"))
    assert random[0] > held_out[0] > held_out[1] > 0.1
    names = ("mean of the country", "probe, random cities", "probe, held-out countries", "middle of all")
    distances = [numbers(printed, f"{name}:")[0] for name in names]
    assert distances == sorted(distances) and distances[0] < 500


def old_main_demo(printed: str) -> None:
    loss, first, second = numbers(printed, "loss:")
    assert second < 1 < loss < first
    assert min(numbers(printed, "induction, layer 1:")) > 0.5 > max(numbers(printed, "induction, layer 0:"))
    assert numbers(printed, "loss without layer 1:")[0] > loss + 1
    assert numbers(printed, "hooks taken off:") == [loss]
    assert all(numbers(printed, f"copying, layer 1, head {head}:")[0] > 0.9 for head in range(4))
    assert numbers(printed, "continued as before:")[0] >= 7


def old_exploratory_analysis(printed: str) -> None:
    clean, corrupted = numbers(printed, "logit difference:")
    assert clean > 5 and corrupted < -5
    assert abs(numbers(printed, "sum of parts and bias:")[0] - clean) < 0.02
    assert printed.count("head L1H") == 3 and numbers(printed, "looks most at position:")[0] == 5
    assert float(printed.split("logit_attrs agrees to ", 1)[1].split(maxsplit=1)[0]) < 1e-4


def old_activation_patching(printed: str) -> None:
    for layer in (0, 1):
        assert [i for i, x in enumerate(numbers(printed, f"layer {layer}:")) if abs(x) > 0.5] == [5]
    assert numbers(printed, "values matter at position:") == [5] and "by hand the same: True" in printed


def old_attribution_patching(printed: str) -> None:
    assert numbers(printed, "correlation:")[0] > 0.9
    assert numbers(printed, "position that matters, layer 0:") == [5]


def old_grokking(printed: str) -> None:
    (first,), (last,) = numbers(printed, "epoch 0:"), numbers(printed, "epoch 299:")
    assert last < 0.1 * first and numbers(printed, "right:")[0] > 0.98


PROMISES: dict[str, Callable[[str], None]] = {
    "plant_and_find": plant_and_find,
    "ioi_walkthrough": ioi_walkthrough,
    "truth_probe": truth_probe,
    "city_map": city_map,
    "old_main_demo": old_main_demo,
    "old_exploratory_analysis": old_exploratory_analysis,
    "old_activation_patching": old_activation_patching,
    "old_attribution_patching": old_attribution_patching,
    "old_grokking": old_grokking,
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_clean(path: Path) -> None:
    """Valid, without outputs, and without the paths of the machine it was written on."""
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert text == nbformat.writes(notebook) + "\n", "write it with nbformat.write"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and notebook.cells[0].cell_type == "markdown"
    left = [cell.id for cell in code if cell.outputs or cell.execution_count is not None]
    assert not left, f"cells with outputs: {', '.join(left)}"
    for cell in notebook.cells:
        found = ABSOLUTE.search(cell.source)
        assert not found, f"cell {cell.id} names an absolute path: {found and found.group()}"


def test_absolute_paths_are_told_from_other_slashes() -> None:
    absolute = ("/tmp/x", 'open("/home/a/b")', "`/srv/data`", r"C:\data", "see file:///a", "~/models/x")
    other = ("https://arxiv.org/abs/1", "q/k/v", "1/2", "runs/ioi/circuit.json", "<b>a</b> / b", "a[0]/2/3")
    assert all(ABSOLUTE.search(text) for text in absolute)
    assert not any(ABSOLUTE.search(text) for text in other)


@pytest.mark.parametrize("path", [to_run(path) for path in NOTEBOOKS])
def test_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if needs_smollm2(path):
        request.getfixturevalue("smollm2")  # skips where it is not
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))  # not the user's own settings
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    place = tmp_path / "notebook"
    place.mkdir()
    notebook = read(path)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(place)}},
    )
    client.execute()
    printed = printed_by(notebook)
    complaints = [
        out.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
        if out.output_type == "stream" and out.name == "stderr"
    ]
    assert not complaints, "\n".join(complaints)
    PROMISES.get(path.stem, lambda printed: None)(printed)
