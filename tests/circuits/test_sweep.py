"""Batches, running out of memory, and checkpoints: the result is always the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import circuits
import lens
from circuits.ablation import Ablation
from circuits.curve import faithfulness_curve
from circuits.evaluate import evaluate_many
from circuits.sweep import Batch, Checkpoint, Parts, sweep
from tests.circuits.naive import pairs_for


def squares(batch: Batch) -> Parts:
    x = torch.arange(batch.rows.start, batch.rows.stop)
    return {"square": x**2, "cube": (x**3)[:, None]}


@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_batches_are_joined_in_order(size):
    found = sweep(10, size, squares, label="squares")
    assert torch.equal(found["square"], torch.arange(10) ** 2)
    assert torch.equal(found["cube"], (torch.arange(10) ** 3)[:, None])


def test_running_out_of_memory_halves_the_batch_and_goes_on():
    sizes = []

    def hungry(batch: Batch) -> Parts:
        size = batch.rows.stop - batch.rows.start
        sizes.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB")
        return squares(batch)

    found = sweep(10, 10, hungry, label="squares")
    assert torch.equal(found["square"], torch.arange(10) ** 2)
    assert sizes == [10, 5, 3, 3, 3, 1]


def test_one_pair_that_does_not_fit_is_an_error_and_other_errors_pass():
    def hungry(batch: Batch) -> Parts:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    with pytest.raises(MemoryError, match="squares: one pair alone does not fit"):
        sweep(4, 4, hungry, label="squares")

    def broken(batch: Batch) -> Parts:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        sweep(4, 4, broken, label="squares")


def test_a_real_allocation_that_fails_is_recognised():
    def hungry(batch: Batch) -> Parts:
        if batch.rows.stop - batch.rows.start > 1:
            torch.empty(2**55, dtype=torch.float64)
        return squares(batch)

    assert len(sweep(4, 4, hungry, label="squares")["square"]) == 4


def test_a_checkpoint_saves_what_is_done_and_remembers_the_batch_size(tmp_path):
    calls = []

    def counted(batch: Batch) -> Parts:
        calls.append(batch.rows)
        if batch.rows.start == 6 and len(calls) < 4:
            raise KeyboardInterrupt
        return squares(batch)

    folder = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        sweep(10, 3, counted, label="squares", checkpoint=Checkpoint(folder, {"what": "squares"}))
    found = sweep(10, 5, counted, label="squares", checkpoint=Checkpoint(folder, {"what": "squares"}))
    assert torch.equal(found["square"], torch.arange(10) ** 2)
    assert [rows.start for rows in calls] == [0, 3, 6, 6, 9]


def test_checkpoints_of_other_work_and_damaged_ones_are_refused(tmp_path):
    sweep(4, 2, squares, label="squares", checkpoint=Checkpoint(tmp_path / "kept", {"metric": "a"}))
    with pytest.raises(ValueError, match="of another piece of work: its metric is 'a', not 'b'"):
        Checkpoint(tmp_path / "kept", {"metric": "b"})
    part = next((tmp_path / "kept").glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"part of the checkpoint is damaged; delete '{part}'"):
        sweep(4, 2, squares, label="squares", checkpoint=Checkpoint(tmp_path / "kept", {"metric": "a"}))
    (tmp_path / "kept" / "sweep.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"sweep.json' cannot be read"):
        Checkpoint(tmp_path / "kept", {"metric": "a"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"is not a checkpoint: it has no sweep.json"):
        Checkpoint(tmp_path / "mine", {})


def test_every_long_function_gives_the_same_with_a_checkpoint(make_tiny, tmp_path):
    model = make_tiny(n_kv_heads=2).double()
    pairs = pairs_for(model, n=6)
    options = {"max_memory": 60_000, "checkpoint": tmp_path / "kept"}
    plain = circuits.attribute(model, pairs, "eap-ig")
    kept = circuits.attribute(model, pairs, "eap-ig", **options)
    assert torch.allclose(plain.values, kept.values, atol=1e-12)
    assert plain.completeness_residual == pytest.approx(kept.completeness_residual, abs=1e-12)
    assert not (tmp_path / "kept").exists(), "a finished sweep leaves no checkpoint"
    a, b = (circuits.patch(model, pairs, "z", **o) for o in ({}, options))
    assert torch.allclose(a.per_example, b.per_example, atol=1e-12)
    sets = [plain.top(n) for n in (3, 30)]
    for a, b in zip(
        evaluate_many(model, pairs, sets), evaluate_many(model, pairs, sets, **options), strict=True
    ):
        assert torch.allclose(a.circuit, b.circuit, atol=1e-12)


def test_an_interrupted_attribution_goes_on_where_it_was(make_tiny, tmp_path):
    model = make_tiny().double()
    pairs = pairs_for(model, n=6)
    plain = circuits.attribute(model, pairs, "eap-ig")
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int, label: str) -> None:
        seen.append((done, total))
        if len(seen) == 14:  # two batches and a part of the third: each tells of itself and of its 5 parts
            raise KeyboardInterrupt

    options = {"max_memory": 1, "checkpoint": tmp_path / "kept"}
    with pytest.raises(KeyboardInterrupt):
        circuits.attribute(model, pairs, "eap-ig", progress=stop, **options)
    with pytest.raises(ValueError, match="of another piece of work: its steps is 5, not 3"):
        circuits.attribute(model, pairs, "eap-ig", steps=3, **options)
    first = len(seen)
    again = circuits.attribute(model, pairs, "eap-ig", progress=stop, **options)
    assert len(seen) - first < 30, "what was done is not done again"
    assert torch.equal(again.values, circuits.attribute(model, pairs, "eap-ig", max_memory=1).values)
    assert torch.allclose(again.values, plain.values, atol=1e-12)


@pytest.mark.slow
def test_the_number_of_pairs_at_once_does_not_matter(make_tiny):
    """The same discovery, chunked three ways, and on one pair and on many."""
    model = make_tiny(n_kv_heads=2, norm="rms").double()
    many = pairs_for(model, n=256, length=6, first=2)
    for pairs in (many[:1], many):
        found = []
        for memory in ("2GB", 3_000_000, 200_000):
            scores = circuits.attribute(model, pairs, "eap-ig", max_memory=memory)
            curve = faithfulness_curve(model, pairs, scores, [5, 40], max_memory=memory)
            found.append((scores, curve))
        for scores, curve in found[1:]:
            assert torch.allclose(scores.values, found[0][0].values, atol=1e-12)
            assert torch.allclose(scores.strength, found[0][0].strength, atol=1e-12)
            assert curve.faithfulness == pytest.approx(found[0][1].faithfulness, abs=1e-9)
    alone = [circuits.attribute(model, many[i], "eap-ig").values for i in range(256)]
    assert torch.allclose(torch.stack(alone).mean(0), found[0][0].values, atol=1e-12)


SWEEP = """
import sys, torch, lens, circuits
model, folder, out = lens.load(sys.argv[1]), sys.argv[2], sys.argv[3]
generator = torch.Generator().manual_seed(0)
clean = torch.randint(0, model.cfg.d_vocab, (12, 12), generator=generator)
corrupt = clean.clone()
corrupt[:, 2] = (clean[:, 2] + 1) % model.cfg.d_vocab
pairs = circuits.Pairs(clean, corrupt, clean[:, 0], (clean[:, 0] + 1) % model.cfg.d_vocab)
found = circuits.patch(
    model, pairs, "resid_pre", max_memory=1, checkpoint=folder if folder != "-" else None
)
torch.save(found.per_example, out)
"""


@pytest.mark.slow
def test_killed_ten_times_and_resumed_it_ends_with_the_same_result(make_tiny, tmp_path):
    model = make_tiny(n_layers=4)
    lens.save(model, tmp_path / "model")
    folder, rng = tmp_path / "kept", random.Random(7)
    command = [sys.executable, "-c", SWEEP, str(tmp_path / "model")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}

    def start(checkpoint: str, out: Path) -> subprocess.Popen:
        return subprocess.Popen([*command, checkpoint, str(out)], env=environment)

    assert start("-", tmp_path / "undisturbed.pt").wait() == 0
    for _ in range(10):
        process = start(str(folder), tmp_path / "resumed.pt")
        before = _parts(folder)
        while process.poll() is None and _parts(folder) < before + rng.randint(1, 25):
            time.sleep(0.002)
        time.sleep(rng.random() / 100)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was killed at work"
        assert _parts(folder) > before
    assert start(str(folder), tmp_path / "resumed.pt").wait() == 0
    undisturbed, resumed = (torch.load(tmp_path / f"{n}.pt") for n in ("undisturbed", "resumed"))
    assert torch.equal(undisturbed, resumed)
    assert not folder.exists()


def _parts(folder: Path) -> int:
    return len(list(folder.glob("*.safetensors"))) if folder.exists() else 0


def test_learned_ablations_are_told_apart_in_checkpoints():
    values = [torch.zeros(3), torch.ones(3)]
    a, b = (Ablation(kind="zero", constants={"hook_embed": v}).to_dict() for v in values)
    assert a != b
