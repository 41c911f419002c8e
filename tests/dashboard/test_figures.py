"""Figures: data in, payload out."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from circuits import places as nodes
from circuits.graph import Graph
from circuits.layout import Layout, graph_payload
from dashboard.figures import charts
from dashboard.figures.attention import attention_payload, without_sink
from dashboard.figures.head_kinds import KINDS, TELLING, strongest_kind
from dashboard.figures.montage import blocks_for, gallery_payload, montage, pool
from lens.head_scores import SCORES

EDGES = [
    ("a0.h1", "a2.h3<k>", -0.8),
    ("a2.h3", "logits", -0.5),
    ("m1", "logits", 0.2),
    ("embed", "m1", 0.1),
    ("embed", "a0.h1<q>", -0.05),
]
GRAPH = Graph(n_layers=3, n_heads=4, n_kv_heads=4)


def uniform(n: int, heads: int = 1) -> np.ndarray:
    """Causal attention that looks everywhere alike."""
    weights = np.tril(np.ones((n, n), dtype=np.float32))
    return np.repeat((weights / weights.sum(1, keepdims=True))[None], heads, 0)


# ---- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a9.h12", ("head", 9, 12)),
        ("a0.kv1", ("kv", 0, 1)),
        ("m4", ("mlp", 4, None)),
        ("embed", ("embed", None, None)),
        ("logits", ("logits", None, None)),
    ],
)
def test_names_are_read(name, expected):
    node = nodes.place(name)
    assert (node.kind, node.layer, node.head) == expected


@pytest.mark.parametrize(
    "name", ["", "a9", "a9.h", "a9.h2<q>", "m", "embed2", "a9.h2 ", "a-1.h0", "a99999.h1"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="names look like"):
        nodes.place(name)


def test_ports():
    assert nodes.split_port("a9.h2<q>") == ("a9.h2", "q")
    assert nodes.split_port("m4") == ("m4", "")


# ---- graph


def test_a_node_keeps_its_place_whatever_is_shown():
    few, all_ = graph_payload(GRAPH, EDGES[:2]), graph_payload(GRAPH, EDGES)
    at = {n["id"]: (n["x"], n["y"]) for n in all_["nodes"]}
    assert {n["id"] for n in few["nodes"]} == {"a0.h1", "a2.h3", "logits"}
    assert all(at[n["id"]] == (n["x"], n["y"]) for n in few["nodes"])
    assert few["height"] == all_["height"]


def test_layers_rise_and_attention_is_below_its_mlp():
    layout = Layout(GRAPH)
    names = ["embed", "a0.h0", "m0", "a1.h0", "m1", "a2.h0", "m2", "logits"]
    heights = [layout.y(nodes.place(name)) for name in names]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == len(heights)
    assert layout.y(nodes.place("logits")) >= 0
    assert layout.y(nodes.place("embed")) <= layout.height


def test_columns_are_heads_and_mlps_stand_at_the_right():
    layout = Layout(GRAPH)
    columns = [layout.x(nodes.place(f"a1.h{h}")) for h in range(4)]
    assert columns == sorted(columns)
    assert {layout.x(nodes.place(f"a{l}.h2")) for l in range(3)} == {columns[2]}
    assert columns[-1] < layout.x(nodes.place("m1")) < 1


def test_width_follows_the_size_and_words_follow_the_sign():
    payload = graph_payload(GRAPH, EDGES)
    by_score = {e["score"]: e for e in payload["edges"]}
    assert by_score[-0.8]["width"] > by_score[-0.5]["width"] > by_score[0.2]["width"]
    assert "supports" in by_score[-0.8]["about"]
    assert "opposes" in by_score[0.2]["about"]
    assert by_score[-0.8] == payload["edges"][-1], "the strongest edge is drawn last, on top"
    assert (by_score[-0.8]["source"], by_score[-0.8]["target"], by_score[-0.8]["port"]) == (
        "a0.h1",
        "a2.h3",
        "k",
    )


def test_key_value_heads_are_joined_to_the_heads_shown():
    graph = Graph(n_layers=3, n_heads=4, n_kv_heads=2)
    payload = graph_payload(
        graph, [("embed", "a2.kv1<v>", -1.0), ("a2.h3", "logits", -1.0), ("a2.h0", "logits", 1.0)]
    )
    assert payload["groups"] == [("a2.kv1", "a2.h3")]
    layout, kv = Layout(graph), nodes.place("a2.kv1")
    assert layout.x(nodes.place("a2.h2")) < layout.x(kv) < layout.x(nodes.place("a2.h3"))
    assert layout.y(kv) > layout.y(nodes.place("a2.h3")), "below its heads"
    assert layout.y(kv) < layout.y(nodes.place("m1")), "above the layer before"


def test_an_empty_circuit_is_an_empty_picture():
    payload = graph_payload(GRAPH, [])
    assert payload["nodes"] == payload["edges"] == []
    json.dumps(payload, allow_nan=False)


def test_nodes_say_what_they_are():
    about = {n["id"]: n["about"] for n in graph_payload(GRAPH, EDGES)["nodes"]}
    assert about["a2.h3"].startswith("layer 2, head 3")
    assert "1 out, sum -0.500" in about["a2.h3"]
    assert "1 in, sum -0.800" in about["a2.h3"]
    assert "2 in, sum -0.300" in about["logits"]


# ---- montage


def test_pooling_keeps_a_single_strong_cell():
    pattern = np.zeros((1, 500, 500), dtype=np.float32)
    pattern[0, 400, 3] = 1.0
    tile = pool(pattern, 48)
    assert tile.shape == (1, 48, 48)
    assert tile.max() == 255
    assert (tile > 0).sum() == 1
    assert tile[0, 400 * 48 // 500, 0] == 255


def test_short_prompts_are_not_pooled():
    pattern = uniform(5)
    assert np.array_equal(pool(pattern)[0], np.rint(255 * np.sqrt(pattern[0])))


def test_the_montage_is_opacity_of_every_tile():
    tiles = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 6)).astype(np.uint8)
    image = Image.open(io.BytesIO(montage(tiles)))
    assert image.mode == "P"
    assert image.size == (4 * 6, 3 * 6)
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    for layer in range(3):
        for head in range(4):
            part = alpha[layer * 6 : layer * 6 + 6, head * 6 : head * 6 + 6]
            assert np.array_equal(part, tiles[layer, head])


@pytest.mark.parametrize("size", [(2, 8), (12, 12), (30, 9), (32, 32), (1, 1), (6, 12), (7, 1)])
def test_blocks_cover_all_layers(size):
    layers, heads = size
    payload = gallery_payload(np.zeros((layers, heads, 4, 4), np.uint8), 4, [""] * layers * heads, title="t")
    assert payload["rows"] * payload["blocks"] >= layers
    assert payload["rows"] * (payload["blocks"] - 1) < layers
    assert blocks_for(30, 9) == 2
    assert payload["pooled"] == ""


# ---- attention


def test_attention_survives_packing():
    pattern = uniform(7)[0]
    payload = attention_payload(pattern, list("abcdefg"), title="a0.h0")
    back = np.frombuffer(base64.b64decode(payload["packed"]), "<u2").reshape(7, 7) / 65535
    assert np.abs(back - pattern).max() < 1e-5


def test_without_the_sink_rows_sum_to_one_again():
    pattern = uniform(4, heads=2)
    left = without_sink(pattern)
    assert left[:, :, 0].max() == 0
    assert np.allclose(left[:, 1:].sum(-1), 1)
    assert np.array_equal(left[:, 0], np.zeros((2, 4)))
    assert np.allclose(left[0, 3], [0, 1 / 3, 1 / 3, 1 / 3])
    assert pattern[0, 3, 0] == 0.25, "the pattern itself stays"


def test_attention_needs_one_token_per_row():
    with pytest.raises(ValueError, match=r"\(7, 7\) does not fit 2 tokens"):
        attention_payload(uniform(7)[0], ["a", "b"], title="")


# ---- kinds of heads


def test_a_head_is_called_by_its_clear_score():
    assert strongest_kind(np.array([0.1, np.nan, np.nan, 0.2])) == ""
    assert strongest_kind(np.array([0.1, np.nan, np.nan, 0.9])) == "first-token sink 0.90"
    assert strongest_kind(np.array([0.1, 0.2, 0.8, 0.3])) == "induction 0.80"


def test_every_kind_is_a_score_of_lens():
    assert {kind.score for kind in KINDS} <= set(SCORES)
    assert [kind.score for kind in KINDS[TELLING:]] == ["first_token", "entropy"]


# ---- charts


def test_bars_show_the_strongest_first_with_two_signs():
    trace = charts.node_bars({"a0.h0": 0.1, "m1": -0.9, "a1.h1": 0.5}, top=2).data[0]
    assert list(trace.y) == ["m1", "a1.h1"]
    assert trace.marker.color[0] != trace.marker.color[1]
    assert trace.marker.pattern.shape[0] != trace.marker.pattern.shape[1]
