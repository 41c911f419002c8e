"""The store: what is read is what was harvested; killed, damaged, foreign and contested folders."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lens.model import Transformer
from lens.progress import Cancelled
from probes import shards
from probes.activations import Activations
from probes.harvest import harvest
from probes.labelled import Labelled
from probes.lock import locked
from probes.manifest import Manifest
from tests.probes.conftest import WORDS

SITES = ["hook_embed", "resid_post"]
OPTIONS = {"batch_size": 4, "shard_size": 3000, "dtype": "float32"}


def texts(n: int = 60) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 11))) for _ in range(n)]


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def same(a: Activations, b: Activations) -> None:
    assert a.sites == b.sites and (a.text == b.text).all() and (a.position == b.position).all()
    for site in a.sites:
        assert (a[site] == b[site]).all() and a[site].dtype == b[site].dtype


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each forward has."""
    runs: list[int] = []
    read = shards.read

    def counted(model: Transformer, ids: list[list[int]], *rest: object) -> object:
        runs.append(len(ids))
        return read(model, ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "read", counted)
    return runs


@pytest.fixture
def store(tiny: Transformer, tmp_path: Path) -> Path:
    harvest(tiny, texts(), SITES, out=tmp_path / "new" / "store", **OPTIONS)  # type: ignore[arg-type]
    return tmp_path / "new" / "store"


def test_on_disk_as_in_memory(tiny: Transformer, store: Path) -> None:
    memory = harvest(tiny, texts(), SITES, **OPTIONS)  # type: ignore[arg-type]
    disk = Activations.open(store)
    same(memory, disk)
    assert len(list(store.glob("shard-*"))) > 5 and disk.path == store and memory.path is None
    assert {key: disk.record[key] for key in ("positions", "dtype")} == {
        "positions": "last",
        "dtype": "float32",
    }
    assert disk.record["model"]["name"] == "tiny" and disk.width("hook_embed") == 16
    assert disk.take("hook_embed", []).shape == (0, 16)
    for rows in ([3], [59, 0, 31, 0], np.arange(60) % 3 == 0):
        assert (disk.take("hook_embed", rows) == memory["hook_embed"].float()[np.asarray(rows)]).all()
    with pytest.raises(ValueError, match="there is no row 60: the store has 60"):
        disk.take("hook_embed", [60])
    with pytest.raises(
        ValueError, match="'hook_embd' is not a site of this store; did you mean 'hook_embed'"
    ):
        disk["hook_embd"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_narrowed_and_widened_on_disk_as_in_memory(tiny: Transformer, tmp_path: Path, dtype: str) -> None:
    tiny.embed.tokens.weight[tiny.to_tokens("gin")[0, -1]] = 1e5  # more than float16 can hold
    options = OPTIONS | {"dtype": dtype}
    memory = harvest(tiny, texts(), SITES, **options)  # type: ignore[arg-type]
    disk = harvest(tiny, texts(), SITES, out=tmp_path / "a", **options)  # type: ignore[arg-type]
    same(memory, disk)
    assert disk.record["kept_float32"] == memory.record["kept_float32"]
    assert (0 < disk.record["kept_float32"].get("hook_embed", 0) < 6) == (dtype == "float16")


def test_all_tokens_on_disk(tiny: Transformer, tmp_path: Path) -> None:
    rows = Labelled.of(texts(), [i % 2 for i in range(60)])
    disk = harvest(tiny, rows, SITES, positions="all", out=tmp_path / "a", **OPTIONS)  # type: ignore[arg-type]
    last = harvest(tiny, rows, SITES, **OPTIONS)  # type: ignore[arg-type]
    for site in disk.sites:
        torch.testing.assert_close(disk.take(site, disk.rows_of(rows)), last.take(site), rtol=2e-3, atol=1e-3)


def test_one_shard_is_mapped(tiny: Transformer, tmp_path: Path) -> None:
    found = harvest(tiny, texts(), "resid_post", out=tmp_path / "a")
    x = found[found.sites[0]]
    assert x.untyped_storage().nbytes() == x.nbytes and x.shape == (60, 16)
    assert (x == harvest(tiny, texts(), "resid_post")[found.sites[0]]).all()


def test_a_finished_harvest_is_not_run_again(
    tiny: Transformer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(store)
    runs = counted_reads(monkeypatch)
    again = harvest(tiny, texts(), SITES, out=store, batch_size=1, dtype="float32")
    assert runs == [1] and content(store) == before  # to learn the widths
    same(again, Activations.open(store))


@pytest.mark.parametrize("when", [1, 5, 9, 14])
def test_cancelled_and_gone_on_with(tiny: Transformer, store: Path, tmp_path: Path, when: int) -> None:
    calls = 0

    def stop(done: int, total: int, label: str) -> None:
        nonlocal calls
        calls += 1
        if calls > when:
            raise Cancelled

    out = tmp_path / "a"
    with pytest.raises(Cancelled):
        harvest(tiny, texts(), SITES, out=out, progress=stop, **OPTIONS)  # type: ignore[arg-type]
    if out.exists() and any(out.iterdir()):
        with pytest.raises(ValueError, match=r"is not finished: it has . of . shards; harvest again"):
            Activations.open(out)
    harvest(
        tiny, texts(), SITES, out=out, batch_size=9, dtype="float32"
    )  # the cuts are those that were begun with
    if when > 1:
        assert content(out) == content(store)


DAMAGES = {
    "flipped": "is not what was written: its SHA-256 differs",
    "truncated": "has .* bytes, not",
    "missing": "is missing",
}


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    elif how == "truncated":
        data = data[:-7]
    file.unlink()
    if how != "missing":
        file.write_bytes(data)


@pytest.mark.parametrize("name", ["shard-00003.safetensors", "rows.safetensors"])
@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_named_on_reading_and_mended_on_harvesting(
    tiny: Transformer, store: Path, name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(store)
    damage(store / name, how)
    message = DAMAGES["flipped"] if name.startswith("rows") and how != "missing" else DAMAGES[how]
    with pytest.raises(ValueError, match=rf"^the store '.*store' is damaged: '.*{name}' {message}"):
        Activations.open(store)
    runs = counted_reads(monkeypatch)
    harvest(tiny, texts(), SITES, out=store, **OPTIONS)  # type: ignore[arg-type]
    assert content(store) == before
    assert sum(runs) == 1 + (0 if name.startswith("rows") else 11)  # that shard's texts only


def test_a_size_is_looked_at_without_verification(store: Path) -> None:
    damage(store / "shard-00003.safetensors", "flipped")
    Activations.open(store, verify=False)
    damage(store / "shard-00003.safetensors", "truncated")
    with pytest.raises(ValueError, match=r"shard-00003.safetensors' has .* bytes, not"):
        Activations.open(store, verify=False)


def test_damaged_manifests(tiny: Transformer, store: Path, tmp_path: Path) -> None:
    file = store / "manifest.json"
    good = file.read_text()
    bad = {
        "Unterminated string": good[:-9],
        "it is not what was written, its SHA-256 differs": good.replace(
            '"positions": "last"', '"positions": "lost"'
        ),
        '"format" is not "probes.activations"': good.replace("probes.activations", "probes.something"),
        "it has no 'sha256'": good.replace('"sha256": "', '"sha": "'),
        "it holds no object": "[]",
    }
    for message, text in bad.items():
        assert text != good
        file.write_text(text)
        for act in (lambda: Activations.open(store), lambda: harvest(tiny, texts(), SITES, out=store)):
            with pytest.raises(
                ValueError, match=f"the manifest '.*manifest.json' cannot be read: .*{message}"
            ):
                act()
    file.unlink()
    with pytest.raises(ValueError, match=r"store' is not a store of activations: it has no manifest.json"):
        Activations.open(store)
    with pytest.raises(ValueError, match="is no store of activations and not empty: it holds 'shard-"):
        harvest(tiny, texts(), SITES, out=store)
    with pytest.raises(ValueError, match="there is no such folder"):
        Activations.open(tmp_path / "nowhere")
    file.write_text("x")
    with pytest.raises(ValueError, match=r"manifest.json' is a file; a folder is written there"):
        harvest(tiny, texts(), SITES, out=file)


def test_other_work_is_refused(tiny: Transformer, store: Path) -> None:
    before = content(store)

    def refused(message: str, data: object = None, sites: object = SITES, **options: object) -> None:
        with pytest.raises(ValueError, match=f"^the store '.*store' was made {message}"):
            harvest(tiny, data or texts(), sites, out=store, **{**OPTIONS, **options})  # type: ignore[arg-type]

    refused("from other data: it has 60 texts, not 59 \\(both are called 'texts'\\)", texts(59))
    refused("from other data: it has other texts \\(both are called 'texts'\\)", ["bar", *texts()[1:]])
    named = Labelled.unlabelled(texts(59), name="mine")
    refused("from other data: it has 60 texts, not 59 \\('texts', not 'mine'\\)", named)
    refused("otherwise: its positions is 'last', not 'mean'", positions="mean")
    refused("otherwise: its prepend_bos is None, not False", prepend_bos=False)
    refused("otherwise: its dtype is 'float32', not 'float16'", dtype="float16")
    refused("otherwise: it has no 'blocks.0.attn.hook_z'", sites=[*SITES, ("z", 0)])
    refused("otherwise: it has 'hook_embed' too", sites="resid_post")
    stored = Activations.open(store)
    stored.check(model=tiny, labelled=Labelled.unlabelled(texts()))
    tiny.embed.tokens.weight[0, 0] += 1
    refused("by another model: it has other weights \\(both are called 'tiny'\\)")
    with pytest.raises(ValueError, match="was made by another model: it has other weights"):
        stored.check(model=tiny)
    with pytest.raises(ValueError, match="was made from other data: it has 60 texts, not 3"):
        stored.check(labelled=Labelled.unlabelled(texts(3)))
    tiny.embed.tokens.weight[0, 0] -= 1
    assert tiny.tokenizer is not None
    from lens.tokens import Tokenizer

    other = Tokenizer.from_words(["<bos>", *reversed(WORDS)], bos="<bos>", add_bos=True)
    tiny.tokenizer = other
    refused("by another model: it has another tokenizer")
    assert content(store) == before


def test_an_old_store_is_as_the_tokenizer_says(tiny: Transformer, store: Path) -> None:
    found = Manifest.read(store)
    before = content(store)
    del found.record["prepend_bos"]
    found.write()
    with pytest.raises(ValueError, match="its prepend_bos is None, not True"):
        harvest(tiny, texts(), SITES, out=store, prepend_bos=True, **OPTIONS)  # type: ignore[arg-type]
    harvest(tiny, texts(), SITES, out=store, **OPTIONS)  # type: ignore[arg-type]
    assert {**content(store), "manifest.json": b""} == {**before, "manifest.json": b""}


def test_places_that_cannot_be_written(tiny: Transformer, tmp_path: Path) -> None:
    def no_work(*told: object) -> None:
        raise AssertionError(told)

    (tmp_path / "file").write_text("x")
    for out in ("/proc/xx/yy", tmp_path / "file" / "under"):
        with pytest.raises(
            ValueError, match=r"^cannot write to '.*(xx/yy|under)': '.*' (takes no new|is not)"
        ):
            harvest(tiny, texts(), SITES, out=out, progress=no_work)
    harvest(tiny, texts(3), SITES, out=tmp_path / "new" / "store")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_targets_may_change(tiny: Transformer, tmp_path: Path) -> None:
    labelled = Labelled.of(texts(), [i % 2 for i in range(60)])
    first = harvest(tiny, labelled, SITES, out=tmp_path / "a")
    other = replace(Labelled.of(texts(), [i % 3 for i in range(60)]), name="other")
    same(first, harvest(tiny, other, SITES, out=tmp_path / "a"))


def test_two_writers(tiny: Transformer, store: Path) -> None:
    with locked(store), pytest.raises(ValueError, match="store' is being written by another process"):
        harvest(tiny, texts(), SITES, out=store, **OPTIONS)  # type: ignore[arg-type]
    harvest(tiny, texts(), SITES, out=store, **OPTIONS)  # type: ignore[arg-type]


def test_of_plain_tensors() -> None:
    x = torch.randn(5, 3)
    found = Activations.of({"blocks.4.hook_resid_post": x, "hook_embed": x.half()}, text=[1, 0, 0, 2, 1])
    assert found.layer("blocks.4.hook_resid_post") == 4 and found.layer("hook_embed") is None
    assert (found["blocks.4.hook_resid_post"] == x).all()
    assert (found.take("hook_embed", [4, 0]) == x[[4, 0]].half()).all()
    assert found.resolve("resid_post") == ("blocks.4.hook_resid_post",)
    torch.testing.assert_close(
        found.take("hook_embed", np.array([[1, 4], [0, 1]]))[0], x[1:4].half().float().mean(0)
    )
    with pytest.raises(ValueError, match="'a' has 4 rows, and 'b' has 5"):
        Activations.of({"b": x, "a": x[:4]})
    with pytest.raises(ValueError, match=r"'a' is torch.float32 \[5\]; activations are floating, \[n, d\]"):
        Activations.of({"a": x[:, 0]})
    with pytest.raises(ValueError, match="no sites are given"):
        Activations.of({})
    with pytest.raises(ValueError, match=r"text is \[2\]; there are 5 rows"):
        Activations.of({"a": x}, text=[0, 1])
    x[3, 1] = float("nan")
    with pytest.raises(ValueError, match="the activation of row 3 at 'a' is NaN"):
        Activations.of({"a": x}).take("a", [2, 3])


KILLED = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from tests.probes.conftest import tiny
from tests.probes.test_activations import OPTIONS, SITES, texts
from probes.harvest import harvest
model = tiny.__wrapped__() if hasattr(tiny, "__wrapped__") else tiny._get_wrapped_function()()
print("ready", flush=True)
sys.stdin.readline()
harvest(model, texts(600), SITES, out=sys.argv[1], **OPTIONS)
"""


def test_what_a_killed_writer_left_is_cleared(tiny: Transformer, tmp_path: Path) -> None:
    out = tmp_path / "store"
    harvest(tiny, texts(20), SITES, out=out, **OPTIONS)  # type: ignore[arg-type]
    before = content(out)
    (out / ".shard.0123.partial").write_bytes(b"half")
    (out / ".tmpAbCdEf").write_bytes(b"")
    harvest(tiny, texts(20), SITES, out=out, **OPTIONS)  # type: ignore[arg-type]
    assert content(out) == before


@pytest.mark.slow
def test_killed_ten_times(tiny: Transformer, tmp_path: Path) -> None:
    """SIGKILL at random moments; the folder is then, byte for byte, that of an undisturbed run."""
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "killed"
    root = str(Path(__file__).parents[2])
    begun = time.perf_counter()
    harvest(tiny, texts(600), SITES, out=undisturbed, **OPTIONS)  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    n_shards = len(json.loads((undisturbed / "manifest.json").read_text())["shards"])
    rng = random.Random(1)
    killed, held = 0, []

    def done() -> int:
        manifest = out / "manifest.json"
        return len(json.loads(manifest.read_text())["shards"]) if manifest.exists() else 0

    for _ in range(60):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(out), root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert (
            process.stdout is not None
            and process.stdout.readline() == "ready\n"
            and process.stdin is not None
        )
        process.stdin.write("\n")
        process.stdin.flush()
        wanted = done() + rng.randint(0, 1)  # shards: machines differ in how long one takes
        while process.poll() is None and done() < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, seconds / n_shards))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        process.stdin.close()
        if (out / "manifest.json").exists():
            held.append(done())
        if killed >= 10:
            break
        if held and held[-1] == n_shards:
            shutil.rmtree(out)
    assert killed == 10 and len(set(held)) >= 3  # it got on between the kills
    harvest(tiny, texts(600), SITES, out=out, **OPTIONS)  # type: ignore[arg-type]
    assert content(out) == content(undisturbed)
