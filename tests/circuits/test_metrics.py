"""Metrics against a computation by hand."""

from __future__ import annotations

import math

import pytest
import torch

from circuits.metrics import METRICS, get_metric, measure, metric_name
from circuits.pairs import Pairs

LOGITS = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.0, 3.0, 1.0, -2.0]])


def pairs(answers: list, wrong: list) -> Pairs:
    ids = torch.zeros(len(answers), 2, dtype=torch.int64)
    return Pairs(ids, ids + 1, torch.tensor(answers), torch.tensor(wrong))


def probabilities(row: int) -> list[float]:
    weights = [math.exp(x) for x in LOGITS[row].tolist()]
    return [w / sum(weights) for w in weights]


def test_one_answer_each() -> None:
    p = pairs([1, 2], [0, 1])
    a, b = probabilities(0), probabilities(1)
    expected = {
        "logit_diff": [2.0 - 1.0, 1.0 - 3.0],
        "prob_diff": [a[1] - a[0], b[2] - b[1]],
        "log_prob": [math.log(a[1]), math.log(b[2])],
    }
    assert expected.keys() == METRICS.keys()
    for name, values in expected.items():
        torch.testing.assert_close(METRICS[name](LOGITS, p), torch.tensor(values))


def test_several_answers_with_padding() -> None:
    p = pairs([[1, -1], [2, 3]], [[0, 2, 3], [1, -1, -1]])
    a, b = probabilities(0), probabilities(1)
    expected = {
        "logit_diff": [2.0 - (1.0 - 1.0 + 0.5) / 3, (1.0 - 2.0) / 2 - 3.0],
        "prob_diff": [a[1] - (a[0] + a[2] + a[3]), b[2] + b[3] - b[1]],
        "log_prob": [math.log(a[1]), math.log(b[2] + b[3])],
    }
    for name, values in expected.items():
        torch.testing.assert_close(METRICS[name](LOGITS, p), torch.tensor(values))


@pytest.mark.parametrize("name", METRICS)
def test_leading_axes_and_gradients(name: str) -> None:
    p = pairs([[1, -1], [2, 3]], [[0, 2], [1, -1]])
    stacked = torch.stack([LOGITS, LOGITS * 2, LOGITS - 1]).requires_grad_(True)
    values = METRICS[name](stacked, p)
    assert values.shape == (3, 2)
    for i in range(3):
        torch.testing.assert_close(values[i], METRICS[name](stacked[i], p))
    (gradient,) = torch.autograd.grad(values.sum(), stacked)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


def test_by_name_and_callable() -> None:
    assert get_metric("logit-diff") is get_metric("logit_diff") is METRICS["logit_diff"]
    own = lambda logits, pairs: logits[..., 0]  # noqa: E731
    assert get_metric(own) is own
    assert metric_name("prob-diff") == "prob_diff"
    assert metric_name(METRICS["log_prob"]) == "log_prob"
    with pytest.raises(ValueError, match="'logit_dif' is not a known metric; did you mean 'logit_diff'"):
        get_metric("logit_dif")


def test_another_number_of_pairs() -> None:
    with pytest.raises(ValueError, match="logits of 2 pairs were given; there are 1 pairs"):
        METRICS["logit_diff"](LOGITS, pairs([1], [0]))


def test_measure_reads_the_last_real_token(make_tiny) -> None:
    model = make_tiny()
    rows = [[3, 4, 5, 6], [7, 8]]
    p = Pairs.from_tokens(model, rows, [[3, 4, 9, 6], [7, 9]], answers=[1, 2], wrong=[3, 4])
    expected = [float(model(torch.tensor([row]))[0, -1, [a, w]].diff().neg()) for row, a, w in
                zip(rows, [1, 2], [3, 4], strict=True)]  # fmt: skip
    torch.testing.assert_close(measure(model, p, "logit_diff", batch=1), torch.tensor(expected))
    torch.testing.assert_close(measure(model, p, "logit_diff"), torch.tensor(expected))
    assert not torch.allclose(measure(model, p, "logit_diff", corrupt=True), torch.tensor(expected))
