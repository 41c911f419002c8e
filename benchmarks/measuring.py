"""CPU time in multiples of a baseline that is measured just before and just after.

Seconds say more about a machine, and about who else uses it, than about a program. So every case is run
between two runs of the baseline; its ratio is its time over the mean of those two; and of several rounds the
median is taken. Rounds go through all cases in turn, so that slow moments hit all alike.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lens.progress import Progress, silent

Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One measured figure. `goal` is the largest value that is good enough, or with `at_least` the smallest; None:
    measured for comparison.
    """

    group: str
    setting: str
    name: str
    value: float
    unit: str
    goal: float | None = None
    low: float | None = None
    high: float | None = None
    at_least: bool = False

    @property
    def wanted(self) -> str:
        """The goal as people read it."""
        return "" if self.goal is None else f"{'≥' if self.at_least else '≤'} {self.goal:g}"

    @property
    def verdict(self) -> str:
        """pass, FAIL, or nothing where there is no goal."""
        if self.goal is None:
            return ""
        good = self.value >= self.goal if self.at_least else self.value <= self.goal
        return "pass" if good else "FAIL"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class Ratio:
    """Several rounds' ratios to the baseline."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def row(self, group: str, setting: str, name: str, unit: str, goal: float | None = None) -> Row:
        """This as a figure."""
        low, high = min(self.rounds), max(self.rounds)
        return Row(group, setting, name, self.median, unit, goal, low, high)


def seconds(work: Work, times: int = 1, clock: Callable[[], float] = time.process_time) -> float:
    """CPU seconds of one call: the median of `times` calls, without garbage collection between."""
    found = []
    for _ in range(times):
        start = clock()
        work()
        found.append(clock() - start)
    return statistics.median(found)


def ratios(
    baseline: Work,
    cases: Mapping[str, Work],
    rounds: int | Mapping[str, int],
    *,
    times: int = 3,
    inner: int = 1,
    progress: Progress = silent,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Ratio]:
    """Each case's CPU time in multiples of the baseline's.

    Args:
        rounds: how often each case is measured (or per case, by name).
        times: runs of the baseline on either side of a case, of which the median counts.
        inner: calls of a case per measurement, of which the median counts as well.
    """
    planned = {name: rounds if isinstance(rounds, int) else rounds[name] for name in cases}
    baseline()
    for name, work in cases.items():  # caches filled, kernels chosen
        if planned[name] > 1:
            work()
    found: dict[str, list[float]] = {name: [] for name in cases}
    total, done = sum(planned.values()), 0
    gc.collect()
    gc.disable()
    try:
        for turn in range(max(planned.values())):
            before = seconds(baseline, times, clock)
            for name, work in cases.items():
                if turn >= planned[name]:
                    continue
                progress(done, total, name)
                spent = seconds(work, inner, clock)
                after = seconds(baseline, times, clock)
                found[name].append(2 * spent / (before + after))
                before, done = after, done + 1
                gc.collect()
    finally:
        gc.enable()
    progress(total, total, "")
    return {name: Ratio(tuple(values)) for name, values in found.items()}
