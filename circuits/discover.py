"""From a task to a circuit with its evidence: the whole line, and the run that is kept.

1. Make clean and corrupt pairs for the model's tokenizer (`task`).
2. Ask how well the model itself does the task; a warning travels with the result (`Task.check`).
3. Score every edge (`attribute`); measure the strongest exactly, if that is asked for (`verify`).
4. Choose a circuit for each budget (`select`).
5. Evaluate these circuits, and random edge sets of the same sizes beside them (`evaluate`).
6. Put it into a `Run`, and that into a folder (`store`).
"""

from __future__ import annotations

import math
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from circuits.attribute import attribute
from circuits.circuit import Circuit
from circuits.evaluate import Evaluation, evaluate_many
from circuits.plan import EDGES, Plan, Settings
from circuits.scores import Scores
from circuits.select import Found, get_algorithm, select
from circuits.store import Run, check_destination
from circuits.sweep import FILE as SWEEP_FILE
from circuits.sweep import WHOLE_FILE
from lens import atomic
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.check import Check
    from circuits.pairs import Pairs
    from lens.model import Transformer

__all__ = ["EDGES", "Plan", "Settings", "discover"]

TOP_HEADS = 15
PACKAGE = "lens-workbench"
PHASES = ("attribute", "verify", "evaluate")
"""The folders in a discovery's checkpoint."""


def discover(
    model: Transformer,
    settings: Settings | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    checkpoint: str | Path | None = None,
    source: str | None = None,
    progress: Progress = silent,
    **choices: Any,
) -> Run:
    """Find a circuit and measure it.

    `choices` are fields of `Settings`: `discover(model, task="ioi", edges=500)`.

    With `out`, the run is also written to that folder. With `checkpoint`, finished parts are kept in that folder
    until the end, so that the same call goes on where a killed one was. `source` is what `lens.load` was given
    for this model, so that the run can be taken up again by itself.

    Raises:
        ValueError: a choice that does not exist or does not fit the model, `out` cannot be written, or
            `checkpoint` holds other things: told before the work begins.
        OSError: writing failed at the end; nothing is left behind.
        Cancelled: raised by `progress`; nothing is written.
    """
    s = Plan.of(model, replace(settings or Settings(), **choices))
    if out is not None:
        check_destination(out, overwrite=overwrite, graph=s.graph, n_edges=s.edges)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
        atomic.write_json(Path(checkpoint, WHOLE_FILE), {"phases": list(PHASES)})
    clock = Clock()
    with clock("pairs"):
        progress(0, 1, "make pairs")
        pairs = s.task.pairs(model, s.examples, s.asked.seed, s.asked.corruption)
        progress(1, 1, "make pairs")
    with clock("check"):
        progress(0, 1, "run the model")
        check = s.task.check(model, pairs, s.metric, progress=progress)
        progress(1, 1, "run the model")
    with clock("attribute"):
        shown = relabelled(progress, f"score edges ({s.asked.method})")
        scores = attribute(
            model, pairs, s.asked.method, s.metric, s.asked.steps, ablation=s.asked.ablation,
            max_memory=s.asked.max_memory, checkpoint=_place(checkpoint, "attribute"), progress=shown,
        )  # fmt: skip
    verified = None
    if s.asked.verify:
        from circuits.verify import verify

        with clock("verify"):
            shown = relabelled(progress, "measure the strongest edges exactly")
            verified = verify(
                model, pairs, scores, s.asked.verify, s.metric, ablation=s.asked.ablation,
                max_memory=s.asked.max_memory, checkpoint=_place(checkpoint, "verify"), progress=shown,
            )  # fmt: skip
            scores = verified.scores
    with clock("select"):
        found, scores = _select(model, pairs, s, scores, progress)
    sets = [
        Circuit.random(s.graph, c.n_edges, s.asked.seed + i)
        for c in found
        for i in range(s.asked.random_sets)
    ]
    with clock("evaluate"):
        shown = relabelled(progress, "evaluate circuits")
        results = evaluate_many(
            model, pairs, [*found, *sets], s.metric, ablation=s.asked.ablation,
            max_memory=s.asked.max_memory, checkpoint=_place(checkpoint, "evaluate"), progress=shown,
        )  # fmt: skip
    circuit = found[0] if s.asked.threshold is not None else found[s.budgets.index(s.edges)]
    summary = summarize(check, scores, circuit, results[: len(found)], results[len(found) :])
    if verified is not None:
        summary["verified"] = verified.to_dict()
    run = Run(
        provenance(model, s, scores, clock.seconds, source, len(pairs)), summary, scores, circuit, pairs
    )
    run = run if out is None else run.save(out, overwrite=overwrite)
    if checkpoint is not None:
        _clear(Path(checkpoint))
    return run


def check_checkpoint(directory: str | Path) -> None:
    """Whether a folder can hold the checkpoint of a discovery: it is not there, is empty, or holds one.

    Raises:
        ValueError: it holds anything else, which would be in the way and must not be deleted.
    """
    directory = Path(directory)
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ValueError(f"{str(directory)!r} cannot hold a checkpoint: it is a file")
    for part in sorted(directory.iterdir()):
        if part.name == WHOLE_FILE:
            continue
        if part.name not in PHASES or not (part / SWEEP_FILE).is_file():
            raise ValueError(
                f"{str(directory)!r} is not the checkpoint of a discovery: it holds {part.name!r}; "
                "choose a new or an empty folder"
            )


def _clear(directory: Path) -> None:
    """Delete what a finished discovery kept, and the folder unless something else has come into it."""
    for phase in PHASES:
        shutil.rmtree(directory / phase, ignore_errors=True)
    (directory / WHOLE_FILE).unlink(missing_ok=True)
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _select(
    model: Transformer, pairs: Pairs, s: Plan, scores: Scores, progress: Progress
) -> tuple[list[Circuit], Scores]:
    """The circuit of each budget, and the scores that chose them.

    An algorithm that selects by scores is asked once per budget. One that searches by itself is asked once, for
    the circuit, and smaller ones are the strongest edges of what it learned. With a threshold there is one circuit.
    """
    algorithm, shown = get_algorithm(s.asked.algorithm), relabelled(progress, f"select ({s.asked.algorithm})")

    def ask(n_edges: int | None) -> Found:
        return select(
            model, pairs, s.asked.algorithm, s.metric, n_edges=n_edges, threshold=s.asked.threshold, scores=scores,
            ablation=s.asked.ablation, seed=s.asked.seed, max_memory=s.asked.max_memory, progress=shown,
        )  # fmt: skip

    if s.asked.threshold is not None:
        found = ask(None)
        return [found.circuit], found.scores or scores
    if algorithm.needs_scores:
        return [ask(n).circuit for n in s.budgets], scores
    best = ask(s.edges)
    learned = best.scores or scores
    return [best.circuit if n == s.edges else learned.top(n) for n in s.budgets], learned


def _place(checkpoint: str | Path | None, phase: str) -> Path | None:
    return None if checkpoint is None else Path(checkpoint, phase)


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
    whole, pruned = found[0], circuit.pruned()
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
    return {
        "metric": check.metric,
        "metric_model": whole.metric_model,
        "metric_corrupt": whole.metric_corrupt,
        "accuracy": check.accuracy,
        "check": check.to_dict(),
        "warning": "; ".join(filter(None, (check.warning, off_paths(pruned)))) or None,
        "signed": scores.signed,
        "circuits": circuits,
        "heads": [[name, importance] for name, importance in scores.top_heads(TOP_HEADS)],
        "n_edges": circuit.n_edges,
        "n_edges_on_paths": pruned.n_edges,
        "n_nodes_on_paths": len(pruned.nodes()),
        "completeness_residual": scores.completeness_residual,
    }


def off_paths(pruned: Circuit) -> str | None:
    """One line where a circuit leads nowhere."""
    if pruned.n_edges:
        return None
    return "no edge of the circuit lies on a path from the embedding to the logits; try greedy, or more edges"


def provenance(
    model: Transformer,
    plan: Plan,
    scores: Scores,
    seconds: dict[str, float],
    source: str | None,
    n_examples: int,
) -> dict[str, Any]:
    """Where a run comes from, as plain JSON types."""
    asked = plan.asked
    return {
        **made_with(model, source),
        "task": plan.task.name,
        "corruption": asked.corruption or next(iter(plan.task.corruptions)),
        "method": asked.method.replace("_", "-"),
        "metric": scores.metric,
        "steps": scores.steps,
        "examples": n_examples,
        "seed": asked.seed,
        "algorithm": asked.algorithm,
        "ablation": asked.ablation,
        "verify": asked.verify,
        "edges": plan.edges if asked.threshold is None else None,
        "threshold": asked.threshold,
        "budgets": plan.budgets,
        "random_sets": asked.random_sets,
        "max_memory": asked.max_memory,
        "seconds": seconds,
    }


def made_with(model: Transformer, source: str | None = None) -> dict[str, Any]:
    """When, with which model and with which programs a run was made, as plain JSON types."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": model.name,
            "source": source or model.name,
            "revision": model.revision,
            "origin": model.origin,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
        },
        "versions": {
            PACKAGE: _version(),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
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
