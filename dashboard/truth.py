"""Circuits that are known: those planted in a model, those beside its folder, and one that a person gave.

- A model named like `planted-ioi-easy-0` is planted anew from its name: the same name gives the same weights.
- `circuits planted --out DIR` keeps the model in `DIR/model` and its circuits in `DIR/structural`, `DIR/causal`.
- A person's own is kept in the run's folder, in `truth.json`.
"""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.circuit import Circuit
from circuits.exchange import readable
from circuits.planted.difficulty import PRESETS
from circuits.planted.planted import Planted, plant
from circuits.planted.planting import plantings
from circuits.truth import recovery
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.store import Run

FILE = "truth.json"
NAME = re.compile(rf"planted-([a-z-]+)-({'|'.join(PRESETS)})-(\d{{1,9}})")
KINDS = ("structural", "causal")
ABOUT = {
    "structural": "the edges by which the model was built to carry the answer",
    "causal": "the edges that change the metric by themselves on these pairs",
    "given": "the circuit that was uploaded",
}
LARGEST = 20 * 2**20


def planted_name(family: str, difficulty: str, seed: int) -> str:
    """The name by which a planted model can be loaded."""
    return f"planted-{family}-{difficulty}-{seed}"


@functools.lru_cache(maxsize=4)
def planted(name: str) -> Planted | None:
    """The planted model of this name, or None where it is not such a name."""
    match = NAME.fullmatch(name)
    if match is None or match[1] not in plantings():
        return None
    return plant(match[1], int(match[3]), match[2])


def known_of(run: Run, source: str) -> list[str]:
    """Which truths there are of a run whose model is loaded as `source`."""
    found = list(KINDS) if _same(run, planted(source)) else []
    found += [kind for kind in KINDS if kind not in found and _beside(run, source, kind) is not None]
    return [*found, *(["given"] if given(run) is not None else [])]


def measure(run: Run, source: str, progress: Progress = silent) -> dict[str, Any]:
    """How well the run's scores recover each known circuit, as plain JSON types.

    Raises:
        ValueError: no circuit is known.
    """
    found: dict[str, Any] = {}
    for kind in known_of(run, source):
        result = recovery(run.scores, _truth(run, source, kind, progress))
        chance = result.n_positive / result.n_edges
        found[kind] = {**vars(result), "auprc_chance": chance}
    if not found:
        raise ValueError("no circuit is known of this model; give one as a file")
    return found


def _truth(run: Run, source: str, kind: str, progress: Progress) -> Circuit:
    if kind == "given":
        circuit = given(run)
    elif _same(run, planted(source)):
        model = planted(source)
        assert model is not None
        if kind == "structural":
            circuit = model.structural
        else:
            circuit = model.causal(run.pairs, run.scores.metric, progress=progress)
    else:
        circuit = _beside(run, source, kind)
    assert circuit is not None
    return circuit


def _same(run: Run, model: Planted | None) -> bool:
    return model is not None and model.model.revision == run.info["model"]["revision"]


def _beside(run: Run, source: str, kind: str) -> Circuit | None:
    """A circuit beside the model's folder, if it is of this graph."""
    folder = Path(source)
    if not folder.is_dir() or not (folder.parent / kind).is_dir():
        return None
    try:
        circuit = Circuit.load(folder.parent / kind)
    except ValueError:
        return None  # some other folder of that name
    return circuit if circuit.graph == run.scores.graph else None


def given(run: Run) -> Circuit | None:
    """The circuit that a person gave for this run."""
    if run.path is None or not (run.path / FILE).is_file():
        return None
    try:
        circuit = Circuit.read(run.path / FILE, "json")
    except ValueError:
        return None  # damaged: as good as none
    return circuit if circuit.graph == run.scores.graph else None


def keep(run: Run, filename: str, content: bytes) -> Circuit:
    """Take a file with a circuit as the truth of a run.

    Raises:
        ValueError: too large, not a circuit of this model's graph, or a circuit of no or of all edges.
    """
    assert run.path is not None
    shown = Path(filename).name[:80]
    if len(content) > LARGEST:
        raise ValueError(f"{shown!r} has {len(content):,} bytes; at most {LARGEST:,} are taken")
    suffix = "".join(Path(filename).suffixes[-2:]).lower()
    safe = suffix if re.fullmatch(r"(\.[a-z-]{1,12}){1,2}", suffix) else ".json"
    with tempfile.TemporaryDirectory(prefix="lens-truth-") as folder:
        path = Path(folder) / f"circuit{safe}"
        path.write_bytes(content)
        try:
            circuit = Circuit.read(path, graph=run.scores.graph)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), shown)) from error
    if not 0 < circuit.n_edges < circuit.graph.n_edges:
        raise ValueError(f"{shown!r} has {circuit.n_edges} of {circuit.graph.n_edges} edges; nothing to rank")
    circuit.export(run.path / FILE, "json")
    return circuit


def endings() -> list[str]:
    """The endings of files that can be given."""
    from circuits.exchange import FORMATS

    return sorted({s.rsplit(".", 1)[1] for name in readable() for s in FORMATS.get(name).suffixes})
