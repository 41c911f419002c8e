"""Online codelength by hand, its blocks, and its two ends: nothing to find, everything told."""

from __future__ import annotations

import numpy as np
import pytest

from probes.mdl import FRACTIONS, blocks


def test_by_hand() -> None:
    labels = np.array([0, 1] * 500)
    found = blocks(labels, seed=1)
    assert found.ends[-1] == 1000 and sorted(found.order.tolist()) == list(range(1000))
    seen = found.order[: found.ends[0]]
    assert min((labels[seen] == c).sum() for c in (0, 1)) >= 2
    assert set(found.ends[1:]) <= {round(1000 * f) for f in FRACTIONS}
    told = [np.full(len(rows), 0.25) for _, rows in found.steps]
    code = found.codelength(told)
    assert code.bits == pytest.approx(found.ends[0] + 2 * (1000 - found.ends[0]))
    assert code.uniform == 1000 and code.compression == pytest.approx(1000 / code.bits)
    assert sum(code.blocks) == pytest.approx(code.bits) and code.n == 1000
    for (before, rows), end in zip(found.steps, found.ends, strict=False):
        assert before.tolist() == np.sort(found.order[:end]).tolist()
        assert not set(before.tolist()) & set(rows.tolist())


def test_a_certain_mistake_is_finite_and_a_sure_probe_costs_only_the_first_block() -> None:
    labels = np.arange(3000) % 3
    found = blocks(labels)
    sure = found.codelength([np.ones(len(rows)) for _, rows in found.steps])
    assert sure.bits == pytest.approx(found.ends[0] * np.log2(3))
    wrong = found.codelength([np.zeros(len(rows)) for _, rows in found.steps])
    assert np.isfinite(wrong.bits) and wrong.compression < 1


def test_groups_are_not_cut() -> None:
    groups = [(f"g{i // 7}",) for i in range(700)]
    found = blocks(np.arange(700) // 7 % 2, groups=groups, seed=2)
    for before, rows in found.steps:
        assert not {groups[i] for i in before} & {groups[i] for i in rows}
    first = found.order[: found.ends[0]]
    assert all(len({groups[i] for i in first if (i // 7) % 2 == c}) >= 2 for c in (0, 1))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="must rise to 1"):
        blocks(np.arange(20) % 2, fractions=(0.5, 0.2, 1.0))
    with pytest.raises(ValueError, match="three rows or more of every class"):
        blocks(np.array([0] * 10 + [1] * 2))
