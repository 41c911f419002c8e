"""How sure one can be of a circuit: faithfulness, completeness, minimality, stability, estimates, known truth."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

import pandas as pd
import streamlit as st

from circuits import evidence
from circuits.compare import Comparison
from circuits.planted.difficulty import PRESETS
from circuits.planted.planting import plantings
from circuits.store import Run
from dashboard import discovery, estimates, opened, options, page, pieces, pressed, runs, state, truth, work
from dashboard.figures import evidence as figures
from dashboard.figures.verdicts import QUESTIONS, Question, answer, begun
from dashboard.jobs import Job
from dashboard.opened import Opened
from dashboard.page import Page
from dashboard.plain import plain
from dashboard.state import View
from lens.progress import Progress

PAGE = Page(title="Evidence", icon=":material/fact_check:", order=6)

PLOT = {"displayModeBar": False}
# The order in which all are measured: what takes longest, the exact effect of every node, comes last.
SOONEST = ("truth", "stability", "curve", "minimality", "completeness", "agreement")

PIECES = {"stability": pieces.GRADIENTS, "agreement": pieces.EXACT}


def show() -> None:
    found = opened.show("evidence", "Evidence")
    if found is None:
        return
    run = found.run
    info = run.info
    st.caption(
        plain(
            f"How sure can one be of the {run.circuit.n_edges:,} edges found for {opened.task_title(run)} in "
            f"{info['model']['name']} by {info['method']} on {len(run.pairs)} pairs?"
        )
    )
    try:
        kept = evidence.load(run.path) if run.path else {}
    except ValueError as error:
        st.error(plain(str(error)))
        kept = {}
    known = truth.known_of(run, found.model_name)
    overview(found, kept, known)
    for left, right in (QUESTIONS[:2], QUESTIONS[2:4], QUESTIONS[4:]):
        for column, question in zip(st.columns(2, gap="large"), (left, right), strict=True):
            with column:
                section(found, question, kept, known)
    st.divider()
    planted(found.view)
    page.next_step("runs", "Keep a note, compare it, or export it", found.view)


# ---- answers first


def overview(found: Opened, kept: dict[str, Any], known: list[str]) -> None:
    """Every question with its answer, and the button that measures what is missing."""
    rows, missing = [], []
    for question in QUESTIONS:
        if question.kind == "truth" and not known:
            continue
        try:
            text = answer(question, kept, found.run.summary)
        except ValueError:
            text = None
        if text is None:
            missing.append(question.kind)
            text = begun(question, found.run.summary)
        rows.append(f"| **{question.title}** | {plain(text) if text else 'not measured yet'} |")
    st.markdown("\n".join(["| question | answer |", "|---|---|", *rows]))
    waiting = [kind for kind in missing if (job := job_of(found, kind)) is None or not job.active]
    if waiting:
        many = len(waiting) > 1
        st.button(
            f"Measure {'all that is missing' if many else 'what is missing'}", type="primary", key="measure_all",
            icon=":material/fact_check:", on_click=start_all, args=(found, waiting),
            help="Runs in the background, one after the other, the quickest first: seconds for a small model, some "
            "minutes each for a language model. Each is kept in the run's folder when it is done",
        )  # fmt: skip


# ---- one question


def section(found: Opened, question: Question, kept: dict[str, Any], known: list[str]) -> None:
    """One piece of evidence: its figure, or how to get it."""
    st.subheader(question.title, divider=False)
    st.caption(question.how)
    piece = kept.get(question.kind)
    job = job_of(found, question.kind)
    try:
        said = answer(question, kept, found.run.summary)
        if said is not None and piece is not None and "skipped" not in piece:
            DRAW[question.kind](piece, found)
        elif said is not None:
            st.info(plain(said), icon=":material/info:")
        elif (already := begun(question, found.run.summary)) is not None:
            st.markdown(plain(already))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        st.error(f"What the run's folder keeps of {question.kind} is damaged: measure it again.")
        said = None
    if question.kind == "truth":
        give(found, known)
    if job is not None and job.active:
        work.watch(job.id)
    elif job is not None and job.state != "done":
        work.ended(job)
    elif question.kind != "truth" or known:
        st.button(
            "Measure" if said is None else "Measure again", key=f"measure_{question.kind}",
            on_click=start, args=(found, question.kind),
        )  # fmt: skip


def key_of(found: Opened, kind: str) -> tuple[Hashable, ...]:
    run = found.run
    return ("evidence", str(run.path), str(run.info.get("created")), kind)


def job_of(found: Opened, kind: str) -> Job | None:
    """The job that measures one piece, if it is remembered."""
    return work.runner().find(key_of(found, kind))


def start(found: Opened, kind: str) -> None:
    """Queue the measurement of one piece, which is then kept in the run's folder."""
    run, name = found.run, found.model_name
    path, shelf = run.path, work.shelf()
    assert path is not None
    known = job_of(found, kind)
    if known is not None:
        work.runner().forget(known)

    def measure(progress: Progress) -> bool:
        if kind == "truth":
            ablation = str(run.info.get("ablation", "counterfactual"))
            made = {
                "ablation": ablation,
                "n_edges": run.circuit.n_edges,
                "truth": truth.measure(run, name, progress),
            }
        else:
            model = shelf.get(name, progress)
            most = pieces.held(model, PIECES.get(kind, pieces.RUNS))
            made = evidence.gather(model, run, [kind], max_memory=most, progress=progress)
        if not (path / "run.json").is_file():
            raise ValueError(f"{found.name} was deleted in the meantime")
        evidence.save(path, made)
        return True

    title = next(question.title for question in QUESTIONS if question.kind == kind)
    work.runner().submit(f"{title} {found.name}", measure, lane=name, key=key_of(found, kind))


def start_all(found: Opened, kinds: list[str]) -> None:
    for kind in sorted(kinds, key=SOONEST.index):
        start(found, kind)


# ---- figures


def curve(piece: dict[str, Any], found: Opened) -> None:
    run = found.run
    own = (run.circuit.n_edges, run.summary["circuits"][-1]["faithfulness"])
    st.plotly_chart(figures.size_curve(piece, circuit=own), config=PLOT, key="figure_curve")
    st.caption(plain(why_beside(run)))


def why_beside(run: Run) -> str:
    """Why the circuit can lie beside the curve: whether it has the edges that the curve takes at its size."""
    n = run.circuit.n_edges
    both = Comparison(run.circuit, run.scores.top(n)).shared.n_edges
    if both == n:
        return f"The star is this circuit: it has the {n:,} edges that score strongest, as the curve at that size."
    how = str(run.info.get("algorithm") or "other means")
    return (
        f"The star is this circuit, whose edges were chosen by {how}. The curve takes the edges that score strongest, "
        f"whatever they connect: of its {n:,} at that size the circuit has {both:,}, so the two keep different shares."
    )


def completeness(piece: dict[str, Any], found: Opened) -> None:
    metric = metric_of(found.run)
    st.plotly_chart(figures.knock_outs(piece, metric=metric), config=PLOT, key="figure_completeness")


def minimality(piece: dict[str, Any], found: Opened) -> None:
    rows = sorted(piece["nodes"], key=lambda row: -row["drop"])

    def pick(points: list[Any]) -> None:
        state.put(run=found.name, node=points[0]["x"])

    st.plotly_chart(
        figures.node_worth(piece), config=PLOT, selection_mode="points",
        **state.selecting("figure_minimality", "points", pick),
    )  # fmt: skip
    if found.view.node is not None:
        row = next((row for row in rows if row["node"] == found.view.node), None)
        what = f"loses {row['drop']:.1%} of the behaviour" if row else "does not use it"
        st.caption(plain(f"Without {found.view.node} the circuit {what}." if row else f"The circuit {what}."))


def stability(piece: dict[str, Any], found: Opened) -> None:
    st.plotly_chart(figures.overlap(piece), config=PLOT, key="figure_stability")


def agreement(piece: dict[str, Any], found: Opened) -> None:
    estimates.scatter(piece, "figure_agreement", found.view.node, run=found.name)


def recovered(piece: dict[str, Any], found: Opened) -> None:
    rows = [
        (kind, row["auroc"], row["auprc"], row["auprc_chance"], row["n_positive"])
        for kind, row in piece.items()
    ]
    numbers = ["AUROC", "AUPRC", "by chance"]
    st.dataframe(
        pd.DataFrame(rows, columns=["known circuit", *numbers, "edges"]),
        hide_index=True,
        row_height=28,
        column_config={name: st.column_config.NumberColumn(name, format="%.3f") for name in numbers},
    )
    st.caption(
        plain("; ".join(f"{kind}: {truth.ABOUT[kind]}" for kind in piece if kind in truth.ABOUT) + ".")
    )


DRAW = {
    "curve": curve,
    "completeness": completeness,
    "minimality": minimality,
    "stability": stability,
    "agreement": agreement,
    "truth": recovered,
}


def metric_of(run: Run) -> str:
    return str(run.info["metric"]).replace("_", " ")


# ---- known circuits


def give(found: Opened, known: list[str]) -> None:
    """Upload a circuit that is known to be there."""
    if not known:
        st.caption("No circuit is known of this model. Give one, such as a paper's, as a file of edges.")
    given = st.file_uploader("A known circuit", type=truth.endings(), key=f"truth_{found.name}")
    if given is None:
        return
    content = given.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    if st.session_state.get("truth_taken") == (found.name, digest):
        return
    try:
        circuit = truth.keep(found.run, given.name, content)
    except (ValueError, OSError) as error:
        st.error(plain(str(error)))
        return
    st.session_state["truth_taken"] = (found.name, digest)
    start(found, "truth")
    st.toast(plain(f"{circuit.n_edges:,} edges are now the known circuit of {found.name}."))
    st.rerun()


def planted(view: View) -> None:
    """Discover a circuit that was planted, so that its truth is known."""
    with st.expander("Try it where the truth is known: plant a circuit in a small model and discover it"):
        a, b, c, d = st.columns([3, 2, 2, 3], vertical_alignment="bottom")
        family = a.selectbox("Circuit", plantings(), key="plant_family")
        difficulty = b.selectbox("Difficulty", list(PRESETS), key="plant_difficulty")
        seed = c.number_input("Seed", 0, 999_999_999, 0, key="plant_seed")
        if pressed.button("Plant and discover", place=d, key="plant", width="stretch"):
            job = discovery.send_planted(work.runner(), family, difficulty, int(seed), options.given().runs)
            st.session_state["planted"] = job.id
        job = work.runner().get(st.session_state.get("planted", 0))
        if job is None:
            return
        if job.active:
            work.watch(job.id)
        elif job.state == "done" and job.result.run in runs.folders():
            changes: dict[str, Any] = {**opened.ANEW, "run": job.result.run}
            page.link(
                "evidence", f"Evidence for {job.result.run}", view, icon=":material/fact_check:", **changes
            )
        elif job.state != "done":
            work.ended(job, again=False)


if __name__ == "__main__":
    show()
