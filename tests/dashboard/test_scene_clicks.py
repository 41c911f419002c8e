"""Images and cross-attention in a real browser: heads, patches and thumbnails are clicked and reached by keyboard."""

from __future__ import annotations

import pytest

from tests.dashboard.browser import idle, until_address
from tests.dashboard.test_pictures import nothing_sticks_out

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]


def test_a_patch_and_a_head_are_clicked(server, visit):
    page = visit(f"{server.url}/heads?model=digits-vit&image=38&node=a1.h2").page
    picture = page.locator("canvas.image")
    picture.wait_for()
    idle(page)
    box = picture.bounding_box()
    assert box is not None
    side = (box["width"] - 18) / 2
    picture.click(position={"x": 2 + side * 0.6, "y": 32 + side * 0.4})  # row 1 column 2 of the left picture
    until_address(page, "query=7")
    page.get_by_role("heading", name="What row 1 column 2 looks at in each head").wait_for()
    idle(page)
    picture.focus()
    picture.press("ArrowDown")
    until_address(page, "query=11")
    idle(page)
    tiles = page.locator("canvas.tiles")
    wide = (tiles.bounding_box() or {})["width"]
    tiles.click(position={"x": 30 + (wide - 32) / 8, "y": 16 + (wide - 32) / 8})
    until_address(page, "node=a0.h0")
    nothing_sticks_out(page)


def test_a_thumbnail_is_chosen(server, visit):
    page = visit(f"{server.url}/prompt?model=digits-vit&image=38").page
    page.locator("canvas.cells").first.wait_for()
    idle(page)
    page.get_by_role("button", name="Choose").first.click()
    sheet = page.locator("canvas.sheet").first
    sheet.wait_for()
    sheet.click(position={"x": 21, "y": 21})
    until_address(page, "image=9")  # the first test image that shows a three
    idle(page)


def test_groups_of_an_encoder_decoder_are_clicked(server, visit):
    page = visit(f"{server.url}/heads?model=reorder-ed").page
    tiles = page.locator("canvas.tiles")
    tiles.nth(2).wait_for()
    idle(page)
    for i, letter in enumerate("edx"):
        wide = (tiles.nth(i).bounding_box() or {})["width"]
        cell = (wide - 32) / 4
        tiles.nth(i).click(position={"x": 30 + 1.5 * cell, "y": 16 + 0.5 * cell})
        until_address(page, f"node={letter}0.h1")
        page.get_by_role("heading", name=f"{letter}0.h1").first.wait_for()
        idle(page)
    target = page.get_by_role("listbox", name="target; choose one")
    target.get_by_role("option").nth(2).click()
    until_address(page, "query=2")
    nothing_sticks_out(page)
