"""The dashboard in a real browser against a real server: what a person sees and does.

Pictures of the pages are written to the folder named by `LENS_PICTURES`, such as `docs/images`, or else to a
temporary one.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from dashboard import __main__ as serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]

ROOT = Path(__file__).parents[2]
MODEL = "induction-2l"
SIZE = {"width": 1440, "height": 900}
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 60_000  # milliseconds; machines are sometimes busy

# Streamlit looks for its base path below the page's own first, where there is none.
OWN_SEARCH = re.compile(r"/(heads|circuit)/_stcore/(health|host-config)$")


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


def serve(runs: Path, log: Path) -> Iterator[Server]:
    port = free_port()
    with log.open("w") as out:
        process = subprocess.Popen(
            serving.command(port, ["--runs", str(runs)]), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(f"the server does not answer: {log.read_text()}")
        yield Server(f"http://127.0.0.1:{port}", runs)
    finally:
        process.terminate()
        process.wait(20)


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

    def open_window(url: str, theme: Any = "light") -> Watched:
        context = browser.new_context(viewport=SIZE, color_scheme=theme)  # pyright: ignore[reportArgumentType]
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
    folder = os.environ.get("LENS_PICTURES")
    path = (ROOT / folder) if folder else tmp_path_factory.mktemp("pictures")
    path.mkdir(parents=True, exist_ok=True)
    return path


def idle(page: Page) -> None:
    """Wait until the page neither runs nor shows a job under way."""
    page.wait_for_function(
        """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
            && !document.querySelector('[data-testid=stProgress]')
            && !document.querySelector('[data-testid=stSkeleton]')
            && !document.querySelector('[data-stale=true]')"""
    )
    page.wait_for_timeout(300)


def click_cell(page: Page, layer: int, head: int, cell: float) -> None:
    """Click a head of the gallery, whose squares are `cell` pixels wide."""
    page.locator(".tiles").click(position={"x": 30 + (head + 0.5) * cell, "y": 16 + (layer + 0.5) * cell})


def test_a_walk_from_start_over_heads_to_the_circuit(server, visit):
    from playwright.sync_api import expect

    page = visit(f"{server.url}/?model={MODEL}&task=induction").page
    expect(page.get_by_role("heading", name="Find a circuit")).to_be_visible()
    expect(page.get_by_role("link", name=f"induction · {MODEL} · eap")).to_be_visible()
    page.get_by_role("link", name=f"Look at the heads of {MODEL}").click()

    # Heads: another head in the gallery, another query in its picture
    expect(page.get_by_role("heading", name="All heads")).to_be_visible()
    tiles = page.locator(".tiles")
    expect(tiles).to_be_visible()
    idle(page)
    box = tiles.bounding_box()
    assert box is not None
    cell = (box["width"] - 32) / 4
    tiles.hover(position={"x": 30 + 2.5 * cell, "y": 16 + 0.5 * cell})
    expect(page.locator(".frame:has(.tiles) .tip")).to_contain_text("a0.h2")
    click_cell(page, 1, 3, cell)
    expect(page.get_by_role("heading", name="a1.h3")).to_be_visible()
    page.wait_for_url("**node=a1.h3**")
    heat = page.locator(".heat")
    expect(heat).to_have_attribute("aria-label", re.compile("a1.h3"))
    reading = page.locator(".reading")
    before = reading.text_content()
    page.locator(".token").nth(3).click()
    expect(reading).to_contain_text("Query 3 ")
    assert reading.text_content() != before
    page.wait_for_url("**query=3**")
    tiles.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="a0.h3")).to_be_visible()
    idle(page)
    page.locator(".dvn-scroller").click(position={"x": 18, "y": 35 + 17})
    page.wait_for_url("**node=a1.h*")  # only heads of layer 1 can be the best at induction
    best = re.search(r"node=(a1\.h\d)", page.url)
    assert best is not None
    expect(page.get_by_role("heading", name=best[1])).to_be_visible()
    idle(page)

    # Start again, with the state carried along: discover, then open what was found
    page.get_by_role("link", name=f"Find a circuit that uses {best[1]}").click()
    expect(page.get_by_role("heading", name="Find a circuit")).to_be_visible()
    page.wait_for_url(f"**node={best[1]}**")
    page.get_by_role("button", name="Discover").click()
    expect(page.get_by_text("done in")).to_be_visible()
    idle(page)
    page.get_by_role("link", name="Open the circuit that was found").click()

    # Circuit: the head chosen before is selected; choose others by mouse, by keyboard, by table
    expect(page.locator(".plot .node").first).to_be_visible()
    idle(page)
    node = page.locator(".node.head:not(.selected)").first
    name = node.get_attribute("data-id") or ""
    node.hover()
    expect(page.locator(".frame:has(.plot) .tip")).to_contain_text(name)
    assert page.locator(".plot.hovered .edge.lit").count() > 0
    node.click()
    expect(page.get_by_role("heading", name=re.compile(rf"{re.escape(name)} · effect"))).to_be_visible()
    page.wait_for_url(f"**node={name}**")
    expect(heat).to_have_attribute("aria-label", re.compile(re.escape(name)))
    expect(page.locator(".node.selected")).to_have_attribute("data-id", name)
    idle(page)
    page.locator(".node.selected").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator(".node.selected")).not_to_have_attribute("data-id", name)
    idle(page)
    shown = page.locator(".edge").count()
    slider = page.get_by_role("slider")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowLeft")
    expect(page.locator(".edge")).to_have_count(shown - 5)
    expect(page.get_by_role("link", name="See all heads on this prompt")).to_be_visible()


def test_zoom_and_fit(server, visit):
    page = visit(f"{server.url}/circuit").page
    scene = page.locator(".plot > g")
    before = scene.get_attribute("transform")
    page.locator("button[data-act=in]").click()
    assert scene.get_attribute("transform") != before
    page.locator("button[data-act=fit]").click()
    assert scene.get_attribute("transform") == before


def test_a_wrong_address_is_said_and_cleaned(server, visit):
    from playwright.sync_api import expect

    picture = "![x](https://example.com/x.png) <img src=https://example.com/y.png onerror=alert(1)>"
    page = visit(f"{server.url}/circuit?edges=7&node={quote(picture)}&model={quote(picture)}").page
    expect(page.get_by_text("Ignored in the address")).to_be_visible()
    page.wait_for_function("() => !location.search.includes('node') && location.search.includes('edges=7')")


def test_cancel_stops_a_discovery(server, visit):
    from playwright.sync_api import expect

    page = visit(f"{server.url}/?model={MODEL}&task=induction").page
    examples = page.get_by_label("Examples", exact=True)
    examples.fill("1000")
    examples.press("Enter")
    idle(page)
    runs = set(server.runs.iterdir())
    page.get_by_role("button", name="Discover").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text(re.compile("cancelled"))).to_be_visible()
    assert set(server.runs.iterdir()) == runs


def test_other_hosts_and_origins_are_kept_out(server):
    port = int(server.url.rsplit(":", 1)[1])

    def upgrade(host: str, origin: str) -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            lines = [
                "GET /_stcore/stream HTTP/1.1", f"Host: {host}", f"Origin: {origin}", "Upgrade: websocket",
                "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
            ]  # fmt: skip
            connection.sendall("\r\n".join(lines).encode())
            return connection.recv(64).decode("latin-1").split("\r\n")[0]

    own = f"127.0.0.1:{port}"
    assert " 101 " in upgrade(own, f"http://{own}")
    assert " 101 " not in upgrade("evil.example", f"http://{own}")
    assert " 101 " not in upgrade(own, "http://evil.example")


@pytest.mark.model
def test_pictures_of_a_language_model(smollm2, tmp_path, visit, pictures):
    from circuits.discover import discover

    run = "ioi-smollm2-eap-ig"
    discover(smollm2, task="ioi", out=tmp_path / "runs" / run)
    for server in serve(tmp_path / "runs", tmp_path / "server.log"):
        circuit = f"{server.url}/circuit?run={run}&node=a23.h3"
        for theme in ("light", "dark"):
            for name, address, needed in (
                ("circuit", circuit, ".heat"),
                ("heads", f"{server.url}/heads?model=smollm2&run={run}&node=a23.h3", ".heat"),
                ("start", f"{server.url}/?model=smollm2", "h1"),
            ):
                page = visit(address, theme).page
                page.locator(needed).wait_for()
                idle(page)
                file = pictures / (f"{name}.png" if theme == "light" else f"{name}-dark.png")
                page.screenshot(path=file)
                assert file.stat().st_size > 20_000
                page.context.close()
