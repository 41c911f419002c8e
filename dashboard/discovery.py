"""Work that ends in a new saved run: a discovery, a circuit of what was patched, another choice of edges."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from circuits import memory
from circuits.attribute import attribute
from circuits.circuit import check_n_edges
from circuits.discover import Settings, discover, relabelled
from circuits.graph import Graph
from circuits.metrics import get_metric
from circuits.places import place
from circuits.planted.difficulty import get_difficulty
from circuits.planted.planting import PLANTINGS
from circuits.record import record
from circuits.select import get_algorithm, select
from circuits.verify import verify
from dashboard import patching, pieces, truth
from dashboard.jobs import Job, Runner
from dashboard.models import Shelf
from dashboard.patching import Cells
from lens.progress import Progress

if TYPE_CHECKING:
    from circuits.pairs import Pairs
    from circuits.scores import Scores
    from circuits.store import Run
    from dashboard.subject import Subject
    from lens.model import Transformer

METHOD = "eap-ig"


@dataclass(frozen=True)
class Found:
    """What such a job gives: the name of the run's folder."""

    run: str


def folder_name(task: str, model: str, method: str, when: datetime) -> str:
    """A folder name that says what a run is and when it was begun."""
    parts = [re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-.") for part in (task, Path(model).stem, method)]
    return "-".join([*parts, when.strftime("%Y%m%d-%H%M%S")])


def start(runner: Runner, shelf: Shelf, model: str, settings: Settings, runs: Path) -> Job:
    """Queue a discovery of `model`, to be saved in a new folder in `runs`.

    Raises:
        ValueError: a setting does not exist or is out of range.
    """
    settings.check()
    task = settings.loaded_task().name

    def work(progress: Progress, out: Path) -> None:
        loaded = shelf.get(model, progress)
        asked = settings
        if settings.max_memory == memory.DEFAULT:
            asked = replace(settings, max_memory=pieces.held(loaded, pieces.GRADIENTS))
        discover(loaded, asked, out=out, source=model, progress=progress)

    label = f"Discover {task} in {model} ({settings.method}, {settings.examples} examples)"
    return _queue(runner, label, model, runs / _folder(task, model, settings.method), work)


def send_heads(
    runner: Runner, subject: Subject, measured: Pairs, k: int, runs: Path, cells: Cells | None = None
) -> Job:
    """Queue the circuit of the `k` strongest heads: all edges between them, the embedding, MLPs and logits.

    Args:
        measured: the pairs on which heads are patched; the circuit is scored and evaluated on all pairs.
        cells: the heads' effects on them, where they are known.

    Raises:
        ValueError: there are no pairs, or the metric has no gradient to score edges by.
    """
    pairs, model = _pairs(subject), subject.model

    def work(progress: Progress, out: Path) -> None:
        found = cells or patching.measure(model, measured, patching.HEADS, subject.metric, progress=progress)
        heads = [name for name in found.ranked() if place(name).kind == "head"][:k]
        if not heads:
            raise ValueError("no head does anything here: there is nothing to make a circuit of")
        scores = _scored(model, pairs, progress, subject.metric)
        circuit = patching.between(Graph.of(model.cfg), heads, scores)
        record(
            model, pairs, circuit, scores, algorithm=f"{len(heads)} strongest heads, patched exactly",
            source=subject.name, out=out, max_memory=pieces.held(model, pieces.RUNS), progress=progress,
            heads=heads,
        )  # fmt: skip

    label = f"Circuit of {k} heads of {subject.name}"
    return _queue(
        runner, label, subject.name, runs / _folder(pairs.task or "own", subject.name, "heads"), work
    )


def send_edges(runner: Runner, subject: Subject, n_edges: int, runs: Path) -> Job:
    """Queue the circuit of the strongest edges: screened by an estimate, then each measured exactly.

    Twice as many are measured as are kept.

    Raises:
        ValueError: there are no pairs, the graph has fewer edges, or the metric has no gradient.
    """
    pairs, model = _pairs(subject), subject.model
    graph = Graph.of(model.cfg)
    check_n_edges(graph, n_edges)
    measured = min(2 * n_edges, graph.n_edges)

    def work(progress: Progress, out: Path) -> None:
        scores = _scored(model, pairs, progress, subject.metric)
        shown = relabelled(progress, f"measure {measured} edges exactly")
        most = pieces.held(model, pieces.EXACT)
        verified = verify(model, pairs, scores, measured, subject.metric, max_memory=most, progress=shown)
        record(
            model, pairs, verified.circuit(n_edges), verified.scores,
            algorithm=f"{n_edges} strongest of {measured} edges, patched exactly",
            source=subject.name, out=out, max_memory=pieces.held(model, pieces.RUNS), progress=progress,
            verify=measured,
        )  # fmt: skip

    label = f"Circuit of {n_edges} edges of {subject.name}"
    return _queue(
        runner, label, subject.name, runs / _folder(pairs.task or "own", subject.name, "edges"), work
    )


def send_planted(runner: Runner, family: str, difficulty: str, seed: int, runs: Path) -> Job:
    """Queue the discovery of a planted circuit: as many edges as were planted.

    Raises:
        ValueError: there is no such family or difficulty.
    """
    get_difficulty(difficulty)
    PLANTINGS.get(family)
    name = truth.planted_name(family, difficulty, seed)

    def work(progress: Progress, out: Path) -> None:
        planted = truth.planted(name)
        assert planted is not None
        pairs, model = planted.pairs(), planted.model
        scores = _scored(model, pairs, progress)
        circuit = scores.top(planted.structural.n_edges)
        most = pieces.held(model, pieces.RUNS)
        record(
            model, pairs, circuit, scores, algorithm="top-n", source=name, out=out, max_memory=most,
            progress=progress,
        )  # fmt: skip

    return _queue(runner, f"Discover {name}", name, runs / _folder("planted", family, difficulty), work)


def choose_again(
    runner: Runner, shelf: Shelf, model: str, run: Run, algorithm: str, n_edges: int, runs: Path
) -> Job:
    """Queue another choice of edges on a run's pairs, by the run's scores where the algorithm takes scores.

    Raises:
        ValueError: an unknown algorithm, one that takes no number of edges, or more edges than there are.
    """
    if "n_edges" not in get_algorithm(algorithm).takes:
        raise ValueError(f"{algorithm} takes a threshold, not a number of edges")
    check_n_edges(run.scores.graph, n_edges)
    info = run.info
    ablation = str(info.get("ablation", "counterfactual"))

    def work(progress: Progress, out: Path) -> None:
        loaded = shelf.get(model, progress)
        if loaded.revision != info["model"]["revision"]:
            raise ValueError(f"{model} here is not of the revision that the run was made with")
        most = pieces.held(loaded, pieces.GRADIENTS)
        found = select(
            loaded, run.pairs, algorithm, run.scores.metric, n_edges=n_edges, scores=run.scores,
            ablation=ablation, seed=info["seed"], max_memory=most, progress=relabelled(progress, algorithm),
        )  # fmt: skip
        record(
            loaded, run.pairs, found.circuit, found.scores or run.scores, algorithm=algorithm,
            task=str(info["task"]), corruption=info.get("corruption"), ablation=ablation, seed=info["seed"],
            source=model, out=out, max_memory=most, progress=progress,
        )  # fmt: skip

    label = f"{algorithm}: {n_edges:,} edges of {info['task']} in {model}"
    return _queue(runner, label, model, runs / _folder(str(info["task"]), model, algorithm), work)


def _scored(model: Transformer, pairs: Pairs, progress: Progress, metric: str = "logit_diff") -> Scores:
    most = pieces.held(model, pieces.GRADIENTS)
    return attribute(
        model, pairs, METHOD, metric, max_memory=most, progress=relabelled(progress, "score edges")
    )


def _pairs(subject: Subject) -> Pairs:
    if subject.batch is None:
        raise ValueError(subject.why or "there is no pair of prompts")
    get_metric(subject.metric, gradient=True)
    return subject.batch


def _folder(task: str, model: str, method: str) -> str:
    return folder_name(task, model, method, datetime.now())


def _queue(runner: Runner, label: str, lane: str, out: Path, work: Callable[[Progress, Path], None]) -> Job:
    def do(progress: Progress) -> Found:
        work(progress, out)
        return Found(out.name)

    return runner.submit(label, do, lane=lane, key=("discover", out))
