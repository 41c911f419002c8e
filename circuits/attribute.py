"""Attribution: an estimate, for every edge, of what giving it its corrupt value does to the metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuits import memory
from lens.progress import Progress, silent
from lens.registry import Registry

if TYPE_CHECKING:
    from circuits.edge_gradients import Points
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from circuits.scores import Scores
    from lens.model import Transformer


@dataclass(frozen=True)
class Method:
    """A way of attributing edges by gradients: at which points between clean and corrupt they are taken.

    `points(steps)` gives fractions of the way from clean to corrupt with weights that sum to one.
    """

    summary: str
    points: Callable[[int], Points]
    default_steps: int
    takes_steps: bool = True


METHODS = Registry("circuits.attribution", "METHOD", Method, "method")


def methods() -> list[str]:
    """The names of all methods."""
    return METHODS.names()


def get_method(name: str) -> Method:
    """A method by name, `eap-ig` or `eap_ig`.

    Raises:
        ValueError: there is none of that name; the message gives the nearest.
    """
    return METHODS.get(name)


def attribute(
    model: Transformer,
    pairs: Pairs,
    method: str = "eap-ig",
    metric: str | Metric = "logit_diff",
    steps: int | None = None,
    *,
    per_example: bool = False,
    share_prefix: bool = True,
    max_memory: int | str = memory.DEFAULT,
    progress: Progress = silent,
) -> Scores:
    """Scores of all edges, averaged over the pairs, in units of the metric.

    A score estimates the change of the metric when that edge is given its corrupt value: negative where the
    edge supports the behaviour.

    Args:
        method: one of `methods()`.
        metric: a name from `circuits.metrics.METRICS` or a function `(logits [..., n, v], pairs) -> [..., n]`.
        steps: integration points; None: what the method takes by default.
        per_example: keep the scores of each pair as well, [n, sender, receiver].
        share_prefix: run the tokens that all prompts share only once (the scores are the same).
        max_memory: how much memory to use beyond the weights, such as "700MB"; an estimate that decides how
            many pairs and integration points are treated together. The scores do not depend on it.

    Raises:
        ValueError: an unknown method or metric, steps below one, pairs that do not fit the model, a model
            whose residual stream is normalised after each sum, a metric that is not finite.
    """
    from circuits.edge_gradients import Request, edge_scores

    found = get_method(method)
    steps = found.default_steps if steps is None or not found.takes_steps else steps
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1")
    points = found.points(steps)
    request = Request(model, pairs, metric, points, per_example, share_prefix, max_memory, progress)
    return edge_scores(request, method.replace("_", "-"), steps)
