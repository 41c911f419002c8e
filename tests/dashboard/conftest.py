"""What the dashboard's tests share: a folder of saved runs, the app as a tester that waits for jobs, a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.dashboard.browser import FLAGS, PATIENCE, ROOT, SIZE, Server, Watched, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


# ---- a real browser


@pytest.fixture(scope="module")
def server(saved_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard with one saved run, whose folder has spaces in its name."""
    folder = tmp_path_factory.mktemp("a served dashboard")
    shutil.copytree(saved_runs, folder / "runs")
    yield from serve(folder / "runs", folder / "server.log")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """`visit(url)`: a fresh browser window; at the end nothing may have gone wrong in any of them."""
    visits: list[Watched] = []

    def open_window(url: str, theme: Any = "light", size: Any = SIZE) -> Watched:
        context = browser.new_context(viewport=size, color_scheme=theme)
        visits.append(Watched(context.new_page()))
        visits[-1].page.goto(url)
        return visits[-1]

    yield open_window
    for watched in visits:
        watched.page.context.close()
    assert [error for watched in visits for error in watched.errors] == []
    assert [url for watched in visits for url in watched.foreign] == []


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the pages go: the folder named by `LENS_PICTURES`, or else a temporary one."""
    folder = os.environ.get("LENS_PICTURES")
    path = (ROOT / folder) if folder else tmp_path_factory.mktemp("pictures")
    path.mkdir(parents=True, exist_ok=True)
    return path
