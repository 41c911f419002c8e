"""Logistic regression with an L2 penalty for many labels, penalties and folds over one design.

1. All problems at once, in float32: L-BFGS with the shared preconditioner (`metric.SharedMetric`), one matrix product
   for all columns. Where labels are hard to tell (controls, most probes) that is done within ten steps.
2. What is not done, or whose rows' weights p (1 − p) have collapsed so that the shared estimate of the excess cannot
   be trusted, goes on in order of C: problems that differ only by fold share a preconditioner made from the Hessian
   where they stand (`metric.OwnMetric`), renewed every few steps. They start from the next smaller C's solution where
   that is lower.
3. Newton's method in float64 finishes what is asked for more exactly than float32 can tell, and what is left.

Letters: p problems, k outputs of each (1 for two classes, else one per class), n rows, w width of the design.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lens.progress import Progress, silent
from probes.solvers.columns import Columns, scores
from probes.solvers.design import Design
from probes.solvers.lbfgs import State, minimise
from probes.solvers.metric import OwnMetric, SharedMetric
from probes.solvers.newton import newton

SURE, OWN = 0.25, 0.2  # the estimates of the excess are aimed this much lower
COLLAPSED = 0.5  # of the mean weight of the rows: below, the shared estimate is not trusted
STEPS, PATIENCE = 40, 3
ROUNDS, RENEW = 15, 6
FLOAT32 = 1e-7  # nats per row: what is asked below this is finished in float64
ELEMENTS = 2**25  # of the largest arrays of one chunk of problems


@dataclass(frozen=True)
class Question:
    """One problem: the class of each row as 0 … c − 1, [n] (any where not fitted), and which rows are fitted."""

    label: Tensor
    fitted: Tensor | None
    c: int
    C: float
    chain: int = 0  # problems of the same labels, whatever their rows and C

    @property
    def k(self) -> int:
        return 1 if self.c == 2 else self.c


@dataclass(frozen=True)
class Answer:
    """Weights [k, w] in float64, the excess of the objective in nats per row, steps taken."""

    weights: Tensor
    excess: float
    steps: int


def solve(
    design: Design,
    questions: Sequence[Question],
    tol: float = 1e-6,
    steps: int = 10_000,
    progress: Progress = silent,
) -> list[Answer]:
    """The weights of every problem, in order.

    Args:
        tol: how far the objective may be above its minimum, in nats per fitted row.
        steps: at most so many for each problem, over all phases.
    """
    answers: dict[int, Answer] = {}
    for chunk in _chunks(questions, design.n):
        progress(len(answers), len(questions), "fitting logistic probes")
        answers |= zip(chunk, _chunk(design, [questions[i] for i in chunk], tol, steps), strict=True)
    return [answers[i] for i in range(len(questions))]


def _chunks(questions: Sequence[Question], n: int) -> Iterator[list[int]]:
    """Problems with as many outputs each, as many as memory is meant to hold; a label's stay together in order of C."""
    order = sorted(range(len(questions)), key=lambda i: (questions[i].k, questions[i].chain))
    chunk: list[int] = []
    for i in order:
        k = questions[i].k
        if chunk and (questions[chunk[0]].k != k or (len(chunk) + 1) * k * n > ELEMENTS):
            yield chunk
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk


def columns_of(design: Design, questions: Sequence[Question]) -> Columns:
    k, n, device = questions[0].k, design.n, design.x.device
    y = torch.zeros(len(questions), k, n, device=device)
    s = torch.ones(len(questions), 1, n, device=device)
    penalty = torch.ones(len(questions), 1, design.width, device=device)
    classes = torch.arange(k, device=device)[:, None]
    for i, q in enumerate(questions):
        y[i] = q.label == 1 if k == 1 else q.label == classes
        if q.fitted is not None:
            s[i, 0] = q.fitted
        penalty[i, 0, : design.r] = 1 / q.C
    penalty[:, :, design.r] = 0
    return Columns(y, s, penalty)


def _chunk(design: Design, questions: Sequence[Question], tol: float, steps: int) -> list[Answer]:
    columns = columns_of(design, questions)
    rows = columns.rows
    target = rows * max(tol, FLOAT32)
    state = State(columns.start(design.r), torch.full_like(rows, torch.inf), torch.zeros_like(rows).long())
    started = columns.weights(scores(design.features, state.w)).sum((1, 2))
    kinds = {(q.C, q.chain, q.fitted is None) for q in questions}
    shared = design.has_eigen or len(kinds) > 2 or questions[0].k > 2
    if shared:
        metric = SharedMetric.of(design, columns, design.rough_eigen)
    else:
        metric = OwnMetric.of(design, columns, scores(design.features, state.w), _groups(questions))
    minimise(
        design.features, columns, state, metric, SURE * target, steps=min(STEPS, steps), patience=PATIENCE
    )
    left = _unsure(design, columns, state, started, target)
    for C in sorted({questions[int(i)].C for i in left}):
        chosen = torch.stack([i for i in left if questions[int(i)].C == C])
        _own(design, questions, columns, state, chosen, target, steps)
    return [_finish(design, columns, state, i, float(rows[i]), tol, steps) for i in range(len(questions))]


def _groups(questions: Sequence[Question]) -> Tensor:
    """Problems that may share an own metric have the same number."""
    known: dict[tuple[int, float], int] = {}
    return torch.tensor([known.setdefault((q.chain, q.C), len(known)) for q in questions])


def _unsure(design: Design, columns: Columns, state: State, started: Tensor, target: Tensor) -> Tensor:
    """Problems that are not done, or of which that cannot be told: indices."""
    now = columns.weights(scores(design.features, state.w)).sum((1, 2))
    return ((state.excess > target) | (now < COLLAPSED * started)).nonzero()[:, 0]


def _own(
    design: Design,
    questions: Sequence[Question],
    columns: Columns,
    state: State,
    chosen: Tensor,
    target: Tensor,
    steps: int,
) -> None:
    """Problems of one C, with preconditioners of their own."""
    chosen = chosen[state.steps[chosen] < steps]
    if not len(chosen):
        return
    _warm(design, questions, columns, state, chosen)
    group = _groups([questions[int(i)] for i in chosen]).to(chosen.device)
    for _ in range(ROUNDS):
        part, own = columns[chosen], State(state.w[chosen], state.excess[chosen], state.steps[chosen])
        metric = OwnMetric.of(design, part, scores(design.features, own.w), group)
        further = min(RENEW, steps - int(own.steps.max()))
        minimise(design.features, part, own, metric, OWN * target[chosen], steps=further)
        state.w[chosen], state.excess[chosen], state.steps[chosen] = own.w, own.excess, own.steps
        keep = (own.excess > OWN * target[chosen]) & (own.steps < steps)
        chosen, group = chosen[keep], group[keep]
        if not len(chosen):
            return


def _warm(
    design: Design, questions: Sequence[Question], columns: Columns, state: State, chosen: Tensor
) -> None:
    """Start from the next smaller C's weights, of the same labels and rows, where the objective is lower."""
    pairs = []
    for i in chosen.tolist():
        q = questions[i]
        below = [
            j for j, o in enumerate(questions) if o.chain == q.chain and o.fitted is q.fitted and o.C < q.C
        ]
        if below:
            pairs.append((i, max(below, key=lambda j: questions[j].C)))
    if not pairs:
        return
    here, there = (torch.tensor(x, device=chosen.device) for x in zip(*pairs, strict=True))
    part, other = columns[here], state.w[there]
    lower = part.objective(other, scores(design.features, other)) < part.objective(
        state.w[here], scores(design.features, state.w[here])
    )
    state.w[here[lower]] = other[lower]


def _finish(
    design: Design, columns: Columns, state: State, i: int, rows: float, tol: float, steps: int
) -> Answer:
    excess, taken = float(state.excess[i]), int(state.steps[i])
    w = state.w[i].double()
    if (tol < FLOAT32 or not excess <= tol * rows) and taken < steps:
        one = columns[torch.tensor([i], device=w.device)].to(torch.float64)
        found, excess, more = newton(design, one, w[None], tol * rows, min(50, steps - taken))
        w, taken = found[0], taken + more
    return Answer(w, max(excess, 0.0) / rows, taken)
