"""What a sweep found: a tidy table, the probes, and what they said of rows they were not fitted to.

One row of the table is one number. Its columns:

site, layer, position, target, value     where, and of what; `value` names one of several values, "" is their mean
estimator, penalty                       the penalty of the probe that is kept; folds may have chosen others
metric, score, low, high, n              the number, its 95% bootstrap interval, and the rows it is of
floor_<name>                             the same metric of each floor
control, selectivity                     of the control task (mean, if several), and score − control
p_value                                  of shuffled labels
codelength, uniform, compression         bits of the online code and of the uniform code, and their ratio
chosen_after_the_fact, chosen_inside     marks of the best place, and of the row whose folds chose their own
layers, note                             the layers that the folds chose; what there is to say

Letters: n rows, k outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lens.nearest import unknown
from probes import controls
from probes.crossfit import Found
from probes.estimator import Kind
from probes.floor import Place
from probes.probe import Probe
from probes.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

INSIDE = "chosen inside"
"""The site of the row whose folds chose their own place."""

FIRST = (
    "site",
    "layer",
    "position",
    "target",
    "value",
    "estimator",
    "penalty",
    "metric",
    "score",
    "low",
    "high",
    "n",
)
LAST = (
    "control", "selectivity", "p_value", "codelength", "uniform", "compression", "chosen_after_the_fact",
    "chosen_inside", "layers", "note",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sweep:
    """The result of `probes.sweep`.

    Args:
        table: see the module.
        probes: (target, site, position) → the probe fitted to all rows.
        decisions: (target, site, position) → what was said of each row by a probe not fitted to it, [n] or [n, k];
            (target, INSIDE, "") where folds chose their own place.
        trials: the targets with their folds.
        record: what was asked, and of what.
    """

    table: pd.DataFrame
    probes: Mapping[tuple[str, str, str], Probe]
    decisions: Mapping[tuple[str, str, str], np.ndarray]
    trials: tuple[Trial, ...]
    record: Mapping[str, Any]

    def __repr__(self) -> str:
        first = self.trials[0]
        best = self.best()
        n, targets = len(self.curve()), ", ".join(trial.target for trial in self.trials)
        return (
            f"Sweep({self.record['estimator']} on {targets}: {n} place{'s' * (n != 1)}, {first.metrics[0].name} "
            f"{best.score:.3f} at best, after the fact, at {best.site}; see .table)"
        )

    def trial(self, target: str | None = None) -> Trial:
        """A target; None: the first.

        Raises:
            ValueError: it was not swept.
        """
        known = {trial.target: trial for trial in self.trials}
        if target is not None and target not in known:
            raise ValueError(unknown("swept target", target, known))
        return known[target] if target is not None else self.trials[0]

    def curve(self, target: str | None = None, metric: str | None = None, value: str = "") -> pd.DataFrame:
        """The rows of one target and metric (None: the first), place after place; without the one chosen inside."""
        trial = self.trial(target)
        metric = metric or trial.metrics[0].name
        t = self.table
        kept = (t.target == trial.target) & (t.metric == metric) & (t.value == value) & ~t.chosen_inside
        return t.loc[kept].reset_index(drop=True)

    def best(self, target: str | None = None) -> pd.Series:
        """The row with the best score of the first metric: chosen after the fact, so biased upwards."""
        curve = self.curve(target)
        return curve.loc[curve.score.idxmax()]

    def inside(self, target: str | None = None) -> pd.Series | None:
        """The row whose folds chose their own layer, of the first metric; None where nothing was chosen."""
        t, trial = self.table, self.trial(target)
        found = t[
            (t.target == trial.target)
            & (t.metric == trial.metrics[0].name)
            & (t.value == "")
            & t.chosen_inside
        ]
        return None if found.empty else found.iloc[0]

    def probe(
        self, site: str | None = None, *, target: str | None = None, position: str | None = None
    ) -> Probe:
        """The probe of a site (a layer's full name); None: of the best one.

        Raises:
            ValueError: no such site.
        """
        name = self.trial(target).target
        if site is None:
            best = self.best(target)
            site, position = str(best.site), str(best.position)
        for (t, s, p), probe in self.probes.items():
            if (t, s) == (name, site) and position in (None, p):
                return probe
        raise ValueError(unknown("probed site", site, {s for t, s, _ in self.probes if t == name}))


def rows_of(
    trial: Trial, kind: Kind, place: Place, found: Found, floors: Mapping[str, np.ndarray], note: str
) -> list[dict[str, Any]]:
    """The rows of one target at one place, without marks."""
    rows = []
    code = found.codelength
    if found.stalled:
        note = "; ".join(filter(None, [note, f"{len(found.stalled)} fits did not converge"]))
    for (metric, value), (low, high) in zip(trial.items(), trial.intervals(found.decision), strict=True):
        score = trial.score(metric, value, found.decision)
        control = [trial.score(metric, value, decision, y) for y, decision in found.controls]
        permuted = [trial.score(metric, value, decision, y) for y, decision in found.permuted]
        mean = float(np.mean(control)) if control else None
        rows.append({
            "site": place.site, "layer": place.layer, "position": place.position, "target": trial.target,
            "value": value, "estimator": kind.name, "penalty": found.refit.penalty, "metric": metric.name,
            "score": score, "low": low, "high": high, "n": len(trial.judged),
            **{f"floor_{name}": trial.score(metric, value, told) for name, told in floors.items()},
            "control": mean, "selectivity": None if mean is None else score - mean,
            "p_value": controls.p_value(score, permuted) if permuted else None,
            "codelength": code and code.bits, "uniform": code and code.uniform,
            "compression": code and code.compression,
            "chosen_after_the_fact": False, "chosen_inside": False, "layers": "", "note": note,
        })  # fmt: skip
    return rows


def chosen_inside(
    trial: Trial, kind: Kind, found: Mapping[Place, Found], floors: Mapping[Place, Mapping[str, np.ndarray]]
) -> tuple[list[dict[str, Any]], np.ndarray | None]:
    """The rows whose folds each take the place that their inner folds score best, and their decisions.

    Nothing where there is no choice.
    """
    if len(found) < 2 or not any(trial.splits.inner):
        return [], None
    chosen = choices(found)
    first = next(iter(found.values()))
    decision = _patched(trial, chosen, {place: one.decision for place, one in found.items()})
    names = next(iter(floors.values()))
    told = {n: _patched(trial, chosen, {place: floors[place][n] for place in found}) for n in names}
    where = Place(INSIDE, None, chosen[0].position if len({p.position for p in chosen}) == 1 else "chosen")
    same = replace(
        first, decision=decision, controls=(), permuted=(), codelength=None, stalled=(),
        refit=replace(first.refit, penalty=None),
    )  # fmt: skip
    rows = rows_of(trial, kind, where, same, told, "")
    several = len({p.position for p in found}) > 1
    layers = ", ".join(_word(place, several) for place in chosen)
    return [{**row, "chosen_inside": True, "layers": layers} for row in rows], decision


def choices(found: Mapping[Place, Found]) -> list[Place]:
    """The place that each fold takes; the first of equal ones."""
    places = list(found)
    scores = np.array([found[place].inner for place in places])  # [place, fold]
    return [places[i] for i in np.where(np.isnan(scores), -np.inf, scores).argmax(0)]


def tabled(rows: Sequence[dict[str, Any]], trials: Sequence[Trial]) -> pd.DataFrame:
    """The table, with the best place of each target marked where there were several."""
    import pandas as pd

    floors = list(dict.fromkeys(name for row in rows for name in row if name.startswith("floor_")))
    table = pd.DataFrame(list(rows), columns=[*FIRST, *floors, *LAST])
    table["layer"] = table["layer"].astype("Int64")
    numbers = ["penalty", "score", "low", "high", *floors, *LAST[:6]]
    table[numbers] = table[numbers].astype("float64")
    for trial in trials:
        mine = (table.target == trial.target) & ~table.chosen_inside
        curve = table[mine & (table.metric == trial.metrics[0].name) & (table.value == "")]
        if len(curve) > 1 and curve.score.notna().any():
            best = curve.loc[curve.score.idxmax()]
            table.loc[
                mine & (table.site == best.site) & (table.position == best.position), "chosen_after_the_fact"
            ] = True
    return table


def _patched(trial: Trial, chosen: Sequence[Place], decisions: Mapping[Place, np.ndarray]) -> np.ndarray:
    """Each fold's rows from the place that it chose."""
    whole = np.full_like(next(iter(decisions.values())), np.nan)
    for fold, place in zip(trial.splits.outer, chosen, strict=True):
        whole[fold.test] = decisions[place][fold.test]
    return whole


def _word(place: Place, several: bool) -> str:
    where = place.site if place.layer is None else str(place.layer)
    return f"{where} {place.position}" if several else where
