"""Minimum description length of labels given activations, by online coding (Voita, Titov 2020, arXiv 2003.12298).

1. The rows are put in a random order (groups stay whole, in a random order) and cut at 0.1, 0.2, 0.4, 0.8, 1.6,
   3.2, 6.25, 12.5, 25, 50 and 100% of them.
2. The first block costs t₁ log₂ c bits: each label is sent with the uniform code.
3. Every further block is sent with the probabilities of a probe that was fitted to all blocks before it:
   Σ −log₂ p(yᵢ | xᵢ) bits.
4. The codelength is compared with n log₂ c, that of the uniform code for all labels: compression is their ratio.

Few rows make early blocks of no use: the uniform code goes on until every class has been sent twice (with groups:
in two groups where it has so many), and cuts that fall together are one. Probabilities are kept at least `FLOOR`,
so that one confident mistake costs no infinity.

Letters: n rows, c classes, s steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
FLOOR = 1e-12


@dataclass(frozen=True)
class Codelength:
    """Bits to send all labels.

    Args:
        bits: of the online code.
        uniform: of the uniform code, n log₂ c.
        n: rows sent.
        ends: how many rows had been sent after each block.
        blocks: bits of each block.
    """

    bits: float
    uniform: float
    n: int
    ends: tuple[int, ...]
    blocks: tuple[float, ...]

    @property
    def compression(self) -> float:
        """The uniform code's bits by the online code's: above 1 where the activations tell something."""
        return self.uniform / self.bits


@dataclass(frozen=True, eq=False)
class Blocks:
    """The order in which rows are sent, and where the blocks end.

    Args:
        order: int [n], the rows as they are sent.
        ends: int, increasing; the last is n. The first block has the uniform code.
        c: the number of classes.
    """

    order: np.ndarray
    ends: tuple[int, ...]
    c: int

    @property
    def steps(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """For every block but the first: the rows that were sent before it, and its own, each sorted."""
        pairs = pairwise(self.ends)
        return tuple((np.sort(self.order[:a]), np.sort(self.order[a:b])) for a, b in pairs)

    def codelength(self, probabilities: Sequence[Float[np.ndarray, " _"]]) -> Codelength:
        """Bits, from the probability that each step's probe gave to the true class of each row of its block."""
        assert len(probabilities) == len(self.ends) - 1
        first = self.ends[0] * float(np.log2(self.c))
        rest = [float(-np.log2(np.clip(p, FLOOR, 1)).sum()) for p in probabilities]
        n = self.ends[-1]
        return Codelength(
            bits=float(np.sum([first, *rest])),
            uniform=n * float(np.log2(self.c)),
            n=n,
            ends=self.ends,
            blocks=(first, *rest),
        )


def blocks(
    labels: Int[np.ndarray, " n"],
    *,
    groups: Sequence[tuple[str, ...]] | None = None,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> Blocks:
    """The blocks of n labels (steps 1 and 2).

    Raises:
        ValueError: fractions that do not rise to 1, or a class with fewer than three rows.
    """
    n = len(labels)
    rising = all(a < b for a, b in pairwise(fractions))
    if not fractions or not rising or fractions[0] <= 0 or fractions[-1] != 1:
        raise ValueError(f"the fractions of the online code must rise to 1, not {list(fractions)}")
    unit = _units(n, groups)
    draw = np.random.default_rng([seed, 2])
    rank = draw.permutation(int(unit.max()) + 1)[unit]
    order = np.lexsort((draw.permutation(n), rank))
    classes, index = np.unique(labels, return_inverse=True)
    if int(np.bincount(index).min()) < 3:
        raise ValueError("the online code needs three rows or more of every class")
    least = _seen(index[order], unit[order], len(classes))
    ends = sorted({min(n, max(least, round(f * n))) for f in fractions})
    ends = [_whole(unit[order], end) for end in ends]
    return Blocks(order, tuple(sorted({*ends, n})), len(classes))


def _units(n: int, groups: Sequence[tuple[str, ...]] | None) -> np.ndarray:
    """Which rows are sent together: those with the same groups."""
    if groups is None:
        return np.arange(n)
    index: dict[tuple[str, ...], int] = {}
    return np.array([index.setdefault(tuple(sorted(set(names))), len(index)) for names in groups])


def _seen(index: np.ndarray, unit: np.ndarray, c: int) -> int:
    """After how many rows every class has been sent twice, and in two units if it has two."""
    least = 0
    for label in range(c):
        places = np.flatnonzero(index == label)
        other = np.flatnonzero(unit[places] != unit[places[0]])
        least = max(least, int(places[1]), int(places[other[0]]) if len(other) else 0)
    return least + 1


def _whole(unit: np.ndarray, end: int) -> int:
    """The first place from `end` on at which no unit is cut."""
    while 0 < end < len(unit) and unit[end] == unit[end - 1]:
        end += 1
    return end
