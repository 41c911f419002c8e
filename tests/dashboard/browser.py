"""What tests in a real browser share: a real server, windows that notice what goes wrong, waiting and reading."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboard import __main__ as serving
from dashboard.page import PAGES

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parents[2]
MODEL = "induction-2l"
SIZE = {"width": 1440, "height": 900}
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 60_000  # milliseconds; machines are sometimes busy

# Streamlit looks for its base path below the page's own first, where there is none.
NAMES = "|".join(sorted(file.stem for file in PAGES.glob("[a-z]*.py")))
OWN_SEARCH = re.compile(rf"/({NAMES})/_stcore/(health|host-config)$")


@dataclass
class Watched:
    """A page of the browser, with what went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    searched: int = 0

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("request", self._request)
        self.page.on("websocket", self._request)

    def _hear(self, message: Any) -> None:
        if message.type == "error" and not OWN_SEARCH.search(message.location.get("url", "")):
            self.errors.append(f"{message.text} {message.location}")

    def _request(self, request: Any) -> None:
        if not re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|data:|blob:", request.url):
            self.foreign.append(request.url)


@dataclass(frozen=True)
class Server:
    url: str
    runs: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(runs: Path, log: Path, **environment: str) -> Iterator[Server]:
    port = free_port()
    with log.open("w") as out:
        process = subprocess.Popen(
            serving.command(port, ["--runs", str(runs)]), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )  # fmt: skip
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).read()
                break
            except urllib.error.HTTPError:
                break  # it answers, if only that a token is needed
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(f"the server does not answer: {log.read_text()}")
        yield Server(f"http://127.0.0.1:{port}", runs)
    finally:
        process.terminate()
        process.wait(20)


IDLE = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    && !document.querySelector('[data-testid=stProgress]')
    && !document.querySelector('[data-testid=stSkeleton]')
    && !document.querySelector('[data-stale=true]')"""


def idle(page: Page) -> None:
    """Wait until the page neither runs nor shows a job under way, and still does not a moment later."""
    for _ in range(2):
        page.wait_for_function(IDLE)
        page.wait_for_timeout(300)
    page.wait_for_function(IDLE)


SETTLED = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    && document.querySelector('[data-testid=stMain] h1')
    && !document.querySelector('[data-testid=stMain] [data-testid=stProgress]')
    && !document.querySelector('[data-testid=stMain] [data-stale=true]')"""


def settled(page: Page) -> None:
    """As `idle`, where others are at work: bars in the sidebar are everybody's."""
    for _ in range(2):
        page.wait_for_function(SETTLED)
        page.wait_for_timeout(300)
    page.wait_for_function(SETTLED)


def address(page: Page) -> str:
    """The address as the browser has it now."""
    return page.evaluate("location.href")


def until_address(page: Page, part: str) -> None:
    """Wait until the address holds `part`."""
    page.wait_for_function("(part) => decodeURIComponent(location.href).includes(part)", arg=part)


def opened(page: Page, title: str) -> None:
    """Wait until the page with this title stands."""
    page.get_by_role("heading", name=title, exact=True, level=1).wait_for()
    idle(page)


def next_step(page: Page, label: str) -> None:
    """Follow the button at the end of the page."""
    idle(page)
    page.locator(".st-key-next").get_by_role("link", name=label).click()


def choose(page: Page, label: str, option: str) -> None:
    """Choose in a select box, as a person does: open it, then click."""
    page.get_by_label(label, exact=True).locator("visible=true").first.click()
    page.get_by_role("option", name=option, exact=True).click()
    idle(page)


def click_head(page: Page, layer: int, head: int, heads: int = 4) -> None:
    """Click a head of the gallery by layer, which has one block."""
    tiles, cell = gallery_cell(page, heads)
    tiles.click(position={"x": 30 + (head + 0.5) * cell, "y": 16 + (layer + 0.5) * cell})


def gallery_cell(page: Page, heads: int = 4) -> tuple[Locator, float]:
    """The gallery, and how many pixels wide its squares are."""
    from playwright.sync_api import expect

    tiles = page.locator(".tiles")
    expect(tiles).to_have_count(1)  # not also one that is about to go
    box = tiles.bounding_box()
    assert box is not None
    return tiles, (box["width"] - 32) / heads


def pick_cell(page: Page, title: str, *keys: str) -> None:
    """Choose a cell of a grid by keyboard: these arrow keys from where it stands, then Enter."""
    grid = page.get_by_role("img", name=title)
    grid.focus()
    for key in (*keys, "Enter"):
        grid.press(key)
    idle(page)
