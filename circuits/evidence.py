"""What speaks for a circuit that was found: everything `circuits evaluate` measures of a run, and its file.

- curve: faithfulness at growing sizes beside edges in random order, with CPR and CMD
- completeness: the circuit and the model with the same nodes knocked out
- minimality: what each node of the circuit is worth
- stability: the overlap of circuits from resampled examples
- agreement: each node's estimate beside its exact effect
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits import memory
from circuits.agreement import agree
from circuits.attribute import attribute, get_method
from circuits.completeness import completeness, minimality
from circuits.curve import faithfulness_curve, mib_sizes, random_curve
from circuits.node_effects import EXACT, node_effects
from circuits.stability import stability_over_examples
from lens import atomic
from lens.nearest import unknown
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.store import Run
    from lens.model import Transformer

FILE = "evidence.json"
FORMAT = "circuits.evidence"
OF_NODES = ("completeness", "minimality")
SIZES = (100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True)
class _Asked:
    model: Transformer
    run: Run
    ablation: str
    seed: int
    options: dict[str, Any]

    @property
    def metric(self) -> str:
        return str(self.run.info["metric"])


def gather(
    model: Transformer,
    run: Run,
    what: Sequence[str] | None = None,
    *,
    ablation: str | None = None,
    seed: int = 0,
    max_memory: int | str = memory.DEFAULT,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The evidence for a run's circuit, as plain JSON types.

    Args:
        what: some of `KINDS`; None: all.
        ablation: what edges outside the circuit carry; None: as the run says.

    Raises:
        ValueError: another model than the run's, or an unknown kind of evidence.
        Cancelled: raised by `progress`.
    """
    for name in what or ():
        if name not in KINDS:
            raise ValueError(unknown("kind of evidence", name, KINDS))
    if model.revision != run.info["model"]["revision"]:
        raise ValueError(
            f"the run is of {run.info['model']['name']} {run.info['model']['revision']}; "
            f"this is {model.name} {model.revision}"
        )
    ablation = ablation or str(run.info.get("ablation", "counterfactual"))
    asked = _Asked(model, run, ablation, seed, {"max_memory": max_memory, "progress": progress})
    empty = not run.circuit.mask[1:].any()
    found = {
        name: {"skipped": "the circuit has no heads and no MLPs"}
        if empty and name in OF_NODES
        else make(asked)
        for name, make in KINDS.items()
        if what is None or name in what
    }
    return {"ablation": ablation, "n_edges": run.circuit.n_edges, **found}


def save(directory: str | Path, evidence: dict[str, Any]) -> Path:
    """Add evidence to a run folder, beside what of it is there already; returns the file."""
    file = Path(directory) / FILE
    before = load(directory) if file.is_file() else {}
    same = before.get("ablation") == evidence.get("ablation")
    atomic.write_json(file, {"format": FORMAT, **(before if same else {}), **evidence})
    return file


def load(directory: str | Path) -> dict[str, Any]:
    """The evidence in a run folder, empty where there is none.

    Raises:
        ValueError: the file is damaged.
    """
    file = Path(directory) / FILE
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError(f'its "format" is not "{FORMAT}"')
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} holds no evidence that this program can read: {error}") from error
    return values


def _curve(asked: _Asked) -> dict[str, Any]:
    graph, pairs = asked.run.scores.graph, asked.run.pairs
    sizes = sorted({*(n for n in SIZES if n < graph.n_edges), *mib_sizes(graph.n_edges)})
    options = {"ablation": asked.ablation, **asked.options}
    found = faithfulness_curve(asked.model, pairs, asked.run.scores, sizes, asked.metric, **options)
    floor = random_curve(asked.model, pairs, graph, sizes, asked.metric, seed=asked.seed, **options)
    return {**found.to_dict(), "random": floor.to_dict()}


def _completeness(asked: _Asked) -> dict[str, Any]:
    return completeness(
        asked.model, asked.run.pairs, asked.run.circuit, asked.metric, seed=asked.seed,
        ablation=asked.ablation, **asked.options,
    ).to_dict()  # fmt: skip


def _minimality(asked: _Asked) -> dict[str, Any]:
    return minimality(
        asked.model, asked.run.pairs, asked.run.circuit, asked.metric, seed=asked.seed,
        ablation=asked.ablation, **asked.options,
    ).to_dict()  # fmt: skip


def _stability(asked: _Asked) -> dict[str, Any]:
    info = asked.run.info
    scores = attribute(
        asked.model, asked.run.pairs, str(info["method"]), asked.metric, info["steps"],
        ablation=asked.ablation, per_example=True, **asked.options,
    )  # fmt: skip
    return stability_over_examples(scores, asked.run.circuit.n_edges, seed=asked.seed).to_dict()


def _agreement(asked: _Asked) -> dict[str, Any]:
    options = {"ablation": asked.ablation, **asked.options}
    method = str(asked.run.info["method"])
    steps = asked.run.info["steps"] if get_method(method).takes_steps else None
    estimate = node_effects(asked.model, asked.run.pairs, method, asked.metric, steps, **options)
    exact = node_effects(asked.model, asked.run.pairs, EXACT, asked.metric, **options)
    return agree(estimate, exact, seed=asked.seed).to_dict()


KINDS: dict[str, Callable[[_Asked], dict[str, Any]]] = {
    "curve": _curve,
    "completeness": _completeness,
    "minimality": _minimality,
    "stability": _stability,
    "agreement": _agreement,
}
