"""Circuits of SmolLM2 on six tasks, by several methods, with what speaks for them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from benchmarks.study.keeping import Kept
from circuits import Pairs
from circuits.attribute import attribute
from circuits.bootstrap import mean_interval
from circuits.circuit import Circuit
from circuits.completeness import completeness
from circuits.curve import Curve, faithfulness_curve, mib_sizes, random_curve
from circuits.graph import Graph
from circuits.scores import Scores
from circuits.select import select
from circuits.stability import stability_between, stability_over_examples
from circuits.tasks import load_task
from lens.load import load
from lens.model import Transformer
from lens.progress import Progress

NAME = "study-smollm2"
TASKS = ("ioi", "sva", "gendered_pronoun", "country_capital", "colored_objects", "greater_than")
ESTIMATES = ("eap", "eap-ig", "eap-ig-activations", "relp")
METHODS = (*ESTIMATES, "edge-pruning", "screen then verify", "random")
SIZES = (100, 200, 500, 1_000, 2_000, 5_000)
AT = 1_000
SETTINGS: dict[str, Any] = {
    "model": "smollm2", "examples": 32, "seed": 0, "sizes": SIZES, "at": AT, "sets": 10,
    "verified": 300, "pruning": {"examples": 16, "steps": 100, "seeds": 2},
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One task with its pairs."""

    task: str
    pairs: Pairs
    metric: str
    progress: Progress

    @property
    def graph(self) -> Graph:
        return Graph.of(model().cfg)


@cache
def model() -> Transformer:
    """SmolLM2 in float32."""
    return load("smollm2")


def study(tasks: list[str], methods: list[str], progress: Progress) -> None:
    """Compute what is missing of these tasks and methods."""
    kept = Kept(NAME, SETTINGS)
    for name in tasks:
        task = load_task(name)
        pairs = task.pairs(model(), SETTINGS["examples"], SETTINGS["seed"])
        setting = Setting(name, pairs, task.metric, progress)
        kept.piece(f"{name} check", lambda t=task, p=pairs: t.check(model(), p).to_dict() | _example(p))
        for method in methods:
            kept.piece(f"{name} {method}", lambda s=setting, m=method: measure(s, m))


def measure(setting: Setting, method: str) -> dict[str, Any]:
    """Everything about one method on one task."""
    start = time.process_time()
    scores, circuits, about = find(setting, method)
    seconds = time.process_time() - start
    sizes = sorted({*SIZES, *mib_sizes(setting.graph.n_edges)})
    options: dict[str, Any] = {"progress": setting.progress}
    if method == "random":
        curve = random_curve(model(), setting.pairs, setting.graph, sizes, setting.metric, **options)
    elif circuits is not None:
        curve = faithfulness_curve(model(), setting.pairs, circuits, metric=setting.metric, **options)
    else:
        curve = faithfulness_curve(model(), setting.pairs, scores, sizes, setting.metric, **options)
    found = {"cpu_seconds": seconds, **about, **_curve(curve)}
    if method == "random":
        return found
    chosen = next(c for c in circuits if c.n_edges == AT) if circuits else scores.top(AT)
    whole = completeness(
        model(),
        setting.pairs,
        chosen,
        setting.metric,
        n_sets=SETTINGS["sets"],
        seed=SETTINGS["seed"],
        **options,
    )
    low, high = mean_interval(whole.gaps)
    found["completeness"] = {"mean gap": whole.incompleteness, "interval": [float(low), float(high)]}
    found["on_paths"] = chosen.pruned().n_edges
    if scores.per_example is not None:
        found["stability"] = stability_over_examples(scores, AT).to_dict()
    return found


def find(setting: Setting, method: str) -> tuple[Scores, list[Circuit] | None, dict[str, Any]]:
    """Scores of a method, its circuits where they are not simply the top edges, and what there is to say of them."""
    pairs, metric, progress = setting.pairs, setting.metric, setting.progress
    if method == "random":
        return Scores(graph=setting.graph, values=torch.zeros_like(setting.graph.valid.float()), method=method,
                      metric=metric), None, {}  # fmt: skip
    if method == "edge-pruning":
        return _prune(setting)
    estimate = "eap-ig" if method == "screen then verify" else method
    scores = attribute(model(), pairs, estimate, metric, per_example=True, progress=progress)
    about: dict[str, Any] = {"steps": scores.steps, "completeness_residual": scores.completeness_residual}
    if method != "screen then verify":
        return scores, None, about
    from circuits.verify import verify

    found = verify(model(), pairs, scores, SETTINGS["verified"], metric, progress=progress)
    return found.scores, None, about | {"verified": _verified(found.to_dict())}


def _prune(setting: Setting) -> tuple[Scores, list[Circuit] | None, dict[str, Any]]:
    """Masks learned at one size; other sizes are the strongest of what was learned."""
    options = SETTINGS["pruning"]
    few = setting.pairs[: options["examples"]]
    found = [
        select(
            model(), few, "edge-pruning", setting.metric, n_edges=AT, seed=seed, progress=setting.progress,
            steps=options["steps"],
        )
        for seed in range(options["seeds"])
    ]  # fmt: skip
    first = found[0]
    assert first.scores is not None
    sizes = sorted({*SIZES, *mib_sizes(setting.graph.n_edges)})
    circuits = [first.circuit if n == AT else first.scores.top(n) for n in sizes]
    stability = stability_between([f.circuit for f in found]).to_dict()
    about: dict[str, Any] = {"costs": dict(first.costs), "trained_on": len(few), "seeds": stability}
    return first.scores, circuits, about


def _curve(curve: Curve) -> dict[str, Any]:
    plain = curve.to_dict()
    return plain | {"cpr_interval": curve.cpr_interval(), "cmd_interval": curve.cmd_interval()}


def _verified(found: dict[str, Any]) -> dict[str, Any]:
    edges = found["edges"]
    same = sum((e["estimate"] > 0) == (e["exact"] > 0) for e in edges if e["exact"])
    return {"edges": len(edges), "same sign": same, "top": edges[:10]}


def _example(pairs: Pairs) -> dict[str, Any]:
    return {
        "clean": pairs.clean_text[0], "corrupt": pairs.corrupt_text[0], "positions": pairs.n_positions,
        "first_difference": pairs.first_difference,
    }  # fmt: skip
