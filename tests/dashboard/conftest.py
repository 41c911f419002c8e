"""What the dashboard's tests share: a folder of saved runs, and the app as a tester that waits for jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

MODEL = "induction-2l"
RUN = "induction-two-layers"
APP = Path(__file__).parents[2] / "app.py"


@pytest.fixture(scope="session")
def saved_runs(tmp_path_factory, induction) -> Path:
    """A folder with one run: induction in the shipped model."""
    from circuits.discover import discover

    folder = tmp_path_factory.mktemp("saved runs")
    discover(induction, task="induction", method="eap", examples=4, random_sets=2, out=folder / RUN)
    return folder


@pytest.fixture
def empty_runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def settled(at: AppTest, rounds: int = 8) -> AppTest:
    """Run the page until it waits for no job any more."""
    from dashboard import work

    for _ in range(rounds):
        at.run()
        if not any(job.active for job in work.runner().jobs()):
            return at.run()
        assert work.runner().wait(60)
    raise AssertionError("the page starts new jobs without end")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """`app(page, runs, **address)`: the page, run until it is settled, without any uncaught exception."""
    monkeypatch.setattr("sys.argv", ["app.py"])
    monkeypatch.delenv("LENS_RUN", raising=False)

    def run(page: str | None, runs: Path, **address: str) -> AppTest:
        monkeypatch.setenv("LENS_RUNS", str(runs))
        at = AppTest.from_file(str(APP), default_timeout=60).run()
        for name, value in address.items():
            at.query_params[name] = value
        if page is not None:
            at.switch_page(f"dashboard/pages/{page}.py")
        at = settled(at)
        assert not at.exception, at.exception[0].message
        return at

    return run
