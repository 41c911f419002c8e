"""Between pages and jobs: a model loads beside heavy work on it, and one's own jobs can be stopped from the list."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import work
from dashboard.jobs import Job, Runner
from dashboard.models import Shelf
from tests.dashboard.conftest import MODEL, settled


@dataclass
class Held:
    """Heavy work that goes on until it is let go or cancelled."""

    go_on: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)

    def __call__(self, progress):
        self.begun.set()
        while not self.go_on.wait(0.01):
            progress(1, 3, "step")


@pytest.fixture
def held() -> Iterator[Held]:
    heavy = Held()
    yield heavy
    heavy.go_on.set()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Runner:
    runner = Runner(who=lambda: work.session())  # noqa: PLW0108 -- tests put another function in its place
    monkeypatch.setattr(work, "runner", lambda: runner)
    return runner


def test_loading_does_not_wait_for_heavy_work_on_the_model(fresh, held, monkeypatch):
    model = object()
    shelf = Shelf(lambda name, progress: model, in_use=work.in_use)
    monkeypatch.setattr(work, "shelf", lambda: shelf)
    heavy = fresh.submit("heavy", held, lane="m")
    assert held.begun.wait(10)
    assert work.model("m") is model
    assert heavy.active


def test_a_model_with_work_is_in_use_until_it_is_over(fresh, held):
    heavy = fresh.submit("heavy", held, lane="m")
    fresh.submit("look", held, lane="n" + work.LOOKED)
    assert work.in_use() == {"m", "n"}
    held.go_on.set()
    assert fresh.wait(10)
    assert heavy.state == "done"
    assert work.in_use() == set()


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [(1, 3, "step 1/3"), (0, 1, "step ("), (3000, 12000, "step 25%"), (2_000, 10_000, "step 2,000/10,000")],
)
def test_how_far_a_job_is_is_always_said(done, total, shown):
    job = Job(1, "Discover", "m", None, None, state="running", done=done, total=total, step="step")
    assert shown in work.describe(job)


def test_how_long_a_step_still_takes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("dashboard.jobs.time.monotonic", lambda: now[0])
    job = Job(1, "Discover", "m", None, None, state="running", started=100.0)
    job.report(0, 400, "evaluate")
    now[0] = 110.0
    assert job.left is None, "nothing is done yet"
    job.report(20, 400, "evaluate")
    assert job.left == pytest.approx(190)
    assert work.describe(job) == "Discover: evaluate 20/400 (10 s, this step about 3 min more)"
    job.report(1, 400, "evaluate")
    assert job.left is None, "it has begun again"
    now[0] = 115.0
    job.report(100, 400, "evaluate")
    assert job.left == pytest.approx(15), "at the pace of this step alone"
    job.report(400, 400, "evaluate")
    assert job.left is None


def test_owners_are_those_who_asked(held):
    who = iter(["a", "b", None])
    runner = Runner(who=lambda: next(who))
    job = runner.submit("heavy", held, lane="m", key="k")
    assert job.owners == {"a"}
    assert runner.submit("heavy", held, lane="m", key="k") is job
    assert job.owners == {"a", "b"}
    held.go_on.set()


def test_ones_own_jobs_can_be_stopped_and_those_of_nobody(fresh, held, monkeypatch):
    class Sessions:
        def is_active_session(self, name: str) -> bool:
            return name == "other"

    monkeypatch.setattr(work, "exists", lambda: True)
    monkeypatch.setattr(work, "get_instance", Sessions)
    monkeypatch.setattr(work, "session", lambda: "me")
    whose = [{"me", "other"}, {"other"}, {"gone"}, set()]
    mine = [work.mine(Job(i, "j", "m", None, None, owners=owners)) for i, owners in enumerate(whose)]
    assert mine == [True, False, True, True]


def test_a_job_is_cancelled_from_the_sidebar(app, empty_runs, held):
    at = app("start", empty_runs, model=MODEL)
    job = work.runner().submit("Something heavy", held, lane=MODEL)
    assert held.begun.wait(10)
    at.run()
    button = at.button(key=f"stop_{job.id}")
    assert button.label == "Cancel Something heavy"
    button.click()
    at.run()
    assert job.wait(10)
    assert job.state == "cancelled"
    settled(at)


def test_what_was_cancelled_is_not_begun_anew_by_itself(fresh, held, monkeypatch):
    def page() -> None:
        from dashboard import work

        work.result("key", "Something heavy", work.heavy, lane="m")  # pyright: ignore[reportAttributeAccessIssue]

    monkeypatch.setattr(work, "heavy", held, raising=False)
    monkeypatch.setattr(work, "PATIENCE", 0.0)
    at = AppTest.from_function(page, default_timeout=30).run()
    job = fresh.find("key")
    assert job is not None
    assert held.begun.wait(10)
    at.button(key=f"cancel_{job.id}").click()
    at.run()
    assert job.wait(10)
    for _ in range(3):
        at.run()
    assert fresh.jobs() == [job]
    assert [box.value.replace("\\", "") for box in at.info] == ["Something heavy: cancelled."]
    held.go_on.set()
    at.button(key=f"again_{job.id}").click()
    at.run()
    assert fresh.wait(10)
    again = fresh.find("key")
    assert again is not None
    assert (again is job, again.state) == (False, "done")


def test_what_another_session_cancelled_is_begun_for_this_one(fresh, held, monkeypatch):
    monkeypatch.setattr(work, "PATIENCE", 0.0)
    monkeypatch.setattr(work, "watch", lambda id: None)
    for who in ("other", "me"):
        monkeypatch.setattr(work, "session", lambda who=who: who)
        work.result("key", "Something heavy", held, lane="m")
        if who == "other":
            fresh.jobs()[0].cancel()
    assert len(fresh.jobs()) == 2
    held.go_on.set()
    assert fresh.wait(10)
    assert [job.state for job in fresh.jobs()] == ["cancelled", "done"]


def test_a_model_with_work_stays_on_the_shelf():
    used = {"a"}
    shelf = Shelf(lambda name, progress: object(), most=2, in_use=lambda: used)
    first = shelf.get("a", print)
    for name in "bcd":
        shelf.get(name, print)
    assert shelf.loaded("a") is first, "it has work: others leave, though it was asked for before them"
    assert [name for name in "bcd" if shelf.loaded(name) is not None] == ["d"]
    used.clear()
    shelf.get("e", print)
    assert shelf.loaded("a") is None


def test_a_loaded_model_is_there_while_another_is_loading():
    begun, go_on = threading.Event(), threading.Event()

    def load(name, progress):
        if name == "slow":
            begun.set()
            assert go_on.wait(10)
        return object()

    shelf = Shelf(load)
    first = shelf.get("a", print)
    loading = threading.Thread(target=shelf.get, args=("slow", print))
    loading.start()
    assert begun.wait(10)
    found: list[object] = []
    asking = threading.Thread(target=lambda: found.append(shelf.get("a", print)))
    asking.start()
    asking.join(2)
    assert found == [first]
    go_on.set()
    loading.join(10)
    asking.join(10)
