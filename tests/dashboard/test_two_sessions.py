"""Two people at one model at once: each sees the right numbers, all see the queue, and what is stopped leaves nothing.

Letters: n pair, p position, h head, q query, k key, v vocabulary.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from circuits.tasks import tasks
from tests.dashboard.browser import MODEL, PATIENCE, click_head, idle, opened, settled, until_address
from tests.dashboard.clicks import spot

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from torch import Tensor

    from circuits.pairs import Pairs
    from lens.model import Transformer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]

PAIRS = 32
LONG, JOBS = "1000", 4
"""Examples of a discovery, and how many of these wait: together far longer than what is done beside them."""
EXAMPLE, QUERY = 5, 12
MAIN, SIDEBAR = '[data-testid="stMain"]', '[data-testid="stSidebar"]'
FILES = {"run.json", "summary.json", "scores.safetensors", "circuit.json", "pairs.safetensors", "pairs.json"}


def menu(page: Page, title: str) -> None:
    """Go to another page by the menu, in the same session."""
    page.get_by_test_id("stTopNavLink").get_by_text(title, exact=True).click()


# ---- what must be shown


def without(model: Transformer, pairs: Pairs, layer: int, head: int) -> tuple[float, float]:
    """The mean logit difference where a head has its counterfactual z, and by how much that is more."""
    site = f"blocks.{layer}.attn.hook_z"
    z = model.activations(pairs.corrupt, [site])[site]

    def swap(clean: Tensor, hook: object) -> Tensor:
        return torch.cat([clean[:, :, :head], z[:, :, head : head + 1], clean[:, :, head + 1 :]], 2)

    def mean(logits: Tensor) -> float:
        rows, last = torch.arange(len(logits)), logits[:, -1]
        return float((last[rows, pairs.answers] - last[rows, pairs.wrong]).mean())

    cut = mean(model.run_with_hooks(pairs.clean, [(site, swap)]))
    return cut, cut - mean(model(pairs.clean))


def looks(model: Transformer, ids: Tensor, layer: int, head: int, query: int) -> list[float]:
    """What a head looks at from one position."""
    return model.activations(ids[None], [("pattern", layer)])["pattern", layer][0, head, query].tolist()


# ---- what is shown


def numbers(page: Page) -> tuple[float, float]:
    """The metric without the head, and its change."""
    main = page.locator(MAIN)
    value = main.get_by_test_id("stMetricValue").first.inner_text()
    return number(value), number(main.get_by_test_id("stMetricDelta").first.inner_text())


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("↑", "").replace("↓", "").strip())


def weights(page: Page) -> list[float]:
    """The attention that stands at each token."""
    said = page.locator(".token").evaluate_all("tokens => tokens.map((t) => t.getAttribute('aria-label'))")
    return [float(label.rpartition("attention ")[2]) for label in said]


def active(page: Page) -> list[str]:
    """What the sidebar says of each job that runs or waits."""
    return page.locator(f"{SIDEBAR} [data-testid='stProgress']").all_inner_texts()


# ---- one job and its queue


def queue_up(page: Page) -> None:
    """Long discoveries, each behind the one before."""
    from playwright.sync_api import expect

    opened(page, "Find out how a model does it")
    examples = page.get_by_label("Examples", exact=True)
    examples.fill(LONG)
    examples.press("Enter")
    idle(page)
    main = page.locator(MAIN)
    for jobs in range(1, JOBS + 1):
        main.get_by_role("button", name="Discover").click()
        expect(main.get_by_role("button", name="Cancel", exact=True)).to_have_count(jobs)
        page.wait_for_timeout(1100)  # runs are called by the second
    expect(main.get_by_text(re.compile("waiting for 1 other job on this model"))).to_be_visible()
    expect(main.get_by_text(re.compile(f"waiting for {JOBS - 1} other jobs on this model"))).to_be_visible()


def cancel_all(page: Page) -> None:
    """Cancel what waits, and then what runs."""
    from playwright.sync_api import expect

    main = page.locator(MAIN)
    expect(main.get_by_role("heading", name="Under way")).to_be_visible()
    buttons = main.get_by_role("button", name="Cancel", disabled=False)
    while buttons.count():
        left = buttons.count()
        buttons.last.click()
        page.wait_for_function(
            "([main, left]) => [...document.querySelectorAll(main + ' button:enabled')]"
            ".filter((b) => b.innerText === 'Cancel').length < left",
            arg=[MAIN, left],
        )
    expect(main.get_by_role("heading", name="Last discovery")).to_be_visible()
    expect(main.get_by_text(re.compile(r"examples\): cancelled"))).to_be_visible()
    settled(page)


def whole(folder: Path) -> bool:
    """Whether a folder of runs holds whole runs and nothing else."""
    parts = [path for path in folder.rglob("*") if ".partial" in path.name or ".tmp" in path.name]
    runs = [path for path in folder.iterdir() if path.is_dir() and {f.name for f in path.iterdir()} >= FILES]
    return not parts and len(runs) == len(list(folder.iterdir()))


def test_two_sessions_on_one_model(induction, server, visit):
    """One has long jobs and ablates one head after the other, the other reads other heads on another prompt."""
    from playwright.sync_api import expect

    pairs = tasks()["induction"].pairs(induction, PAIRS, 0)
    before = set(server.runs.iterdir())
    first = visit(f"{server.url}/?model={MODEL}&task=induction").page
    first.set_default_timeout(4 * PATIENCE)
    expect.set_options(timeout=4 * PATIENCE)
    queue_up(first)
    menu(first, "Head")
    expect(first.get_by_role("radio", name="Without it")).to_be_visible()
    first.get_by_role("radio", name="Without it").click()
    second = visit(
        f"{server.url}/heads?model={MODEL}&task=induction&example={EXAMPLE}&query={QUERY}&node=a1.h3"
    ).page
    second.set_default_timeout(4 * PATIENCE)
    expect(second.locator(".heat")).to_have_attribute("aria-label", re.compile(r"a1\.h3"))
    settled(first)
    settled(second)

    for layer, head in [(0, 2), (1, 0), (0, 1), (1, 2)]:
        name, other = f"a{layer}.h{head}", (1 - layer, (head + 1) % 4)
        first.locator(".st-key-view_node input").click()
        first.get_by_role("option", name=name, exact=True).click()
        click_head(second, *other)  # while the first page is at work
        expect(second.locator(".heat")).to_have_attribute(
            "aria-label", re.compile(f"a{other[0]}\\.h{other[1]}")
        )
        second.locator(".token").nth(QUERY).click()
        until_address(second, f"query={QUERY}")
        expect(first.get_by_text(f"Replace the output of {name} by")).to_be_visible()
        settled(first)
        settled(second)
        assert numbers(first) == pytest.approx(without(induction, pairs, layer, head), abs=6e-4), name
        expected = looks(induction, pairs.clean[EXAMPLE], *other, QUERY)
        assert weights(second) == pytest.approx(expected, abs=6e-3), other

    # the jobs were not in the way, and both see them
    for page in (first, second):
        assert any("Discover induction" in text and "waiting" not in text for text in active(page)), active(
            page
        )
    menu(first, "Start")
    opened_again(first)
    cancel_all(first)
    assert active(second) == [] or not any("waiting" in text for text in active(second))
    made = set(server.runs.iterdir()) - before
    assert len(made) < JOBS, "none was cancelled"
    assert whole(server.runs)


def opened_again(page: Page) -> None:
    page.get_by_role("heading", name="Find out how a model does it", level=1).wait_for()


@pytest.mark.model
def test_cancelled_patching_of_a_language_model(smollm2, server, visit):
    """Exhaustive patching goes on while another session clicks; it stops when asked to."""
    from playwright.sync_api import expect

    expect.set_options(timeout=4 * PATIENCE)
    runs, (layers, heads) = set(server.runs.iterdir()), (smollm2.cfg.n_layers, smollm2.cfg.n_heads)
    second = visit(f"{server.url}/heads?model=smollm2&task=ioi&example={EXAMPLE}&query={QUERY}").page
    second.set_default_timeout(4 * PATIENCE)
    expect(second.get_by_role("heading", name="All heads")).to_be_visible()
    second.locator("canvas.tiles").wait_for()
    settled(second)
    first = visit(f"{server.url}/patching?model=smollm2&task=ioi&site=resid_pre&over={PAIRS}").page
    first.set_default_timeout(4 * PATIENCE)
    main = first.locator(MAIN)
    expect(main.get_by_text(re.compile(r"Stream before layer.* \d+/\d+"))).to_be_visible()
    second.locator("canvas.tiles").click(position=spot(second, 9, 2, layers, heads))
    expect(second.locator(".heat")).to_have_attribute("aria-label", re.compile(r"a9\.h2"))
    settled(second)
    ids = tasks()["ioi"].pairs(smollm2, PAIRS, 0).clean[EXAMPLE]
    assert weights(second) == pytest.approx(looks(smollm2, ids, 9, 2, QUERY), abs=6e-3)
    assert any("Stream before layer" in text for text in active(second)), "the click did not wait for the job"
    main.get_by_role("button", name="Cancel", exact=True).click()
    expect(main.get_by_text(re.compile(r"Stream before layer.*: cancelled"))).to_be_visible()
    expect(second.locator(f"{SIDEBAR} [data-testid='stProgress']")).to_have_count(0)
    assert set(server.runs.iterdir()) == runs
