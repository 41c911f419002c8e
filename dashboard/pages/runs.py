"""Saved runs: where they come from, notes, comparing, opening them anywhere, deleting, exporting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from circuits.compare import Comparison
from circuits.store import Listed, Run
from circuits.tasks import tasks
from dashboard import (
    beside,
    bundle,
    choices,
    exporting,
    notes,
    opened,
    options,
    page,
    probe_bundle,
    probe_runs,
    probe_shelf,
    runs,
    sidebar,
    state,
)
from dashboard.figures.verdicts import share
from dashboard.page import Page
from dashboard.plain import plain
from dashboard.state import View
from lens.nearest import unknown

PAGE = Page(title="Runs", icon=":material/inventory_2:", order=8)

# the pages that a run can be opened on
WHERE = {
    "start": ("Start", ":material/home:"),
    "prompt": ("Prompt", ":material/short_text:"),
    "heads": ("Heads", ":material/grid_view:"),
    "head": ("Head", ":material/center_focus_strong:"),
    "patching": ("Patching", ":material/swap_horiz:"),
    "circuit": ("Circuit", ":material/hub:"),
    "evidence": ("Evidence", ":material/fact_check:"),
}


def show() -> None:
    st.title("Runs")
    view, found = state.current("runs"), runs.listed()
    known, probes = runs.folders(), probe_runs.folders(options.given().runs)
    view, probe = which_probes(view, known, probes)
    if probe is not None:
        of_probes(view, probe, found, probes)
        return
    first = view.run if view.run in known else opened.usual_run(view.model, list(known)) if known else None
    if first is not None and (view.run == first or view.model is None):
        view = replace(view, model=runs.model_of(first))
    view, _ = sidebar.show(view)
    if not found and not known:
        st.info(f"No runs in {plain(repr(str(options.given().runs)))} yet.", icon=":material/info:")
        page.next_step("start", "Discover a circuit", view)
        return
    assert first is not None
    name = first
    lists(found, name, probes, None)
    try:
        run = runs.open_run(name)
    except (ValueError, OSError) as error:
        st.error(plain(str(error)))
        deleting(name)
        page.next_step("start", "Discover another circuit", view, run=None)
        return
    st.subheader(plain(name), divider=False)
    left, right = st.columns([7, 5], gap="large")
    with left:
        marked(note(run.path, name))
        opening(view, name)
        provenance(run)
    with right:
        st.markdown("**Export**")
        st.caption(
            "Data, tables (CSV), pictures (SVG, PNG), the circuit as a page, and a report in one HTML file."
        )
        exporting.show(run.path, name, lambda progress: bundle.bundle(run, name, progress))
        comparing(view, run, name, found)
        deleting(name)
    page.next_step("circuit", f"Open the circuit of {name}", view, **{**opened.ANEW, "run": name})


# ---- runs of probes


def which_probes(
    view: View, known: Mapping[str, Path], probes: dict[str, probe_runs.Listed]
) -> tuple[View, str | None]:
    """The run of probes that is looked at: the address's where it names no circuit, or the newest without circuits."""
    if view.probe is not None and view.probe not in probes:
        why = unknown("run of probes", view.probe, probes) if probes else "there is no run of probes"
        view = state.refuse(view, "probe", why)
    name = view.probe if view.run is None else None
    if name is None and view.run is None and not known:
        name = next(iter(probes), None)
    if name is not None and probes[name].model in choices.models():
        view = replace(view, model=probes[name].model)
    return view, name


def of_probes(view: View, name: str, found: list[Listed], probes: dict[str, probe_runs.Listed]) -> None:
    """The page with a run of probes."""
    view, _ = sidebar.show(view)
    lists(found, None, probes, name)
    run = probe_shelf.open_run(probes, name)
    if run is not None:
        st.subheader(plain(probes[name].title), divider=False)
        left, right = st.columns([7, 5], gap="large")
        with left:
            note(run.path, name)
            probe_shelf.opening(view, name)
            probe_shelf.provenance(run)
        with right:
            st.markdown("**Export**")
            st.caption(
                "The run's files, what was told of each row (CSV), pictures (SVG), and a report in one HTML file."
            )
            exporting.show(run.path, name, lambda progress: probe_bundle.bundle(run, name, progress))
            probe_shelf.comparing(view, run, name, probes)
            deleting(name)
    else:
        deleting(name)
    page.next_step("probes", "Look into these probes", view, **{**probe_shelf.OF_PROBE, "probe": name})


# ---- the lists


def lists(
    found: list[Listed], run: str | None, probes: dict[str, probe_runs.Listed], probe: str | None
) -> None:
    """Circuits, and probes below them, with the one that is looked at marked."""
    if found:
        listing(found, run)
    if probes:
        if found:
            st.caption("Probes")
        probe_shelf.listing(probes, probe)


def listing(found: list[Listed], name: str | None) -> None:
    """All runs, newest first; a click on a row selects its run."""
    known = tasks()
    rows = []
    for run in found:
        info, best = run.info, (run.summary.get("circuits") or [{}])[-1]
        task = str(info["task"])
        rows.append(
            {
                "run": run.path.name,
                "task": known[task].title if task in known else task,
                "model": info["model"]["name"],
                "method": info["method"],
                "chosen by": info.get("algorithm", ""),
                "edges": best.get("n_edges"),
                "faithfulness": 100 * best["faithfulness"] if best.get("faithfulness") is not None else None,
                "pairs": info["examples"],
                "created": runs.when(str(info.get("created", ""))),
            }
        )
    names = [row["run"] for row in rows]
    key = f"runs_{hash((tuple(names), name))}"

    def pick(chosen: list[int]) -> None:
        state.put(**{**opened.ANEW, "run": names[chosen[0]], "probe": None})

    default = [names.index(name)] if name in names else []
    selected: dict[str, Any] = {"selection_default": {"selection": {"rows": default}}} if default else {}
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, height=min(36 * len(rows) + 40, 300),
        **state.selecting(key, "rows", pick, default),
        selection_mode="single-row-required" if selected else "single-row", **selected,
        column_config={
            "faithfulness": st.column_config.NumberColumn(
                "faithfulness", format="%.0f%%", help="Share of the behaviour that the circuit keeps"
            ),
            "created": st.column_config.DatetimeColumn("created", format="D MMM YYYY, HH:mm"),
        },
    )  # fmt: skip


# ---- one run


def note(path: Path | None, name: str) -> notes.Notes:
    """What a person writes about the run; kept in its folder as soon as it is changed."""
    assert path is not None
    try:
        kept = notes.read(path)
    except ValueError as error:
        st.error(plain(f"{error}; what is written now replaces them."))
        kept = notes.Notes()
    key = f"note_{name}"
    if st.session_state.get(key) is None:
        st.session_state[key] = kept.text

    def keep() -> None:
        try:
            notes.write(path, replace(kept, text=st.session_state[key]))
        except (ValueError, OSError) as error:
            st.session_state["note_error"] = str(error)

    st.text_area(
        "Notes", key=key, on_change=keep, height=110, max_chars=notes.LONGEST,
        placeholder="What this run shows, what to look at next …",
        help="Kept in the run's folder (notes.json). Ctrl + Enter takes it over",
    )  # fmt: skip
    problem = st.session_state.pop("note_error", None)
    if problem:
        st.error(plain(problem))
    return kept


def marked(kept: notes.Notes) -> None:
    """Pins and groups of a circuit."""
    marks = [counted(len(kept.pins), "pinned node")] if kept.pins else []
    marks += [f"group {group}: {counted(len(nodes), 'node')}" for group, nodes in kept.groups.items()]
    if marks:
        st.caption(plain("; ".join(marks)))


def counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def opening(view: View, name: str) -> None:
    """Links to every page that can show the run."""
    st.caption("Open it on")
    with st.container(horizontal=True):
        for where, (title, icon) in WHERE.items():
            page.link(where, title, view, icon=icon, **{**opened.ANEW, "run": name})


def provenance(run: Run) -> None:
    """Where the run comes from: the settings in words, and everything as it is kept."""
    info = run.info
    rows = {
        "model": f"{info['model']['name']} ({info['model'].get('origin') or 'no origin'})",
        "revision": info["model"]["revision"],
        "task": f"{info['task']}, corrupted by {info.get('corruption') or 'the pairs themselves'}",
        "scored by": f"{info['method']}, {counted(info['steps'], 'step')}, metric {info['metric']}",
        "chosen by": info.get("algorithm", ""),
        "ablation": info.get("ablation", ""),
        "pairs": f"{info['examples']}, seed {info['seed']}",
        "created": info.get("created", ""),
        "seconds": ", ".join(f"{k} {v}" for k, v in (info.get("seconds") or {}).items()),
        "programs": ", ".join(f"{k} {v}" for k, v in (info.get("versions") or {}).items()),
    }
    beside.origin(rows)
    with st.expander("Everything that is kept of it"):
        st.json(dict(info), expanded=1)
        st.json(dict(run.summary), expanded=False)
        st.caption(plain(f"Saved in {run.path}"))


# ---- compare


def comparing(view: View, run: Run, name: str, found: list[Listed]) -> None:
    """Another run beside this one: what was asked, what came out, what the circuits share."""
    other = beside.other_run(view, [kept.path.name for kept in found if kept.path.name != name])
    if other is None:
        return
    try:
        second = runs.open_run(other)
    except (ValueError, OSError) as error:
        st.error(plain(str(error)))
        return
    st.dataframe(
        pd.DataFrame(side_by_side(run, second), columns=["", name, other]), hide_index=True, row_height=28,
    )  # fmt: skip
    try:
        compared = Comparison(run.circuit, second.circuit)
    except ValueError:
        st.caption("They are of models of different sizes, so that no edge can be shared.")
        return
    shared = compared.shared.n_edges
    st.caption(
        f"{shared:,} edges in both, {compared.only_a.n_edges:,} only in the first, {compared.only_b.n_edges:,} only in "
        f"the second; Jaccard {compared.jaccard:.2f} of edges, {compared.node_jaccard:.2f} of nodes."
    )
    changes: dict[str, Any] = {**opened.ANEW, "run": name, "other": other}
    page.link("circuit", "Draw both in one graph", view, icon=":material/difference:", **changes)


def side_by_side(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """The numbers of two runs, and the settings in which they differ."""

    def numbers(run: Run) -> dict[str, str]:
        best = run.summary["circuits"][-1]
        return {
            "edges": f"{run.circuit.n_edges:,}",
            "faithfulness": share(best["faithfulness"]),
            "random sets": share(best["random"]["faithfulness"]),
            "model's metric": f"{run.summary['metric_model']:.3f}",
        }

    def settings(run: Run) -> dict[str, str]:
        names = (
            "task",
            "corruption",
            "method",
            "metric",
            "steps",
            "algorithm",
            "ablation",
            "examples",
            "seed",
        )
        return {"model": run.info["model"]["name"], **{name: str(run.info.get(name, "")) for name in names}}

    rows = [(key, value, numbers(second)[key]) for key, value in numbers(first).items()]
    others = settings(second)
    return rows + [
        (key, value, others[key]) for key, value in settings(first).items() if value != others[key]
    ]


# ---- delete


def deleting(name: str) -> None:
    """Delete the run, after a second question."""
    st.markdown("**Delete**")
    with st.popover("Delete this run …", icon=":material/delete:", width="stretch"):
        st.write(plain(f"{name} and everything in its folder will be gone for good."))
        st.button("Delete it for good", key="delete", type="primary", on_click=delete, args=(name,))
    problem = st.session_state.pop("delete_error", None)
    if problem:
        st.error(plain(problem))


def delete(name: str) -> None:
    try:
        runs.delete(name)
    except (ValueError, OSError) as error:
        st.session_state["delete_error"] = str(error)
        return
    st.session_state.pop(f"note_{name}", None)
    state.put(**{**opened.ANEW, "run": None, "probe": None})
    st.toast(plain(f"{name} was deleted."))


if __name__ == "__main__":
    show()
