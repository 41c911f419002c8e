"""What heads do for a behaviour: classes of heads by what they attend to, copy and write to the answer.

1. One run of the clean and the corrupt prompts gives a table of numbers for every head (`head_table`).
2. Heads that move an answer's token to the end, or hold it back, follow from that table.
3. With those known, two more numbers: what a head does through their queries, from an attribution of all edges
   (`query_effect`), and how much its own direct effect rises in a run in which they are knocked out (`backup`).
4. A role is a list of conditions on these numbers, all stated below as data. A head can have several roles.

Effects are shares of what the corruption does to the metric: positive where the head supports the behaviour,
1 where it does the whole job. Classes after Wang et al. 2022 (arXiv 2211.00593). A class says what a head looks
like, and `knock_out` what it is needed for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits import memory
from circuits.head_table import HeadTable, head_table, place_of
from lens.nearest import unknown
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.ablation import Ablation
    from circuits.graph import Graph
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from circuits.scores import Scores
    from lens.model import Transformer

IOI = "Wang et al. 2022, arXiv 2211.00593"


@dataclass(frozen=True)
class Condition:
    """A number of a head that lies within bounds; a number that does not exist does not."""

    feature: str
    least: float = float("-inf")
    most: float = float("inf")

    def holds(self, features: Mapping[str, Tensor]) -> Tensor:
        """Bool [layer, head]; nowhere, for a feature that these pairs do not have."""
        values = features.get(self.feature)
        if values is None:
            return torch.zeros_like(next(iter(features.values())), dtype=torch.bool)
        return (values >= self.least) & (values <= self.most)

    def __str__(self) -> str:
        bounds = [f"≥ {self.least:g}"] if self.least > float("-inf") else []
        bounds += [f"≤ {self.most:g}"] if self.most < float("inf") else []
        return f"{self.feature} {' and '.join(bounds)}"


@dataclass(frozen=True)
class Role:
    """A class of heads. `names`: what it is called in certain tasks."""

    name: str
    description: str
    conditions: tuple[Condition, ...]
    source: str
    names: Mapping[str, str] = field(default_factory=dict)

    def title(self, task: str) -> str:
        """What the class is called in a task."""
        return self.names.get(task, self.name)

    def holds(self, features: Mapping[str, Tensor]) -> Tensor:
        """Bool [layer, head]: the heads that meet every condition."""
        return torch.stack([condition.holds(features) for condition in self.conditions]).all(0)


MOVER = Role(
    "mover",
    "attends from the end to the answer, copies what it attends to, and so supports the behaviour",
    (Condition("END→answer", 0.2), Condition("copying", 0.5), Condition("direct_share", 0.01)),
    IOI,
    {"ioi": "name mover"},
)
NEGATIVE = Role(
    "negative mover",
    "attends from the end to the answer and writes against what it attends to",
    (Condition("END→answer", 0.2), Condition("copying", most=-0.5), Condition("direct_share", most=-0.01)),
    IOI,
    {"ioi": "negative name mover"},
)
SUPPRESSOR = Role(
    "suppressor",
    "attends from the end to a wrong answer and writes against it, and so supports the behaviour",
    (Condition("END→wrong", 0.2), Condition("copying", most=-0.5), Condition("direct_share", 0.01)),
    "copy suppression: McDougall et al. 2023, arXiv 2310.04625",
    {"ioi": "subject suppressor"},
)
WRONG = Role(
    "wrong mover",
    "attends from the end to a wrong answer and copies it, and so opposes the behaviour",
    (Condition("END→wrong", 0.2), Condition("copying", 0.5), Condition("direct_share", most=-0.01)),
    "the mirror image of a mover",
    {"ioi": "subject mover"},
)
AMPLIFIER = Role(
    "amplifier",
    "attends from the end to itself and strengthens the answer that is already there",
    (Condition("direct_share", 0.05), Condition("copying", 0.5), Condition("END→END", 0.3)),
    "no paper: a mover whose source is its own position",
)
ATTENUATOR = Role(
    "attenuator",
    "attends from the end to itself and weakens the answer that is already there",
    (Condition("direct_share", most=-0.05), Condition("copying", most=-0.5), Condition("END→END", 0.3)),
    "no paper: a negative mover whose source is its own position",
)
BACKUP = Role(
    "backup mover",
    "copies and supports the behaviour, more so when the movers are knocked out; not a mover itself",
    (Condition("backup", 0.01), Condition("copying", 0.5), Condition("direct_share", 0.0)),
    IOI,
    {"ioi": "backup name mover"},
)
INHIBITION = Role(
    "S-inhibition",
    "attends from the end to the second subject, writes little to the answer, and turns the movers' queries",
    (Condition("END→S2", 0.1), Condition("direct_size", most=0.03), Condition("query_effect", 0.02)),
    IOI,
)
DUPLICATE = Role(
    "duplicate-token",
    "attends from a token to its earlier occurrence",
    (Condition("duplicate", 0.3),),
    IOI,
)
INDUCTION = Role(
    "induction",
    "attends from a token to what followed its earlier occurrence",
    (Condition("induction", 0.3),),
    "Olsson et al. 2022, arXiv 2209.11895",
)
PREVIOUS = Role(
    "previous-token",
    "attends from a token to the one before it",
    (Condition("previous_token", 0.4),),
    "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits",
)
ROLES = (
    MOVER, NEGATIVE, SUPPRESSOR, WRONG, AMPLIFIER, ATTENUATOR, INHIBITION, DUPLICATE, INDUCTION, PREVIOUS, BACKUP,
)  # fmt: skip
"""All classes, the most telling first."""

WRITERS = (MOVER, NEGATIVE, SUPPRESSOR, WRONG)
"""Classes that follow from one run."""


@dataclass(frozen=True, eq=False)
class Roles:
    """The classes of all heads of a model on some pairs, with the numbers that they follow from.

    `table`: what was measured; `members`: heads by class, strongest first, every class of the task once.
    """

    task: str
    table: HeadTable
    members: Mapping[str, Sequence[str]]
    roles: tuple[Role, ...] = ROLES

    def of(self, role: str) -> list[str]:
        """The heads of a class, strongest first.

        Raises:
            ValueError: there is no such class.
        """
        title = next((r.title(self.task) for r in self.roles if role == r.name), role)
        if title not in self.members:
            raise ValueError(unknown("role", role, self.members))
        return list(self.members[title])

    def __getitem__(self, head: str) -> list[str]:
        """The classes of one head, the most telling first."""
        place_of(self.table.graph, head)
        return [title for title, heads in self.members.items() if head in heads]

    def first(self) -> dict[str, str]:
        """Each head's most telling class; heads without a class are left out."""
        found: dict[str, str] = {}
        for title, heads in self.members.items():
            for head in heads:
                found.setdefault(head, title)
        return found

    def evidence(self, head: str) -> dict[str, float]:
        """All numbers of one head."""
        return self.table.of(head)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the rules, and the heads that have a class with all their numbers."""
        rules = [
            {
                "role": role.title(self.task),
                "description": role.description,
                "conditions": [str(condition) for condition in role.conditions],
                "source": role.source,
                "heads": list(self.members[role.title(self.task)]),
            }
            for role in self.roles
        ]
        heads = {
            head: {k: None if math.isnan(v) else v for k, v in self.evidence(head).items()}
            for head in self.first()
        }
        return {"task": self.task, "metric": float(self.table.metric.mean()), "roles": rules, "heads": heads}

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(heads)} {title}" for title, heads in self.members.items() if heads)
        return f"Roles({counts or 'none'})"


def find_roles(
    model: Transformer,
    pairs: Pairs,
    *,
    scores: Scores | None = None,
    metric: str | Metric = "logit_diff",
    ablation: str | Ablation = "counterfactual",
    roles: tuple[Role, ...] = ROLES,
    max_memory: int | str = memory.DEFAULT,
    progress: Progress = silent,
) -> Roles:
    """The classes of all heads, from two runs of all pairs in one batch and an attribution of all edges.

    Args:
        scores: the edges' scores on pairs of this task; None: EAP-IG on these pairs.
        metric: what effects are shares of; direct effects are logit differences in any case.
        max_memory: how much memory the attribution may use beyond the weights.

    Raises:
        ValueError: as `head_table` and `attribute`; `scores` of another graph.
    """
    from circuits.attribute import attribute

    def phase(i: int, shown: str) -> Progress:
        def told(done: int, total: int, label: str) -> None:
            progress(i * total + done, 3 * total, shown)

        return told

    table = head_table(model, pairs, metric=metric, ablation=ablation, progress=phase(0, "heads"))
    if scores is not None and scores.graph != table.graph:
        raise ValueError(f"the scores belong to a graph of other sizes ({scores.graph}), not to {model.name}")
    features = dict(table.features)
    gap = float(table.metric.mean() - table.ablated.mean())
    features["direct_share"] = -features["direct_change"] / table.logit_gap
    features["direct_size"] = features["direct_share"].abs()
    writers = {role.name: _heads(table.graph, role.holds(features)) for role in WRITERS}
    scores = scores or attribute(
        model, pairs, metric=metric, max_memory=max_memory, progress=phase(1, "edges")
    )
    movers = writers[MOVER.name] + writers[SUPPRESSOR.name]
    features["effect"] = _by_head(table.graph, -scores.values.sum(1) / gap)
    queries = [table.graph.receiver_index[f"{head}<q>"] for head in movers]
    features["query_effect"] = _by_head(table.graph, -scores.values[:, queries].sum(1) / gap)
    knocked = head_table(
        model, pairs, knocked=writers[MOVER.name], metric=metric, ablation=ablation, scale=table.scale,
        progress=phase(2, "backups"),
    )  # fmt: skip
    rise = (knocked.features["direct"] - features["direct"]) / table.logit_gap
    features["backup"] = rise.masked_fill(MOVER.holds(features), float("nan"))
    progress(1, 1, "backups")
    members: dict[str, Sequence[str]] = {}
    for role in roles:
        decisive = features.get(role.conditions[0].feature)
        found = _heads(table.graph, role.holds(features))
        if decisive is not None:
            found.sort(key=lambda head, by=decisive: -abs(float(by[place_of(table.graph, head)])))
        members[role.title(pairs.task)] = found
    return Roles(pairs.task, replace(table, features=features), members, roles)


def _heads(graph: Graph, chosen: Tensor) -> list[str]:
    return [graph.senders[graph.head_sender(l, h)] for l, h in chosen.nonzero().tolist()]


def _by_head(graph: Graph, by_sender: Tensor) -> Tensor:
    """[sender] to [layer, head]."""
    return torch.stack([by_sender[graph.head_senders(layer)] for layer in range(graph.n_layers)])
