"""Pictures of scenes: data in, payload out."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from dashboard.figures.attention import attention_payload
from dashboard.figures.montage import gallery_payload, montage, pool
from dashboard.figures.picture import levels, over_picture, picture_payload, png, signed_payload
from dashboard.figures.prompts import AFTER, prompts_payload, side
from dashboard.figures.thumbnails import thumbnails_payload
from dashboard.scene import Picture

PIXELS = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8)
PICTURE = Picture(PIXELS, rows=4, columns=4, first=1)


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_attention_between_two_texts():
    pattern = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    payload = attention_payload(
        pattern, list("abcde"), title="t", keys=list("xyz"), names=("target", "source")
    )
    assert payload["keys"] == ["x", "y", "z"] and not payload["causal"]
    packed = np.frombuffer(base64.b64decode(payload["packed"]), "<u2").reshape(5, 3) / 65535
    assert np.allclose(packed, pattern, atol=1e-4)
    with pytest.raises(ValueError, match="5 tokens and 4 keys"):
        attention_payload(pattern, list("abcde"), title="t", keys=list("wxyz"))
    assert attention_payload(np.eye(2), ["a", "b"], title="t")["keys"] is None


def test_patterns_that_are_not_square_are_pooled_by_both_sides():
    patterns = np.zeros((2, 100, 6))
    patterns[1, 99, 5] = 1
    tiles = pool(patterns)
    assert tiles.shape == (2, 48, 6)
    assert tiles[1, 47, 5] == 255 and tiles.sum() == 255
    assert Image.open(io.BytesIO(montage(tiles[None]))).size == (12, 48)
    payload = gallery_payload(tiles[None], 100, ["a", "b"], title="t", letter="x")
    assert (payload["tile"], payload["tall"], payload["letter"]) == (6, 48, "x")
    assert payload["pooled"].startswith("100 tokens")


def test_an_image_of_any_scale_becomes_levels():
    assert levels(PIXELS).shape == (8, 8) and levels(PIXELS).min() == 0 and levels(PIXELS).max() == 255
    colour = np.stack([PIXELS[0], PIXELS[0] * 0, PIXELS[0] * 0 - 1])
    assert levels(colour).shape == (8, 8, 3)
    assert levels(np.full((1, 2, 2), 3.0)).max() == 0, "one grey is black, not an error"
    assert np.array_equal(decoded(png(PIXELS)), levels(PIXELS))


def test_heat_over_a_picture():
    patterns = np.zeros((2, 3, 17, 17))
    patterns[1, 2, 4, 1 + 5] = 0.5
    patterns[0, 0, 4, 0] = 1.0  # the class token is no patch
    tiles, most = over_picture(patterns, PICTURE, 4)
    assert tiles.shape == (2, 3, 4, 4) and most == 0.5
    assert tiles[1, 2, 1, 1] == 255 and tiles.sum() == 255
    payload = picture_payload(PICTURE, patterns[1, 2], title="t")
    weights = np.frombuffer(base64.b64decode(payload["packed"]), "<u2").reshape(17, 17)
    assert weights[4, 6] == round(0.5 * 65535)
    assert (payload["rows"], payload["columns"], payload["first"]) == (4, 4, 1)
    with pytest.raises(ValueError, match="does not fit 17 positions"):
        picture_payload(PICTURE, np.eye(16), title="t")


def test_numbers_over_a_picture():
    payload = signed_payload(PICTURE, np.arange(16.0) - 8, title="t", unit="change")
    assert payload["values"][0] == -8 and payload["unit"] == "change"
    with pytest.raises(ValueError, match="do not fit 16 patches"):
        signed_payload(PICTURE, np.arange(17.0), title="t", unit="change")


def test_places_in_words():
    assert PICTURE.place(0) == "class token"
    assert PICTURE.place(6) == "row 1 column 1"
    assert Picture(PIXELS, 4, 4, first=0).place(6) == "row 1 column 2"


def test_thumbnails_stand_one_below_the_other():
    images = np.stack([PIXELS, -PIXELS, PIXELS])
    payload = thumbnails_payload(images, [4, 9, 11], ["1", "2", "1"], title="t")
    sheet = decoded(payload["png"])
    assert sheet.shape == (24, 8)
    assert np.array_equal(sheet[8:16], levels(-PIXELS))
    with pytest.raises(ValueError, match="2 indices and 3 labels do not fit 3 images"):
        thumbnails_payload(images, [1, 2], ["1", "2", "3"], title="t")


def test_tokens_that_cannot_be_clicked():
    row = side("source", ["a", "b"], np.full(2, np.nan))
    assert prompts_payload([row], title="t")["hint"] == AFTER
    assert prompts_payload([row], title="t", hint="")["hint"] == ""
