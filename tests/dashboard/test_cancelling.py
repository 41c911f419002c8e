"""Cancelled work stops within two batches and leaves nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from circuits import record
from circuits.attribute import attribute
from circuits.tasks import tasks
from dashboard import patching
from dashboard.jobs import Runner
from lens.progress import Cancelled
from tests.dashboard.browser import MODEL

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
