"""Estimates of nodes beside their exact effects, as several pages show them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import state
from dashboard.figures import evidence
from dashboard.plain import plain


def scatter(found: dict[str, Any], key: str, selected: str | None, **also: Any) -> None:
    """The points of `circuits.Agreement.to_dict`; a click on one selects its node, and puts `also` into the address."""
    points = found["points"]
    groups = evidence.kinds_of(points)

    def pick(chosen: list[Any]) -> None:
        if 0 < chosen[0]["curve_number"] <= len(groups):
            kind = groups[chosen[0]["curve_number"] - 1]
            rows = [point for point in points if point["kind"] == kind]
            state.put(**also, node=rows[chosen[0]["point_index"]]["name"])

    st.plotly_chart(
        evidence.agreement_scatter(
            points, unit=f"change of {str(found['metric']).replace('_', ' ')}", selected=selected
        ),
        **state.selecting(key, "points", pick), selection_mode="points", config={"displayModeBar": False},
    )  # fmt: skip
    chosen = next((point for point in points if point["name"] == selected), None)
    if chosen is not None:
        st.caption(
            plain(f"{chosen['name']}: estimate {chosen['estimate']:+.4f}, exact {chosen['exact']:+.4f}.")
        )


def table(found: dict[str, Any]) -> None:
    """How well the estimate agrees, by kind of node."""
    figures = ("pearson", "spearman", "sign", "top")
    rows = [
        (kind, match["n"], *(match[name] for name in figures))
        for kind, match in found["kinds"].items()
        if match["n"] > 1
    ]
    named = (
        ("nodes", ".0f"),
        ("Pearson", ".2f"),
        ("Spearman", ".2f"),
        ("same sign", ".0%"),
        ("top 10%", ".0%"),
    )
    table = {"": [name for name, _ in named]}
    for kind, *numbers in rows:
        table[kind] = ["–" if x is None else format(x, to) for x, (_, to) in zip(numbers, named, strict=True)]
    st.dataframe(pd.DataFrame(table), hide_index=True, row_height=28)
    st.caption("Same sign: how many nodes'. Top 10%: how much of the strongest tenth is in both.")
    ends = found["kinds"]["all"]["intervals"].get("pearson")
    if ends and None not in ends and found["n_examples"] and found["n_examples"] > 1:
        st.caption(f"Pearson's correlation of all: 95% {ends[0]:.3f} to {ends[1]:.3f} over resampled pairs.")
    st.caption("Exact: each node is given its counterfactual value by itself, at all positions.")
