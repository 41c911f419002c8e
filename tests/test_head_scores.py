"""Head scores on patterns made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lens.head_scores import (
    SCORES,
    duplicate_token,
    entropy,
    first_token,
    head_scores,
    induction,
    previous_token,
)


def looking_at(keys: list[list[int]]) -> Tensor:
    """A pattern [1, h, p, p]: each head's query i looks only at `keys[head][i]`."""
    return torch.nn.functional.one_hot(torch.tensor(keys), len(keys[0])).float()[None]


A, B, C = 5, 6, 7
IDS = torch.tensor([[0, A, B, C, A, B]])  # the second A and B stand at 4 and 5


def test_each_kind_of_head_scores_one_on_its_own_score_and_no_other() -> None:
    heads = {
        "previous_token": [0, 0, 1, 2, 3, 4],
        "duplicate_token": [0, 1, 2, 3, 1, 2],
        "induction": [0, 1, 2, 3, 2, 3],
        "first_token": [0, 0, 0, 0, 0, 0],
    }
    scores = head_scores(looking_at(list(heads.values())), IDS)
    assert list(scores) == list(SCORES)
    for i, name in enumerate(heads):
        assert scores[name][i] == 1
    assert scores["duplicate_token"].tolist() == [0, 1, 0, 0]
    assert scores["induction"].tolist() == [0, 0, 1, 0]
    assert scores["previous_token"].tolist() == pytest.approx([1, 0, 0, 0.2])  # position 1 looks at 0
    assert scores["first_token"].tolist() == pytest.approx([0.2, 0, 0, 1])
    assert scores["entropy"].tolist() == [0, 0, 0, 0]


def test_attention_to_several_earlier_occurrences_adds_up() -> None:
    ids = torch.tensor([[A, B, A, C, A]])
    pattern = torch.zeros(1, 1, 5, 5)
    pattern[0, 0] = torch.eye(5)
    pattern[0, 0, 4] = torch.tensor([0.1, 0.2, 0.3, 0.35, 0.05])
    assert duplicate_token(pattern, ids).item() == pytest.approx((0 + 0.1 + 0.3) / 2)
    assert induction(pattern, ids).item() == pytest.approx((0 + 0.2 + 0.35) / 2)


def test_induction_does_not_count_the_query_itself() -> None:
    ids = torch.tensor([[A, A, A]])
    assert induction(torch.eye(3)[None, None], ids).item() == 0
    assert induction(looking_at([[0, 1, 1]]), ids).item() == 1  # only the third A has an earlier follower


def test_entropy_is_that_of_the_attention_in_nats() -> None:
    pattern = torch.ones(4, 4).tril()
    pattern = (pattern / pattern.sum(-1, keepdim=True))[None, None]
    expected = (math.log(2) + math.log(3) + math.log(4)) / 3
    assert entropy(pattern, torch.tensor([[0, 1, 2, 3]])).item() == pytest.approx(expected)


def test_without_repetition_what_asks_for_it_is_nan() -> None:
    scores = head_scores(torch.eye(3)[None, None], torch.tensor([[1, 2, 3]]))
    assert [name for name, s in scores.items() if s.isnan().all()] == ["duplicate_token", "induction"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_neither_asks_nor_is_looked_for(side: str) -> None:
    """A padded text has the scores that it has alone, whatever its padding looks at."""
    pattern = torch.rand(1, 3, 6, 6).tril().softmax(-1)
    pad, at = 2, slice(2, 8) if side == "left" else slice(0, 6)
    padded = torch.rand(1, 3, 6 + pad, 6 + pad)
    padded[:, :, at, :] = 0
    padded[:, :, at, at] = pattern
    ids, valid = torch.full((1, 6 + pad), B), torch.zeros(1, 6 + pad, dtype=torch.bool)
    ids[:, at], valid[:, at] = IDS, True
    alone, together = head_scores(pattern, IDS), head_scores(padded, ids, valid)
    for name in SCORES:
        torch.testing.assert_close(together[name], alone[name], msg=name)


def test_layers_and_rows_are_means_over_all_queries() -> None:
    pattern = torch.rand(2, 3, 4, 5, 5).softmax(-1)  # 2 layers, 3 texts, 4 heads
    ids = torch.tensor([[1, 2, 1, 2, 3], [1, 2, 3, 4, 5], [1, 1, 1, 1, 2]])
    scores = head_scores(pattern, ids)
    assert all(score.shape == (2, 4) for score in scores.values())
    by_hand = []
    for row in range(3):
        for i in range(5):
            keys = [j for j in range(i) if ids[row, j] == ids[row, i]]
            if keys:
                by_hand.append(pattern[:, row, :, i, keys].sum(-1))
    torch.testing.assert_close(scores["duplicate_token"], torch.stack(by_hand).mean(0))
    torch.testing.assert_close(
        scores["previous_token"], pattern.diagonal(-1, -2, -1).mean((1, 3)), msg="previous_token"
    )
    assert torch.equal(previous_token(pattern[1], ids), scores["previous_token"][1])
    assert torch.equal(first_token(pattern[1], ids), scores["first_token"][1])


def test_a_pattern_of_other_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pattern \[1, 1, 3, 3\] does not fit tokens \[1, 4\]"):
        head_scores(torch.eye(3)[None, None], torch.tensor([[1, 2, 3, 4]]))
