"""What the Patching page measures: one activation given its value from the other prompt. No Streamlit: this runs
in jobs.

Shapes: r row, c column, n pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.agreement import Agreement, agree
from circuits.bootstrap import mean_interval
from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.node_effects import EXACT, node_effects
from circuits.patch import patch
from circuits.paths import path_patch_to
from circuits.places import head_name
from dashboard import pieces
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.pairs import Pairs
    from circuits.patch import Patched
    from circuits.scores import Scores
    from lens.model import Transformer

HEADS, PATHS, ESTIMATE = "heads", "paths", "estimate"
BY_POSITION = {
    "resid_pre": "Stream before layer",
    "resid_post": "Stream after layer",
    "attn_out": "Attention out",
    "mlp_out": "MLP out",
}
KINDS = {HEADS: "Heads and MLPs", **BY_POSITION, PATHS: "Paths", ESTIMATE: "Estimates"}
"""What can be looked at, by the name it has in an address."""
MEMORY = pieces.EXACT
"""What a piece of work may hold."""
SIZES_ONLY = ("ifr",)
"""Methods that estimate how large an effect is, and not its sign."""


@dataclass(frozen=True)
class Cells:
    """Effects of patches, laid out: `each` float [r, c, n] by row, column and pair; NaN where there is no patch.

    `nodes`: the node of each cell, row by row, "" where it has none. `beside`: nodes that have no cell, with their
    effects [n]. `clean` and `corrupt`: the metric of the two runs, [n]. `denoise`: whether clean values were patched
    into the corrupt run.
    """

    each: NDArray[np.float32]
    nodes: tuple[str, ...]
    beside: dict[str, NDArray[np.float32]]
    clean: NDArray[np.float32]
    corrupt: NDArray[np.float32]
    denoise: bool = False

    @property
    def effect(self) -> NDArray[np.float32]:
        """Mean over the pairs, [r, c]."""
        return self.each.mean(-1)

    @property
    def whole(self) -> float:
        """The change of the metric when everything is patched at once."""
        change = float(self.corrupt.mean() - self.clean.mean())
        return -change if self.denoise else change

    def interval(self, row: int, column: int) -> tuple[float, float] | None:
        """95% of a cell's mean over resampled pairs; None for one pair."""
        values = self.each[row, column]
        if len(values) < 2:
            return None
        low, high = mean_interval(torch.from_numpy(values).double(), seed=0)
        return float(low), float(high)

    def strongest(self, k: int) -> list[tuple[int, int]]:
        """The `k` cells of largest |effect|, strongest first; those without a patch or an effect are left out."""
        sizes = np.nan_to_num(np.abs(self.effect), nan=0.0)
        order = np.argsort(-sizes, axis=None, kind="stable")[:k]
        cells = [divmod(int(i), sizes.shape[1]) for i in order]
        return [cell for cell in cells if sizes[cell] > 0]

    def ranked(self) -> list[str]:
        """The nodes by the size of their effect, strongest first; those without an effect are left out."""
        columns = self.each.shape[1]
        return [self.nodes[r * columns + c] for r, c in self.strongest(self.effect.size)]


def check_kind(model: Transformer, kind: str) -> None:
    """Raise unless the model has what is to be patched.

    Raises:
        ValueError: an unknown kind, or MLPs in a model without.
    """
    from lens.nearest import unknown

    if kind not in kinds(model):
        if kind in KINDS:
            raise ValueError(f"{model.name} has no {kind} to patch")
        raise ValueError(unknown("kind of patch", kind, kinds(model)))


def kinds(model: Transformer) -> dict[str, str]:
    """What can be looked at in this model."""
    without = () if Graph.of(model.cfg).mlp else ("mlp_out",)
    found = {kind: title for kind, title in KINDS.items() if kind not in without}
    return found if Graph.of(model.cfg).mlp else {**found, HEADS: "Heads"}


def measure(
    model: Transformer,
    pairs: Pairs,
    kind: str,
    metric: str,
    *,
    receiver: str = "logits",
    denoise: bool = False,
    progress: Progress = silent,
) -> Cells:
    """All patches of one kind: [layer, position] for a stream or a branch, else [layer, head] with MLPs last.

    Args:
        receiver: where paths end, an input's name.

    Raises:
        ValueError: as `circuits.patch` and `circuits.path_patch_to`.
    """
    check_kind(model, kind)
    if kind == PATHS:
        return _paths(model, pairs, metric, receiver, progress)
    if kind == HEADS:
        return _heads(model, pairs, metric, denoise, progress)
    found = patch(model, pairs, kind, metric, denoise=denoise, max_memory=MEMORY, progress=progress)
    layers, positions = found.per_example.shape[:2]
    names = [f"m{layer}" if kind == "mlp_out" else "" for layer in range(layers) for _ in range(positions)]
    return Cells(_numpy(found.per_example), tuple(names), {}, *_ends(found), denoise)


def _heads(model: Transformer, pairs: Pairs, metric: str, denoise: bool, progress: Progress) -> Cells:
    found = patch(model, pairs, "z", metric, denoise=denoise, max_memory=MEMORY, progress=progress)
    each, names = found.per_example, _head_names(model)
    if Graph.of(model.cfg).mlp:
        mlps = patch(
            model,
            pairs,
            "mlp_out",
            metric,
            by_position=False,
            denoise=denoise,
            max_memory=MEMORY,
            progress=progress,
        ).per_example
        each = torch.cat([each, mlps[:, None]], 1)
        names = [[*row, f"m{layer}"] for layer, row in enumerate(names)]
    return Cells(_numpy(each), tuple(n for row in names for n in row), {}, *_ends(found), denoise)


def _paths(model: Transformer, pairs: Pairs, metric: str, receiver: str, progress: Progress) -> Cells:
    found = path_patch_to(model, pairs, [receiver], metric, max_memory=MEMORY, progress=progress)
    graph, each = found.graph, found.per_example  # [n, sender]
    rows, names = [], _head_names(model)
    for layer in range(graph.n_layers):
        row = each[:, graph.head_senders(layer)].T
        if graph.mlp:
            row = torch.cat([row, each[:, graph.mlp_sender(layer), None].T])
            names[layer].append(f"m{layer}")
        rows.append(row)
    nodes = tuple(name for row in names for name in row)
    clean, corrupt = _numpy(found.clean), _numpy(found.corrupt)
    return Cells(_numpy(torch.stack(rows)), nodes, {"embed": _numpy(each[:, 0])}, clean, corrupt)


def _head_names(model: Transformer) -> list[list[str]]:
    return [[head_name(l, h) for h in range(model.cfg.n_heads)] for l in range(model.cfg.n_layers)]


def _numpy(x: torch.Tensor) -> NDArray[np.float32]:
    return x.detach().cpu().float().numpy()


def _ends(found: Patched) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return _numpy(found.clean), _numpy(found.corrupt)


def compared(
    model: Transformer, pairs: Pairs, method: str, metric: str, progress: Progress = silent
) -> Agreement:
    """Every node's estimate beside its exact effect.

    Raises:
        ValueError: as `circuits.node_effects`.
    """
    most = pieces.held(model, pieces.GRADIENTS)
    estimate = node_effects(model, pairs, method, metric, max_memory=most, progress=progress)
    exact = node_effects(model, pairs, EXACT, metric, max_memory=MEMORY, progress=progress)
    return agree(estimate, exact, size=method in SIZES_ONLY)


def places_of(model: Transformer, pairs: Pairs) -> list[str]:
    """A label for each position: the token where all pairs have the same, else the name the task has for the place."""
    labels = {name: at for name, at in pairs.labels.items() if bool((at == at[0]).all())}
    found = []
    for position in range(pairs.n_positions):
        ids = pairs.clean[:, position][pairs.mask[:, position]]
        here = [name for name, at in labels.items() if int(at[0]) == position]
        if len(ids) and bool((ids == ids[0]).all()):
            text = model.to_str_tokens(ids[:1])[0] or "∅"
        else:
            text = f"<{here[-1]}>" if here else "…"
        found.append(f"{position} {text}")
    return found


def between(graph: Graph, heads: Sequence[str], scores: Scores) -> Circuit:
    """All edges between these heads, the embedding, all MLPs and the logits, with the scores of an attribution."""
    mlps = [node.name for node in graph.sender_nodes if node.kind == "mlp"]
    return Circuit(graph, Circuit.from_nodes(graph, ["embed", *heads, *mlps, "logits"]).mask, scores.values)
