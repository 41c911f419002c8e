"""A circuit that was put together by hand, or by any other means than `discover`, kept as a run with its evidence.

1. Ask how well the model itself does what the pairs ask (`check`).
2. Evaluate the circuit, its strongest edges alone for each smaller budget, and random sets of the same sizes.
3. Put it into a `Run`, and that into a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits import memory
from circuits.ablation import get_ablation
from circuits.check import check
from circuits.circuit import Circuit
from circuits.discover import Clock, made_with, relabelled, summarize
from circuits.evaluate import evaluate_many
from circuits.plan import RANDOM_SETS, SMALL_BUDGET
from circuits.store import Run, check_destination
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.pairs import Pairs
    from circuits.scores import Scores
    from lens.model import Transformer


def record(
    model: Transformer,
    pairs: Pairs,
    circuit: Circuit,
    scores: Scores,
    *,
    algorithm: str,
    task: str | None = None,
    corruption: str | None = None,
    ablation: str = "counterfactual",
    budgets: Sequence[int] | None = None,
    random_sets: int = RANDOM_SETS,
    seed: int = 0,
    source: str | None = None,
    out: str | Path | None = None,
    max_memory: int | str = memory.DEFAULT,
    progress: Progress = silent,
    **about: Any,
) -> Run:
    """A run of this circuit, written to the folder `out` where one is given.

    Args:
        scores: of all edges; their metric and method become the run's.
        algorithm: how the circuit was chosen, in a few words.
        task: what the run is of; None: what the pairs say.
        budgets: sizes of which the strongest edges of the circuit are evaluated too; None: a usual one.
        about: further entries of the provenance, plain JSON types.

    Raises:
        ValueError: the circuit, the scores and the model do not belong together, the circuit is empty, a budget is
            larger than the circuit, or `out` cannot be written.
        OSError: writing failed; nothing is left behind.
        Cancelled: raised by `progress`; nothing is written.
    """
    n = circuit.n_edges
    if circuit.graph != scores.graph:
        raise ValueError(f"the scores belong to a graph of other sizes: {scores.graph}, not {circuit.graph}")
    if n == 0:
        raise ValueError("the circuit has no edges")
    budgets = [SMALL_BUDGET if n > SMALL_BUDGET else n // 5] if budgets is None else budgets
    for budget in budgets:
        if not 0 <= budget <= n:
            raise ValueError(f"{budget} edges were asked for; the circuit has {n}")
    get_ablation(ablation)
    if out is not None:
        check_destination(out, graph=circuit.graph, n_edges=n)
    clock, sizes = Clock(), sorted({*budgets, n} - {0})
    metric, name = scores.metric, task or pairs.task or "own prompts"
    with clock("check"):
        progress(0, 1, "run the model")
        checked = check(model, pairs, metric, name, progress=progress)
    edges = circuit.edges()
    found = [circuit if k == n else Circuit.from_edges(circuit.graph, edges[:k]) for k in sizes]
    sets = [Circuit.random(circuit.graph, k, seed + i) for k in sizes for i in range(random_sets)]
    with clock("evaluate"):
        results = evaluate_many(
            model, pairs, [*found, *sets], metric, ablation=ablation, max_memory=max_memory,
            progress=relabelled(progress, "evaluate circuits"),
        )  # fmt: skip
    summary = summarize(checked, scores, circuit, results[: len(found)], results[len(found) :])
    info = {
        **made_with(model, source),
        "task": name,
        "corruption": corruption,
        "method": scores.method,
        "metric": metric,
        "steps": scores.steps,
        "examples": len(pairs),
        "seed": seed,
        "algorithm": algorithm,
        "ablation": ablation,
        "edges": n,
        "threshold": None,
        "budgets": sizes,
        "random_sets": random_sets,
        "max_memory": max_memory,
        "seconds": clock.seconds,
        **about,
    }
    run = Run(info, summary, scores, circuit, pairs)
    return run if out is None else run.save(out)
