"""Cancelled work stops within two batches and leaves nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from circuits import evidence, memory, record
from circuits.attribute import attribute
from circuits.plan import Settings
from circuits.roles import find_roles
from circuits.store import Run
from circuits.sweep import Batch, sweep
from circuits.tasks import tasks
from dashboard import discovery, patching
from dashboard import work as work_of_pages
from dashboard.jobs import Runner
from dashboard.models import Shelf
from dashboard.opened import Opened
from dashboard.pages import evidence as page
from dashboard.state import View
from lens.progress import Cancelled
from tests.dashboard.browser import MODEL
from tests.dashboard.conftest import RUN

if TYPE_CHECKING:
    from lens.model import Transformer

# ---- a cancelled job, by the batches it still does


class Cancelling:
    """A progress callback that counts calls, cancels its job at the `at`-th, and counts what still comes."""

    def __init__(self, at: int) -> None:
        self.at, self.calls, self.after = at, 0, 0
        self.job: Any = None

    def around(self, report: Callable[[int, int, str], None]) -> Callable[[int, int, str], None]:
        def counted(done: int, total: int, label: str) -> None:
            self.calls += 1
            if self.job.stopping:
                self.after += 1
            report(done, total, label)
            if self.calls == self.at:
                self.job.cancel()

        return counted


@pytest.mark.parametrize("kind", ["heads", "resid_pre", "paths"])
def test_cancelled_patching_stops_within_two_batches(induction: Transformer, monkeypatch, kind):
    monkeypatch.setattr(patching, "MEMORY", "1MB")  # many small batches
    pairs = tasks()["induction"].pairs(induction, 16, 0)
    stops, runner = Cancelling(2), Runner()

    def work(progress: Any) -> object:
        stops.job = runner.find("k")
        return patching.measure(induction, pairs, kind, "logit_diff", progress=stops.around(progress))

    job = runner.submit("patch", work, lane="m", key="k")
    assert job.wait(60)
    assert job.state == "cancelled"
    assert job.result is None
    assert stops.calls >= 3, "there was more to do"
    assert stops.after <= 2


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_cancelled_recording_leaves_nothing(induction: Transformer, tmp_path: Path, at: int):
    """The whole of what a discovery writes, stopped at any point."""
    pairs = tasks()["induction"].pairs(induction, 4, 0)
    stops, runner, out = Cancelling(at), Runner(), tmp_path / "runs" / "new"

    def work(progress: Any) -> object:
        stops.job = runner.find("k")
        progress = stops.around(progress)
        scores = attribute(induction, pairs, "eap-ig", progress=progress)
        return record(
            induction,
            pairs,
            scores.top(9),
            scores,
            algorithm="top-n",
            source=MODEL,
            out=out,
            progress=progress,
        )

    job = runner.submit("discover", work, lane="m", key="k")
    assert job.wait(60)
    assert job.state == "cancelled", job.error
    assert stops.after <= 2
    assert not list(tmp_path.rglob("*")), "neither the run nor a part of it, nor the folder made for it"


def test_progress_raises_at_once():
    job = Runner().submit("a", lambda progress: None, lane="m")
    assert job.wait(10)
    job.cancel()
    with pytest.raises(Cancelled):
        job.report(0, 1, "")


# ---- pieces of work between two calls of progress


def told(work: Callable[[Any], object]) -> list[tuple[int, int, str]]:
    """Every call of progress that `work` makes."""
    calls: list[tuple[int, int, str]] = []
    work(lambda *call: calls.append(call))
    return calls


def rising(calls: list[tuple[int, int, str]]) -> list[float]:
    shares = [done / total for done, total, _ in calls]
    assert shares == sorted(shares), "a bar does not go back"
    return shares


def test_roles_tell_of_every_layer(induction: Transformer):
    """Two tables, each of whose layers is run and then treated."""
    pairs = tasks()["induction"].pairs(induction, 4, 0)
    scores = attribute(induction, pairs)
    calls = told(lambda progress: find_roles(induction, pairs, scores=scores, progress=progress))
    layers = induction.cfg.n_layers
    assert [label for *_, label in calls] == ["heads"] * 2 * layers + ["backups"] * (2 * layers + 1)
    rising(calls)


def test_cancelled_roles_stop_in_the_middle_of_a_run(induction: Transformer):
    pairs = tasks()["induction"].pairs(induction, 4, 0)
    seen: list[int] = []

    def stop(done: int, total: int, label: str) -> None:
        seen.append(done)
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        find_roles(induction, pairs, progress=stop)
    assert seen == [0, 1]


def test_a_sweep_tells_of_a_batch_before_it_begins():
    """A batch's own runs come ahead of its first part: they must not begin in cancelled work."""
    begun: list[int] = []

    def work(batch: Batch) -> dict[str, torch.Tensor]:
        begun.append(batch.rows.start)
        return {"x": batch.part("x", 0, 3, lambda: {"x": torch.zeros(1)})["x"]}

    calls = told(lambda progress: sweep(2, 1, work, label="w", progress=progress))
    assert calls == [(0, 2, "w"), (0, 6, "w"), (3, 6, "w"), (3, 6, "w"), (1, 1, "w")]

    def stop(done: int, total: int, label: str) -> None:
        if done == 3:
            raise Cancelled

    begun.clear()
    with pytest.raises(Cancelled):
        sweep(2, 1, work, label="w", progress=stop)
    assert begun == [0], "the second batch never begins"


@pytest.mark.parametrize("kind", ["stability", "agreement"])
def test_evidence_is_measured_in_small_pieces(kind, induction: Transformer, saved_runs: Path, monkeypatch):
    """The page asks for little memory, and little memory is many pieces: for the estimate, too."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(work_of_pages, "shelf", lambda: Shelf(lambda name, progress: induction))
    runner = Runner()
    monkeypatch.setattr(work_of_pages, "runner", lambda: runner)
    gather = evidence.gather

    def noted(*args: Any, **options: Any) -> dict[str, Any]:
        asked.update(options)
        return gather(*args, **options)

    monkeypatch.setattr(evidence, "gather", noted)
    monkeypatch.setattr(evidence, "save", lambda path, made: path)
    run = Run.load(saved_runs / RUN)
    page.start(Opened(View(), RUN, run, MODEL, None), kind)
    assert runner.wait(60)
    assert [job.state for job in runner.jobs()] == ["done"]
    assert memory.parse(asked["max_memory"]) <= 250 * 10**6

    def pieces(most: str) -> int:
        return len(told(lambda progress: gather(induction, run, [kind], max_memory=most, progress=progress)))

    assert pieces("200KB") > 2 * pieces("2GB")


def test_a_discovery_is_done_in_small_pieces(induction: Transformer, tmp_path: Path):
    runner = Runner()
    job = discovery.start(
        runner, Shelf(lambda name, progress: induction), MODEL,
        Settings(task="induction", method="eap", examples=4, random_sets=1), tmp_path,
    )  # fmt: skip
    assert job.wait(60)
    assert job.error is None
    assert memory.parse(Run.load(tmp_path / job.result.run).info["max_memory"]) <= 250 * 10**6


def test_the_check_of_a_task_tells_of_its_batches(induction: Transformer):
    pairs = tasks()["induction"].pairs(induction, 70, 0)
    calls = told(lambda progress: tasks()["induction"].check(induction, pairs, progress=progress))
    assert calls == [(done, 70, "run the model") for done in (0, 32, 64)]
