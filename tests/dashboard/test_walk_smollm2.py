"""The whole way in a real browser with a language model: from a preset to a circuit with notes, elsewhere, exported."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from circuits.tasks import tasks
from tests.dashboard.browser import PATIENCE, address, choose, idle, next_step, opened, until_address
from tests.dashboard.test_walk import elsewhere, notes, pin, send

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.model, pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser"),
]  # fmt: skip

MODEL, TITLE = "smollm2", tasks()["ioi"].title
HEADS = 270


@pytest.mark.usefixtures("smollm2")
def test_from_a_preset_to_a_circuit_and_back(server, visit):
    from playwright.sync_api import expect

    expect.set_options(timeout=5 * PATIENCE)
    page = visit(f"{server.url}/?model={MODEL}&task=induction").page
    page.set_default_timeout(5 * PATIENCE)
    preset(page)
    next_step(page, f"See what {MODEL} makes of a prompt")
    prompt(page)
    next_step(page, "See what all heads look at on this prompt")
    head = heads(page)
    next_step(page, f"Take {head} apart")
    without(page, head)
    next_step(page, f"Patch {head} and all others, one by one")
    run = patching(page)
    next_step(page, "Open the circuit of what was sent")
    node = circuit(page)
    pinned = address(page)
    next_step(page, "How sure can one be of this circuit?")
    evidence(page)
    next_step(page, "Keep a note, compare it, or export it")
    notes(page, server.runs / run)
    place = address(page)

    other = visit(pinned).page
    other.set_default_timeout(5 * PATIENCE)
    elsewhere(other, node, place, run)


def preset(page: Page) -> None:
    from playwright.sync_api import expect

    opened(page, "Find out how a model does it")
    choose(page, "Task", TITLE)
    until_address(page, "task=ioi")
    expect(page.get_by_text(re.compile(r"^Right on (9\d|100)% of 32 prompts"))).to_be_visible()


def prompt(page: Page) -> None:
    from playwright.sync_api import expect

    opened(page, "Prompt")
    words = page.locator(".column.first").locator(".token").all_text_contents()
    assert len(words) == 2 and words[0] != words[1]
    expect(page.get_by_text(re.compile("^clean: after"))).to_be_visible()
    expect(page.get_by_role("img", name="Logit lens")).to_be_visible()


def heads(page: Page) -> str:
    """Gives the head that writes most to the answer."""
    from playwright.sync_api import expect

    opened(page, "Heads")
    choose(page, "Order", "direct effect")
    expect(page.get_by_role("heading", name=f"{HEADS} heads by direct effect")).to_be_visible()
    page.locator(".tiles").click(position={"x": 40, "y": 40})
    until_address(page, "node=a")
    idle(page)
    found = re.search(r"node=(a\d+\.h\d)", address(page))
    assert found is not None
    expect(page.get_by_role("heading", name=re.compile(rf"^{re.escape(found[1])}\b"))).to_be_visible()
    return found[1]


def without(page: Page, head: str) -> None:
    from playwright.sync_api import expect

    opened(page, "Head")
    expect(page.locator(".heat")).to_have_attribute("aria-label", re.compile(re.escape(head)))
    page.get_by_role("radio", name="Without it").click()
    idle(page)
    expect(page.get_by_text(re.compile("^logit diff, mean over 32 pairs"))).to_be_visible()
    lost = page.get_by_test_id("stMetricDelta").first.text_content() or ""
    assert float(lost.replace("−", "-")) != 0


def patching(page: Page) -> str:
    """Gives the name of the run that was made."""
    from playwright.sync_api import expect

    opened(page, "Patching")
    expect(page.locator("canvas.cells")).to_be_visible()
    expect(page.get_by_text(re.compile("^The 12 strongest"))).to_be_visible()
    idle(page)
    return send(page)


def circuit(page: Page) -> str:
    """Gives the node that was pinned."""
    from playwright.sync_api import expect

    expect(page.get_by_role("heading", name=f"{TITLE} in {MODEL}")).to_be_visible()
    node = page.locator(".plot .node.head").first
    expect(node).to_be_visible()
    idle(page)
    name = node.get_attribute("data-id") or ""
    if "selected" not in (node.get_attribute("class") or ""):
        node.click()
    expect(page.get_by_role("heading", name=re.compile(rf"^{re.escape(name)} · effect"))).to_be_visible()
    idle(page)
    pin(page, name)
    return name


def evidence(page: Page) -> None:
    """One question is asked; the others take minutes."""
    from playwright.sync_api import expect

    opened(page, "Evidence")
    missing = page.get_by_text("not measured yet").count()
    page.locator(".st-key-measure_stability button").click()
    expect(page.locator(".st-key-figure_stability .js-plotly-plot")).to_be_visible()
    idle(page)
    assert page.get_by_text("not measured yet").count() < missing
