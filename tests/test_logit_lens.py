"""The logit lens, against the plain way."""

from __future__ import annotations

import pytest
import torch

from lens import logit_lens as module
from lens.logit_lens import logit_lens, moved
from lens.progress import Cancelled
from tests.circuits.conftest import tiny

IDS = [3, 1, 4, 1, 5, 9, 2]
ASKED = [7, 0]


@pytest.mark.parametrize(
    "stack", [{}, {"norm_placement": frozenset({"add"}), "final_norm": False}, {"d_mlp": None, "norm": "rms"}]
)
def test_every_row_is_the_model_stopped_there(stack):
    model = tiny(**stack)
    found = logit_lens(model, IDS, ASKED)
    assert found.top.shape == (3, 7) and found.log_probs.shape == (3, 7, 2)
    for layer in range(3):
        stream = model(torch.tensor([IDS]), stop_at_layer=layer)
        expected = model.to_logits(stream)[0].log_softmax(-1)
        assert torch.allclose(found.log_probs[layer], expected[:, ASKED], atol=1e-5)
        assert torch.equal(found.top[layer], expected.argmax(-1))
        assert torch.allclose(found.top_log_prob[layer], expected.max(-1).values, atol=1e-5)
        order = expected.argsort(descending=True)
        ranks = torch.stack([(order == token).nonzero()[:, 1] for token in ASKED], 1)
        assert torch.equal(found.ranks[layer], ranks)
    assert torch.allclose(
        found.log_probs[-1], model(torch.tensor([IDS]))[0].log_softmax(-1)[:, ASKED], atol=1e-5
    )


def test_parts_of_positions_make_no_difference(monkeypatch):
    model = tiny()
    whole = logit_lens(model, IDS, ASKED)
    monkeypatch.setattr(module, "LOGIT_BYTES", 4 * 40 * 2)
    parts = logit_lens(model, IDS, ASKED)
    assert torch.allclose(whole.log_probs, parts.log_probs, atol=1e-6)
    assert torch.equal(whole.top, parts.top)


def test_nothing_asked_is_nothing_followed():
    assert logit_lens(tiny(), IDS).log_probs.shape == (3, 7, 0)


def test_what_a_block_moved():
    model = tiny()
    up, down = moved(model, IDS, 4, 0, 2, k=3, candidates=40)
    first = model.to_logits(model(torch.tensor([IDS]), stop_at_layer=0))[0, 4].log_softmax(-1)
    last = model(torch.tensor([IDS]))[0, 4].log_softmax(-1)
    change = last - first
    assert torch.equal(up.ids, change.topk(3).indices)
    assert torch.equal(down.ids, (-change).topk(3).indices)
    assert torch.allclose(up.after - up.before, change[up.ids], atol=1e-5)
    ranks = last.argsort(descending=True).argsort()
    assert torch.equal(up.rank_after, ranks[up.ids])
    assert torch.equal(down.rank_before, first.argsort(descending=True).argsort()[down.ids])


def test_unlikely_tokens_are_left_out():
    model = tiny()
    up, down = moved(model, IDS, 4, 0, 2, candidates=2)
    last = model(torch.tensor([IDS]))[0, 4]
    assert set(up.ids.tolist()) <= set(last.topk(2).indices.tolist())
    assert len(down.ids) <= 2


def test_it_can_be_cancelled():
    def stop(done, total, label):
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        logit_lens(tiny(), IDS, progress=stop)


def test_what_does_not_exist_is_named():
    with pytest.raises(ValueError, match="token 40 is outside"):
        logit_lens(tiny(), IDS, [40])
    with pytest.raises(ValueError, match="position 7 does not exist"):
        moved(tiny(), IDS, 7, 0, 1)
    with pytest.raises(ValueError, match="stream 3 does not exist"):
        moved(tiny(), IDS, 0, 0, 3)
