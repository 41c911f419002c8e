"""Of the page Probes: which rows are told wrong, as a table of confusions or a map, and as a list."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import page, state
from dashboard.components.grid import grid
from dashboard.figures import probe_rows
from dashboard.plain import plain
from dashboard.state import View
from probes.labelled import Labelled
from probes.store import Predictions, Run
from probes.swept import INSIDE

MOST_FAILURES = 500
MOST_CLASSES = 40
OWN_TEXT: dict[str, Any] = {
    "corrupt": None, "answer": None, "wrong": None, "run": None, "example": None, "query": None, "layer": None,
}  # fmt: skip
"""What a text of a probe's rows is opened with on the page Prompt."""


def failures(view: View, run: Run, target: str, labelled: Labelled) -> str | None:
    """Confusion or told against true values, and the rows that are told worst; gives the text of the chosen row."""
    st.subheader("What does it get wrong?")
    told = run.predictions[target]
    if told.reads == "heads":
        st.caption("Trees are judged as a whole: their rows are not listed.")
        return None
    where = "at the layer that its fold chose" if told.site == INSIDE else f"at {told.site}"
    table = probe_rows.judged(told, labelled)
    key = f"probe_row_{run.path}_{target}"
    wide = told.reads == "values" and len(told.names) == 2
    left, right = (st.container(), st.container()) if wide else st.columns(2, gap="medium")
    cell, across = None, 1 if probe_rows.is_map(told.names) else 0
    with left:
        if told.reads == "classes":
            cell = confused(told, key)
        else:
            mapped(told, labelled, run.targets[target]["unit"], key)
        marks = (
            f" One colour and mark for each fifth of the rows, by true {told.names[across]}." if wide else ""
        )
        st.caption(f"Every row {where}, by a probe that was not fitted to it.{plain(marks)}")
    with right:
        text = listed(told, table, cell, key)
        if text is not None:
            short = text if len(text) <= 70 else text[:69] + "…"
            page.link(
                "prompt",
                f"Open “{short}” on Prompt",
                view,
                icon=":material/short_text:",
                **OWN_TEXT,
                prompt=text,
            )
    return text


def confused(told: Predictions, key: str) -> tuple[str, str] | None:
    """The confusion matrix; the true and the told class of the cell that was clicked."""
    if len(told.names) > MOST_CLASSES:
        st.caption(f"{len(told.names)} classes are too many for a table of confusions.")
        return None
    at = st.session_state.get(f"{key}_cell")

    def pick(true: int, said: int) -> None:
        st.session_state[f"{key}_cell"] = None if at == (true, said) else (true, said)

    grid(probe_rows.confusion(told), key="confusion", selected=at, largest=(120, 56), on_pick=pick)
    st.caption(
        "Rows: the true class; columns: the class that is told. Click a cell to list its rows, again to leave it."
    )
    return None if at is None else (told.names[at[0]], told.names[at[1]])


def mapped(told: Predictions, labelled: Labelled, unit: str, key: str) -> None:
    """Told against true values; a click chooses a row."""
    texts = [labelled.texts[t] for t in labelled.text[told.rows].tolist()]
    selected = st.session_state.get(key)

    def pick(points: list[Any]) -> None:
        number = points[0].get("customdata")
        row = int(number[0] if isinstance(number, list) else number)
        st.session_state[key] = st.session_state[f"{key}_point"] = row

    if len(told.names) == 2:
        figure = probe_rows.value_map(told, texts, unit, selected)
    else:
        figure = probe_rows.value_scatter(told, 0, texts, unit, selected)
    st.plotly_chart(
        figure, **state.selecting("probe_map", "points", pick), selection_mode="points",
        config={"displayModeBar": False},
    )  # fmt: skip


def listed(told: Predictions, table: pd.DataFrame, cell: tuple[str, str] | None, key: str) -> str | None:
    """The rows of a cell, or else the failures, worst first; gives the text of the chosen one."""
    if cell is not None:
        rows: pd.DataFrame = table.loc[(table.true == cell[0]) & (table.told == cell[1])]
        rows = rows.sort_values(by="sure", ascending=False)
        title = f"{len(rows)} rows that are {cell[0]} and are told to be {cell[1]}, the surest first"
        hidden = ["row", "error"]
    elif told.reads == "classes":
        rows = table.loc[table.true != table.told]
        title = f"{len(rows)} of {len(table)} rows are told wrong; the worst first"
        hidden = ["row", "sure"]
    else:
        unit = " (km)" if probe_rows.is_map(told.names) else ""
        rows = table.rename(columns={"error": f"error{unit}"})
        title, hidden = "The largest errors first; or click a point", ["row"]
    rows = rows.head(MOST_FAILURES).reset_index(drop=True)
    st.caption(plain(title))
    if rows.empty:
        return None
    clicked = st.session_state.get(f"{key}_point")
    numbers = rows["row"].tolist()
    first = numbers.index(clicked) if clicked in numbers else 0
    frame = f"{key}_{cell}_{clicked}"

    def pick(picked: list[int]) -> None:
        st.session_state[key] = numbers[picked[0]]

    st.dataframe(
        rows.drop(columns=hidden), hide_index=True, height=min(320, 35 * len(rows) + 38),
        **state.selecting(frame, "rows", pick, [first]),
        selection_mode="single-row-required", selection_default={"selection": {"rows": [first]}},
        column_config={"text": st.column_config.TextColumn("text", width="medium")}
        | {
            name: st.column_config.NumberColumn(name, format="%.0f" if "km" in name else "%.2f")
            for name in rows.columns
            if rows[name].dtype.kind == "f"
        },
    )  # fmt: skip
    picked = st.session_state.get(frame, {}).get("selection", {}).get("rows") or [first]
    return str(rows["text"].iloc[picked[0] if picked[0] < len(rows) else 0])
