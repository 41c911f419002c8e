"""A picture of a circuit as a PNG, for places that take no SVG: the same layout, drawn with Pillow.

Edges are cubic curves cut into straight pieces. As in the other pictures colour and dashes tell what an edge is,
and width how strong it is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from circuits.drawing.picture import Picture

if TYPE_CHECKING:
    from circuits.layout import EdgePayload, NodePayload

SCALE = 2
LEFT, RIGHT, HEAD, FOOT = 46, 60, 40, 34
STEPS = 24
COLOURS = {
    "supports": (29, 78, 216), "opposes": (194, 65, 12),
    "both": (110, 116, 126), "first": (29, 78, 216), "second": (194, 65, 12),
}  # fmt: skip
DASHED = ("opposes", "second")
INK, PAPER, BAND, PIN = (31, 35, 40), (255, 255, 255), (244, 245, 247), (162, 28, 175)


def png(picture: Picture, width: int = 1100) -> bytes:
    """The picture, `width` pixels wide before it is doubled for sharpness."""
    from PIL import Image, ImageDraw, ImageFont

    payload = picture.payload
    height = payload["height"] + HEAD + FOOT
    image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    pen: Any = ImageDraw.Draw(image, "RGBA")
    font: Any = ImageFont.load_default(11 * SCALE)
    large: Any = ImageFont.load_default(14 * SCALE)

    def at(x: float, y: float) -> tuple[float, float]:
        return x * SCALE, (y + HEAD) * SCALE

    def across(fraction: float) -> float:
        return LEFT + fraction * (width - LEFT - RIGHT)

    for i, row in enumerate(payload["rows"]):
        if i % 2:
            pen.rectangle([at(0, row["top"]), at(width, row["bottom"])], fill=BAND)
        pen.text(at(8, row["y"]), row["label"], font=font, fill=INK, anchor="lm")
    for column in payload["columns"]:
        pen.text(
            at(across(column["x"]), payload["height"] - 6), column["label"], font=font, fill=INK, anchor="mm"
        )
    nodes = {node["id"]: node for node in payload["nodes"]}
    for edge in payload["edges"]:
        kind = picture.kind(edge)
        colour = (*COLOURS[kind], round(255 * max(edge["opacity"], 0.3)))
        points = [at(*point) for point in _curve(edge, nodes, across)]
        thick = max(1, round(max(edge["width"], 0.9) * SCALE))
        for i in range(0, len(points) - 1, 2 if kind in DASHED else 1):
            pen.line([points[i], points[i + 1]], fill=colour, width=thick)
    for node in payload["nodes"]:
        _node(pen, node, at(across(node["x"]), node["y"]), node["id"] in picture.pins, font)
    pen.text((12 * SCALE, 20 * SCALE), picture.title, font=large, fill=INK, anchor="lm")
    pen.text(((width - 12) * SCALE, 20 * SCALE), picture.note, font=font, fill=INK, anchor="rm")
    x = 12.0
    for kind, text in picture.kinds.items():
        y = payload["height"] + 14
        for start in range(0, 26, 10 if kind in DASHED else 26):
            pen.line([at(x + start, y), at(x + min(26, start + (6 if kind in DASHED else 26)), y)],
                     fill=COLOURS[kind], width=3 * SCALE)  # fmt: skip
        pen.text(at(x + 32, y), text, font=font, fill=INK, anchor="lm")
        x += 50 + pen.textlength(text, font=font) / SCALE
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _node(pen: Any, node: NodePayload, place: tuple[float, float], pinned: bool, font: Any) -> None:
    x, y, r = *place, node["r"] * SCALE
    fill = PIN if pinned else INK
    if node["kind"] == "head":
        pen.ellipse([x - r, y - r, x + r, y + r], fill=fill, outline=PAPER)
        wide = r
    elif node["kind"] == "kv":
        pen.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], fill=fill, outline=PAPER)
        wide = r
    else:
        wide = r + (2 if node["kind"] == "mlp" else 12) * SCALE
        pen.rounded_rectangle(
            [x - wide, y - 0.8 * r, x + wide, y + 0.8 * r], 3 * SCALE, fill=fill, outline=PAPER
        )
    pen.text(
        (x + wide + 3 * SCALE, y),
        node["id"],
        font=font,
        fill=INK,
        anchor="lm",
        stroke_width=2,
        stroke_fill=PAPER,
    )


def _curve(edge: EdgePayload, nodes: dict[str, NodePayload], across: Any) -> Iterator[tuple[float, float]]:
    """Points along an edge, from the bottom up; edges within a column bow aside."""
    a, b = nodes[edge["source"]], nodes[edge["target"]]
    x1, y1 = across(a["x"]), a["y"] - 0.7 * a["r"]
    x2, y2 = across(b["x"]) + {"q": -4, "v": 4}.get(edge["port"], 0), b["y"] + 0.7 * b["r"]
    rise, middle = y1 - y2, (y1 + y2) / 2
    if abs(x1 - x2) < 12 and rise > 30:
        bow = 12 + min(60.0, 0.12 * rise)
        handles = ((x1 - bow, y1 - 0.25 * rise), (x2 - bow, y2 + 0.25 * rise))
    else:
        handles = ((x1, middle), (x2, middle))
    for step in range(STEPS + 1):
        t = step / STEPS
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        points = ((x1, y1), *handles, (x2, y2))
        yield (
            sum(w * p[0] for w, p in zip(weights, points, strict=True)),
            sum(w * p[1] for w, p in zip(weights, points, strict=True)),
        )
