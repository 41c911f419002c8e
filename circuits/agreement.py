"""How well estimates agree with exact effects, for each kind of node or edge and for all together.

1. Things are matched by name; those whose exact effect is not known are left out.
2. The means over the pairs are compared: Pearson's and Spearman's correlation; the share with the same sign, of
   those whose exact effect is not zero; the share of the exact top k, by size, that is in the estimate's top k.
3. Pairs are resampled with replacement, the same ones for both sides, and step 2 is done again for each resample:
   the 2.5th and 97.5th percentile are the interval. It says how the figure would move with other prompts.

Letters: n pair, i thing, b resample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import bootstrap
from circuits.correlation import pearson, spearman
from circuits.effects import Effects, of_edges, of_matrix, of_nodes, of_scores

if TYPE_CHECKING:
    from circuits.attributed import Attributed
    from circuits.exact_edges import EdgeEffects
    from circuits.patch import Patched
    from circuits.scores import Scores

    Side = Effects | Scores | Attributed | Patched | EdgeEffects

ALL = "all"
FIGURES = ("pearson", "spearman", "sign", "top")
PIECE = 2**24
"""Resampled effects are made in pieces of about this many numbers."""


@dataclass(frozen=True)
class Match:
    """Agreement over `n` things: correlations from -1 to 1, shares from 0 to 1; NaN where there is too little to say.

    `top` is the overlap of the `k` largest. `intervals`: of each figure, 95%; empty where pairs are not known.
    """

    n: int
    k: int
    pearson: float
    spearman: float
    sign: float
    top: float
    intervals: dict[str, tuple[float, float]]

    def __repr__(self) -> str:
        return (
            f"Match({self.n}: Pearson {self.pearson:.3f}, Spearman {self.spearman:.3f}, same sign {self.sign:.0%}, "
            f"{self.top:.0%} of the {self.k} largest)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with None for NaN."""
        values = {name: _plain(getattr(self, name)) for name in FIGURES}
        intervals = {name: [_plain(x) for x in ends] for name, ends in self.intervals.items()}
        return {"n": self.n, "k": self.k, **values, "intervals": intervals}


@dataclass(frozen=True, eq=False)
class Agreement:
    """Estimates beside exact effects.

    `kinds`: the agreement within each kind, and under "all" that of everything. `names`, `of_kind`, `estimate`,
    `exact`: the scatter plot, [i]. `n_examples`: how many pairs the means are over; None where this is not known.
    """

    method: str
    metric_name: str
    n_examples: int | None
    kinds: dict[str, Match]
    names: tuple[str, ...]
    of_kind: tuple[str, ...]
    estimate: Float[Tensor, " i"]
    exact: Float[Tensor, " i"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        points = zip(self.names, self.of_kind, self.estimate.tolist(), self.exact.tolist(), strict=True)
        return {
            "method": self.method,
            "metric": self.metric_name,
            "n_examples": self.n_examples,
            "kinds": {kind: match.to_dict() for kind, match in self.kinds.items()},
            "points": [{"name": n, "kind": k, "estimate": a, "exact": b} for n, k, a, b in points],
        }


def agree(
    estimate: Side,
    exact: Side | Float[Tensor, "s r"],
    *,
    size: bool = False,
    top: int | None = None,
    resamples: int = bootstrap.N_RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Compare estimates with exact effects of the same nodes or edges.

    Args:
        estimate: effects of nodes (`node_effects`), what `attribute_nodes` gave, or edges' `Scores`.
        exact: effects of nodes, what `patch` or `patch_edges` gave, or a matrix [s, r] of edges with NaN where it was
            not measured (beside `Scores`).
        size: compare |estimate| with |exact|, for methods that give no sign; `sign` is then NaN.
        top: how many are the largest; None: a tenth of each kind.
        resamples: how many times pairs are drawn anew for the intervals; 0: no intervals.

    Raises:
        ValueError: nothing is in both, their metrics or numbers of pairs differ, or a number is out of range.
    """
    if top is not None and top < 1:
        raise ValueError(f"top is {top}; it must be at least 1")
    if resamples < 0:
        raise ValueError(f"resamples is {resamples}; it must be at least 0")
    a, b = _sides(estimate, exact)
    known = {name: i for i, name in enumerate(b.names) if not b.values[i].isnan()}
    both = [(i, known[name]) for i, name in enumerate(a.names) if name in known]
    if not both:
        raise ValueError(
            f"the estimates ({a.names[0]}, …) and the exact effects have no node or edge in common"
        )
    left, right = (torch.tensor(side) for side in zip(*both, strict=True))
    x, y = a.values[left].double().cpu(), b.values[right].double().cpu()
    drawn = None
    n = None if a.per_example is None else len(a.per_example)
    if a.per_example is not None and b.per_example is not None:
        if len(a.per_example) != len(b.per_example):
            raise ValueError(
                f"the estimates are of {len(a.per_example)} pairs, the exact effects of {len(b.per_example)}"
            )
        drawn = (a.per_example[:, left].double().cpu(), b.per_example[:, right].double().cpu())
    of_kind = tuple(a.kinds[i] for i in left.tolist())
    kinds = {}
    for kind in dict.fromkeys([ALL, *of_kind]):
        at = torch.tensor([i for i, one in enumerate(of_kind) if kind in (ALL, one)])
        k = min(len(at), max(1, round(len(at) / 10)) if top is None else top)
        each = None if drawn is None or not resamples else (drawn[0][:, at], drawn[1][:, at])
        kinds[kind] = _match(x[at], y[at], each, k, size, resamples, seed)
    names = tuple(a.names[i] for i in left.tolist())
    return Agreement(a.method, a.metric_name or b.metric_name, n, kinds, names, of_kind, x, y)


def _sides(estimate: Side, exact: Side | Tensor) -> tuple[Effects, Effects]:
    a = _effects(estimate)
    if isinstance(exact, Tensor):
        from circuits.scores import Scores

        if not isinstance(estimate, Scores):
            raise ValueError("a matrix of exact effects [s, r] can only stand beside Scores of edges")
        if exact.shape != estimate.values.shape:
            raise ValueError(
                f"the exact effects have shape {list(exact.shape)}, the scores {list(estimate.values.shape)}"
            )
        return a, of_matrix(estimate.graph, exact, metric=a.metric_name)
    b = _effects(exact)
    if a.metric_name != b.metric_name:
        raise ValueError(f"the estimates are of {a.metric_name}, the exact effects of {b.metric_name}")
    return a, b


def _effects(side: Side) -> Effects:
    from circuits.exact_edges import EdgeEffects
    from circuits.scores import Scores

    if isinstance(side, Effects):
        return side
    if isinstance(side, Scores):
        return of_scores(side)
    return of_edges(side) if isinstance(side, EdgeEffects) else of_nodes(side)


def _match(
    x: Tensor, y: Tensor, each: tuple[Tensor, Tensor] | None, k: int, size: bool, resamples: int, seed: int
) -> Match:
    found = {name: float(v[0]) for name, v in _figures(x[None], y[None], k, size).items()}
    intervals: dict[str, tuple[float, float]] = {}
    if each is not None:
        n = len(each[0])
        rows = bootstrap.resamples(n, resamples, seed)
        weights = torch.zeros(resamples, n, dtype=torch.float64)
        weights.scatter_add_(1, rows, torch.ones_like(rows, dtype=torch.float64))
        pieces = (weights / n).split(max(1, PIECE // len(x)))
        parts = [_figures(w @ each[0], w @ each[1], k, size) for w in pieces]
        for name in FIGURES:
            low, high = bootstrap.percentiles(torch.cat([part[name] for part in parts]))
            intervals[name] = (float(low), float(high))
    return Match(n=len(x), k=k, intervals=intervals, **found)


def _figures(
    x: Float[Tensor, "b i"], y: Float[Tensor, "b i"], k: int, size: bool
) -> dict[str, Float[Tensor, " b"]]:
    """Every figure of every row."""
    signs = torch.where(y == 0, torch.nan, (x.sign() == y.sign()).double()).nanmean(1)
    if size:
        x, y, signs = x.abs(), y.abs(), torch.full_like(signs, torch.nan)
    largest = [
        torch.zeros_like(v, dtype=torch.bool).scatter_(1, v.abs().topk(k, 1).indices, True) for v in (x, y)
    ]
    return {
        "pearson": pearson(x, y),
        "spearman": spearman(x, y),
        "sign": signs,
        "top": (largest[0] & largest[1]).sum(1) / k,
    }


def _plain(x: float) -> float | None:
    return None if math.isnan(x) else x
