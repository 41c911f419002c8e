"""What is measured of an answer: functions of the logits at the answer's position, one number per pair.

A metric is called as `metric(logits, pairs)` with logits [..., n, v] and returns [..., n]; leading axes (such
as integration steps or stacked patches) are kept. Larger means more of the behaviour, and zero divides right
from wrong where there is a wrong answer to compare with. Metrics are differentiable in the logits. Means over
pairs are taken late, by whoever reports.

Where several answers count, `logit_diff` takes the mean of their logits and the others the sum of their
probabilities; ids of -1 are no answer.

Shapes: n pair, v vocab, a answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lens.nearest import unknown

if TYPE_CHECKING:
    from circuits.pairs import Pairs
    from lens.model import Transformer

Logits = Float[Tensor, "*lead n v"]
Values = Float[Tensor, "*lead n"]
Metric = Callable[[Tensor, "Pairs"], Tensor]


def logit_diff(logits: Logits, pairs: Pairs) -> Values:
    """Mean logit of the answers minus mean logit of the wrong ones, in logits."""
    return _mean_of(logits, pairs.answers) - _mean_of(logits, pairs.wrong)


def prob_diff(logits: Logits, pairs: Pairs) -> Values:
    """Probability of the answers minus probability of the wrong ones, from -1 to 1."""
    log_probs = logits.log_softmax(-1)
    return _log_sum_of(log_probs, pairs.answers).exp() - _log_sum_of(log_probs, pairs.wrong).exp()


def log_prob(logits: Logits, pairs: Pairs) -> Values:
    """Log-probability of the answers together, in nats, at most 0."""
    return _log_sum_of(logits.log_softmax(-1), pairs.answers)


METRICS: dict[str, Metric] = {m.__name__: m for m in (logit_diff, prob_diff, log_prob)}


def get_metric(metric: str | Metric) -> Metric:
    """A metric by name (`logit_diff`, also written `logit-diff`), or the callable itself.

    Raises:
        ValueError: no metric has that name.
    """
    if not isinstance(metric, str):
        return metric
    name = metric.replace("-", "_")
    if name not in METRICS:
        raise ValueError(unknown("metric", metric, METRICS))
    return METRICS[name]


def metric_name(metric: str | Metric) -> str:
    """The name under which a metric is reported."""
    if isinstance(metric, str):
        return get_metric(metric).__name__
    return getattr(metric, "__name__", type(metric).__name__)


@torch.no_grad()
def measure(
    model: Transformer, pairs: Pairs, metric: str | Metric, *, corrupt: bool = False, batch: int = 32
) -> Tensor:
    """The metric [n] of the untouched model on the clean prompts, or on the corrupt ones."""
    function = get_metric(metric)
    values = []
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        prompts = part.corrupt if corrupt else part.clean
        logits = model(prompts, attention_mask=part.attention_mask, logits_at=part.ends)[:, 0]
        values.append(function(logits, part))
    return torch.cat(values).cpu()


def _picked(values: Logits, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The values [..., n, a] at ids [n] or [n, a], and a bool [n, a] of those that are there."""
    ids = ids.to(values.device)
    ids = ids[:, None] if ids.ndim == 1 else ids
    if values.shape[-2] != ids.shape[0]:
        raise ValueError(f"logits of {values.shape[-2]} pairs were given; there are {ids.shape[0]} pairs")
    index = ids.clamp(min=0).expand(*values.shape[:-1], ids.shape[1])
    return values.gather(-1, index), ids >= 0


def _mean_of(logits: Logits, ids: Tensor) -> Values:
    values, there = _picked(logits, ids)
    return torch.where(there, values, 0.0).sum(-1) / there.sum(-1)


def _log_sum_of(log_probs: Logits, ids: Tensor) -> Values:
    values, there = _picked(log_probs, ids)
    return torch.where(there, values, float("-inf")).logsumexp(-1)
