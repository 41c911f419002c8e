"""Amnesic probing (Elazar et al. 2021, arXiv 2006.00995): what a model loses when a concept is erased.

1. As it is: the task's score and the language-model loss per token, without erasure.
2. Erased: both with the eraser as an edit at its site.
3. Random, same rank: erasers of random subspaces of the same rank (several draws). What they cost is what any loss
   of that many dimensions costs.
4. Random, equal effect: the smallest rank at which random erasure hurts the task as much as the eraser did. That is,
   the mean score over the draws is no higher than the upper end of the erased score's interval (or the floor, where
   that is higher). Found by bisection, since the score falls with the rank; each draw's subspaces contain each other.
   What this erasure costs in language-model loss is the price of the same effect without knowing where the concept is.

The task is a probe fitted anew to what is left (`Refit`), or a measure of the model's own behaviour, right where its
sign agrees with the class. Erase concepts with an eraser that was fitted to other rows than those given here: on its
own rows LEACE leaves exactly nothing, and cross-validation on them reads below chance.

Intervals resample rows (groups, where there are any) for the score, texts for the loss, and the draws along with
both. The loss's increase is taken text by text.

Letters: v variant or draw, n row, m text, j judged row, r resample, k rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lens.progress import Progress, silent
from probes import given
from probes.erased_runs import ErasedRuns, Rows, Variant
from probes.eraser import Eraser
from probes.erasers.random import random_eraser
from probes.erasure_task import Task
from probes.given_rows import check_labelled
from probes.intervals import percentiles, resampled_means
from probes.labelled import Labelled
from probes.positions import Positions
from probes.prompts import Inputs, Prompts
from probes.suffix import one_site

if TYPE_CHECKING:
    import pandas as pd

    from lens.model import Transformer

EVERYWHERE, ROWS = "all", "rows"


@dataclass(frozen=True)
class Line:
    """One erasure (or none): the task's score, the loss per token in nats, its increase over the whole model's.

    `rank` is summed over sites; `draws` is 1 where nothing is random.
    """

    erasure: str
    rank: int
    draws: int
    score: float
    score_low: float
    score_high: float
    loss: float
    loss_low: float
    loss_high: float
    increase: float
    increase_low: float
    increase_high: float


@dataclass(frozen=True, eq=False)
class Amnesic:
    """What erasing a concept costs, next to random erasures.

    Args:
        before, erased, same_rank: lines 1 to 3.
        equal_effect: line 4; None where it was not asked for, the eraser did not hurt the task, or no random erasure
            hurts it as much.
        saving: mean, low and high of the loss that line 4 costs more than line 2, nats per token.
        floor: the task's score without information.
        search: the ranks that were tried for line 4, each with the mean score over draws.
        sites: what was erased where, by site.
        task, metric: in words.
        rows, tokens: how many were judged, how many tokens predicted.
        where: "all" positions or only the "rows".
        skip: positions left alone at the beginning of each text.
    """

    before: Line
    erased: Line
    same_rank: Line
    equal_effect: Line | None
    saving: tuple[float, float, float] | None
    floor: float
    search: tuple[tuple[int, float], ...]
    sites: Mapping[str, str]
    task: str
    metric: str
    rows: int
    tokens: int
    where: str
    skip: int

    @property
    def without_equal_effect(self) -> str | None:
        """Why there is no line 4, in words; None where there is one."""
        if self.equal_effect is not None:
            return None
        if self.search:
            return "no random erasure hurts the task as much as this one, not even of all dimensions"
        if self.erased.score_high >= self.before.score:
            return (
                f"this erasure did not hurt the task: the interval of its score reaches {self.erased.score_high:.3f}, "
                f"and without erasure it is {self.before.score:.3f}; no effect that a random one could equal"
            )
        return "a random erasure of equal effect was not asked for"

    @property
    def lines(self) -> tuple[Line, ...]:
        found = (self.before, self.erased, self.same_rank, self.equal_effect)
        return tuple(line for line in found if line is not None)

    @property
    def table(self) -> pd.DataFrame:
        """One row per line."""
        import pandas as pd

        return pd.DataFrame([asdict(line) for line in self.lines])


def amnesic(
    model: Transformer,
    labelled: Labelled,
    eraser: Eraser | Mapping[str, Eraser],
    *,
    target: str | None = None,
    task: Any = None,
    positions: Positions = "last",
    texts: Inputs | None = None,
    activations: Mapping[str, Tensor] | None = None,
    where: str = EVERYWHERE,
    skip: int = 0,
    draws: int = 5,
    equal_effect: bool = True,
    prepend_bos: bool | None = None,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress = silent,
) -> Amnesic:
    """The amnesic test of an eraser on labelled rows that it was not fitted to.

    Args:
        eraser: one that knows its site, or several by site, which act in one run.
        target: which target of the rows; None: the main one.
        task: a `Refit`; None: one at the deepest erased site. Or for two classes a measure (`LogitDifference`, a probe,
            a function of the logits [b, v] → [b]), right where it is positive for the second class.
        positions: the token of each row, as in `probes.harvest`.
        texts: whose language-model loss is measured; None: the labelled texts.
        activations: what was harvested of these rows at the erased site, site → [n, d], so that it need not be again.
        where: erase at "all" positions, or only at the "rows".
        skip: leave this many positions at the beginning of each text alone. The first position's activations are of
            another size in many models, and a subspace that touches them costs much, whatever it means.
        draws: random erasers per rank.
        equal_effect: whether to look for the rank of equal effect.
        prepend_bos: as for `probes.harvest`, of the labelled texts and of `texts`.
        seed: of the draws and the intervals.
        batch_size: only speed and memory depend on it.

    Raises:
        ValueError: an eraser without a site or of another width, a task that cannot be, a site that is read before the
            first that is erased, labels that cannot be split into folds.
    """
    given.check_model(model)
    check_labelled(labelled)
    given.check_whole(1, draws=draws, batch_size=batch_size)
    given.check_whole(0, skip=skip, seed=seed)
    if where not in (EVERYWHERE, ROWS):
        raise ValueError(f"where is {where!r}; it is {EVERYWHERE!r} or {ROWS!r}")
    if where == ROWS and texts is not None:
        raise ValueError("only the labelled texts have rows; with `texts`, erase at 'all' positions")
    erasers = _by_site(model, eraser)
    rows = Rows.of(model, labelled, positions, prepend_bos)
    options: dict[str, Any] = {"skip": skip, "batch_size": batch_size, "only_rows": where == ROWS}
    runs = ErasedRuns(model, rows, list(erasers), **options)
    for site, x in (activations or {}).items():
        runs.know(one_site(model, site), x)
    others = (
        runs
        if texts is None
        else ErasedRuns(model, Prompts.of(model, texts, prepend_bos), list(erasers), **options)
    )
    if not float(others.tokens.sum()):
        raise ValueError("no text has a second token, so there is no next token to predict")
    test = _Test(
        runs, others, erasers, Task.of(model, labelled, target, task, runs), labelled, draws, seed, progress
    )
    return test.result(where, skip, equal_effect)


def _by_site(model: Transformer, erasers: Eraser | Mapping[str, Eraser]) -> dict[str, Eraser]:
    if isinstance(erasers, Eraser):
        if erasers.site is None:
            raise ValueError("the eraser does not say where it was fitted; give {site: eraser}")
        erasers = {erasers.site: erasers}
    if not erasers:
        raise ValueError("there is no eraser")
    if not isinstance(erasers, Mapping) or not all(isinstance(e, Eraser) for e in erasers.values()):
        raise ValueError(
            f"the eraser is {given.sort(erasers)}; it must be one of probes.fit_eraser, or several by site"
        )
    found = {one_site(model, site): eraser for site, eraser in erasers.items()}
    for site, eraser in found.items():
        width = _width(model, site)
        if width != eraser.width:
            raise ValueError(
                f"the eraser takes activations {eraser.width} wide, and {site!r} is {width} wide"
            )
    return dict(sorted(found.items(), key=lambda item: list(model.sites).index(item[0])))


def _width(model: Transformer, site: str) -> int:
    sizes = {
        "d_model": model.cfg.d_model, "head": model.cfg.n_heads, "kv": model.cfg.n_key_value_heads,
        "d_head": model.cfg.d_head, "d_mlp": model.cfg.d_mlp, "1": 1,
    }  # fmt: skip
    width = 1
    for axis in model.sites[site].shape.split()[2:]:
        if not isinstance(sizes.get(axis), int):
            raise ValueError(f"{site!r} is [{model.sites[site].shape}]; it cannot be erased from")
        width *= sizes[axis]
    return width


@dataclass(frozen=True, eq=False)
class _Test:
    runs: ErasedRuns
    others: ErasedRuns
    erasers: Mapping[str, Eraser]
    task: Task
    labelled: Labelled
    draws: int
    seed: int
    progress: Progress

    def result(self, where: str, skip: int, equal_effect: bool) -> Amnesic:
        ranks = {site: eraser.rank for site, eraser in self.erasers.items()}
        own: list[Variant] = [{}, dict(self.erasers)]
        same = self._random(ranks)
        scores = self.task.scores(self.runs, [*own, *same], self.progress)
        losses = self._losses([*own, *same])
        total = sum(ranks.values())
        base = losses[:1]
        method = ", ".join(sorted({eraser.method for eraser in self.erasers.values()}))
        before = self._line("none", 0, scores[:1], losses[:1], base)
        erased = self._line(method, total, scores[1:2], losses[1:2], base)
        line, saving, search = None, None, ()
        if equal_effect and erased.score_high < before.score:
            rank, found, search = self._equal(
                max(erased.score_high, self.task.floor), total, float(scores[2:].mean())
            )
            if rank is not None:
                hurt = scores[2:] if found is None else found
                cost = losses[2:] if found is None else self._losses(self._random(self._ranks(rank)))
                line = self._line(
                    "random, equal effect",
                    self._total(rank) if found is not None else total,
                    hurt,
                    cost,
                    base,
                )
                saving = self._saving(cost, losses[1:2])
        return Amnesic(
            before, erased, self._line("random, same rank", total, scores[2:], losses[2:], base), line, saving,
            self.task.floor, tuple(search), {site: eraser.method for site, eraser in self.erasers.items()},
            self.task.label, self.task.metric, len(self.task.judged), int(self.others.tokens.sum()), where, skip,
        )  # fmt: skip

    def _ranks(self, rank: int) -> dict[str, int]:
        """The same rank at every site, as far as it is wide."""
        return {site: min(rank, eraser.width) for site, eraser in self.erasers.items()}

    def _total(self, rank: int) -> int:
        return sum(self._ranks(rank).values())

    def _random(self, ranks: Mapping[str, int]) -> list[Variant]:
        """Variants with random subspaces, around the centre of the erasers."""
        return [
            {
                site: random_eraser(eraser.centre, ranks[site], 1000 * self.seed + draw, site)
                for site, eraser in self.erasers.items()
            }
            for draw in range(self.draws)
        ]

    def _losses(self, variants: Sequence[Variant]) -> Tensor:
        found = self.others.run(variants, loss=True, progress=self.progress).losses
        assert found is not None
        return found

    def _equal(
        self, enough: float, total: int, same: float
    ) -> tuple[int | None, Tensor | None, list[tuple[int, float]]]:
        """The smallest rank per site at which the mean score is `enough` or less, the scores there, and what was tried.

        The scores are None where the eraser's own ranks are enough already; the rank is None where none is.
        """
        tried = [(total, same)]
        if same <= enough:
            return total, None, tried
        low, high = 0, max(eraser.width for eraser in self.erasers.values())
        best: Tensor | None = None
        while best is None or high - low > 1:
            rank = high if best is None else (low + high) // 2
            scores = self.task.scores(self.runs, self._random(self._ranks(rank)), self.progress)
            tried.append((self._total(rank), float(scores.mean())))
            if tried[-1][1] <= enough:
                high, best = rank, scores
            elif best is None:
                return None, None, tried
            else:
                low = rank
        return high, best, sorted(tried)

    def _line(self, erasure: str, rank: int, scores: Tensor, losses: Tensor, base: Tensor) -> Line:
        """`scores` [v, j] and `losses` [v, m] of the draws; `base` [1, m] of the whole model."""
        groups = self.labelled.groups
        names = None if groups is None else [groups[row] for row in self.task.judged.tolist()]
        resampled = resampled_means(scores.T, names, classes=self.task.classes, seed=self.seed)
        score = self._interval(resampled, scores.shape[0])
        loss, increase = (self._per_token(x) for x in (losses, losses - base))
        tokens = self.others.tokens.sum()
        means = (float(x.sum(1).mean() / tokens) for x in (losses, losses - base))
        return Line(
            erasure, rank, len(scores), float(scores.mean()), *score, next(means), *loss, next(means), *increase
        )  # fmt: skip

    def _per_token(self, sums: Tensor) -> tuple[float, float]:
        return self._interval(self._resampled(sums), len(sums))

    def _resampled(self, sums: Tensor) -> Tensor:
        """Losses per token in each resample of the texts, [r, v], from sums [v, m]."""
        counts, groups = self.others.tokens, None
        if self.others is self.runs and self.labelled.groups is not None and self.labelled.spans is None:
            groups = self.labelled.groups
        return resampled_means((sums / counts.clamp(min=1)).T, groups, weight=counts, seed=self.seed)

    def _interval(self, means: Tensor, draws: int) -> tuple[float, float]:
        """Of the mean over the draws, which are drawn again in each resample [r, v]."""
        low, high = percentiles((means * self._redrawn(len(means), draws)).sum(1))
        return float(low), float(high)

    def _redrawn(self, count: int, draws: int) -> Tensor:
        generator = np.random.default_rng([self.seed, 2])
        return torch.from_numpy(generator.multinomial(draws, np.full(draws, 1 / draws), size=count) / draws)

    def _saving(self, cost: Tensor, erased: Tensor) -> tuple[float, float, float]:
        means = self._resampled(cost - erased)
        return (
            float((cost - erased).sum(1).mean() / self.others.tokens.sum()),
            *self._interval(means, len(cost)),
        )
