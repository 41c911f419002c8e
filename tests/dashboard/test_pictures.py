"""Pictures of every page, light and dark, on a large and on a small screen.

Those of the large screen are written to the folder named by `LENS_PICTURES`, such as `docs/images`, or else to a
temporary one; the others always to a temporary one.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.dashboard.browser import MODEL, SIZE, idle, serve
from tests.dashboard.conftest import RUN

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]

SMALL = {"width": 1024, "height": 768}
LEAST, MOST = 12_000, 250_000  # bytes: less would be an empty page, more too much for a README
NOTE = "a0.h2 looks at the token before; all heads of layer 1 read that, and copy what came next."


def picture(page: Page, file: Path) -> None:
    """The page as it stands; in few colours where that would be large."""
    from PIL import Image

    whole = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    whole.save(file, optimize=True)
    if file.stat().st_size >= MOST:
        few = whole.quantize(255, method=Image.Quantize.MEDIANCUT, kmeans=4, dither=Image.Dither.NONE)
        few.save(file, optimize=True)
    assert LEAST < file.stat().st_size < MOST, file


def pictures_of(pages: dict[str, tuple[str, str]], visit, pictures: Path, small: Path) -> None:
    """A picture of every page, by name: its address, and what must be there."""
    for folder, size in ((pictures, SIZE), (small, SMALL)):
        for theme in ("light", "dark"):
            for name, (address, needed) in pages.items():
                page = visit(address, theme, size).page
                page.locator(needed).first.wait_for()
                idle(page)
                nothing_sticks_out(page)
                picture(page, folder / f"{name}{'-dark' if theme == 'dark' else ''}.png")
                page.context.close()


def nothing_sticks_out(page: Page) -> None:
    """No page is wider than its window, and the sidebar leaves room."""
    wide = page.evaluate(
        """() => [...document.querySelectorAll('.stMainBlockContainer, [data-testid=stSidebarContent]')]
            .map((e) => e.scrollWidth - e.clientWidth)"""
    )
    assert all(by <= 1 for by in wide), page.evaluate("location.href")


def test_pictures_of_evidence_and_runs(induction, saved_runs, tmp_path, visit, pictures):
    from circuits import evidence
    from circuits.store import Run
    from dashboard import notes

    path = tmp_path / "runs" / RUN
    shutil.copytree(saved_runs / RUN, path)
    evidence.save(path, evidence.gather(induction, Run.load(path)))
    notes.write(path, notes.Notes(NOTE, pins=("a0.h2",)))
    for server in serve(tmp_path / "runs", tmp_path / "server.log"):
        run = f"model={MODEL}&run={path.name}&node=a0.h2"
        pages = {
            "evidence": (f"{server.url}/evidence?{run}", ".js-plotly-plot"),
            "runs": (f"{server.url}/runs?{run}", ".st-key-export"),
        }
        pictures_of(pages, visit, pictures, tmp_path)


def test_pictures_of_an_image_and_of_cross_attention(server, tmp_path, visit, pictures):
    pages = {
        "heads-digits-vit": (f"{server.url}/heads?model=digits-vit&image=38&node=a1.h2", "canvas.image"),
        "cross-attention-reorder-ed": (f"{server.url}/heads?model=reorder-ed&node=x1.h2&query=1", ".heat"),
    }
    pictures_of(pages, visit, pictures, tmp_path)


@pytest.mark.model
def test_pictures_of_a_language_model(smollm2, tmp_path, visit, pictures):
    from circuits.discover import discover

    run = "ioi-smollm2-eap-ig"
    discover(smollm2, task="ioi", examples=16, out=tmp_path / "runs" / run)
    for server in serve(tmp_path / "runs", tmp_path / "server.log"):
        of = "model=smollm2&task=ioi&node=a23.h3"
        pages = {
            "start": (f"{server.url}/?model=smollm2", ".st-key-next a"),
            "prompt": (f"{server.url}/prompt?{of}", "canvas.cells"),
            "heads": (f"{server.url}/heads?{of}", ".heat"),
            "head": (f"{server.url}/head?{of}", ".heat"),
            "patching": (f"{server.url}/patching?{of}", "canvas.cells"),
            "circuit": (f"{server.url}/circuit?run={run}&node=a23.h3", ".heat"),
        }
        pictures_of(pages, visit, pictures, tmp_path)
