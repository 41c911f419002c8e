"""The benchmarks' arithmetic, on clocks and work of our own."""

from __future__ import annotations

import json

import pytest

from benchmarks import report
from benchmarks.measuring import Ratio, Row, ratios, seconds


class Clock:
    """Time passes only when work says so."""

    def __init__(self) -> None:
        self.now, self.speed = 0.0, 1.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *amounts: float):
        spent = list(amounts)

        def work() -> None:
            self.now += self.speed * (spent.pop(0) if len(spent) > 1 else spent[0])

        return work


def test_seconds_are_the_median() -> None:
    clock = Clock()
    assert seconds(clock.takes(1, 9, 2), 3, clock) == 2


def test_ratios_to_a_baseline_on_a_machine_that_slows_down() -> None:
    """Each case is compared with the baseline of its own moment."""
    clock = Clock()
    told: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, label: str) -> None:
        told.append((done, total, label))
        clock.speed *= 3

    cases = {"double": clock.takes(2), "half": clock.takes(0.5)}
    found = ratios(clock.takes(1), cases, 3, times=1, clock=clock, progress=progress)
    for name, exact in (("double", 2), ("half", 0.5)):
        assert len(found[name].rounds) == 3
        # the speed changed between the baseline before and the case: known to be 2 / (1 / 3 + 1)
        assert found[name].median == pytest.approx(exact * 1.5)
    assert told[-1][:2] == (6, 6) and [label for *_, label in told[:2]] == ["double", "half"]


def test_cases_may_have_fewer_rounds_and_the_heaviest_are_not_warmed_up() -> None:
    calls = {"often": 0, "once": 0}

    def count(name: str):
        def work() -> None:
            calls[name] += 1

        return work

    ticks = iter(range(10_000))
    found = ratios(
        lambda: None,
        {name: count(name) for name in calls},
        {"often": 4, "once": 1},
        clock=lambda: next(ticks),
    )
    assert {name: len(r.rounds) for name, r in found.items()} == {"often": 4, "once": 1}
    assert calls == {"often": 5, "once": 1}


def test_goals_pass_or_fail() -> None:
    ratio = Ratio((1.2, 1.0, 1.1))
    row = ratio.row("forward", "tiny", "idle", "×", goal=1.1)
    assert (row.value, row.low, row.high, row.verdict) == (1.1, 1.0, 1.2, "pass")
    assert ratio.row("forward", "tiny", "idle", "×", goal=1.09).verdict == "FAIL"
    assert ratio.row("forward", "tiny", "idle", "×").verdict == ""


def test_figures_are_kept_and_shown(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")

    class Module:
        TITLE, ABOUT = "Running", "What it costs."

    rows = [
        Row("forward", "tiny", "idle", 0.987, "× F", 1.02, 0.9, 1.1),
        Row("forward", "", "b", 123.4, "MB"),
    ]
    path = report.save("forward", rows)
    saved = report.load()
    assert json.loads(path.read_text())["rows"][0]["verdict"] == "pass"
    page = report.page({"forward": Module, "absent": Module}, saved)
    assert "## Running" in page and page.count("## ") == 1
    assert "| tiny | idle | 0.99 × F | 0.90 – 1.10 | ≤ 1.02 | pass |" in page
    assert "|  | b | 123 MB |  |  |  |" in page
    assert set(saved["forward"]["measured"]) >= {"date", "processor", "python", "torch", "transformers"}
