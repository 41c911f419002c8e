"""Heavy work, away from the pages: one runner per process, one job at a time per lane (a model).

A job is a function that receives a `lens.progress.Progress` and returns its result. It runs in a thread in
which no Streamlit command may be called; pages look at `Job` and draw. To cancel, `Job.cancel` makes the next
progress call raise `lens.progress.Cancelled`, so the work unwinds by itself.

Jobs with a `key` are content-addressed: asking again for the same key gives the same job while it is queued,
running, finished or failed. The runner remembers a bounded number of ended jobs with a bounded size of
results; the least recently asked for are forgotten first.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import numpy as np

from lens.progress import Cancelled, Progress

logger = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]
Work = Callable[[Progress], Any]
TELLING = 4.0  # seconds that a step must have run for its pace to tell how long it will take


@dataclass(eq=False)
class Job:
    """One piece of work; written by its thread, read by pages."""

    id: int
    label: str
    lane: str
    key: Hashable
    work: Work | None = field(repr=False)
    state: State = "queued"
    done: int = 0
    total: int = 0
    step: str = ""
    result: Any = field(default=None, repr=False)
    owners: set[str] = field(default_factory=set, repr=False)
    error: str | None = None
    started: float | None = None
    ended: float | None = None
    step_began: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def active(self) -> bool:
        """Queued or running."""
        return self.state in ("queued", "running")

    @property
    def stopping(self) -> bool:
        """Asked to stop, but not yet over."""
        return self.active and self._stop.is_set()

    @property
    def fraction(self) -> float:
        """How much is done, 0…1."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total else 0.0

    @property
    def seconds(self) -> float:
        """How long it has been running, or ran."""
        if self.started is None:
            return 0.0
        return (self.ended if self.ended is not None else time.monotonic()) - self.started

    @property
    def left(self) -> float | None:
        """Seconds until the present step ends at the pace that it has had; None where that says little yet."""
        ran = time.monotonic() - self.step_began
        if self.state != "running" or self.stopping or ran < TELLING or not 0 < self.done < self.total:
            return None
        return ran / self.done * (self.total - self.done)

    def cancel(self) -> None:
        """Ask it to stop: it does at its next progress call, or at once if it has not begun."""
        with self._lock:
            self._stop.set()
            if self.state != "queued":
                return
            self.work, self.ended, self.state = None, time.monotonic(), "cancelled"
        self._over.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it was over within `timeout` seconds."""
        return self._over.wait(timeout)

    def report(self, done: int, total: int, label: str) -> None:
        """The progress callback that the work is given.

        Raises:
            Cancelled: somebody asked the job to stop.
        """
        if self._stop.is_set():
            raise Cancelled
        if (total, label) != (self.total, self.step) or done < self.done:
            self.step_began = time.monotonic()
        self.done, self.total, self.step = done, total, label

    def run(self) -> None:
        """Do the work in this thread and remember how it ended; nothing if it was cancelled before it began."""
        with self._lock:
            if self.state != "queued":
                return
            self.started, self.state = time.monotonic(), "running"
        assert self.work is not None
        try:
            if self._stop.is_set():
                raise Cancelled
            self.result = self.work(self.report)
            ended: State = "done"
        except Cancelled:
            ended = "cancelled"
        except (ValueError, OSError) as error:
            self.error, ended = one_line(error), "failed"
        except Exception as error:
            logger.exception("%s failed", self.label)
            self.error, ended = f"{type(error).__name__}: {one_line(error)}", "failed"
        self.work, self.ended, self.state = None, time.monotonic(), ended
        self._over.set()


def one_line(error: BaseException) -> str:
    """What an error says, as one line a person can read."""
    return " ".join(str(error).split()) or type(error).__name__


def size_of(result: Any) -> int:
    """Bytes of the arrays in a result: an array, or a dataclass of arrays."""
    if isinstance(result, np.ndarray):
        return result.nbytes
    if is_dataclass(result):
        return sum(size_of(getattr(result, f.name)) for f in fields(result))
    return 0


class Runner:
    """Lanes of jobs. A lane has a thread while it has work. Safe to use from any thread."""

    def __init__(
        self, history: int = 96, memory: int = 512 * 2**20, who: Callable[[], str | None] = lambda: None
    ) -> None:
        """Remember at most `history` ended jobs, and the latest of them whose results fit in `memory` bytes.

        `who`: who is asking, for `Job.owners`.
        """
        self._history, self._memory, self._who = history, memory, who
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._lanes: dict[str, deque[Job]] = {}
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._keyed: dict[Hashable, Job] = {}

    def submit(self, label: str, work: Work, *, lane: str, key: Hashable = None) -> Job:
        """Queue `work` in `lane`; a job that exists for `key` is returned instead, unless cancelled."""
        owner = self._who()
        with self._lock:
            known = self._find(key)
            if known is not None and known.state != "cancelled" and not known.stopping:
                known.owners |= {owner} if owner else set()
                return known
            job = Job(next(self._ids), label, lane, key, work, owners={owner} if owner else set())
            self._jobs[job.id] = job
            if key is not None:
                self._keyed[key] = job
            self._forget_old()
            if lane in self._lanes:
                self._lanes[lane].append(job)
            else:
                self._lanes[lane] = deque([job])
                threading.Thread(target=self._serve, args=(lane,), name=f"job-{lane}", daemon=True).start()
            return job

    def find(self, key: Hashable) -> Job | None:
        """The job of this key, if it is remembered."""
        with self._lock:
            return self._find(key)

    def get(self, id: int) -> Job | None:
        """The job of this number, if it is remembered."""
        with self._lock:
            return self._jobs.get(id)

    def forget(self, job: Job) -> None:
        """Drop an ended job, so that its key can be tried again."""
        with self._lock:
            if not job.active:
                self._drop(job)

    def jobs(self) -> list[Job]:
        """All remembered jobs, oldest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.id)

    def ahead(self, job: Job) -> int:
        """How many jobs its lane does before this queued one."""
        with self._lock:
            lane = list(self._lanes.get(job.lane, ()))
            return sum(other.active for other in lane[: lane.index(job)]) if job in lane else 0

    def busy(self) -> bool:
        """Whether any lane has work."""
        with self._lock:
            return bool(self._lanes)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether everything that is queued or running now was over within `timeout` seconds each."""
        return all(job.wait(timeout) for job in self.jobs())

    def stop(self, timeout: float | None = None) -> bool:
        """Cancel everything; whether it was over within `timeout` seconds each."""
        for job in self.jobs():
            job.cancel()
        return self.wait(timeout)

    # ---- inside

    def _find(self, key: Hashable) -> Job | None:
        job = self._keyed.get(key) if key is not None else None
        if job is not None:
            self._jobs.move_to_end(job.id)
        return job

    def _drop(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        if self._keyed.get(job.key) is job:
            del self._keyed[job.key]

    def _forget_old(self) -> None:
        """Drop what is too many or too large; the job that was asked for last always stays."""
        ended = [job for job in self._jobs.values() if not job.active]
        held = sum(size_of(job.result) for job in ended)
        for i, job in enumerate(ended[:-1]):
            if len(ended) - i <= self._history and held <= self._memory:
                break
            held -= size_of(job.result)
            self._drop(job)

    def _serve(self, lane: str) -> None:
        """The thread of a lane: its first job stays at the head of the queue until it is over."""
        while True:
            with self._lock:
                queue = self._lanes[lane]
                if not queue:
                    del self._lanes[lane]
                    return
                job = queue[0]
            job.run()
            with self._lock:
                queue.popleft()
                if job.id in self._jobs:
                    self._jobs.move_to_end(job.id)
                self._forget_old()
