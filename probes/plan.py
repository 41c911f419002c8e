"""What a sweep will do, decided and checked before any probe is fitted.

Letters: n rows, m texts, t tokens of the longest text, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lens.progress import Progress
from lens.sites import NamesFilter
from probes import controls as control_tasks
from probes import floor as floors_of
from probes import given
from probes.activations import Activations
from probes.crossfit import Extras
from probes.estimator import Kind, get_estimator
from probes.floor import Answers, Floor, Place, Setting
from probes.given_rows import check_labelled
from probes.labelled import Labelled
from probes.trial import READS, Trial

if TYPE_CHECKING:
    from lens.model import Transformer

Penalties = float | Sequence[float] | str | None
GRID = "grid"


@dataclass(frozen=True, eq=False)
class Asked:
    """The arguments of `probes.sweep`."""

    estimator: str | Kind
    sites: NamesFilter
    targets: Sequence[str] | str | None
    positions: str | Sequence[str] | None
    penalties: Mapping[str, Penalties]
    cv: Any
    groups: bool | str | Sequence[str] | None
    controls: int | None
    permutations: int
    mdl: bool
    floors: Sequence[str] | None
    metrics: Sequence[str] | None
    model: Transformer | None
    answers: Answers | None
    seed: int
    bootstrap: int
    options: Mapping[str, Any]
    batch_size: int
    device: Any


@dataclass(frozen=True, eq=False)
class Plan:
    """What is fixed before the first probe is fitted."""

    asked: Asked
    kind: Kind
    trials: list[Trial]
    extras: list[Extras]
    places: list[Place]
    penalties: tuple[float | None, ...]
    setting: Setting
    floors: dict[str, tuple[Floor, Setting]]


def plan(
    store: Activations | Mapping[str, Tensor | np.ndarray],
    labelled: Labelled,
    asked: Asked,
    progress: Progress,
) -> Plan:
    """Check everything; read every activation once, so that one that is not finite is told before the work.

    Raises:
        ValueError: as for `probes.sweep`.
    """
    check_labelled(labelled)
    if asked.model is not None:
        given.check_model(asked.model)
    kind = asked.estimator if isinstance(asked.estimator, Kind) else get_estimator(asked.estimator)
    kind.check_options(asked.options)
    store = store if isinstance(store, Activations) else Activations.of(store)
    given.check_whole(0, permutations=asked.permutations, seed=asked.seed)
    given.check_whole(1, bootstrap=asked.bootstrap, batch_size=asked.batch_size)
    if asked.controls is not None:
        given.check_whole(0, controls=asked.controls)
    penalties = resolve_penalties(kind, asked.penalties)
    places = _places(store, labelled, kind, asked.sites, asked.positions)
    grouped = regrouped(labelled, asked.groups)
    names = [None] if asked.targets is None else given.names(asked.targets, "targets")
    if not names:
        raise ValueError("no targets are named; None stands for the main one")
    choice = len(places) > 1 or len(penalties) > 1
    trials = [
        Trial.of(
            grouped, name, kind, cv=asked.cv, seed=asked.seed, metrics=asked.metrics,
            bootstrap=asked.bootstrap, inside=choice and asked.cv != 2,
        )
        for name in names
    ]  # fmt: skip
    if len(penalties) > 1 and asked.cv == 2:
        raise ValueError(
            f"choosing among {len(penalties)} values of {kind.penalty} inside 2 folds leaves none to choose on; "
            "use 3 folds or more"
        )
    extras = [_extras(trial, kind, asked) for trial in trials]
    setting = Setting(
        labelled=grouped, original=labelled, store=store, kind=kind, penalties=penalties, options=asked.options,
        model=asked.model, answers=asked.answers, seed=asked.seed, batch_size=asked.batch_size,
        device=asked.device, sites=tuple(dict.fromkeys(place.site for place in places)), progress=progress,
    )  # fmt: skip
    chosen = floors_of.chosen(asked.floors, setting, [trial.reads for trial in trials])
    for done, place in enumerate(places):
        progress(done, len(places), "looking at activations")
        activations(setting, place)
    return Plan(asked, kind, trials, extras, places, penalties, setting, chosen)


def resolve_penalties(kind: Kind, asked: Mapping[str, Penalties]) -> tuple[float | None, ...]:
    """The penalties to choose among, those that regularise most first.

    Raises:
        ValueError: one that the kind does not have, none at all, or one that is not positive.
    """
    named = {name: value for name, value in asked.items() if value is not None}
    for name in named:
        if name != kind.penalty:
            has = f"its penalty is {kind.penalty}" if kind.penalty else "it has no penalty"
            raise ValueError(f"{kind.name} probes have no {name}; {has}")
    value = next(iter(named.values()), None)
    if value is None:
        return (None,)
    if isinstance(value, str):
        if value != GRID:
            raise ValueError(f"{kind.penalty} is {value!r}; it is a number, several, or {GRID!r}")
        value = kind.grid
    several = (
        [value]
        if isinstance(value, int | float | np.number)
        else given.plain(value, f"values of {kind.penalty}")
    )
    if wrong := [v for v in several if isinstance(v, bool) or not isinstance(v, int | float | np.number)]:
        raise ValueError(f"{kind.penalty} is {given.sort(wrong[0])}; it is a number, several, or {GRID!r}")
    found = sorted({float(v) for v in several})
    if not found:
        raise ValueError(f"no value of {kind.penalty} is given")
    if wrong := [v for v in found if not 0 < v < float("inf")]:
        raise ValueError(f"{kind.penalty} is {wrong[0]}; it must be positive")
    return tuple(found if kind.penalty == "C" else reversed(found))


def regrouped(labelled: Labelled, groups: bool | str | Sequence[str] | None) -> Labelled:
    """The rows with the groups that folds keep together.

    Raises:
        ValueError: no such column, or groups are asked for where there are none.
    """
    if groups is None:
        return labelled
    if groups is True:
        if labelled.groups is None:
            raise ValueError(f"{labelled.name} has no groups to keep together")
        return labelled
    if groups is False:
        return labelled.grouped_by()
    return labelled.grouped_by(*given.names(groups, "groups (columns of the data)"))


def _places(
    store: Activations,
    labelled: Labelled,
    kind: Kind,
    sites: NamesFilter,
    positions: str | Sequence[str] | None,
) -> list[Place]:
    names = store.resolve(sites)
    if not names:
        raise ValueError("no sites are named")
    if kind.target == "sequences":
        store.check(labelled=labelled)
        check_whole_texts(kind, labelled, store.offsets is not None)
        return [Place(site, store.layer(site), "all") for site in names]
    if positions is not None and store.offsets is None:
        raise ValueError(
            "positions are chosen when activations are harvested; only a store of all tokens has several"
        )
    if store.offsets is None:
        store.rows_of(labelled)  # another length, other texts
        return [Place(site, store.layer(site), str(store.record.get("positions", ""))) for site in names]
    asked: Sequence[Any] = [positions] if isinstance(positions, str) else positions or ["last"]
    found = {how: store.rows_of(labelled, how) for how in asked}
    return [Place(site, store.layer(site), how, rows) for site in names for how, rows in found.items()]


def _extras(trial: Trial, kind: Kind, asked: Asked) -> Extras:
    controls = asked.controls
    if trial.reads == "heads" or kind.target == "pairs":
        if controls:
            raise ValueError(f"there is no control task for {kind.name} probes")
        controls = 0
    elif controls is None:
        types, folds = trial.types, trial.splits.outer
        several = types is not None and len(set(types)) > 1
        controls = int(several and control_tasks.recurring(types or (), folds) >= control_tasks.RECURRING)
    elif controls:
        control_tasks.check_recurring(trial.types, trial.splits.outer)
    if asked.mdl and (READS[kind.target] != "classes" or not hasattr(kind.new(), "predict_proba")):
        raise ValueError(
            f"{kind.name} probes give no probabilities of classes, and the online code needs them"
        )
    return Extras(controls, asked.permutations, asked.mdl)


def activations(setting: Setting, place: Place) -> tuple[Tensor, Tensor | None]:
    """[n, d]; for sequences [m, t, d] and which tokens are there, [m, t]."""
    if setting.kind.target != "sequences":
        return setting.store.take(place.site, place.rows), None
    return whole_texts(setting.store, place.site, setting.labelled.n)


def whole_texts(store: Activations, site: str, m: int) -> tuple[Tensor, Tensor]:
    """All tokens of m texts [m, t, d], as wide as they are kept, and which of them are there, [m, t]."""
    lengths = torch.from_numpy(np.bincount(store.text, minlength=m))
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = store.take(site)
    x = torch.zeros(*mask.shape, tokens.shape[1], dtype=tokens.dtype)
    x[mask] = tokens[torch.from_numpy(np.argsort(store.text, kind="stable"))]
    return x, mask


def check_whole_texts(kind: Kind, labelled: Labelled, all_tokens: bool) -> None:
    """Raise a ValueError unless a kind that reads whole texts has them, with all their tokens."""
    if kind.target == "sequences" and (not all_tokens or labelled.spans is not None):
        raise ValueError(f"{kind.name} probes read all tokens of whole texts: harvest with positions='all'")
