"""The task that an erasure is to hurt: a probe fitted anew to what is left, or what the model itself does.

1. A `Refit` reads the rows at its site under every variant and is judged by cross-validation.
2. A measure of two classes is right where its sign is that of the row's class; both classes count the same.

Letters: v variant, j judged row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lens.progress import Progress
from probes.erased_runs import ErasedRuns, Variant
from probes.labelled import Labelled
from probes.measures import Measure, as_measure
from probes.refit import Judge, Refit, balance
from probes.suffix import one_site
from probes.targets import Classes

if TYPE_CHECKING:
    from lens.model import Transformer


@dataclass(frozen=True, eq=False)
class Task:
    """Scores of the judged rows under variants of an erasure.

    Args:
        label, metric: in words.
        floor: the score without information.
        judged: the rows that have a score.
        site, judge: where a probe reads that is fitted anew, and how it is judged.
        classes: of the judged rows, where each counts the same; None for values.
        measure, positive: a measure that tells two classes apart, and which rows are of the second;
            what each row counts, so that both classes count the same.
    """

    label: str
    metric: str
    floor: float
    judged: np.ndarray
    classes: np.ndarray | None = None
    site: str | None = None
    judge: Judge | None = None
    measure: Measure | None = None
    positive: Tensor | None = None
    weight: Tensor | None = None

    @classmethod
    def of(
        cls, model: Transformer, labelled: Labelled, target: str | None, task: Any, runs: ErasedRuns
    ) -> Task:
        if task is None or isinstance(task, Refit):
            task = task or Refit()
            site = runs.sites[-1] if task.site is None else one_site(model, task.site)
            runs.suffix.check_reads([site])
            judge = Judge.of(task, labelled, target)
            label = f"{judge.estimator} probe fitted anew at {site}"
            classes = judge.y[judge.judged] if judge.y.ndim == 1 else None
            return cls(label, judge.metric, judge.floor, judge.judged, classes, site=site, judge=judge)
        measure = as_measure(task)
        runs.suffix.check_reads(measure.reads)
        given = labelled.target(target)
        if not isinstance(given, Classes) or len(given.names) != 2:
            raise ValueError(
                "a measure tells two classes apart by its sign; these labels are of another kind"
            )
        labels = np.array(given.labels)
        if len(np.unique(labels)) < 2:
            raise ValueError(
                f"all rows are of the class {given.names[labels[0]]!r}: there is nothing to tell apart"
            )
        return cls(
            measure.label,
            "balanced accuracy",
            0.5,
            np.arange(labelled.n),
            labels,
            measure=measure,
            positive=torch.from_numpy(labels) == 1,
            weight=torch.from_numpy(balance(labels)[labels]),
        )

    def scores(self, runs: ErasedRuns, variants: Sequence[Variant], progress: Progress) -> Tensor:
        """[v, j] of the judged rows."""
        if self.judge is not None:
            assert self.site is not None
            return self.judge.scores(runs.read(variants, self.site, progress), progress)
        values = runs.run(variants, measure=self.measure, progress=progress).values
        assert values is not None and self.positive is not None and self.weight is not None
        return ((values > 0) == self.positive) * self.weight
