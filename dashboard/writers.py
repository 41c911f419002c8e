"""Which parts of a model write an answer: a grid of components to click, and what each layer adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import state
from dashboard.components.grid import grid
from dashboard.figures import attribution

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from lens.config import ModelConfig


def drawn(
    shares: Mapping[str, float], cfg: ModelConfig, *, selected: str | None, key: str = ""
) -> tuple[DeltaGenerator, dict[str, tuple[int, int]]]:
    """Draw both; gives the column of the layers, for more to follow, and where in the grid each component is."""
    mlp = cfg.d_mlp is not None
    names = attribution.component_names(cfg.n_layers, cfg.n_heads, mlp)
    where = {name: (r, c) for r, row in enumerate(names) for c, name in enumerate(row)}
    left, right = st.columns(2, gap="medium")
    with left:
        grid(
            attribution.component_grid(shares, cfg.n_layers, cfg.n_heads, mlp, unit="logits"),
            key=f"{key}components", selected=where.get(selected or ""), largest=(52, 26),
            on_pick=lambda r, c: state.put(node=names[r][c]),
        )  # fmt: skip
    right.plotly_chart(
        attribution.layer_bars(shares, cfg.n_layers), key=f"{key}layers", config={"displayModeBar": False}
    )
    return right, where
