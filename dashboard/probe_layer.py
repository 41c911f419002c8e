"""Of the page Probes: one layer's activations in a plane, and the model steered along the probe's direction."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard import probing, work
from dashboard.figures import probe_rows, probe_scores
from dashboard.plain import plain
from dashboard.probing import MOST_ROWS, Layer
from dashboard.subject import Subject
from probes.estimator import directed
from probes.labelled import Classes, Heads, Labelled, Values
from probes.probe import Probe
from probes.rerun import steered
from probes.store import Run

PCA, LDA = "principal components", "linear discriminants"
ALL, LAST = "all positions", "the last position"
NEW_TOKENS = 24
DOSES = (-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0)
PROMPTS = 32


@dataclass(frozen=True, eq=False)
class Shown:
    """What is looked at: a target of a run at a site, the model it was made with, and its rows."""

    run: Run
    target: str
    site: str
    model: Any
    name: str
    labelled: Labelled

    def key(self, *more: Hashable) -> tuple[Hashable, ...]:
        """What results are remembered by."""
        return (
            "probe",
            self.model.revision,
            str(self.run.path),
            self.run.record["created"],
            self.target,
            *more,
        )

    @property
    def at(self) -> str:
        """The site in words."""
        layer = self.model.sites[self.site].layer
        return self.site if layer is None else f"layer {layer}"


def read(shown: Shown) -> Layer | None:
    """The layer's activations; None while those of all layers are being read."""
    found: dict[str, Layer] | None = work.result(
        shown.key("layers"), f"Read the layers at {min(shown.labelled.n, MOST_ROWS)} rows",
        lambda progress: probing.layers(shown.model, shown.labelled, shown.run, shown.target, progress),
        lane=shown.name,
    )  # fmt: skip
    if found is None:
        st.caption(
            "All layers are read at once, so that each is there when it is clicked: seconds for a small model, some "
            "minutes for a language model. The scores above do not wait for it."
        )
    return None if found is None else found[shown.site]


# ---- in a plane


def projection(shown: Shown, found: Layer) -> None:
    """The rows in two dimensions, coloured by what is probed for."""
    st.subheader(plain(f"How do the rows lie in {shown.at}?"))
    choices = [PCA, *([LDA] if len(found.lda) else [])]
    how = st.segmented_control(
        "Projection", choices, default=choices[-1], key=f"projection_{len(choices)}", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    points, rows = (found.lda, found.lda_rows) if how == LDA else (found.pca, found.rows)
    target = shown.labelled.target(shown.target)
    if how == LDA:
        two = isinstance(target, Classes) and len(target.names) == 2
        axes = (
            ("discriminant", "first component of the rest") if two else ("discriminant 1", "discriminant 2")
        )
    else:
        a, b = found.explained.tolist()
        axes = (f"component 1 ({a:.0%} of the variance)", f"component 2 ({b:.0%})")
    labels: Any = ["row"] * len(rows)
    name = ""
    if isinstance(target, Classes):
        labels = [target.names[label] for label in target.labels[rows].tolist()]
    elif isinstance(target, Values):
        name = str(target.names[-1:][0])
        if len(target.names) > 1:
            name = st.segmented_control(
                "Shade by", target.names, default=name, key="projection_value", required=True, format_func=plain,
            )  # fmt: skip
        labels = target.values[rows, target.names.index(name)]
    elif isinstance(target, Heads):
        labels = ["root" if head < 0 else "dependent" for head in target.heads[rows].tolist()]
    texts = [shown.labelled.texts[t] for t in shown.labelled.text[rows].tolist()]
    st.plotly_chart(
        probe_rows.projection(points, rows, labels, texts, axes, name=name), key="projection_chart",
        config={"displayModeBar": False},
    )  # fmt: skip
    if how == LDA:
        st.caption(
            f"{len(rows)} rows, which the discriminants were not fitted to: those were fitted to the other half, with "
            "groups kept together."
        )
    elif found.why:
        st.caption(plain(f"{len(rows)} rows. {found.why[:1].upper() + found.why[1:]}."))
    else:
        st.caption(f"{len(rows)} rows. The components know nothing of the labels.")


# ---- steering


def ends(probe: Probe, name: str) -> tuple[str, str]:
    """What lies at either end of the direction of `name`: against it, and along it."""
    if probe.reads == "values":
        return f"lower {name}", f"higher {name}"
    others = [other for other in probe.names if other != name]
    return f"towards {others[0]}" if len(others) == 1 else f"away from {name}", f"towards {name}"


def steering(shown: Shown, found: Layer, subject: Subject | None) -> None:
    """Add the probe's direction to the activations, and read what the model writes then."""
    st.subheader("Does the direction steer what the model writes?")
    probe = probing.probe_at(shown.run, shown.target, shown.site)
    if probe is None or not found.sd:
        kind = plain(shown.run.config.estimator)
        if any(kept.linear and kept.reads != "map" for kept in shown.run.probes.values()):
            st.info(f"The {kind} probe of {shown.at} found no signal: it has no direction to steer along.")
        else:
            st.info(f"{kind} probes have no direction to steer along; {directed()} probes have one.")
        return
    if shown.model.cfg.unembed is None:
        st.info(f"{plain(shown.model.name)} predicts no tokens: it has no unembedding.")
        return
    if shown.model.sites[shown.site].shape.split()[2:] != ["d_model"]:
        st.info("Steering adds to the stream or to what a layer writes; these probes read something else.")
        return
    a, b, c = st.columns([3, 3, 4], vertical_alignment="bottom", gap="medium")
    name = a.selectbox(
        "Towards", probe.names, index=len(probe.names) - 1, key=f"steer_to_{shown.target}_{len(probe.names)}"
    )
    dose = b.slider(
        "Dose, in standard deviations", 0.5, 16.0, 4.0, 0.5, key="steer_dose",
        help="Of the activations along the direction, over the rows of this run",
    )  # fmt: skip
    start = c.segmented_control("Steered at", [ALL, LAST], default=ALL, key="steer_start", required=True)
    usual = subject.words.clean if subject is not None else shown.labelled.texts[0]
    key = "steer_prompt"
    if st.session_state.get("steer_usual") != usual:
        st.session_state["steer_usual"] = st.session_state[key] = usual
    prompt = st.text_area("Prompt to continue", key=key, height=80, max_chars=4000)
    sd, begin = found.sd[name], "all" if start == ALL else "last"
    if sd <= 0:
        st.info("The activations do not vary along this direction.")
        return
    written = work.result(
        shown.key("write", shown.site, name, dose, begin, prompt), f"Write on, steered towards {name}",
        lambda progress: probing.continued(
            shown.model, probe, name, prompt, (-dose, 0.0, dose), sd, start=begin, new=NEW_TOKENS, progress=progress
        ),
        lane=shown.name,
    )  # fmt: skip
    if written is not None:
        down, up = ends(probe, name)
        titles = (down, "not steered", up)
        for column, title, at, text in zip(
            st.columns(3, gap="medium"), titles, written.doses, written.texts, strict=True
        ):
            with column.container(border=True):
                st.markdown(
                    f"**{plain(title)}**" + (f" ({plain(f'{at:+g} sd'.replace('-', '−'))})" if at else "")
                )
                end, more = (part.replace("\n", "⏎").strip() for part in (prompt[-40:], text))
                st.markdown(f"{plain(f'… {end}')} **{plain(more or '(nothing)')}**")
        same = written.texts[0] == written.texts[1] == written.texts[2]
        st.caption(
            f"The likeliest {NEW_TOKENS} tokens. One standard deviation is {sd:.3g} at {shown.at}."
            + (" Nothing changes: try a larger dose or another layer." if same else "")
        )
    doses(shown, name, begin)


def doses(shown: Shown, name: str, begin: str) -> None:
    """The score of the run's deepest probe at each dose, when it is asked for."""
    asked = (str(shown.run.path), shown.target, shown.site, name, begin)
    if st.session_state.get("dosed") != asked:
        st.button(
            f"Measure doses on {min(PROMPTS, len(shown.labelled.texts))} texts", key="dose",
            icon=":material/show_chart:", on_click=lambda: st.session_state.update(dosed=asked),
        )  # fmt: skip
        return
    layer = shown.model.sites[shown.site].layer
    found = work.result(
        shown.key("dose", shown.site, name, begin), f"Dose response towards {name}",
        lambda progress: steered(
            shown.run, shown.target, shown.model, shown.labelled, DOSES, layers=str(layer), name=name, start=begin,
            examples=PROMPTS, progress=progress,
        ),
        lane=shown.name,
    )  # fmt: skip
    if found is None:
        return
    st.plotly_chart(
        probe_scores.dose_curve(found.table, found.measure), key="doses", config={"displayModeBar": False}
    )
    ends = found.monotone
    st.caption(
        f"Mean over {found.values.shape[1]} of the run's texts with its 95% interval; rank correlation with the dose "
        f"{found.spearman:+.2f}. "
        + (
            f"Monotone from {ends.low:+g} to {ends.high:+g}."
            if ends is not None
            else "Nowhere monotone within noise."
        )
    )
