"""How long a warm page switch and a click on a head take in the browser: `python -m tests.dashboard.clicks`.

1. A server is started on a folder of runs; every page is opened once, so that all results are cached.
2. A head is clicked in the gallery; the clock stops when its name and its attention are drawn.
3. A page is chosen in the menu; the clock stops when its title stands, the page has run and its picture is drawn.
4. In another window, all layers × positions are patched exactly; while that goes on, heads are clicked as in step 2.

Prints medians and 95th percentiles in milliseconds, how much the gallery and the graph send to the browser, and how
busy the machine was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboard.figures.montage import blocks_for
from tests.dashboard.browser import FLAGS, PATIENCE, SIZE, idle, serve, settled

if TYPE_CHECKING:
    from playwright.sync_api import Page, Position

PAGES = {
    "Prompt": "canvas.cells",
    "Heads": "canvas.tiles",
    "Head": ".heat",
    "Patching": "canvas.cells",
    "Circuit": ".plot .node",
}
DRAWN = """([title, needed]) => [...document.querySelectorAll('h1')].some((e) => e.innerText.trim() === title)
    && document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'
    && !document.querySelector('[data-testid=stSkeleton]') && !document.querySelector('[data-stale=true]')
    && (document.querySelector(needed)
        || [...document.querySelectorAll('*')].some((e) => e.shadowRoot?.querySelector(needed)))"""
CLICKED = """(head) => [...document.querySelectorAll('h3')].some((e) => e.innerText.startsWith(head))
    && [...document.querySelectorAll('*')].some((e) => (e.shadowRoot ?? e).querySelector?.('.heat')
        ?.getAttribute('aria-label')?.includes(head))"""


@dataclass(frozen=True)
class Timed:
    """Milliseconds of each click and switch by what was done, kilobytes by what was sent, and the load average."""

    times: dict[str, list[float]]
    sizes: dict[str, float]
    load: float


def spot(page: Page, layer: int, head: int, layers: int, heads: int) -> Position:
    """Where a head stands in the gallery by layer, in pixels."""
    box = page.locator("canvas.tiles").bounding_box()
    assert box is not None
    rows = -(-layers // blocks_for(layers, heads))
    blocks = -(-layers // rows)
    cell = (box["width"] - 32 - (blocks - 1) * 34) / (blocks * heads)
    x = 30 + (layer // rows) * (heads * cell + 34) + (head + 0.5) * cell
    return {"x": x, "y": 16 + (layer % rows + 0.5) * cell}


def clicked(page: Page, times: int, layers: int, heads: int) -> list[float]:
    """Milliseconds of clicks on heads in random order."""
    draw, found = np.random.default_rng(0), []
    picked: tuple[int, int] | None = None
    tiles = page.locator("canvas.tiles")
    for _ in range(times):
        at = picked
        while at == picked:
            at = (int(draw.integers(layers)), int(draw.integers(heads)))
        assert at is not None
        picked = at
        where = spot(page, *at, layers, heads)
        start = time.perf_counter()
        tiles.click(position=where)
        page.wait_for_function(CLICKED, arg=f"a{at[0]}.h{at[1]}")
        found.append(1000 * (time.perf_counter() - start))
        settled(page)
    return found


def clicked_beside(browser: Any, page: Page, url: str, times: int, layers: int, heads: int) -> list[float]:
    """The same while another window's job goes on, which is cancelled in the end."""
    other = browser.new_context(viewport=SIZE).new_page()
    other.set_default_timeout(4 * PATIENCE)
    other.goto(url)
    cancel = other.locator('[data-testid="stMain"]').get_by_role("button", name="Cancel", exact=True)
    cancel.wait_for()
    found = clicked(page, times, layers, heads)
    assert cancel.count() == 1, "the job ended before the clicks did"
    cancel.click()
    other.get_by_text("cancelled").wait_for()
    other.context.close()
    return found


def switched(page: Page, rounds: int, circuit: str) -> dict[str, list[float]]:
    """Milliseconds of switches to every page, by its title."""
    found: dict[str, list[float]] = {title: [] for title in PAGES}
    for i in range(rounds + 1):
        for title, needed in PAGES.items():
            start = time.perf_counter()
            page.get_by_test_id("stTopNavLink").get_by_text(title, exact=True).click()
            page.wait_for_function(DRAWN, arg=[circuit if title == "Circuit" else title, needed])
            if i:  # the first round fills the caches
                found[title].append(1000 * (time.perf_counter() - start))
            idle(page)
    return found


def sent(run: Any, model: Any) -> dict[str, float]:
    """Kilobytes that the gallery and the graph take, as JSON and compressed."""
    from dashboard import survey
    from dashboard.figures import circuit_edges
    from dashboard.figures.montage import gallery_payload

    ids = run.pairs.clean[0][run.pairs.mask[0]].tolist()
    tiles = survey.survey(model, ids).tiles
    about = [""] * (model.cfg.n_layers * model.cfg.n_heads)
    edges = run.circuit.edges()[:1000]
    made = {
        "gallery": gallery_payload(tiles, len(ids), about, title=""),
        f"graph of {len(edges)} edges": circuit_edges.one(run.circuit, edges, title="", roles={}),
    }
    sizes = {}
    for name, payload in made.items():
        text = json.dumps(payload).encode()
        sizes[name] = len(text) / 1024
        sizes[f"{name}, compressed"] = len(zlib.compress(text)) / 1024
    return sizes


def timed(folder: Path, clicks: int, rounds: int) -> Timed:
    """All of it, on the model and the task of a saved run."""
    from playwright.sync_api import sync_playwright

    import lens
    from circuits.store import Run
    from circuits.tasks import tasks

    run = Run.load(folder)
    name, task = str(run.info["model"]["name"]), str(run.info["task"])
    model = lens.load(name)
    layers, heads = model.cfg.n_layers, model.cfg.n_heads
    sizes = sent(run, model)
    loads = [os.getloadavg()[0]]
    times: dict[str, list[float]] = {}
    served = Path(tempfile.mkdtemp())
    shutil.copytree(folder, served / "runs" / folder.name)
    for server in serve(served / "runs", served / "log"):
        with sync_playwright() as playwright:
            path = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            page = browser.new_context(viewport=SIZE).new_page()  # pyright: ignore[reportArgumentType]
            page.set_default_timeout(4 * PATIENCE)
            page.goto(f"{server.url}/heads?model={name}&task={task}")
            page.locator("canvas.tiles").wait_for()
            idle(page)
            times["head click"] = clicked(page, clicks, layers, heads)
            loads.append(os.getloadavg()[0])
            patching = f"{server.url}/patching?model={name}&task={task}&site=resid_pre&over=32"
            beside = clicked_beside(browser, page, patching, clicks, layers, heads)
            times["head click while another session's job runs"] = beside
            idle(page)
            loads.append(os.getloadavg()[0])
            every = switched(page, rounds, f"{tasks()[task].title} in {name}")
            times["page switch"] = [one for times in every.values() for one in times]
            times |= {f"page switch to {title}": each for title, each in every.items()}
            loads.append(os.getloadavg()[0])
            browser.close()
    return Timed(times, sizes, sum(loads) / len(loads))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a saved run, whose model and task are used")
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    found = timed(asked.run, asked.clicks, asked.rounds)
    for what, kilobytes in found.sizes.items():
        print(f"{what}: {kilobytes:.0f} KB")
    for what, times in found.times.items():
        middle, high = np.percentile(times, [50, 95])
        print(f"{what}: median {middle:.0f} ms, 95th percentile {high:.0f} ms, n = {len(times)}")
    print(f"load average {found.load:.1f}")


if __name__ == "__main__":
    main()
