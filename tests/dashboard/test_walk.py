"""The whole way in a real browser: from a preset to a verified circuit with notes, reloaded elsewhere and exported."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.dashboard.browser import (
    MODEL,
    address,
    choose,
    click_head,
    idle,
    next_step,
    opened,
    pick_cell,
    until_address,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]

HEAD = "a0.h2"
NOTE = "The previous-token head feeds all induction heads. <b>Not bold</b>"


def test_from_a_preset_to_a_verified_circuit_and_back(server, visit):
    page = visit(f"{server.url}/?model={MODEL}&task=ioi").page
    preset(page)
    next_step(page, f"See what {MODEL} makes of a prompt")
    prompt(page)
    next_step(page, "See what all heads look at on this prompt")
    heads(page)
    next_step(page, f"Take {HEAD} apart")
    head(page)
    next_step(page, f"Patch {HEAD} and all others, one by one")
    run = patching(page)
    next_step(page, "Open the circuit of what was sent")
    circuit(page)
    pinned = address(page)
    next_step(page, "How sure can one be of this circuit?")
    evidence(page)
    next_step(page, "Keep a note, compare it, or export it")
    notes(page, server.runs / run)
    place = address(page)

    # Another person opens both addresses
    other = visit(pinned).page
    elsewhere(other, HEAD, place, run)


def elsewhere(page: Page, node: str, place: str, run: str) -> None:
    """Another person has opened the circuit with its pin, and then the run: the same is there, and is exported."""
    from playwright.sync_api import expect

    expect(page.locator(".node.selected")).to_have_attribute("data-id", node)
    expect(page.locator(f'.node[data-id="{node}"] .pin')).to_have_count(1)
    expect(page.get_by_role("button", name="Unpin")).to_be_visible()
    page.goto(place)
    expect(page.get_by_label("Notes", exact=True)).to_have_value(NOTE)
    expect(page.get_by_text("1 pinned node")).to_be_visible()
    export(page, run)


def preset(page: Page) -> None:
    from playwright.sync_api import expect

    opened(page, "Find out how a model does it")
    expect(page.get_by_text(re.compile("Right on 100% of 32 prompts"))).to_have_count(0)
    choose(page, "Task", "Induction")
    expect(page.get_by_text(re.compile("Right on 100% of 32 prompts"))).to_be_visible()
    until_address(page, "task=induction")


def prompt(page: Page) -> None:
    from playwright.sync_api import expect

    opened(page, "Prompt")
    differing = page.locator(".column.first")
    expect(differing).to_have_count(1)
    expect(differing.locator(".number")).to_contain_text("first")
    words = differing.locator(".token").all_text_contents()
    assert len(words) == 2 and words[0] != words[1]
    expect(page.get_by_text(re.compile("^clean: after"))).to_be_visible()
    last = page.locator(".column").count() - 1
    page.locator(".column").nth(last - 1).click()
    until_address(page, f"query={last - 1}")
    expect(page.get_by_text(re.compile(rf"^clean: after .* \(position {last - 1}\)$"))).to_be_visible()
    idle(page)
    pick_cell(page, "Logit lens", "ArrowDown", "ArrowRight")
    until_address(page, "layer=0")
    until_address(page, f"query={last}")
    expect(page.get_by_text(re.compile("^Layer 0, after"))).to_be_visible()
    expect(page.get_by_text(re.compile("^Most write it"))).to_be_visible()


def heads(page: Page) -> None:
    from playwright.sync_api import expect

    opened(page, "Heads")
    choose(page, "Order", "previous token")
    expect(page.get_by_role("heading", name="8 heads by previous token")).to_be_visible()
    until_address(page, "sort=previous token".replace(" ", "+"))
    page.locator(".tiles").click(position={"x": 40, "y": 40})  # the first of the ranking
    expect(page.get_by_role("heading", name=re.compile(rf"^{HEAD} · previous token"))).to_be_visible()
    until_address(page, f"node={HEAD}")
    choose(page, "Order", "by layer")
    expect(page.get_by_role("heading", name="All heads")).to_be_visible()
    click_head(page, 1, 1)
    expect(page.get_by_role("heading", name=re.compile(r"^a1\.h1 · "))).to_be_visible()
    idle(page)
    click_head(page, 0, 2)
    until_address(page, f"node={HEAD}")
    idle(page)


def head(page: Page) -> None:
    from playwright.sync_api import expect

    opened(page, "Head")
    expect(page.get_by_role("heading", name=re.compile(rf"^{HEAD} · previous token"))).to_be_visible()
    choose(page, "Beside it", "the same head on the counterfactual")
    expect(page.get_by_role("heading", name=f"{HEAD} on the counterfactual")).to_be_visible()
    expect(page.locator(".heat")).to_have_count(2)
    page.get_by_role("radio", name="Without it").click()
    idle(page)
    expect(page.get_by_text(re.compile("^logit diff, mean over 32 pairs"))).to_be_visible()
    lost = page.locator('[data-testid="stMetricDelta"]').first.text_content() or ""
    assert float(lost.replace("−", "-")) < -5
    page.get_by_role("radio", name="Where it is active").click()
    expect(page.get_by_text(re.compile("^The 12 of 32 passages"))).to_be_visible()
    idle(page)


def patching(page: Page) -> str:
    """Gives the name of the run that was made."""
    from playwright.sync_api import expect

    opened(page, "Patching")
    page.get_by_role("radio", name="8 pairs").click()
    until_address(page, "over=8")
    expect(page.locator("canvas.cells")).to_be_visible()
    idle(page)
    expect(page.get_by_text(re.compile(r"95% interval .* the same sign on 8 of 8 pairs"))).to_be_visible()
    page.get_by_role("radio", name="Stream before layer").click()
    expect(page.get_by_text(re.compile("^The 12 strongest"))).to_be_visible()
    idle(page)
    page.get_by_role("radio", name="Estimates").click()
    expect(page.locator(".js-plotly-plot")).to_be_visible()
    idle(page)
    return send(page)


def send(page: Page) -> str:
    """Send the strongest heads to a circuit; gives the name of the run that is made."""
    from playwright.sync_api import expect

    page.locator(".st-key-send button").click()
    saved = page.get_by_text(re.compile("saved as"))
    expect(saved).to_be_visible()
    found = re.search(r"saved as (\S+?)\.?$", saved.text_content() or "")
    assert found is not None
    idle(page)
    return found[1]


def circuit(page: Page) -> None:
    from playwright.sync_api import expect

    expect(page.get_by_role("heading", name=f"Induction in {MODEL}")).to_be_visible()
    node = page.locator(f'.node[data-id="{HEAD}"]')
    expect(node).to_be_visible()
    idle(page)
    if "selected" not in (node.get_attribute("class") or ""):
        node.click()
    expect(page.locator(".node.selected")).to_have_attribute("data-id", HEAD)
    expect(page.get_by_role("heading", name=re.compile(rf"^{HEAD} · effect"))).to_be_visible()
    idle(page)
    pin(page, HEAD)
    page.get_by_role("button", name=f"Ablate {HEAD}").click()
    expect(page.get_by_text("In the circuit")).to_be_visible()
    page.get_by_role("button", name="What role does it play?").click()
    expect(page.get_by_text("attends from a token to the one before it")).to_be_visible()
    idle(page)


def pin(page: Page, node: str) -> None:
    """Pin the selected node."""
    from playwright.sync_api import expect

    page.get_by_role("button", name="Pin", exact=True).click()
    expect(page.locator(f'.node[data-id="{node}"] .pin')).to_have_count(1)
    idle(page)


def evidence(page: Page) -> None:
    from playwright.sync_api import expect

    opened(page, "Evidence")
    expect(page.get_by_text("not measured yet")).not_to_have_count(0)
    page.get_by_role("button", name="Measure all that is missing").click()
    expect(page.get_by_text("not measured yet")).to_have_count(0)
    idle(page)
    assert page.locator(".js-plotly-plot").count() >= 5
    expect(page.locator(".st-key-measure_all")).to_have_count(0)


def notes(page: Page, run: Path) -> None:
    from playwright.sync_api import expect

    opened(page, "Runs")
    expect(page.get_by_role("heading", name=run.name)).to_be_visible()
    box = page.get_by_label("Notes", exact=True)
    box.fill(NOTE)
    box.press("Control+Enter")
    idle(page)
    assert "Not bold" in (run / "notes.json").read_text()


def export(page: Page, run: str) -> None:
    page.get_by_role("button", name="Prepare the export").click()
    button = page.get_by_role("button", name=re.compile(rf"^.*Download {re.escape(run)}\.zip"))
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == f"{run}.zip"
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as bundle:
        names = [Path(name).name for name in bundle.namelist()]
        assert {"run.json", "notes.json", "evidence.json"} <= set(names)
        report = next(name for name in bundle.namelist() if name.endswith(".html") and "report" in name)
        text = bundle.read(report).decode()
    assert "Not bold" in text and "<b>Not bold" not in text
    report_in_a_window(page, text)


def report_in_a_window(page: Page, text: str) -> None:
    """The report needs nothing but itself."""
    page.set_content(text)
    assert page.locator("body").inner_text().strip()
