"""Ridge regression for many targets, penalties and folds over one design, with exact leave-one-out.

For one set of fitted rows, with features a and targets y about their means over these rows:

1. aᵀ a = V E Vᵀ in float64, and q = Vᵀ aᵀ y.
2. Weights at penalty λ:  w = V q / (E + λ), the minimum of |y − a w|² + λ |w|². One step of iterative refinement in
   float64 takes out what the eigendecomposition has rounded.
3. What row i would be predicted without it, for every λ without fitting again (Allen 1974): the residual
   r_i / (1 − h_i), with h_i = 1/m + Σ_j (a V)_ij² / (E_j + λ). The λ with the smallest mean square is chosen,
   the smallest such λ where some are equal.

Letters: n rows, m fitted rows, r features, t targets of all problems, k targets of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lens.progress import Progress, silent
from probes.solvers.design import Design, eigen
from probes.solvers.products import gram

SINGLE = 1e-9  # float32 leverages are exact enough where every λ is above this share of m × r


@dataclass(frozen=True)
class Question:
    """One problem: targets [n, k] in float64, which rows are fitted, and λ, or several to choose from."""

    y: Tensor
    fitted: Tensor | None
    alphas: tuple[float, ...]
    per_target: bool = False


@dataclass(frozen=True)
class Answer:
    """Weights [k, w] in float64, λ of each target [k], and the mean squared leave-one-out residual [λ, k]."""

    weights: Tensor
    alpha: Tensor
    left_out: Tensor | None


def solve(design: Design, questions: Sequence[Question], progress: Progress = silent) -> list[Answer]:
    """The weights of every problem, in order. Problems that share `fitted` (the same object) are one computation."""
    sets: dict[int, list[int]] = {}
    for i, question in enumerate(questions):
        sets.setdefault(id(question.fitted), []).append(i)
    answers: dict[int, Answer] = {}
    for members in sets.values():
        progress(len(answers), len(questions), "fitting ridge probes")
        rows = _Rows(design, questions[members[0]].fitted)
        answers |= zip(members, rows.solve([questions[i] for i in members]), strict=True)
    return [answers[i] for i in range(len(questions))]


class _Rows:
    """One set of fitted rows: their means, eigendecomposition and projections."""

    def __init__(self, design: Design, fitted: Tensor | None) -> None:
        self.design = design
        self.fitted = design.fitted if fitted is None else fitted
        self.m = design.n if self.fitted is None else int(self.fitted.sum())
        whole = self.fitted is design.fitted or (
            self.fitted is not None and design.fitted is not None and torch.equal(self.fitted, design.fitted)
        )
        mean = torch.zeros(design.r, dtype=torch.float64, device=design.x.device)
        self.mean: Tensor | None = None  # of the features; None where they are centred already
        if design.intercept and not whole:
            for rows in design.blocks():
                mean += self._block(rows).sum(0)
            self.mean = mean / self.m
        if whole:
            self.values, self.vectors = design.exact_eigen
        else:
            matrix = mean.new_zeros(design.r, design.r)
            for rows in design.blocks():
                matrix += gram(self._block(rows))
            self.values, self.vectors = eigen(matrix)

    def _block(self, rows: slice) -> Tensor:
        """Fitted rows of a block, centred, [m of it, r] in float64."""
        a = self.design.block(rows)[:, : self.design.r]
        a = a if self.fitted is None else a[self.fitted[rows]]
        return a if self.mean is None else a - self.mean

    def _blocks(self) -> Iterator[tuple[Tensor, slice]]:
        """Blocks with where their rows are among the fitted ones."""
        at = 0
        for rows in self.design.blocks():
            a = self._block(rows)
            yield a, slice(at, at + len(a))
            at += len(a)

    def solve(self, questions: Sequence[Question]) -> list[Answer]:
        ys = [q.y if self.fitted is None else q.y[self.fitted] for q in questions]
        y = torch.cat(ys, 1)  # [m, t]
        middle = y.mean(0) if self.design.intercept else torch.zeros_like(y[0])
        y = y - middle
        cross = self._cross(y)
        q = self.vectors.T @ cross
        chosen, losses, start = [], [], 0
        for question in questions:
            own = slice(start, start + question.y.shape[1])
            start = own.stop
            alphas = torch.tensor(question.alphas, dtype=torch.float64, device=y.device)
            loss = None
            if len(alphas) > 1:
                loss = self._leave_one_out(y[:, own], q[:, own], alphas)
                best = loss.argmin(0) if question.per_target else loss.mean(1).argmin().expand(loss.shape[1])
                alphas = alphas[best]
            chosen.append(alphas.expand(question.y.shape[1]))
            losses.append(loss)
        alpha = torch.cat(chosen)
        w = self.vectors @ (q / (self.values[:, None] + alpha))
        w = self._refined(w, y, alpha)
        intercept = middle if self.mean is None else middle - self.mean @ w
        packed = w.new_zeros(len(alpha), self.design.width)
        packed[:, : self.design.r] = w.T
        packed[:, self.design.r] = intercept
        sizes = [question.y.shape[1] for question in questions]
        parts = zip(packed.split(sizes), chosen, losses, strict=True)
        return [Answer(weights, alpha, loss) for weights, alpha, loss in parts]

    def _cross(self, y: Tensor) -> Tensor:
        """aᵀ y, [r, t]."""
        total = y.new_zeros(self.design.r, y.shape[1])
        for a, at in self._blocks():
            total += (y[at].T @ a).T
        return total

    def _refined(self, w: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
        residual = torch.empty_like(y)
        for a, at in self._blocks():
            residual[at] = y[at] - (w.T @ a.T).T
        slope = self._cross(residual) - alpha * w
        denominator = self.values[:, None] + alpha
        step = torch.where(denominator > 0, 1 / denominator, 0.0) * (self.vectors.T @ slope)
        return w + self.vectors @ step

    def _leave_one_out(self, y: Tensor, q: Tensor, alphas: Tensor) -> Tensor:
        """Mean squared residual of rows left out, [λ, k]."""
        single = float(alphas.min()) >= SINGLE * self.m * self.design.r
        dtype = torch.float32 if single else torch.float64
        inverse = 1 / (self.values[:, None] + alphas)  # [r, λ]
        weights = (q[:, None] * inverse[:, :, None]).flatten(1).to(dtype)  # [r, λ × k]
        vectors, level = self.vectors.to(dtype), 1 / self.m if self.design.intercept else 0.0
        total = y.new_zeros(len(alphas), y.shape[1])
        for a, at in self._blocks():
            rotated = a.to(dtype) @ vectors
            residual = y[at][:, None] - (rotated @ weights).double().unflatten(1, (len(alphas), -1))
            leverage = (rotated.square_() @ inverse.to(dtype)).double() + level
            total += (residual / (1 - leverage).clamp(min=1e-12)[:, :, None]).square().sum(0)
        return total / self.m
