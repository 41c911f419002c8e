"""BigBird's blocks: against Hugging Face on texts of many blocks, and against a naive definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lens.family import read, write
from lens.inputs import ModelInputs
from lens.mixers.big_bird import BigBird
from lens.model import Transformer
from tests import mixers, zoo
from tests.parity import EXACT, relative_error

BLOCK, N_RANDOM = 3, 1


def ids(n: int, rows: int = 2) -> Tensor:
    return torch.randint(3, zoo.D_VOCAB, (rows, n), generator=torch.Generator().manual_seed(5))


def both(dtype: torch.dtype = torch.float64) -> tuple[Any, Transformer]:
    """A model of Hugging Face's, not shared: a short text makes it attend to wholes for ever after."""
    specimen = zoo.ZOO["big_bird"]["masked"]
    sizes = {"block_size": BLOCK, "num_random_blocks": N_RANDOM}
    hf = zoo.fresh(zoo.Specimen("big_bird", {**specimen.config, **sizes}, auto=specimen.auto), dtype)
    return hf, Transformer.from_state(*read(hf.config.to_dict(), hf.state_dict()))


@pytest.mark.parametrize("n", [22, 23, 29, 45, 21, 6])
def test_agrees_with_hugging_face_on_long_texts(n: int) -> None:
    """Whole and broken last blocks, just long enough, and short enough to be attended as a whole."""
    hf, model = both()
    with torch.no_grad():
        theirs = hf(ids(n), output_hidden_states=True)
    for taps in ([], "pattern"):
        logits, cache = model.run_with_cache(ids(n), taps)
        assert relative_error(logits, theirs.logits) < EXACT
        assert all((cache["pattern", layer].sum(-1) - 1).abs().max() < EXACT for layer in range(3) if taps)
    streams = model.run_with_cache(ids(n), "resid_pre")[1]
    for layer in range(3):
        assert relative_error(streams["resid_pre", layer], theirs.hidden_states[layer][:, :n]) < EXACT


def test_padding_within_the_last_block_is_hugging_faces_too() -> None:
    """As long as it does not fill a block: else the library's last block, which all look at, is padding."""
    hf, model = both()
    real = torch.ones(2, 30, dtype=torch.bool)
    real[1, 28:] = False
    with torch.no_grad():
        theirs = hf(ids(30), attention_mask=real.long()).logits
    ours = model(ModelInputs(ids=ids(30), mask=real))
    assert relative_error(ours, theirs, real) < EXACT


def test_classifiers_of_texts() -> None:
    """They bring a layer of their own, and the library saves beside it a pooler that nothing reads."""
    sizes = {**zoo.ZOO["big_bird"]["masked"].config, **zoo.LABELS, "hidden_act": "relu"}
    specimen = zoo.Specimen("big_bird", sizes, auto="AutoModelForSequenceClassification")
    hf = zoo.fresh(specimen, torch.float64)
    saved = hf.state_dict()
    cfg, state = read(hf.config.to_dict(), saved)
    with torch.no_grad():
        assert relative_error(Transformer.from_state(cfg, state)(ids(13)), hf(ids(13)).logits) < EXACT
    written = write(cfg, state)
    assert saved.keys() - written.keys() == {"bert.pooler.weight", "bert.pooler.bias"}
    assert all(torch.equal(x, saved[name]) for name, x in written.items())


def naive(model: Transformer, q: Tensor, k: Tensor, n: int) -> Tensor:
    """The pattern of one head [n, n], query by query and key by key."""
    cfg = model.cfg.stack.mixer
    assert isinstance(cfg, BigBird)
    last, scale = (n - 1) // cfg.block, model.cfg.d_head**-0.5
    pattern = torch.zeros(n, n, dtype=q.dtype)
    for i in range(n):
        own = i // cfg.block
        seen: list[int] = []
        for j in range(n):
            block = j // cfg.block
            if n <= cfg.whole or own in (0, last):
                seen += [j]
            elif block == 0:
                seen += [j] * (1 + cfg.n_random)
            elif block == last or abs(own - block) <= 1:
                seen += [j]
        weights = torch.tensor([float(q[i] @ k[j]) * scale for j in seen], dtype=q.dtype).softmax(0)
        for j, weight in zip(seen, weights, strict=True):
            pattern[i, j] += weight
    return pattern


@pytest.mark.parametrize("n", [10, 24, 26])
def test_patterns_are_those_of_the_definition(n: int) -> None:
    model = mixers.model("big_bird", "post")
    prompt = mixers.ids(2, n)
    _, cache = model.run_with_cache(prompt, ["q", "k", "pattern"])
    for head in (0, 3):
        q, k = cache["q", 1][1, :, head], cache["k", 1][1, :, head]
        assert relative_error(cache["pattern", 1][1, head], naive(model, q, k, n)) < EXACT


def test_a_row_with_padding_is_cut_into_blocks_as_if_alone() -> None:
    model = mixers.model("big_bird", "post")
    prompt = mixers.ids(3, 27)
    real = torch.ones(3, 27, dtype=torch.bool)
    real[0, :4], real[1, 9:] = False, False
    real[2, [3, 11]] = False
    for taps in ([], "pattern"):
        together = model.run_with_cache(ModelInputs(ids=prompt, mask=real), taps)[0]
        for row in range(3):
            alone = model(prompt[row, real[row]][None])
            assert relative_error(together[row, real[row]], alone[0]) < EXACT


def test_no_block_of_a_long_text_is_looked_at_from_afar() -> None:
    """What changes a key in the middle reaches, in one layer, neighbouring blocks and the ends alone."""
    model, n = mixers.model("big_bird", "post"), 33
    prompt = mixers.ids(1, n)
    other = prompt.clone()
    other[0, 16] = (other[0, 16] + 1) % zoo.D_VOCAB
    moved = (model(prompt, stop_at_layer=1) - model(other, stop_at_layer=1)).abs().amax(-1)[0]
    blocks = {p // 2 for p in moved.nonzero()[:, 0].tolist()}
    assert blocks == {0, 7, 8, 9, 16}
