"""Newton's method in float64, one logistic problem at a time: finishes what float32 steps leave, and judges them.

1. Gradient in float64 over blocks of rows.
2. Direction: −H⁻¹ g by Cholesky where the Hessian has at most `DENSE` columns; else by conjugate gradients,
   preconditioned by the diagonal blocks h aᵀ a + λ of the outputs, to a residual of 1e-3 of the gradient.
3. Half the squared Newton decrement, gᵀ H⁻¹ g / 2, is the excess over the minimum up to third order. Stop there, or
   take an exact step along the direction.

Letters: k outputs, n rows, w width of the design, p = 1 problem.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.solvers.columns import Columns
from probes.solvers.design import Design
from probes.solvers.metric import SharedMetric

DENSE = 2048
CG_STEPS = 200


def newton(
    design: Design, columns: Columns, w: Tensor, target: float, steps: int = 50
) -> tuple[Tensor, float, int]:
    """Weights [1, k, w], their excess, and the steps taken; `columns` is one problem in float64."""
    w = w.double()
    z = _scores(design, w)
    excess, step = float("inf"), 0
    for step in range(steps + 1):
        g = _gradient(design, columns, w, z)
        d = _dense(design, columns, z, g) if columns.k * design.width <= DENSE else _cg(design, columns, z, g)
        excess = -0.5 * float((g * d).sum())
        if excess <= target or step == steps:
            break
        zd = _scores(design, d)
        t = columns.line(w, z, d, zd, rounds=40)[:, None, None]
        w = w + t * d
        z = z + t * zd
    return w, excess, step


def _scores(design: Design, w: Tensor) -> Tensor:
    return torch.cat([(w[0] @ design.block(rows).T)[None] for rows in design.blocks()], 2)


def _gradient(design: Design, columns: Columns, w: Tensor, z: Tensor) -> Tensor:
    residual = (columns.probability(z) - columns.y) * columns.s
    return _times(design, residual) + columns.penalty * w


def _times(design: Design, residual: Tensor) -> Tensor:
    total = residual.new_zeros(1, residual.shape[1], design.width)
    for rows in design.blocks():
        total[0] += residual[0][:, rows] @ design.block(rows)
    return total


def _dense(design: Design, columns: Columns, z: Tensor, g: Tensor) -> Tensor:
    k, width = columns.k, design.width
    p = columns.probability(z)[0]
    hessian = z.new_zeros(k, width, k, width)
    for rows in design.blocks():
        a = design.block(rows)
        for i in range(k):
            for j in range(i + 1):
                own = 1.0 if i == j else 0.0
                h = p[i, rows] * (own - p[j, rows]) * columns.s[0, 0, rows]
                part = a.T @ (a * h[:, None])
                hessian[i, :, j] += part
                if i != j:
                    hessian[j, :, i] += part
    matrix = hessian.reshape(k * width, k * width)
    diagonal = matrix.diagonal()
    diagonal += columns.penalty.expand(1, k, width).reshape(-1)
    diagonal += 1e-14 * diagonal.max()  # a softmax leaves the sum of its intercepts open
    factor, failed = torch.linalg.cholesky_ex(matrix)
    while bool(failed):
        diagonal += 1e-12 * diagonal.max()
        factor, failed = torch.linalg.cholesky_ex(matrix)
    return -torch.cholesky_solve(g.reshape(-1, 1), factor).view_as(g)


def _cg(design: Design, columns: Columns, z: Tensor, g: Tensor) -> Tensor:
    metric = SharedMetric.of(design, columns, design.rough_eigen)
    metric = SharedMetric(metric.rotation.double(), metric.inverse.double())
    p = columns.probability(z)
    d, residual = torch.zeros_like(g), -g
    direction = step = metric(residual)
    product = (residual * step).sum()
    start = product
    for _ in range(CG_STEPS):
        zd = _scores(design, direction)
        curved = p * zd
        curved = curved - p * (curved if columns.k == 1 else curved.sum(1, keepdim=True))
        bent = _times(design, curved * columns.s) + columns.penalty * direction
        alpha = product / (direction * bent).sum()
        d = d + alpha * direction
        residual = residual - alpha * bent
        step = metric(residual)
        before, product = product, (residual * step).sum()
        if product <= 1e-6 * start:
            break
        direction = step + product / before * direction
    return d
