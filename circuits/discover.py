"""From a task to a circuit with its evidence: the whole line, and the run that is kept.

1. Make clean and corrupt pairs for the model's tokenizer (`task`).
2. Ask how well the model itself does the task; a warning travels with the result (`Task.check`).
3. Score every edge (`attribute`).
4. Take the strongest edges, for each budget (`Scores.top`).
5. Evaluate these circuits, and random edge sets of the same sizes beside them (`evaluate`).
6. Put it into a `Run`, and that into a folder (`store`).
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from circuits import memory
from circuits.attribute import attribute, get_method
from circuits.circuit import Circuit, check_n_edges
from circuits.evaluate import Evaluation, evaluate_many
from circuits.graph import Graph
from circuits.metrics import get_metric, metric_name
from circuits.scores import Scores
from circuits.store import Run, check_destination
from circuits.task import Check, Task
from circuits.tasks import load_task
from lens.nearest import unknown
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from lens.model import Transformer

EDGES = 1000
SMALL_BUDGET = 200
RANDOM_SETS = 5
TOP_HEADS = 15
PACKAGE = "lens-workbench"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is asked of a discovery, checked before any work is done. None means the usual choice."""

    task: str | Task = "ioi"
    corruption: str | None = None
    method: str = "eap-ig"
    metric: str | None = None  # the task's own
    steps: int | None = None  # the method's own
    examples: int = 32
    edges: int | None = None  # 1,000, or a tenth of a small model's edges
    budgets: Sequence[int] | None = None  # 200 and `edges`
    seed: int = 0
    random_sets: int = RANDOM_SETS
    max_memory: int | str = memory.DEFAULT

    def check(self) -> None:
        """What can be known without a model.

        Raises:
            ValueError: a name that does not exist (with the nearest that does) or a number out of range.
        """
        task = self.loaded_task()
        if self.corruption is not None and self.corruption not in task.corruptions:
            raise ValueError(unknown("corruption", self.corruption, task.corruptions, of=task.name))
        get_method(self.method)
        get_metric(self.metric or task.metric)
        memory.parse(self.max_memory)
        counts = {"examples": self.examples, "steps": self.steps, "edges": self.edges}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}; it must be at least 1")
        if self.random_sets < 0:
            raise ValueError(f"random_sets is {self.random_sets}; it must be at least 0")

    def loaded_task(self) -> Task:
        """The task itself, where it was given by name."""
        return self.task if isinstance(self.task, Task) else load_task(self.task)


def discover(
    model: Transformer,
    settings: Settings | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    **choices: Any,
) -> Run:
    """Find a circuit and measure it.

    `choices` are fields of `Settings`: `discover(model, task="ioi", edges=500)`.

    With `out`, the run is also written to that folder.

    Raises:
        ValueError: a choice that does not exist or does not fit the model, or `out` cannot be written: told
            before the work begins.
        OSError: writing failed at the end; nothing is left behind.
        Cancelled: raised by `progress`; nothing is written.
    """
    s = Plan.of(model, replace(settings or Settings(), **choices))
    if out is not None:
        check_destination(out, overwrite=overwrite, graph=s.graph, n_edges=s.edges)
    clock = Clock()
    with clock("pairs"):
        progress(0, 1, "make pairs")
        pairs = s.task.pairs(model, s.asked.examples, s.asked.seed, s.asked.corruption)
        progress(1, 1, "make pairs")
    with clock("check"):
        progress(0, 1, "run the model")
        check = s.task.check(model, pairs, s.metric)
        progress(1, 1, "run the model")
    with clock("attribute"):
        shown = relabelled(progress, f"score edges ({s.asked.method})")
        scores = attribute(
            model,
            pairs,
            s.asked.method,
            s.metric,
            s.asked.steps,
            max_memory=s.asked.max_memory,
            progress=shown,
        )
    found = [scores.top(n) for n in s.budgets]
    sets = [
        Circuit.random(s.graph, n, s.asked.seed + i) for n in s.budgets for i in range(s.asked.random_sets)
    ]
    with clock("evaluate"):
        shown = relabelled(progress, "evaluate circuits")
        results = evaluate_many(
            model, pairs, [*found, *sets], s.metric, max_memory=s.asked.max_memory, progress=shown
        )
    circuit = found[s.budgets.index(s.edges)]
    summary = summarize(check, scores, circuit, results[: len(found)], results[len(found) :])
    run = Run(provenance(model, s, scores, clock.seconds), summary, scores, circuit, pairs)
    return run if out is None else run.save(out, overwrite=overwrite)


@dataclass(frozen=True)
class Plan:
    """Settings made definite for one model."""

    asked: Settings
    task: Task
    graph: Graph
    metric: str
    edges: int
    budgets: list[int]

    @classmethod
    def of(cls, model: Transformer, asked: Settings) -> Plan:
        """Raises ValueError for what does not exist or does not fit, with the nearest that does."""
        asked.check()
        task = asked.loaded_task()
        metric = metric_name(asked.metric or task.metric)
        graph = Graph.of(model.cfg)
        edges = asked.edges
        if edges is None:
            edges = EDGES if graph.n_edges >= 10 * EDGES else math.ceil(graph.n_edges / 10)
        budgets = asked.budgets
        if budgets is None:
            budgets = [SMALL_BUDGET] if edges > SMALL_BUDGET else [edges // 5]
        for n in (edges, *budgets):
            check_n_edges(graph, n)
        return cls(asked, task, graph, metric, edges, sorted({*budgets, edges} - {0}))


class Clock:
    """Wall-clock seconds of the phases of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] = round(time.perf_counter() - start, 3)


def relabelled(progress: Progress, shown: str) -> Progress:
    """The same watcher, told another label."""

    def told(done: int, total: int, label: str) -> None:
        progress(done, total, shown)

    return told


def summarize(
    check: Check,
    scores: Scores,
    circuit: Circuit,
    found: Sequence[Evaluation],
    random_sets: Sequence[Evaluation],
) -> dict[str, Any]:
    """What a person wants to know of a run, as plain JSON types."""
    whole = found[0]
    per_budget = len(random_sets) // len(found)
    circuits = []
    for i, evaluation in enumerate(found):
        floor = random_sets[i * per_budget : (i + 1) * per_budget]
        circuits.append(
            {
                "n_edges": evaluation.n_edges,
                "metric": evaluation.metric,
                "faithfulness": finite(evaluation.faithfulness),
                "random": {
                    "sets": per_budget,
                    "metric": _mean([e.metric for e in floor]),
                    "faithfulness": _mean([e.faithfulness for e in floor]),
                    "each": [finite(e.faithfulness) for e in floor],
                },
            }
        )
    pruned = circuit.pruned()
    return {
        "metric": check.metric,
        "metric_model": whole.metric_model,
        "metric_corrupt": whole.metric_corrupt,
        "accuracy": check.accuracy,
        "warning": check.warning,
        "circuits": circuits,
        "heads": [[name, importance] for name, importance in scores.top_heads(TOP_HEADS)],
        "n_edges": circuit.n_edges,
        "n_edges_on_paths": pruned.n_edges,
        "n_nodes_on_paths": len(pruned.nodes()),
        "completeness_residual": scores.completeness_residual,
    }


def provenance(model: Transformer, plan: Plan, scores: Scores, seconds: dict[str, float]) -> dict[str, Any]:
    """Where a run comes from, as plain JSON types."""
    asked = plan.asked
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": model.name,
            "revision": model.revision,
            "origin": model.origin,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
        },
        "task": plan.task.name,
        "corruption": asked.corruption or next(iter(plan.task.corruptions)),
        "method": scores.method,
        "metric": scores.metric,
        "steps": scores.steps,
        "examples": asked.examples,
        "seed": asked.seed,
        "edges": plan.edges,
        "budgets": plan.budgets,
        "random_sets": asked.random_sets,
        "max_memory": asked.max_memory,
        "versions": {
            PACKAGE: _version(),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "seconds": seconds,
    }


def finite(value: float) -> float | None:
    """The value, or None for what JSON cannot hold; minus zero becomes zero."""
    return value + 0.0 if math.isfinite(value) else None


def _mean(values: Sequence[float]) -> float | None:
    return finite(sum(values) / len(values)) if values else None


def _version() -> str | None:
    """None where the packages run from their sources."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
