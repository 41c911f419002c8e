"""The shape of the project itself: small documented files, imports one way, a README that tells the truth."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [p for p in ("lens", "probes", "circuits", "dashboard") if (ROOT / p / "__init__.py").exists()]
MODULES = sorted(f for p in PACKAGES for f in (ROOT / p).rglob("*.py"))
LONGEST = 400
HEAVY = (
    "transformers", "tokenizers", "streamlit", "transformer_lens", "pandas", "sklearn", "plotly", "networkx",
    "circuits", "lens.families.gpt2",
)  # fmt: skip
NOT_IN_TREE = {".git", ".venv", "runs", "screenshots", "build", "dist"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_is_short_and_says_what_it_is(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = source.count("\n")
    assert lines <= LONGEST, f"{relative(path)} has {lines} lines, more than {LONGEST}: it holds two ideas"
    assert not source or ast.get_docstring(ast.parse(source)), f"{relative(path)} needs a docstring"
    note = re.search(r"\b(TODO|FIXME|XXX|HACK)\b", source)
    assert note is None, f"{relative(path)} holds a note to self: {note and note.group()}"


def test_imports_point_one_way() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    done = subprocess.run([*command, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_is_under_contract() -> None:
    """A package that appears later must not escape the contracts on imports."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["importlinter"]["root_packages"] == PACKAGES
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == PACKAGES


def test_import_lens_is_light() -> None:
    code = f"import sys, lens; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], "import lens also imports " + done.stdout


@pytest.mark.skipif(os.environ.get("LENS_SHAPES") == "0", reason="switched off")
def test_annotations_are_checked_here() -> None:
    """The import hook of conftest.py is at work: a wrong shape, dtype or type does not get past an annotation."""
    from jaxtyping import TypeCheckError

    from lens.config import Rotary
    from lens.rotary import tables

    positions = torch.arange(3)[None]
    tables(Rotary(dim=4), positions, torch.float32)
    for wrong in (positions[0], positions.float(), [[0, 1, 2]]):
        with pytest.raises(TypeCheckError, match="positions"):
            tables(Rotary(dim=4), wrong, torch.float32)


def tree_of(text: str) -> dict[str, str]:
    """The printed tree of the README: path -> its line of description.

    The first fenced block that starts with `lens/`; two spaces of indentation per level, then a name and,
    after two spaces or more, what it is.
    """
    block = next(b for b in re.findall(r"```text\n(.*?)```", text, re.DOTALL) if b.startswith("lens/"))
    entries: dict[str, str] = {}
    folders: list[str] = []
    for line in block.splitlines():
        indent, name, _, what = re.fullmatch(r"( *)(\S+)( {2,}(.*))?", line).groups()  # type: ignore[union-attr]
        del folders[len(indent) // 2 :]
        entries["".join(folders) + name] = what or ""
        if name.endswith("/"):
            folders.append(name)
    return entries


def tracked() -> list[str]:
    """Files that belong to the project: known to git, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [f for f in done.stdout.splitlines() if (ROOT / f).exists()]


def test_readme_prints_the_tree() -> None:
    tree = tree_of((ROOT / "README.md").read_text(encoding="utf-8"))
    files = tracked()
    exist = {f.split("/")[0] + "/" * ("/" in f) for f in files} - {".gitignore", ".gitattributes"}
    modules = {
        f for f in files if re.match(r"(lens|circuits|probes)/.*\.py$", f) and not f.endswith("__init__.py")
    }
    missing = sorted((exist | modules) - tree.keys())
    assert not missing, f"the tree in README.md lacks {', '.join(missing)}"
    gone = sorted(p for p in tree if not (ROOT / p).exists())
    assert not gone, f"the tree in README.md lists what does not exist: {', '.join(gone)}"
    untold = sorted(p for p, what in tree.items() if not what.strip())
    assert not untold, f"the tree in README.md does not say what these are: {', '.join(untold)}"
