"""What probes of one site say of rows they were not fitted to, for every target, penalty, control and permutation.

1. All fits of a site are asked for as tickets: (labels, rows, penalty). Equal ones are one fit.
2. Fold f needs a fit per penalty on its own rows, and one per penalty and inner fold. The penalty with the best mean
   score of the inner folds is fold f's; the first of equal ones, which is the one that regularises most.
3. With one penalty there is nothing to choose, and everything is fitted in one call. With several, controls,
   permutations and the online code use the penalties chosen for the real labels, in a second call.
4. The probe that is kept is fitted to all rows, with the penalty that the outer folds score best.

A fit whose rows are all of one class (only permuted labels come to this) tells that class.

Letters: n rows, d width of the site, k outputs, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lens.progress import Progress
from probes import controls, mdl
from probes.batched import Fit, Fits, Problem, fit_many
from probes.estimator import Kind
from probes.mdl import Blocks, Codelength
from probes.trial import Trial

NEVER = -1e30  # the score of a class that a fit has not seen


@dataclass(frozen=True)
class Extras:
    """What is done besides judging the probes: how many control tasks and permutations, and whether to code."""

    controls: int = 0
    permutations: int = 0
    mdl: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    """What one target's probes did at one site.

    Args:
        decision: [n, k] (or [n]) of the probes that were not fitted to the row; NaN for rows that no fold judges.
        penalties: what each fold chose.
        inner: the score by which each fold chose, NaN without inner folds.
        controls: for each control task its labels and decisions.
        permuted: for each permutation its labels and decisions.
        codelength: of the online code.
        refit: the probe fitted to all rows, and the penalty asked for.
        stalled: the fits that did not converge, in words.
    """

    decision: np.ndarray
    penalties: tuple[float | None, ...]
    inner: tuple[float, ...]
    controls: tuple[tuple[np.ndarray, np.ndarray], ...]
    permuted: tuple[tuple[np.ndarray, np.ndarray], ...]
    codelength: Codelength | None
    refit: Fit
    penalty: float | None
    stalled: tuple[str, ...]


@dataclass(eq=False)
class Batch:
    """The fits of one call."""

    kind: Kind
    pairs: np.ndarray | None = None
    problems: list[Problem] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    known: dict[tuple[int, bytes, float | None], int] = field(default_factory=dict)
    fits: Fits | None = None

    def ask(self, y: np.ndarray, rows: np.ndarray, penalty: float | None, label: str) -> int:
        """A ticket for a fit of y to some rows; the same ticket where it was asked for before."""
        key = (id(y), rows.tobytes(), penalty)
        if key not in self.known:
            self.known[key] = len(self.problems)
            self.problems.append(Problem(y, rows, penalty, self.pairs))
            self.labels.append(label)
        return self.known[key]

    def run(
        self, x: Tensor, mask: Tensor | None, options: Mapping[str, Any], device: Any, progress: Progress
    ) -> None:
        """Fit all that was asked for, except what has one class only."""
        self.single = {
            i: int(p.y[p.rows][0])
            for i, p in enumerate(self.problems)
            if self.kind.target in ("classes", "pairs", "sequences") and (p.y[p.rows] == p.y[p.rows][0]).all()
        }
        real = [i for i in range(len(self.problems)) if i not in self.single]
        self.place = {i: j for j, i in enumerate(real)}
        problems = [self.problems[i] for i in real]
        self.fits = fit_many(
            self.kind, x, problems, mask=mask, options=options, device=device, progress=progress
        )
        self._last: tuple[int, np.ndarray, np.ndarray] | None = None

    def decision(self, ticket: int, rows: np.ndarray, c: int) -> np.ndarray:
        """Decisions on rows that were not fitted: [r] for two classes, [r, c] for more, else [r, k]."""
        assert self.fits is not None
        if ticket in self.single:
            return _constant(self.single[ticket], len(rows), c)
        if self._last is None or self._last[0] != ticket:
            self._last = (ticket, *self.fits.left_out(self.place[ticket]))
        _, left, found = self._last
        places = np.searchsorted(left, rows)
        assert (left[places] == rows).all(), "judged rows were fitted"
        part = found[places]
        classes = self.fits[self.place[ticket]].classes
        return part if classes is None or c < 3 else _every_class(part, classes, c)

    def fit(self, ticket: int) -> Fit:
        assert self.fits is not None
        return self.fits[self.place[ticket]]

    def stalled(self, tickets: set[int]) -> tuple[str, ...]:
        """The labels of those that did not converge."""
        return tuple(self.labels[i] for i in sorted(tickets) if i in self.place and not self.fit(i).converged)


def crossfit(
    kind: Kind,
    x: Tensor,
    trials: Sequence[Trial],
    penalties: Sequence[float | None],
    extras: Sequence[Extras],
    *,
    mask: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
    device: Any = None,
    seed: int = 0,
    progress: Progress,
) -> list[Found]:
    """One `Found` per trial, at the site whose activations are x [n, d]."""

    def fitted(batch: Batch) -> Batch:
        batch.run(x, mask, options or {}, device, progress)
        return batch

    pairs = next((trial.pairs for trial in trials if trial.pairs is not None), None)
    first = Batch(kind, pairs if kind.target == "pairs" else None)
    asked = [_Asked(trial, extra, penalties, seed) for trial, extra in zip(trials, extras, strict=True)]
    for one in asked:
        one.ask_choice(first)
    if len(penalties) == 1:
        for one in asked:
            one.ask_rest(first, [penalties[0]] * len(one.trial.splits.outer), penalties[0])
        fitted(first)
        return [one.found(first, first) for one in asked]
    fitted(first)
    second = Batch(kind, first.pairs)
    for one in asked:
        one.ask_rest(second, one.choose(first), one.best(first))
    fitted(second)
    return [one.found(first, second) for one in asked]


class _Asked:
    """The tickets of one trial."""

    def __init__(self, trial: Trial, extra: Extras, penalties: Sequence[float | None], seed: int) -> None:
        self.trial, self.extra, self.penalties, self.seed = trial, extra, list(penalties), seed
        self.c = len(trial.names) if trial.reads == "classes" else 0
        self.outer: list[list[int]] = []  # [fold][penalty]
        self.inner: list[list[list[int]]] = []  # [fold][inner fold][penalty]

    def ask_choice(self, batch: Batch) -> None:
        """Step 2."""
        t = self.trial
        for f, fold in enumerate(t.splits.outer):
            self.outer.append([batch.ask(t.y, fold.train, p, self._label(f, p)) for p in self.penalties])
            inside = [
                [batch.ask(t.y, part.train, p, f"{self._label(f, p)}, inside") for p in self.penalties]
                for part in t.splits.inner[f]
            ]
            self.inner.append(inside)

    def choose(self, batch: Batch) -> list[float | None]:
        """The penalty of each fold."""
        self.scores = self._inner_scores(batch)
        return [
            self.penalties[int(np.nanargmax(row)) if not np.isnan(row).all() else 0] for row in self.scores
        ]

    def best(self, batch: Batch) -> float | None:
        """The penalty that the outer folds score best together."""
        t = self.trial
        found = [
            t.score(t.metrics[0], "", self._outer(batch, [p] * len(self.outer)))
            for p in range(len(self.penalties))
        ]
        return self.penalties[int(np.nanargmax(found)) if not np.isnan(found).all() else 0]

    def ask_rest(self, batch: Batch, chosen: list[float | None], penalty: float | None) -> None:
        """Controls, permutations, online code and the probe that is kept."""
        t, self.chosen, self.penalty = self.trial, chosen, penalty
        draw = [self._control(i) for i in range(self.extra.controls)]
        self.control_y = draw
        self.control = [self._folds(batch, y, f"control task {i + 1}") for i, y in enumerate(draw)]
        self.permuted_y = [self._shuffled(i) for i in range(self.extra.permutations)]
        self.permuted = [self._folds(batch, y, f"permutation {i + 1}") for i, y in enumerate(self.permuted_y)]
        self.blocks: Blocks | None = None
        if self.extra.mdl and t.reads == "classes":
            self.blocks = mdl.blocks(t.y, groups=t.groups, seed=self.seed)
            self.steps = [
                batch.ask(t.y, before, penalty, f"{t.target}, online code, {len(before)} rows")
                for before, _ in self.blocks.steps
            ]
        self.all = batch.ask(t.y, np.arange(t.n), penalty, f"{t.target}, all rows")

    def found(self, first: Batch, second: Batch) -> Found:
        """Steps 2 and 4, from the fitted calls."""
        scores = self.scores if len(self.penalties) > 1 else self._inner_scores(first)
        places = [self.penalties.index(p) for p in self.chosen]
        return Found(
            decision=self._outer(first, places),
            penalties=tuple(self.chosen),
            inner=tuple(float(row[p]) for row, p in zip(scores, places, strict=True)),
            controls=self._pairs(second, self.control_y, self.control),
            permuted=self._pairs(second, self.permuted_y, self.permuted),
            codelength=None if self.blocks is None else self._codelength(second),
            refit=second.fit(self.all),
            penalty=self.penalty,
            stalled=self._stalled(first, second),
        )

    def _label(self, f: int, penalty: float | None) -> str:
        return f"{self.trial.target}, fold {f + 1}" + ("" if penalty is None else f", penalty {penalty:g}")

    def _control(self, i: int) -> np.ndarray:
        assert self.trial.types is not None
        return controls.control_task(self.trial.types, self.trial.y, seed=self.seed * 1009 + i)

    def _shuffled(self, i: int) -> np.ndarray:
        t, seed = self.trial, self.seed * 1009 + i
        if t.reads == "heads":
            return controls.shuffled_trees(t.y, t.text, seed=seed)
        return controls.shuffled(t.y, t.groups, seed=seed)

    def _folds(self, batch: Batch, y: np.ndarray, what: str) -> list[int]:
        return [
            batch.ask(y, fold.train, penalty, f"{self.trial.target}, {what}, fold {f + 1}")
            for f, (fold, penalty) in enumerate(zip(self.trial.splits.outer, self.chosen, strict=True))
        ]

    def _pairs(
        self, batch: Batch, ys: Sequence[np.ndarray], tickets: Sequence[Sequence[int]]
    ) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        return tuple((y, self._gather(batch, part)) for y, part in zip(ys, tickets, strict=True))

    def _outer(self, batch: Batch, places: Sequence[int]) -> np.ndarray:
        return self._gather(batch, [self.outer[f][p] for f, p in enumerate(places)])

    def _gather(self, batch: Batch, tickets: Sequence[int]) -> np.ndarray:
        """Decisions of all rows, each from its own fold's fit."""
        whole: np.ndarray | None = None
        for fold, ticket in zip(self.trial.splits.outer, tickets, strict=True):
            part = batch.decision(ticket, fold.test, self.c)
            if whole is None:
                whole = np.full((self.trial.n, *part.shape[1:]), np.nan)
            whole[fold.test] = part
        assert whole is not None and not np.isnan(whole[self.trial.judged]).any()
        return whole

    def _inner_scores(self, batch: Batch) -> np.ndarray:
        """[fold, penalty]: mean score of the inner folds, NaN without them."""
        t = self.trial
        found = np.full((len(self.outer), len(self.penalties)), np.nan)
        for f, inside in enumerate(self.inner):
            if inside:
                each = [
                    [t.choosing(batch.decision(ticket, part.test, self.c), t.y, part) for ticket in tickets]
                    for part, tickets in zip(t.splits.inner[f], inside, strict=True)
                ]
                found[f] = np.mean(each, 0)
        return found

    def _codelength(self, batch: Batch) -> Codelength:
        assert self.blocks is not None
        t, each = self.trial, []
        for ticket, (_, rows) in zip(self.steps, self.blocks.steps, strict=True):
            each.append(likelihood(batch.decision(ticket, rows, self.c), t.y[rows]))
        return self.blocks.codelength(each)

    def _stalled(self, first: Batch, second: Batch) -> tuple[str, ...]:
        mine = {i for fold in self.outer for i in fold}
        mine |= {i for fold in self.inner for part in fold for i in part}
        rest = {i for part in (*self.control, *self.permuted) for i in part} | {self.all}
        rest |= set(self.steps) if self.blocks is not None else set()
        return first.stalled(mine | rest) if first is second else first.stalled(mine) + second.stalled(rest)


def _constant(label: int, n: int, c: int) -> np.ndarray:
    if c == 2:
        return np.full(n, 1.0 if label else -1.0)
    return np.where(np.arange(c) == label, 0.0, NEVER) * np.ones((n, 1))


def _every_class(part: np.ndarray, classes: np.ndarray, c: int) -> np.ndarray:
    """Scores of all c classes, from those of the classes that a fit saw."""
    if part.ndim == 1:
        part = np.stack([np.zeros(len(part)), part], 1)
    if part.shape[1] == c:
        return part
    found = np.full((len(part), c), NEVER)
    found[:, classes] = part
    return found


def likelihood(decision: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The probability of the true class, where decisions are log-odds or unnormalised log-probabilities."""
    score = torch.from_numpy(decision)
    if score.ndim == 1:
        return torch.sigmoid(torch.where(torch.from_numpy(y) == 1, score, -score)).numpy()
    return score.softmax(1)[torch.arange(len(y)), torch.from_numpy(y)].numpy()


def direct(trial: Trial, decide: Any) -> np.ndarray:
    """Decisions [n, k] of anything that is fitted fold by fold: `decide(fold) -> [rows judged, k]`."""
    whole: np.ndarray | None = None
    for fold in trial.splits.outer:
        part = decide(fold)
        if whole is None:
            whole = np.full((trial.n, *part.shape[1:]), np.nan)
        whole[fold.test] = part
    assert whole is not None
    return whole
