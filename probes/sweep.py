"""Sites × positions × targets, judged on the same folds, with floors, controls and intervals, in one tidy table.

1. What cannot work is refused before any activation is read: folds, groups, controls, floors.
2. For every place (a site at a position) all fits of all targets are asked for together (`probes.crossfit`).
3. Each row of the table is one number: a place, a target, a metric. Beside it stand its bootstrap interval, the same
   number for every floor, for the control task and for shuffled labels.
4. The layer is chosen inside the cross-validation as well: each fold takes the place that its inner folds score
   best, and is judged there on rows that had no part in the choice. That row is `chosen_inside`; its folds may
   differ in their layer. The place with the best score of all is `chosen_after_the_fact`: biased upwards.

Letters: n rows, k outputs, m texts, t tokens of the longest text, d width.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lens.progress import Progress, silent
from lens.sites import NamesFilter
from probes import given, splits
from probes.activations import Activations
from probes.crossfit import Found, crossfit
from probes.estimator import Kind
from probes.floor import Answers, Place
from probes.labelled import Labelled
from probes.plan import Asked, Penalties, Plan, activations, plan
from probes.probe import Probe
from probes.swept import INSIDE, Sweep, chosen_inside, rows_of, tabled
from probes.trial import Trial

if TYPE_CHECKING:
    from lens.model import Transformer

CONSTANT = 1e-12  # a spread below this share of the largest value is rounding


def sweep(
    store: Activations | Mapping[str, Tensor | np.ndarray],
    labelled: Labelled,
    estimator: str | Kind = "logistic",
    *,
    sites: NamesFilter = None,
    targets: Sequence[str] | str | None = None,
    positions: str | Sequence[str] | None = None,
    C: Penalties = None,
    alpha: Penalties = None,
    cv: Any = 5,
    groups: bool | str | Sequence[str] | None = None,
    controls: int | None = None,
    permutations: int = 0,
    mdl: bool = False,
    floors: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    model: Transformer | None = None,
    answers: Answers | None = None,
    seed: int = 0,
    bootstrap: int = 1000,
    options: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    device: Any = None,
    progress: Progress = silent,
) -> Sweep:
    """Judge probes at every site. The same arguments give the same numbers, bit for bit on a CPU.

    Args:
        store: activations of the labelled rows: a store, or tensors or NumPy arrays [n, d] by site.
        estimator: a kind of `probes.estimators`.
        sites: of the store; a shorthand such as "resid_post" for all its layers; None: all.
        targets: by name; None: the main one.
        positions: for a store of all tokens, which token of each row: "last", "first", "mean", or several.
        C, alpha: the kind's penalty: a number, several to choose among inside the folds, or "grid", the kind's own.
            None: the kind's default (ridge: chosen by leave-one-out on the rows that are fitted).
        cv: how many folds; or folds that someone made, a list of `probes.Fold` or of pairs (rows to fit, rows to
            judge); or a scikit-learn splitter, which sees classes and groups.
        groups: None: those of the data, which are kept together; False: none; or columns of the data by name.
        controls: how many control tasks; None: one, where word types recur, else none.
        permutations: of the labels, behind the p-value, fitted with the penalties chosen for the real labels.
        mdl: whether to compute the online codelength; classes of kinds that give probabilities only.
        floors: by name, see `probes.floor`; None: all that can be had.
        metrics: by name; the first chooses penalties and layers. None: all.
        model: what the activations are from, for the floors that run it.
        answers: how the model is asked, for the floor "behaviour".
        seed: of folds, control tasks, permutations, the bootstrap and the random model.
        bootstrap: resamples behind the intervals.
        options: further parameters of the estimator.
        batch_size: of the floors that run the model.

    Raises:
        ValueError: anything that cannot be judged, in one line, before the work begins; activations that are not
            finite (site and row are named).
        Cancelled: the watcher asked for it.
    """
    asked = Asked(
        estimator, sites, targets, positions, {"C": C, "alpha": alpha}, splits.asked(cv), groups, controls,
        permutations, mdl, _listed(floors, "floors"), _listed(metrics, "metrics"), model, answers, seed, bootstrap,
        _options(options), batch_size, device,
    )  # fmt: skip
    return _Sweeping(plan(store, labelled, asked, progress), progress).run()


def _listed(names: Any, what: str) -> list[str] | None:
    return None if names is None else given.names(names, what)


def _options(options: Any) -> dict[str, Any]:
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(
            f"options are {given.sort(options)}; they must be values by name, such as {{'tol': 1e-4}}"
        )
    return dict(options or {})


class _Sweeping:
    """One sweep on its way."""

    def __init__(self, planned: Plan, progress: Progress) -> None:
        self.plan, self.progress = planned, progress
        self.at = (0, len(planned.places), "judging probes")
        self.decide = {
            name: floor.prepare(replace(told, inside=self._inside))
            for name, (floor, told) in planned.floors.items()
        }
        self.found: dict[tuple[str, Place], Found] = {}
        self.told: dict[tuple[str, str, Place | None], np.ndarray] = {}
        self.probes: dict[tuple[str, str, str], Probe] = {}
        self.rows: list[dict[str, Any]] = []

    def run(self) -> Sweep:
        """Steps 2 to 4."""
        p = self.plan
        for done, place in enumerate(p.places):
            self.at = (done, len(p.places), "judging probes")
            self.progress(*self.at)
            self._judge(place)
        self.progress(len(p.places), len(p.places), "judging probes")
        decisions = {(t, place.site, place.position): one.decision for (t, place), one in self.found.items()}
        for trial in p.trials:
            mine = {place: self.found[trial.target, place] for place in p.places}
            told = {place: self._floors(trial, place) for place in p.places}
            rows, decision = chosen_inside(trial, p.kind, mine, told)
            self.rows += rows
            if decision is not None:
                decisions[trial.target, INSIDE, ""] = decision
        return Sweep(tabled(self.rows, p.trials), self.probes, decisions, tuple(p.trials), _record(p))

    def _judge(self, place: Place) -> None:
        p = self.plan
        x, mask = activations(p.setting, place)
        seen = x if mask is None else x[mask]
        note = _note(seen)
        per_trial = crossfit(
            p.kind, x, p.trials, p.penalties, p.extras, mask=mask, options=p.setting.options,
            device=p.asked.device, seed=p.asked.seed, progress=self._inside,
        )  # fmt: skip
        for trial, one in zip(p.trials, per_trial, strict=True):
            self.found[trial.target, place] = one
            self.rows += rows_of(trial, p.kind, place, one, self._floors(trial, place), note)
            self.probes[trial.target, place.site, place.position] = _frozen(trial, p, place, one, seen)
        _warn(p.kind, place, per_trial)

    def _floors(self, trial: Trial, place: Place) -> dict[str, np.ndarray]:
        """Decisions of each floor of that target, computed once where they do not depend on the site."""
        found = {}
        for name, (floor, _) in self.plan.floors.items():
            if trial.reads in floor.reads:
                key = (trial.target, name, place if floor.per_site else None)
                if key not in self.told:
                    self.told[key] = self.decide[name](trial, place)
                found[name] = self.told[key]
        return found

    def _inside(self, done: int, total: int, label: str) -> None:
        """The work inside a site can be cancelled; it is not drawn."""
        self.progress(*self.at)


def _note(x: Tensor) -> str:
    spread = x.amax(0) - x.amin(0)
    constant = bool((spread <= CONSTANT * x.abs().amax(0)).all())
    return "no signal: every feature is constant" if constant else ""


def _frozen(trial: Trial, planned: Plan, place: Place, found: Found, x: Tensor) -> Probe:
    fit, reads = found.refit, "map" if trial.reads == "heads" else trial.reads
    wide = x.double()
    scale = wide.std(0, correction=0)
    scale = torch.where(scale > CONSTANT * wide.abs().amax(0), scale, torch.ones_like(scale))
    record = {
        "n": trial.n, "position": place.position, "penalty": {str(planned.kind.penalty): fit.penalty},
        "options": dict(planned.setting.options), "seed": planned.asked.seed,
        "model": planned.setting.store.record.get("model"), "data": planned.setting.labelled.fingerprint,
    }  # fmt: skip
    return Probe(
        fit.weights, place.site, trial.names, reads, planned.kind.name, trial.target,
        wide.mean(0), scale, record,
    )  # fmt: skip


def _warn(kind: Kind, place: Place, found: Sequence[Found]) -> None:
    """One warning for a site, which lists the columns that did not converge."""
    from sklearn.exceptions import ConvergenceWarning

    if stalled := [label for one in found for label in one.stalled]:
        listed = "; ".join(stalled[:8]) + (f"; and {len(stalled) - 8} more" if len(stalled) > 8 else "")
        text = f"{kind.name} at {place.site}: {len(stalled)} columns did not converge: {listed}"
        warnings.warn(text, ConvergenceWarning, stacklevel=3)


def _told(cv: Any) -> int | str:
    """How folds were asked for."""
    if isinstance(cv, int):
        return cv
    return f"{len(cv)} folds that were given" if isinstance(cv, tuple) else " ".join(repr(cv).split())


def _record(p: Plan) -> dict[str, Any]:
    """What was asked and of what, as plain JSON types."""
    setting, data, asked = p.setting, p.setting.labelled, p.asked
    cv, groups = asked.cv, asked.groups
    return {
        "estimator": p.kind.name, "penalty": p.kind.penalty, "penalties": list(p.penalties),
        "options": dict(setting.options), "cv": _told(cv),
        "groups": groups if groups is None or isinstance(groups, bool | str) else list(groups),
        "seed": asked.seed, "bootstrap": asked.bootstrap, "permutations": asked.permutations, "floors": list(p.floors),
        "data": {
            "name": data.name, "n": data.n, "fingerprint": data.fingerprint, "licence": data.licence,
            "source": data.source,
        },
        "targets": {
            trial.target: {
                "reads": trial.reads, "names": list(trial.names), "unit": trial.unit,
                "metric": trial.metrics[0].name, "judged": len(trial.judged),
                "groups": None if trial.groups is None else len({g for row in trial.groups for g in row}),
                "per_class": dict(Counter(np.array(trial.names)[trial.y].tolist()))
                if trial.reads == "classes" else None,
                "controls": extra.controls, "mdl": extra.mdl,
            }
            for trial, extra in zip(p.trials, p.extras, strict=True)
        },
        "store": dict(setting.store.record),
    }  # fmt: skip
