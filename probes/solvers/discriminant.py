"""Class means and linear discriminants for many labels and folds over one design, in closed form.

1. Sums of the rows of each class, for all problems in one product.
2. Where all classes share one covariance S, the log odds are linear: S⁻¹ μ_c · a − μ_cᵀ S⁻¹ μ_c / 2 + log π_c.
3. S = aᵀa / m − Σ_c π_c μ_c μ_cᵀ, from one Gram matrix for each set of fitted rows, shrunk towards a multiple of the
   identity: (1 − s) S + s tr(S)/d. Ledoit and Wolf (2004) give the s of least expected error, from the rows' norms.

Letters: n rows, m fitted rows, r features that are solved for, d features of the activations, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.solvers.design import Design
from probes.solvers.products import gram

COLUMNS = 512  # classes of all problems that are summed in one product
FLOOR = 1e-13  # of the largest eigenvalue: directions without variance below


@dataclass(frozen=True)
class Question:
    """The class of each row as 0 … c − 1, [n] (any where not fitted), and which rows are fitted."""

    label: Tensor
    fitted: Tensor | None
    c: int


def class_means(design: Design, questions: Sequence[Question]) -> list[tuple[Tensor, Tensor]]:
    """For each problem how many rows each class has, [c], and their means, [c, r], in float64."""
    found: list[tuple[Tensor, Tensor]] = []
    start = 0
    while start < len(questions):
        stop, columns = start, 0
        while stop < len(questions) and (stop == start or columns + questions[stop].c <= COLUMNS):
            columns += questions[stop].c
            stop += 1
        found += _means(design, questions[start:stop])
        start = stop
    return found


def _means(design: Design, questions: Sequence[Question]) -> list[tuple[Tensor, Tensor]]:
    sizes = [question.c for question in questions]
    sums = torch.zeros(sum(sizes), design.width, dtype=torch.float64, device=design.x.device)
    for rows in design.blocks():
        member = []
        for q in questions:
            own = q.label[rows] == torch.arange(q.c, device=sums.device)[:, None]
            member.append(own if q.fitted is None else own & q.fitted[rows])
        sums += torch.cat(member).double() @ design.block(rows)
    parts = sums.split(sizes)
    return [(part[:, design.r], part[:, : design.r] / part[:, design.r, None]) for part in parts]


def discriminants(
    design: Design, questions: Sequence[Question], shrinkage: float | str | None
) -> list[Tensor]:
    """Weights [1, w] for two classes, [c, w] for more, of every problem; `shrinkage` is s, "auto" or None for 0."""
    grams: dict[int, Tensor] = {}
    weights = []
    for question, (count, means) in zip(questions, class_means(design, questions), strict=True):
        key = id(question.fitted)
        if key not in grams:
            grams[key] = _gram(design, question.fitted)
        share = count / count.sum()
        covariance = grams[key] / count.sum() - (means.T * share) @ means
        weights.append(_discriminant(design, question, covariance, means, share, shrinkage))
    return weights


def _gram(design: Design, fitted: Tensor | None) -> Tensor:
    total = torch.zeros(design.r, design.r, dtype=torch.float64, device=design.x.device)
    fitted = design.fitted if fitted is None else fitted
    for rows in design.blocks():
        a = design.block(rows)[:, : design.r]
        total += gram(a if fitted is None else a[fitted[rows]])
    return total


def _discriminant(
    design: Design,
    question: Question,
    covariance: Tensor,
    means: Tensor,
    share: Tensor,
    shrinkage: float | str | None,
) -> Tensor:
    level = covariance.trace() / design.x.shape[1]
    s = _ledoit_wolf(design, question, covariance, means) if shrinkage == "auto" else float(shrinkage or 0)
    shrunk = (1 - s) * covariance
    shrunk.diagonal().add_(s * level)
    values, vectors = torch.linalg.eigh(shrunk)
    inverse = torch.where(values > FLOOR * values[-1], 1 / values, 0.0)  # without variance, no evidence
    slope = ((means @ vectors) * inverse) @ vectors.T
    out = slope.new_zeros(question.c, design.width)
    out[:, : design.r] = slope
    out[:, design.r] = share.log() - 0.5 * (slope * means).sum(1)
    return out[1:] - out[:1] if question.c == 2 else out


def _ledoit_wolf(design: Design, question: Question, covariance: Tensor, means: Tensor) -> float:
    d = design.x.shape[1]
    fourth, m = torch.zeros((), dtype=torch.float64, device=means.device), 0
    for rows in design.blocks():
        a, label = design.block(rows)[:, : design.r], question.label[rows]
        if question.fitted is not None:
            a, label = a[question.fitted[rows]], label[question.fitted[rows]]
        fourth += (a - means[label]).square().sum(1).square().sum()
        m += len(a)
    square = covariance.square().sum()
    spread = float(square - covariance.trace() ** 2 / d)
    error = float(fourth / m - square) / m
    return 1.0 if spread <= 0 else min(max(error / spread, 0.0), 1.0)
