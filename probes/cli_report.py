"""Runs, evaluations and data sets as a person reads them in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lens.nearest import unknown
from probes.labelled import Classes, Heads, Labelled, Values
from probes.store import Run

if TYPE_CHECKING:
    import pandas as pd

    from probes.amnesic import Amnesic
    from probes.steer import Dose

UNEVEN = 0.7  # a largest class with more than this share of two or more
HEADINGS = {"p_value": "p", "compression": "mdl ×", "floor_majority": "majority", "floor_mean": "mean"}


def run_report(run: Run, target: str | None = None, metric: str | None = None, value: str = "") -> list[Any]:
    """Header, one table per target, and what has to be said about the best layer.

    Raises:
        ValueError: no such target, metric or value.
    """
    names = [run.target(target)] if target is not None else list(run.targets)
    parts: list[Any] = [_header(run)]
    for name in names:
        parts += _target(run, name, metric, value)
    return parts


def _header(run: Run) -> str:
    c, model = run.config, run.record["model"]["name"]
    data = run.record["sweep"]["data"]
    return (
        f"{c.site} of {model}, position {c.positions}: {c.estimator}, {c.cv} folds, seed {c.seed}; "
        f"{data['name']}, {data['n']} rows"
    )


def _target(run: Run, target: str, metric: str | None, value: str) -> list[Any]:
    about = run.targets[target]
    t = run.table[run.table.target == target]
    metric = str(metric or about["metric"])
    if metric not in set(t.metric):
        raise ValueError(unknown("metric", metric, set(t.metric), of="this run"))
    if value and value not in set(t.value):
        raise ValueError(unknown("value", value, set(t.value) - {""}, of="this run"))
    curve, inside = run.curve(target, metric, value), run.inside(target, metric, value)
    return [
        _about(target, about, run.record["sweep"]["data"]["n"]),
        "",
        _table(curve, inside, metric),
        *_footnotes(curve, inside, about, run.record["sweep"]["data"]["n"]),
    ]


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _about(target: str, about: dict[str, Any], n: int) -> str:
    if about["reads"] == "classes":
        counts = [f"{n} {name}" for name, n in about["per_class"].items()]
        what = ", ".join(counts[:8]) + (f" and {len(counts) - 8} more classes" if len(counts) > 8 else "")
    elif about["reads"] == "values":
        what = ", ".join(about["names"]) + (f" in {about['unit']}" if about["unit"] else "")
    else:
        what = "dependency trees"
    kept = f"; {_several(about['groups'], 'group')} kept together" if about["groups"] else ""
    return f"\n{target}: {what}{kept}; {about['judged']} of {_several(n, 'row')} judged"


def _table(curve: pd.DataFrame, inside: pd.Series | None, metric: str) -> Any:
    from rich.table import Table

    extra = [name for name in curve.columns if name.startswith("floor_")]
    extra += ["control", "selectivity", "p_value", "compression"]
    extra = [name for name in extra if bool(curve[name].notna().to_numpy().any())]
    table = Table(box=None, pad_edge=False)
    for name in ("site", "layer", metric, "95% interval", *(_heading(name) for name in extra), ""):
        table.add_column(name, justify="left" if name in ("site", "") else "right", no_wrap=True)
    for _, row in curve.iterrows():
        mark = " ".join(filter(None, ["← best" if row.chosen_after_the_fact else "", row.note]))
        table.add_row(*_cells(row, extra), mark)
    if inside is not None:
        table.add_row(*_cells(inside, extra), f"layers {inside.layers}")
    return table


def _cells(row: Any, extra: list[str]) -> list[str]:
    return [row.site, _layer(row.layer), _number(row.score), f"{_number(row.low)}–{_number(row.high)}",
            *(_number(row[name]) for name in extra)]  # fmt: skip


def _layer(value: Any) -> str:
    return "" if str(value) in ("<NA>", "nan", "None") else str(int(value))


def _number(value: Any) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _heading(name: str) -> str:
    return HEADINGS.get(name, name.removeprefix("floor_").replace("_", " "))


def _footnotes(curve: pd.DataFrame, inside: pd.Series | None, about: dict[str, Any], n: int) -> list[str]:
    metric, notes = about["metric"], []
    if about["groups"] and about["judged"] < n:
        notes.append(
            f"{_several(n - about['judged'], 'row')} not judged: their groups are in different folds, so that no probe "
            "is fitted without all of them."
        )
    per_class = about["per_class"] or {}
    if metric == "accuracy" and per_class and max(per_class.values()) > UNEVEN * sum(per_class.values()):
        notes.append(
            "The classes are uneven, so that accuracy is high for the largest alone; see --metric auroc or "
            "balanced_accuracy."
        )
    if curve.chosen_after_the_fact.any():
        notes.append(
            f"The best site by {metric} is chosen after the fact, on the rows that judge it: it is biased upwards."
        )
    if inside is not None:
        notes.append(
            "'chosen inside': each fold took its layer on the rows that it fits, and judged it on the others."
        )
    return ["", *notes] if notes else []


def evaluation_report(run: Run, table: pd.DataFrame, data: str | None) -> list[Any]:
    """Scores of a run's probes on other data, or on the rows that its folds held out."""
    from rich.table import Table

    told = Table(box=None, pad_edge=False)
    if data is None:
        for name in ("", "score", "rows"):
            told.add_column(name, justify="left" if not name else "right")
        for _, row in table.iterrows():
            told.add_row(row.what, _number(row.score), str(row.n))
        return [_header(run), f"rows that folds held out, at {table.site.iloc[0]}\n", told]
    for name in ("site", "layer", "metric", "score", "95% interval", "majority or mean"):
        told.add_column(name, justify="left" if name in ("site", "metric") else "right", no_wrap=True)
    for _, row in table.iterrows():
        metric = f"{row.metric} of {row.value}" if row.value else row.metric
        told.add_row(row.site, _layer(row.layer), metric, _number(row.score), f"{_number(row.low)}–{_number(row.high)}",
                     _number(row.floor))  # fmt: skip
    return [_header(run), f"on {data}, {table.n.iloc[0]} rows; nothing was fitted to them\n", told]


def amnesic_report(test: Amnesic, equal_effect: bool = True) -> list[Any]:
    """What an erasure costs, next to random ones."""
    from rich.table import Table

    told = Table(box=None, pad_edge=False)
    for name in ("erasure", "rank", test.metric, "95% interval", "loss", "increase", "95% interval"):
        told.add_column(name, justify="left" if name == "erasure" else "right", no_wrap=True)
    for line in test.lines:
        told.add_row(
            line.erasure, str(line.rank), _number(line.score), f"{_number(line.score_low)}–{_number(line.score_high)}",
            _number(line.loss), _number(line.increase), f"{_number(line.increase_low)}–{_number(line.increase_high)}",
        )  # fmt: skip
    sites = ", ".join(f"{method} at {site}" for site, method in test.sites.items())
    head = f"{sites}; task: {test.task}, floor {test.floor:.3f}; {test.rows} rows, {test.tokens} tokens\n"
    notes = []
    if test.saving is not None:
        mean, low, high = test.saving
        notes = [
            "",
            f"a random erasure of equal effect costs {mean:.3f} nats per token more ({low:.3f} to {high:.3f})",
        ]
    elif equal_effect and test.without_equal_effect:
        notes = ["", f"no line for a random erasure of equal effect: {test.without_equal_effect}"]
    return [head, told, *notes]


def dose_report(dose: Dose) -> list[Any]:
    """A dose–response curve."""
    from rich.table import Table

    table = dose.table
    told = Table(box=None, pad_edge=False)
    for name in ("dose", "mean", "95% interval", *(["loss"] if "loss" in table else []), ""):
        told.add_column(name, justify="right", no_wrap=True)
    for _, row in table.iterrows():
        cells = [f"{row.dose:g}", _number(row["mean"]), f"{_number(row.low)} to {_number(row.high)}"]
        told.add_row(
            *cells, *([_number(row.loss)] if "loss" in table else []), "monotone" if row.monotone else ""
        )
    ends = dose.monotone
    found = "nowhere monotone" if ends is None else f"monotone from {ends.low:g} to {ends.high:g}"
    return [f"{dose.measure}, steered at {dose.start} positions; {dose.unit}\n", told,
            "", f"{found}; rank correlation with the dose {dose.spearman:.2f}"]  # fmt: skip


def dataset_report(labelled: Labelled) -> dict[str, Any]:
    """What a data set holds."""
    told: dict[str, Any] = {"name": labelled.name, "rows": labelled.n, "texts": len(labelled.texts)}
    for name, target in labelled.targets.items():
        told[f"target {name}"] = _of_target(target)
    if labelled.groups is not None:
        told["groups"] = len({group for row in labelled.groups for group in row})
    if labelled.types is not None:
        told["word types"] = len(set(labelled.types))
    if labelled.columns:
        told["columns"] = ", ".join(labelled.columns)
    if labelled.places:
        told["places"] = ", ".join(labelled.places)
    if labelled.pairs is not None:
        told["pairs"] = len(labelled.pairs)
    rows = np.linspace(0, labelled.n - 1, min(5, labelled.n)).astype(int)
    words = labelled.words()
    told["examples"] = [words[i] if labelled.spans is None else f"{words[i]}: {labelled.texts[labelled.text[i]]}"
                        for i in rows]  # fmt: skip
    return {**told, "licence": labelled.licence, "source": labelled.source}


def _of_target(target: Any) -> str:
    if isinstance(target, Classes):
        return ", ".join(f"{count} {name}" for name, count in target.counts.items())
    if isinstance(target, Values):
        ranges = [
            f"{name} {x.min():g} to {x.max():g}"
            for name, x in zip(target.names, target.values.T, strict=True)
        ]
        return ", ".join(ranges) + (f" {target.unit}" if target.unit else "")
    assert isinstance(target, Heads)
    return f"dependency trees, up to {int(target.depths.max())} deep"
