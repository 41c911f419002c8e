"""How well the model itself does a task, before anything is searched for in it.

1. The untouched model runs once on the clean prompts.
2. A pair counts as right where the most likely of its answers is more likely than every wrong one (where
   there is no wrong one: than every other token), whatever the metric.
3. Shares get Wilson's 95% interval, the mean of the metric its standard error; the same per group of prompts.

Wilson 1927, "Probable inference, the law of succession, and statistical inference".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from circuits.metrics import METRICS, bind, model_runs
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.model import Transformer

LOW_ACCURACY = 0.6
Z = 1.959964  # of a two-sided 95% interval


@dataclass(frozen=True)
class GroupCheck:
    """The figures of one group of prompts."""

    n: int
    mean: float
    accuracy: float


@dataclass(frozen=True)
class Check:
    """The model's own score on the clean prompts.

    `mean`, `se`: of the metric and its standard error (NaN for one pair). `accuracy`: the share of pairs where
    an answer is more likely than every wrong one, with its 95% interval `low` to `high`. `top1`: the share
    where an answer is the most likely token of the whole vocabulary. `groups`: per template or other group.
    """

    task: str
    metric: str
    n: int
    mean: float
    accuracy: float
    se: float = math.nan
    low: float = 0.0
    high: float = 1.0
    top1: float = math.nan
    groups: dict[str, GroupCheck] = field(default_factory=dict)

    def __repr__(self) -> str:
        right = f"right on {self.accuracy:.0%} ({self.low:.0%}–{self.high:.0%}) of {self.n}"
        return f"Check({self.task}: {right}, {self.metric} {self.mean:.2f})"

    @property
    def warning(self) -> str | None:
        """One line where the model hardly does the task, so that a circuit found for it means little."""
        if self.accuracy >= LOW_ACCURACY:
            return None
        return (
            f"the model is right on {self.accuracy:.0%} of {self.n} {self.task} prompts "
            f"(below {LOW_ACCURACY:.0%}): what is found may say little about the task"
        )

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types; what is not a number is None."""
        numbers = {name: getattr(self, name) for name in ("mean", "se", "accuracy", "low", "high", "top1")}
        return {
            "task": self.task,
            "metric": self.metric,
            "n": self.n,
            **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
            "groups": {name: vars(group) for name, group in self.groups.items()},
            "warning": self.warning,
        }


@torch.no_grad()
def check(
    model: Transformer,
    pairs: Pairs,
    metric: str | Metric = "logit_diff",
    task: str = "",
    *,
    progress: Progress = silent,
) -> Check:
    """The model's own score on the clean prompts of these pairs, in one run.

    Raises:
        ValueError: no such metric, or the model gives NaN (the message names the pair).
    """
    function = bind(metric, model, pairs)
    values, right, top = [], [], []
    for part, logits in model_runs(model, pairs):
        progress(sum(map(len, values)), len(pairs), "run the model")
        values.append(function(logits, part).cpu().double())
        right.append(METRICS["accuracy"](logits, part).cpu().bool())
        top.append((METRICS["rank"](logits, part) == 0).cpu())
    value, is_right, is_top = torch.cat(values), torch.cat(right), torch.cat(top)
    n = len(pairs)
    low, high = wilson(int(is_right.sum()), n)
    return Check(
        task=task or pairs.task,
        metric=function.name,
        n=n,
        mean=float(value.mean()),
        accuracy=float(is_right.double().mean()),
        se=float(value.std() / math.sqrt(n)) if n > 1 else math.nan,
        low=low,
        high=high,
        top1=float(is_top.double().mean()),
        groups=_by_group(pairs.groups, value, is_right),
    )


def wilson(hits: int, n: int, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a share of `hits` in `n` ≥ 1."""
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _by_group(names: tuple[str, ...], values: torch.Tensor, right: torch.Tensor) -> dict[str, GroupCheck]:
    found = {}
    for name in dict.fromkeys(names):
        rows = torch.tensor([other == name for other in names])
        found[name] = GroupCheck(
            int(rows.sum()), float(values[rows].mean()), float(right[rows].double().mean())
        )
    return found
