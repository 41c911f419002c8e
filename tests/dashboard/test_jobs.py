"""The job runner: order, progress, cancelling, errors, memory."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from dashboard.jobs import Runner
from lens.progress import Cancelled


class Gate:
    """Work that reports once, then waits to be let through."""

    def __init__(self) -> None:
        self.started, self.open = threading.Event(), threading.Event()

    def __call__(self, progress):
        progress(1, 4, "first")
        self.started.set()
        assert self.open.wait(10)
        progress(2, 4, "second")
        return "result"


def test_a_job_reports_and_gives_its_result():
    gate, runner = Gate(), Runner()
    job = runner.submit("work", gate, lane="m")
    assert gate.started.wait(10)
    assert (job.state, job.fraction, job.step) == ("running", 0.25, "first")
    gate.open.set()
    assert job.wait(10)
    assert (job.state, job.result, job.error, job.fraction) == ("done", "result", None, 0.5)
    assert job.seconds > 0


def test_one_at_a_time_in_a_lane_and_lanes_run_beside_each_other():
    runner, first, second, other = Runner(), Gate(), Gate(), Gate()
    a, b = runner.submit("a", first, lane="m"), runner.submit("b", second, lane="m")
    c = runner.submit("c", other, lane="n")
    assert first.started.wait(10)
    assert other.started.wait(10), "another lane does not wait"
    assert not second.started.wait(0.05)
    assert (b.state, runner.ahead(a), runner.ahead(b), runner.ahead(c)) == ("queued", 0, 1, 0)
    assert [j.label for j in runner.jobs()] == ["a", "b", "c"]
    for gate in (first, second, other):
        gate.open.set()
    assert runner.wait(10)
    assert [j.state for j in runner.jobs()] == ["done"] * 3


def test_cancel_stops_running_and_queued_work():
    runner, gate, never = Runner(), Gate(), Gate()
    running, queued = runner.submit("a", gate, lane="m"), runner.submit("b", never, lane="m")
    assert gate.started.wait(10)
    running.cancel()
    queued.cancel()
    assert running.stopping
    gate.open.set()
    assert runner.wait(10)
    assert (running.state, queued.state) == ("cancelled", "cancelled")
    assert running.result is None
    assert running.error is None
    assert not never.started.is_set()


def test_a_job_that_has_not_begun_is_cancelled_at_once():
    runner, gate, never, last = Runner(), Gate(), Gate(), Gate()
    running, queued, after = (
        runner.submit(n, g, lane="m") for n, g in (("a", gate), ("b", never), ("c", last))
    )
    assert gate.started.wait(10)
    assert runner.ahead(after) == 2
    queued.cancel()
    assert queued.wait(0)
    assert (queued.state, queued.stopping, queued.seconds) == ("cancelled", False, 0.0)
    assert runner.ahead(after) == 1
    gate.open.set()
    last.open.set()
    assert runner.wait(10)
    assert (running.state, queued.state, after.state) == ("done", "cancelled", "done")
    assert not never.started.is_set()


def test_a_lane_goes_on_after_a_failure():
    runner = Runner()

    def wrong(progress):
        raise ValueError("the prompt has 9 tokens;\n the context has 8")

    def broken(progress):
        return {}["nothing"]

    a, b = runner.submit("a", wrong, lane="m"), runner.submit("b", broken, lane="m")
    c = runner.submit("c", lambda progress: 3, lane="m")
    assert runner.wait(10)
    assert (a.state, a.error) == ("failed", "the prompt has 9 tokens; the context has 8")
    assert (b.state, b.error) == ("failed", "KeyError: 'nothing'")
    assert c.result == 3


def test_the_same_key_is_the_same_job():
    runner, gate = Runner(), Gate()
    job = runner.submit("a", gate, lane="m", key=("k", 1))
    assert runner.submit("a", gate, lane="m", key=("k", 1)) is job
    gate.open.set()
    assert job.wait(10)
    assert runner.submit("a", gate, lane="m", key=("k", 1)) is job
    assert runner.find(("k", 1)) is job
    assert runner.submit("a", gate, lane="m", key=("k", 2)) is not job
    runner.forget(job)
    assert runner.find(("k", 1)) is None


def test_a_cancelled_key_can_be_asked_for_again():
    runner, gate = Runner(), Gate()
    job = runner.submit("a", gate, lane="m", key="k")
    assert gate.started.wait(10)
    job.cancel()
    again = runner.submit("a", lambda progress: 5, lane="m", key="k")
    assert again is not job
    gate.open.set()
    assert runner.wait(10)
    assert (job.state, again.result) == ("cancelled", 5)


def test_history_is_bounded_and_keeps_what_was_asked_for_last():
    runner = Runner(history=3)
    jobs = []
    for i in range(3):
        jobs.append(runner.submit(str(i), lambda progress: None, lane="m", key=i))
        assert jobs[-1].wait(10)
    assert runner.find(0) is jobs[0]
    assert runner.submit("3", lambda progress: None, lane="m", key=3).wait(10)
    assert settled(runner)
    assert runner.find(1) is None
    assert runner.find(0) is jobs[0]
    assert runner.get(jobs[1].id) is None


def test_large_results_are_forgotten_first_asked_first():
    runner = Runner(memory=250)
    for i in range(4):
        job = runner.submit(str(i), lambda progress: np.zeros(100, np.uint8), lane=f"lane {i}", key=i)
        assert job.wait(10)
        assert settled(runner)
        if i == 2:
            assert runner.find(1) is not None, "asked for last of all"
    assert [i for i in range(4) if runner.find(i)] == [1, 3]


def test_one_result_larger_than_the_memory_is_still_given():
    runner = Runner(memory=10)
    job = runner.submit("a", lambda progress: np.zeros(100), lane="m", key="a")
    assert job.wait(10)
    assert settled(runner)
    assert runner.find("a") is job


def settled(runner: Runner) -> bool:
    """Wait until the lane of the latest job has tidied up, which it does just after the job is over."""
    for _ in range(200):
        if not runner.busy():
            return True
        time.sleep(0.01)
    return False


def test_active_jobs_are_never_forgotten():
    runner, gate = Runner(history=1), Gate()
    jobs = [runner.submit(str(i), gate, lane="m", key=i) for i in range(4)]
    assert len(runner.jobs()) == 4
    gate.open.set()
    assert all(job.wait(10) for job in jobs)


def test_progress_raises_once_cancelled():
    runner, gate = Runner(), Gate()
    job = runner.submit("a", gate, lane="m")
    gate.open.set()
    assert job.wait(10)
    job.cancel()
    with pytest.raises(Cancelled):
        job.report(1, 2, "")


def test_a_runner_stops_all_it_has():
    runner, begun = Runner(), threading.Event()

    def work(progress):
        begun.set()
        while True:
            progress(0, 1, "on")
            time.sleep(0.005)

    jobs = [runner.submit("heavy", work, lane=lane) for lane in "aab"]
    assert begun.wait(10)
    assert runner.stop(10)
    assert [job.state for job in jobs] == ["cancelled"] * 3
