"""The dashboard in a real browser against a real server: pictures that answer, addresses, work that is stopped."""

from __future__ import annotations

import re
import socket
from urllib.parse import quote

import pytest

from tests.dashboard.browser import MODEL, address, click_head, gallery_cell, idle, until_address

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]


def test_heads_by_mouse_by_keyboard_and_by_table(server, visit):
    from playwright.sync_api import expect

    page = visit(f"{server.url}/heads?model={MODEL}&task=induction").page
    expect(page.get_by_role("heading", name="All heads")).to_be_visible()
    expect(page.locator(".tiles")).to_be_visible()
    idle(page)
    tiles, cell = gallery_cell(page)
    tiles.hover(position={"x": 30 + 2.5 * cell, "y": 16 + 0.5 * cell})
    expect(page.locator(".frame:has(.tiles) .tip")).to_contain_text("a0.h2")
    click_head(page, 1, 3)
    expect(page.get_by_role("heading", name="a1.h3")).to_be_visible()
    until_address(page, "node=a1.h3")
    heat = page.locator(".heat")
    expect(heat).to_have_attribute("aria-label", re.compile("a1.h3"))
    reading = page.locator(".reading")
    before = reading.text_content()
    page.locator(".token").nth(3).click()
    expect(reading).to_contain_text("Query 3 ")
    assert reading.text_content() != before
    until_address(page, "query=3")
    tiles.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="a0.h3")).to_be_visible()
    idle(page)
    page.locator(".dvn-scroller").click(position={"x": 18, "y": 35 + 17})
    until_address(page, "node=a1.h")  # only heads of layer 1 can be the best at induction
    best = re.search(r"node=(a1\.h\d)", address(page))
    assert best is not None
    expect(page.get_by_role("heading", name=best[1])).to_be_visible()
    idle(page)
    page.get_by_role("link", name=f"Take {best[1]} apart").click()
    expect(page.get_by_role("heading", name="Head", exact=True)).to_be_visible()
    until_address(page, f"node={best[1]}")


def test_a_discovery_and_its_circuit_by_mouse_and_by_keyboard(server, visit):
    from playwright.sync_api import expect

    page = visit(f"{server.url}/?model={MODEL}&task=induction&node=a1.h2").page
    expect(page.get_by_role("link", name=f"induction · {MODEL} · eap")).to_be_visible()
    page.get_by_role("button", name="Discover").click()
    expect(page.get_by_text("done in")).to_be_visible()
    idle(page)
    page.get_by_role("link", name="Open the circuit that was found").click()

    # the head chosen before is selected; choose others by mouse and by keyboard
    expect(page.locator(".plot .node").first).to_be_visible()
    idle(page)
    expect(page.locator(".node.selected")).to_have_attribute("data-id", "a1.h2")
    node = page.locator(".node.head:not(.selected)").first
    name = node.get_attribute("data-id") or ""
    node.hover()
    expect(page.locator(".frame:has(.plot) .tip")).to_contain_text(name)
    assert page.locator(".plot.hovered .edge.lit").count() > 0
    node.click()
    expect(page.get_by_role("heading", name=re.compile(rf"{re.escape(name)} · effect"))).to_be_visible()
    until_address(page, f"node={name}")
    expect(page.locator(".heat")).to_have_attribute("aria-label", re.compile(re.escape(name)))
    expect(page.locator(".node.selected")).to_have_attribute("data-id", name)
    idle(page)
    page.locator(".node.selected").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator(".node.selected")).not_to_have_attribute("data-id", name)
    idle(page)
    shown = page.locator(".edge").count()
    slider = page.get_by_label("Edges shown, strongest first").get_by_role("slider")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowLeft")
    expect(page.locator(".edge")).to_have_count(shown - 5)
    expect(page.get_by_text(f"Faithfulness, {shown - 5} shown")).to_be_visible()


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
    page.get_by_role("button", name="Cancel", exact=True).click()
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
