"""Of the page Runs: runs of probes, with what can be done with each."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import beside, page, probe_runs, runs, state
from dashboard.figures.probe_scores import metric_name
from dashboard.plain import plain
from dashboard.probe_runs import Listed
from dashboard.state import View
from probes.store import Run

OF_PROBE: dict[str, Any] = {"run": None, "other": None, "target": None, "layer": None, "model": None}
"""What another run of probes takes out of the view."""


def listing(known: dict[str, Listed], name: str | None) -> None:
    """All runs of probes, newest first; a click on a row selects its run."""
    rows = []
    for one, listed in known.items():
        config, sweep = listed.record["config"], listed.record["sweep"]
        rows.append(
            {
                "run": one, "data": str(sweep["data"]["name"]), "model": listed.model,
                "kind": str(config["estimator"]), "site": str(config["site"]), "position": str(config["positions"]),
                "rows": sweep["data"].get("n"), "created": runs.when(str(listed.record.get("created", ""))),
            }
        )  # fmt: skip
    names = list(known)
    key = f"probe_shelf_{hash((tuple(names), name))}"

    def pick(chosen: list[int]) -> None:
        state.put(**{**OF_PROBE, "probe": names[chosen[0]]})

    first = [names.index(name)] if name in names else []
    default: dict[str, Any] = {"selection_default": {"selection": {"rows": first}}} if first else {}
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, height=min(36 * len(rows) + 40, 220),
        **state.selecting(key, "rows", pick, first),
        selection_mode="single-row-required" if default else "single-row", **default,
        column_config={
            "run": st.column_config.TextColumn("run", width="medium"),  # long names leave room for the rest
            "created": st.column_config.DatetimeColumn("created", format="D MMM YYYY, HH:mm"),
        },
    )  # fmt: skip


def open_run(known: dict[str, Listed], name: str) -> Run | None:
    """The run, or None after saying why it cannot be read."""
    try:
        return probe_runs.open_run(known[name])
    except (ValueError, OSError) as error:
        st.error(plain(str(error)))
        return None


def opening(view: View, name: str) -> None:
    """Links to the pages that can show the run or its model."""
    st.caption("Open it on")
    with st.container(horizontal=True):
        page.link("probes", "Probes", view, icon=":material/sensors:", **{**OF_PROBE, "probe": name})


def provenance(run: Run) -> None:
    """Where the run comes from, in words and as it is kept."""
    config, record = run.config, run.record
    data = record["sweep"]["data"]
    rows = {
        "model": f"{config.model}, {record['model']['revision']}",
        "data": f"{data['name']}, {data['n']} rows",
        "probes": f"{config.estimator} on {config.site}, position {config.positions}, layers {config.layers}",
        "judged": f"{config.cv} folds, seed {config.seed}",
        "created": record.get("created", ""),
        "programs": ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items()),
    }
    beside.origin(rows)
    with st.expander("Everything that is kept of it"):
        st.json(dict(record), expanded=1)
        st.caption(plain(f"Saved in {run.path}"))


def comparing(view: View, run: Run, name: str, known: dict[str, Listed]) -> None:
    """Another run of probes beside this one: its best score at each place, and the settings that differ."""
    other = beside.other_run(view, [run for run in known if run != name], probe=name)
    second = None if other is None else open_run(known, other)
    if second is not None:
        st.dataframe(
            pd.DataFrame(side_by_side(run, second), columns=["", "this run", "the other"]),
            hide_index=True,
            row_height=28,
        )


def side_by_side(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """The best and the honestly chosen score of every target of either, and the settings that differ."""

    def numbers(run: Run) -> dict[str, str]:
        found = {}
        for target in run.targets:
            metric = metric_name(str(run.targets[target]["metric"]))
            curve, inside = run.curve(target), run.inside(target)
            best = curve.loc[curve.score.idxmax()]
            where = best.site if pd.isna(best.layer) else f"layer {int(best.layer)}"
            found[f"{target}, best {metric}"] = f"{best.score:.3f} ({where})"
            if inside is not None:
                found[f"{target}, layer chosen inside"] = (
                    f"{inside.score:.3f} ({inside.low:.3f} to {inside.high:.3f})"
                )
        return found

    def settings(run: Run) -> dict[str, str]:
        config = run.config
        names = ("model", "dataset", "estimator", "site", "positions", "layers", "cv", "seed", "C", "alpha")
        return {name: str(getattr(config, name, "")) for name in names}

    a, b = numbers(first), numbers(second)
    rows = [(key, a.get(key, "–"), b.get(key, "–")) for key in dict.fromkeys([*a, *b])]
    other = settings(second)
    return rows + [(key, value, other[key]) for key, value in settings(first).items() if value != other[key]]
