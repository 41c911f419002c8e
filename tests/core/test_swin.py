"""Windows of a map, moved and padded; stages of different widths; what runs on them refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lens
from lens.description import in_words, n_parameters
from lens.family import find, read
from lens.inputs import ModelInputs
from lens.mixers import shifted_windows
from lens.mixers.shifted_windows import ShiftedWindows, squares
from lens.model import Transformer
from tests import zoo
from tests.parity import CLOSE, EXACT, inputs, ours, prompts, relative_error, worst

PADDED = ("swin", "padded")  # maps of 11 × 14 and 6 × 7 in windows of 3


def image(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 22, 28, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def neighbours(rows: int, columns: int, window: int, shift: int, y: int, x: int) -> set[tuple[int, int]]:
    """Cells, padding included, that a position may look at: those of its window that lie on its side of a wrap."""
    down, across = -(-rows // window) * window, -(-columns // window) * window

    def stretch(place: int, n: int) -> range:
        """The window around a place: between n - shift and shift, the one of the wrap is cut in two."""
        edges = sorted({0, n, *range(shift, n, window)})
        start = max(edge for edge in edges if edge <= place)
        return range(start, min(edge for edge in edges if edge > place))

    return {(j, i) for j in stretch(y, down) for i in stretch(x, across)}


@pytest.mark.parametrize(
    ("grid", "window", "shift"), [((6, 6), 3, 0), ((6, 6), 3, 1), ((5, 8), 3, 1), ((7, 9), 4, 2)]
)
def test_who_sees_whom(grid: tuple[int, int], window: int, shift: int) -> None:
    (rows, columns), at = grid, squares(grid, ShiftedWindows(window=window, shift=shift), None)
    across = -(-columns // window) * window
    right = [(y, x) for y in range(rows) for x in range(columns, across)]
    below = [(y, x) for y in range(rows, -(-rows // window) * window) for x in range(across)]
    cells = [(y, x) for y in range(rows) for x in range(columns)] + right + below
    assert len(at.together) == len(cells)
    for cell in range(rows * columns):
        seen = {cells[i] for i in (at.together == at.together[cell]).nonzero()[:, 0].tolist()}
        assert seen == neighbours(rows, columns, window, shift, *cells[cell])
    assert torch.equal(at.place[at.cells], torch.arange(len(cells)))


def test_patterns_are_those_of_the_map() -> None:
    model = ours(*PADDED, torch.float64)
    cache = model.run_with_cache(image(), ["pattern", "attn_scores", ("pos_scores", 1)])[1]
    shapes = [tuple(cache["pattern", layer].shape[1:]) for layer in range(4)]
    assert shapes == [(2, 154, 180)] * 2 + [(4, 42, 54)] * 2
    for layer in range(4):
        pattern, scores = cache["pattern", layer], cache["attn_scores", layer]
        assert torch.allclose(pattern.sum(-1), torch.ones(()).double())
        assert torch.equal(pattern == 0, scores == -torch.inf)
        assert ((pattern > 0).sum(-1) <= 9).all()
    assert (cache["pos_scores", 1] != 0).sum() == 2 * 2 * (cache["pattern", 1][0, 0] > 0).sum()


def test_an_edited_pattern_reaches_beyond_its_window() -> None:
    model = ours(*PADDED, torch.float64)

    def look_far(pattern: Tensor) -> Tensor:
        pattern = pattern.clone()
        pattern[:, :, 0] = 0
        pattern[:, :, 0, 153] = 1
        return pattern

    wanted = ["blocks.0.attn.hook_z", "blocks.0.attn.hook_v"]
    cache = model.run_with_cache(image(), wanted, edits={"blocks.0.attn.hook_pattern": look_far})[1]
    plain = model.run_with_cache(image(), wanted)[1]
    assert torch.allclose(cache["z", 0][:, 0], cache["v", 0][:, 153])
    assert torch.allclose(cache["z", 0][:, 1:], plain["z", 0][:, 1:])


def test_padding_is_what_the_biases_say() -> None:
    """A window at the corner sees cells of padding: without biases of keys and values, they only thin it out."""
    model = ours(*PADDED, torch.float64)
    cache = model.run_with_cache(image(), ["pattern", "k", "v", "q", "z", "pos_scores"])[1]
    last, attn = 11 * 14 - 1, model.blocks[0].attn
    pattern = cache["pattern", 0][:, :, last]
    assert (pattern[:, :, 154:] > 0).any()
    v = torch.cat([cache["v", 0], attn.b_V.expand(2, 26, -1, -1)], 1)
    assert torch.allclose(cache["z", 0][:, last], torch.einsum("bhc,bche->bhe", pattern, v))
    scores = torch.einsum("bhe,he->bh", cache["q", 0][:, last], attn.b_K) * attn.scale
    padding = cache["pos_scores", 0][0, :, last, 154:]
    seen = pattern[0, :, 154:] > 0
    ratio = pattern[0, :, 154:][seen] / (scores[0, :, None] + padding)[seen].exp()
    assert torch.allclose(ratio.view(2, -1), ratio.view(2, -1)[:, :1])


def test_merging_by_definition() -> None:
    """Odd maps get zeros; of four positions, those above and below come first, then their right neighbours."""
    model = ours("swin", "base", torch.float64)  # 12 × 12, 6 × 6, 3 × 3
    model = Transformer.from_state(replace(model.cfg), model.state_dict())
    given = inputs(model, prompts(2))
    cache = model.run_with_cache(given, ["resid_post", "hook_merged", "resid_pre"])[1]
    stream, merge = cache["resid_post", 2].view(2, 12, 12, 16), model.blocks[2].merge
    four = torch.cat([stream[:, 4, 6], stream[:, 5, 6], stream[:, 4, 7], stream[:, 5, 7]], -1)
    normed = torch.nn.functional.layer_norm(four, (64,), merge.ln.weight, merge.ln.bias, 1e-5)
    expected = normed @ merge.linear.weight.T
    assert torch.allclose(cache["blocks.2.hook_merged"].view(2, 6, 6, 32)[:, 2, 3], expected)
    assert torch.equal(cache["blocks.2.hook_merged"], cache["resid_pre", 3])
    assert "blocks.1.hook_merged" not in model.sites and "blocks.5.hook_merged" not in model.sites


def test_sites_say_their_sizes() -> None:
    model = ours(*PADDED)
    cache = model.run_with_cache(image().float(), list(model.sites))[1]
    for name, x in cache.items():
        site = model.sites[name]
        for axis, size in site.sizes:
            assert x.shape[site.shape.split().index(axis)] == size, (name, axis)
        assert bool(site.sizes) == (site.layer is not None), name
    assert dict(model.sites["blocks.0.attn.hook_pattern"].sizes) == {"head": 2, "pos": 154, "cell": 180}
    assert model.sites["blocks.1.hook_merged"].sizes == (("merged", 42), ("d_next", 32))
    assert ours("vit", "classifier").sites["blocks.0.hook_resid_pre"].sizes == ()


def test_shorthands_and_stacks() -> None:
    model = ours(*PADDED)
    cache = model.run_with_cache(image().float(), "resid_pre")[1]
    assert [tuple(cache["resid_pre", layer].shape) for layer in (0, 3)] == [(2, 154, 16), (2, 42, 32)]
    with pytest.raises(ValueError, match="'resid_pre' has another shape in another layer"):
        cache.stack("resid_pre")


def test_the_vector_of_an_image_is_the_mean() -> None:
    model = ours(*PADDED, torch.float64)
    out, cache = model.run_with_cache(image(), ["ln_final.hook_normalized", "pooler.hook_pooler_out"])
    norm = model.ln_final
    assert norm is not None and norm.bias is not None
    vector = (cache["ln_final.hook_normalized"] * norm.weight + norm.bias).mean(1)
    assert torch.allclose(cache["pooler.hook_pooler_out"], vector)
    assert model.classifier is not None
    assert torch.allclose(out, model.classifier.linear(vector))


def test_positions_asked_for_are_those_of_the_last_stage() -> None:
    model = ours("swin", "base", torch.float64)
    given = inputs(model, prompts(2))
    whole = model(given)
    assert whole.shape == (2, 9, 64)
    assert torch.equal(model(given, logits_at=8), whole[:, 8:])
    with pytest.raises(ValueError, match="logits_at is 9 and the run has 9 positions"):
        model(given, logits_at=9)


def test_a_mask_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    hf, model = zoo.hugging_face(*PADDED), ours(*PADDED)
    assert worst(model, hf) < CLOSE

    def wrapped(*given: Any) -> Any:
        sound = squares(*given)
        return sound._replace(together=sound.together // 4)

    monkeypatch.setattr(shifted_windows, "squares", wrapped)
    for attention in ("eager", "sdpa"):
        assert worst(model, hf, attention=attention) > 10 * CLOSE


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window_size": 7}, r"window_size=7 is not supported where a stage has 6 × 7 patches"),
        ({"image_size": 23}, r"image_size \(23, 23\) is no multiple of \(2, 2\)"),
        ({"depths": [2, 2, 2]}, "depths has 3 stages and num_heads 2"),
        ({"hidden_size": 64}, "hidden_size=64 is not supported"),
    ],
)
def test_configurations_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    hf = {**zoo.config(zoo.ZOO["swin"]["padded"]).to_dict(), **fields}
    with pytest.raises(ValueError, match=message):
        find(hf).config(hf)


PUBLISHED: dict[str, Any] = {
    "architectures": ["SwinForImageClassification"], "attention_probs_dropout_prob": 0.0, "depths": [2, 2, 6, 2],
    "drop_path_rate": 0.1, "embed_dim": 96, "encoder_stride": 32, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
    "id2label": {str(i): str(i) for i in range(1000)}, "image_size": 224, "initializer_range": 0.02,
    "layer_norm_eps": 1e-05, "mlp_ratio": 4.0, "model_type": "swin", "num_channels": 3, "num_heads": [3, 6, 12, 24],
    "num_layers": 4, "patch_size": 4, "path_norm": True, "qkv_bias": True, "torch_dtype": "float32",
    "transformers_version": "4.16.0.dev0", "use_absolute_embeddings": False, "window_size": 7,
}  # fmt: skip
BASE = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}

WIDER = (23**2 - 13**2) * (2 * 4 + 2 * 8 + 18 * 16 + 2 * 32)
"""What windows of 12 add to those of 7: displacements, for every head of every layer."""


@pytest.mark.parametrize(
    ("fields", "n"),
    [
        ({}, 28_288_354),
        (BASE, 87_768_224),
        ({**BASE, "image_size": 384, "window_size": 12}, 87_768_224 + WIDER),
    ],
)
def test_published_sizes(fields: dict[str, Any], n: int) -> None:
    """Weights of the tiny and the base network, as the library they come from counts them."""
    cfg = find(PUBLISHED).config({**PUBLISHED, **fields})
    assert n_parameters(cfg) == n
    mixers = [m for m in cfg.stack.mixers if isinstance(m, ShiftedWindows)]
    moved = [m.shift for m in mixers]
    half = mixers[0].window // 2
    assert moved == [0, half] * ((len(moved) - 2) // 2) + [0, 0], "one window is all of the last map"


def test_what_runs_refuse() -> None:
    model, given = ours(*PADDED, torch.float64), image()
    stream = model(given, stop_at_layer=2)
    assert stream.shape == (2, 42, 32)
    assert relative_error(model(stream, start_at_layer=2), model(given)) < EXACT
    with pytest.raises(ValueError, match=r"that enters layer 1 is \[batch, 154, 16\], not \(2, 42, 32\)"):
        model(stream, start_at_layer=1)
    with pytest.raises(ValueError, match="swin reads whole images: nothing of them can be masked"):
        model(ModelInputs(image=given, mask=torch.ones(2, 154)))
    with pytest.raises(ValueError, match=r"swin reads images \[batch, 3, 22, 28\]"):
        model(given[..., :24])


def test_in_words() -> None:
    words = in_words(ours(*PADDED).cfg)
    assert "4 blocks: attention, then MLP; LayerNorm before each branch" in words
    one, other = (
        "2 blocks of 16 dimensions and 2 heads on 11 × 14",
        "2 blocks of 32 dimensions and 4 heads on 6 × 7",
    )
    between = "between them, four neighbouring positions become one"
    assert f"stages: {one} positions; {other} positions; {between}" in words
    line = "attention in windows of 3 × 3, moved by 1, with a bias per displacement (in 2 of 4 layers)"
    assert line in words
    assert "MLP of 24 to 48 neurons (gelu)" in words
    assert "a final norm, then a vector per image, the mean of all positions" in words
    assert "a final norm, then logits over 4 classes of each image (labels)" in words


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = ours(*PADDED)
    again = lens.load(lens.save(model, tmp_path / "saved"))
    assert again.cfg.stack == model.cfg.stack
    assert torch.equal(again(image().float()), model(image().float()))


def test_tables_of_indices_in_older_checkpoints_are_passed_over() -> None:
    hf = zoo.hugging_face("swin", "base")
    state = dict(hf.state_dict())
    state["encoder.layers.0.blocks.1.attention.self.relative_position_index"] = torch.zeros(9, 9).long()
    state["embeddings.mask_token"] = torch.zeros(1, 1, 16)
    assert read(hf.config.to_dict(), state)[0].stack == ours("swin", "base").cfg.stack
