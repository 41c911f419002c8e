"""Probes: what the activations encode, layer by layer, beside the floors that make it believable."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import choices, options, page, probe_layer, probe_runs, refusing, runs, sidebar, state, work
from dashboard.components.grid import grid
from dashboard.figures import probe_scores
from dashboard.page import Page
from dashboard.plain import plain
from dashboard.probe_failures import OWN_TEXT, failures
from dashboard.probe_layer import Shown
from dashboard.probe_runs import Listed
from dashboard.probe_training import training
from dashboard.state import View
from dashboard.subject import Subject
from lens.nearest import unknown
from probes.labelled import Labelled
from probes.store import Run

PAGE = Page(title="Probes", icon=":material/sensors:", order=7)


def show() -> None:
    st.title("Probes")
    st.caption("What the activations encode, layer by layer, beside the floors that make it believable.")
    known = probe_runs.folders(options.given().runs)
    view, name = which(state.current("probes"), known)
    view, subject = sidebar.show(view)
    if name is None and refusing.refused("probes", view):
        return
    model_name = choices.model_of(view)
    model = work.shelf().loaded(model_name)
    if known:
        choose(known, name)
    if model is not None:
        training(model_name, model, expanded=name is None)
    if name is None:
        if model is not None:
            st.info(
                f"No probes of {plain(model_name)} yet: train some above, or with "
                "`probes train … --out` into the folder of runs.", icon=":material/info:",
            )  # fmt: skip
        page.next_step("prompt", "Look at a prompt meanwhile", view)
        return
    try:
        run = probe_runs.open_run(known[name])
        view, target = check(view, run)
    except (ValueError, OSError) as error:
        st.error(plain(str(error)))
        page.next_step("prompt", "Look at a prompt", view)
        return
    header(run, target)
    row = scores(view, run, target, known, name)
    labelled = rows_of(run)
    worst = None
    if labelled is not None:
        worst = failures(view, run, target, labelled)
        site = str(row.site)
        shown = inside(view, run, target, site, model, model_name, labelled)
        found = probe_layer.read(shown) if shown is not None else None
        if shown is not None and found is not None:
            probe_layer.projection(shown, found)
            probe_layer.steering(shown, found, subject if isinstance(subject, Subject) else None)
    with st.expander("Where it comes from"):
        st.json(dict(run.record), expanded=1)
    if worst is None:
        page.next_step("prompt", "Look at a prompt of this model", view)
    else:
        page.next_step(
            "prompt", "See what the model makes of the chosen text", view, **OWN_TEXT, prompt=worst
        )


# ---- which run


def which(view: View, known: dict[str, Listed]) -> tuple[View, str | None]:
    """The run that is looked at: the address's, or the newest of the model that is looked at; then its model."""
    if view.probe is not None and view.probe not in known:
        why = unknown("run of probes", view.probe, known) if known else "there is no run of probes"
        view = state.refuse(view, "probe", why)
    name = view.probe
    if name is None:
        model = None if view.model is None and view.run is None else choices.model_of(view)
        name = next((n for n, listed in known.items() if model in (None, listed.model)), None)
    if name is not None:
        model = known[name].model
        if model in choices.models():
            view = replace(view, model=model)
        if view.run is not None and runs.model_of(view.run) != model:
            view = replace(view, run=None)
        view = replace(view, probe=name)
    return view, name


def choose(known: dict[str, Listed], name: str | None) -> None:
    """All runs of probes, newest first."""

    def title(one: str) -> str:
        try:
            created = datetime.fromisoformat(str(known[one].record["created"])).astimezone()
        except (KeyError, ValueError):
            return known[one].title
        return f"{known[one].title} · {created:%-d %b %H:%M}"

    names = list(known)
    st.selectbox(
        "Probes", names, format_func=title, placeholder="Choose a run", label_visibility="collapsed",
        index=None if name is None else names.index(name),
        **state.bound("probe", name, target=None, layer=None, model=None),
    )  # fmt: skip


def check(view: View, run: Run) -> tuple[View, str]:
    """The view without a target or a layer that the run does not have, and the target.

    Raises:
        ValueError: the run has no target at all.
    """
    if not run.targets:
        raise ValueError("this run has no target")
    try:
        target = probe_runs.check_target(run, view.target)
    except ValueError as error:
        view, target = state.refuse(view, "target", str(error)), next(iter(run.targets))
    layers = {int(layer) for layer in run.curve(target).layer.dropna()}
    if view.layer is not None and view.layer not in layers:
        known = ", ".join(map(str, sorted(layers)))
        view = state.refuse(view, "layer", f"layer {view.layer} has no probe in this run; it has {known}")
    return view, target


def header(run: Run, target: str) -> None:
    """What is probed for, how, and how well it can be read."""
    about, config = run.targets[target], run.config
    if len(run.targets) > 1:
        bound = state.bound("target", target)
        st.segmented_control(
            "Target", list(run.targets), default=target, **bound, required=True, format_func=plain
        )
    curve, chosen = run.curve(target), run.inside(target)
    best = curve.loc[curve.score.idxmax()]
    row = best if chosen is None else chosen
    what = "dependency trees"
    if about["reads"] == "classes":
        counts = [f"{n} {label}" for label, n in about["per_class"].items()]
        what = ", ".join(counts[:6]) + (f" and {len(counts) - 6} more classes" if len(counts) > 6 else "")
    elif about["reads"] == "values":
        what = ", ".join(about["names"]) + (f" in {about['unit']}" if about["unit"] else "")
    kept = f"; {about['groups']} groups kept together" if about["groups"] else ""
    n = int(run.record["sweep"]["data"]["n"])
    lost = ", and rows that mix them left out" if kept and about["judged"] < n else ""
    st.caption(
        plain(
            f"{target}: {what}. {config.estimator} on {config.site}, position {config.positions}, {config.cv} folds, "
            f"{about['judged']} of {n} rows judged{kept}{lost}."
        )
    )
    names = probe_scores.floors_of(curve)
    metric, floor = probe_scores.metric_name(str(row.metric)), probe_scores.best_floor(row, names)
    how = (
        "the best layer, chosen after the fact: biased upwards" if chosen is None
        else f"layers {row.layers}, chosen inside the folds on rows that were not judged"
    )  # fmt: skip
    head = f"{metric[:1].upper()}{metric[1:]}"
    cells = [(head, f"{row.score:.3f}", f"{row.low:.3f} to {row.high:.3f}", f"95% interval; {how}")]
    if floor is not None:
        cells.append(("Best floor", f"{floor[1]:.3f}", floor[0], "Had without reading these activations"))
    if not pd.isna(row.control):
        text = "Score above a task of random labels per word: a probe that memorises has none"
        cells.append(("Selectivity", f"{row.selectivity:+.3f}", f"control task {row.control:.3f}", text))
    if not pd.isna(best.p_value):
        cells.append(
            ("p-value", f"{best.p_value:.3f}", f"at {best.site}", "Of shuffled labels, at the best layer")
        )
    if not pd.isna(best.compression):
        bits = f"{best.codelength:,.0f} bits at {best.site}"
        cells.append(("Compression", f"{best.compression:.2f}×", bits, "Uniform code over online code"))
    for column, (label, value, below, text) in zip(st.columns(max(4, len(cells))), cells, strict=False):
        column.metric(plain(label), value, plain(below), delta_color="off", delta_arrow="off", help=text)
    above, text = probe_scores.verdict(row, floor)
    st.markdown(f"{':material/check_circle:' if above else ':material/warning:'} {plain(text)}")


# ---- scores


def scores(view: View, run: Run, target: str, known: dict[str, Listed], name: str) -> pd.Series:
    """Layers × positions, and the curve of this run's position; gives the row of the place that is looked at."""
    st.subheader("Where can it be read?")
    metrics = list(run.table.loc[run.table.target == target, "metric"].unique())
    values = [v for v in run.table.loc[run.table.target == target, "value"].unique() if v]
    with st.container(horizontal=True):
        metric = st.segmented_control(
            "Metric", metrics, default=metrics[0], key=f"probe_metric_{'_'.join(metrics)}", required=True,
            format_func=probe_scores.metric_name,
        )  # fmt: skip
        value = ""
        if values:
            value = st.segmented_control("Value", ["", *values], default="", key="probe_value", required=True,
                                         format_func=lambda v: plain(v) or "all")  # fmt: skip
        curve = run.curve(target, metric, value)
        shades = [probe_scores.SCORE]
        shades += [probe_scores.ABOVE] if any(n != "control" for n in probe_scores.floors_of(curve)) else []
        shades += [probe_scores.SELECTIVITY] if bool(curve.selectivity.notna().any()) else []
        by = shades[0]
        if len(shades) > 1:
            by = st.segmented_control(
                "Shade by", shades, default=shades[0], key=f"probe_shade_{len(shades)}", required=True
            )
    if curve.empty:
        curve = run.curve(target)
    row = curve.loc[curve.score.idxmax()]
    if view.layer is not None and bool((curve.layer == view.layer).any()):
        row = curve.loc[curve.layer == view.layer].iloc[0]
    others = probe_runs.siblings(run, known, target)
    curves = {str(other.config.positions): other.curve(target, metric, value) for other in others.values()}
    named = {str(other.config.positions): one for one, other in others.items() if one != name}
    curves[str(run.config.positions)], named[str(run.config.positions)] = curve, name
    curves = {position: found for position, found in curves.items() if not found.empty}
    if bool(curve.layer.notna().all()) and not curve.layer.duplicated().any():
        payload, positions, layers = probe_scores.score_grid(curves, by, title=f"{target}: {by}")
        grid(
            payload, key="probe_grid", largest=(58, 30),
            selected=(positions.index(str(run.config.positions)), layers.index(int(row.layer))),
            on_pick=lambda r, c: state.put(probe=named[positions[r]], target=target, layer=layers[c]),
        )  # fmt: skip
        st.caption(
            f"{by[:1].upper() + by[1:]} at every layer"
            + ("" if len(positions) > 1 else "; train at further positions to see them here")
            + ". Click a cell to look into that layer."
        )
    st.plotly_chart(
        probe_scores.layer_curve(curve, run.inside(target, metric, value), str(row.site)), key="probe_curve",
        config={"displayModeBar": False},
    )  # fmt: skip
    return row


def rows_of(run: Run) -> Labelled | None:
    """The rows of the run; None while they are being made, or after saying why they cannot be had."""
    stamp = run.record["sweep"]["data"].get("fingerprint")
    return work.result(
        ("probe rows", str(run.path), stamp), "Read the texts of this run",
        lambda progress: probe_runs.data_of(run), lane="texts of probes",
    )  # fmt: skip


# ---- inside a layer


def inside(
    view: View, run: Run, target: str, site: str, model: Any, name: str, labelled: Labelled
) -> Shown | None:
    """What is needed to look into a layer; None after saying what is missing."""
    wanted = run.config.model
    if name != wanted:
        st.info(
            plain(f"To look into a layer, open the model {wanted} on Start first."), icon=":material/info:"
        )
        return None
    if model is None:
        return None  # it is being loaded, as the sidebar shows
    if model.revision != run.record["model"]["revision"]:
        st.warning(plain(f"{name} here is not of the revision that the run was made with."))
        return None
    return Shown(run, target, site, model, name, labelled)


if __name__ == "__main__":
    show()
