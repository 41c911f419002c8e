"""The table of a sweep as it is read first: a line per place, the score beside its interval and its highest floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lens.nearest import unknown
from probes import given
from probes.store import Run
from probes.swept import Sweep

if TYPE_CHECKING:
    import pandas as pd

MARKS = {"chosen_after_the_fact": "best (after)", "chosen_inside": "chosen inside"}
FLOOR = "floor_"


def short(found: Sweep | Run, target: str | None = None, metric: str | None = None) -> pd.DataFrame:
    """What matters of `found.table`, narrow enough for a terminal; three decimals.

    Args:
        found: of `probes.sweep` or `probes.train`.
        target: None: the first.
        metric: None: the first, by which layers are chosen.

    Returns:
        A row for each place, and one whose folds chose their own: where (`layer`, else `site`), the score under the
        metric's name, its 95% interval `low` and `high`, the highest of its floors and that floor's name, what only
        some tables have (position, selectivity, p_value, compression), and a mark: `best (after)` was chosen after the
        fact, on the rows that judge it, and is biased upwards; `chosen inside` is not.

    Raises:
        ValueError: no such target or metric.
    """
    import pandas as pd

    if not isinstance(found, Sweep | Run):
        raise ValueError(
            f"a short table is of what probes.sweep or probes.train gives, not of {given.sort(found)}"
        )
    t: Any = found.table
    target = _known("target", target, list(t.target.unique()))
    t = t[(t.target == target) & (t.value == "")]
    metric = _known("metric", metric, list(t.metric.unique()))
    t = t[t.metric == metric].reset_index(drop=True)
    columns: dict[str, object] = {}
    places = t[~t.chosen_inside]
    kinds = places.site.str.replace(r"^blocks\.\d+\.", "", regex=True).nunique()
    by_layer = bool(places.layer.notna().all()) and kinds == 1
    if by_layer:
        columns["layer"] = ["" if pd.isna(layer) else str(layer) for layer in t.layer]
    else:
        columns["site"] = t.site
    if places.position.nunique() > 1:
        columns["position"] = t.position
    columns |= {metric: t.score, "low": t.low, "high": t.high}
    floors = t[[name for name in t.columns if name.startswith(FLOOR) and t[name].notna().any()]]
    if not floors.empty and floors.shape[1]:
        columns["floor"] = floors.max(axis=1)
        columns["of"] = floors.idxmax(axis=1).str.removeprefix(FLOOR)
    columns |= {name: t[name] for name in ("selectivity", "p_value", "compression") if t[name].notna().any()}
    marks = np.full(len(t), "", dtype=object)
    for name, words in MARKS.items():
        marks[t[name].to_numpy(dtype=bool)] = words
    return pd.DataFrame({**columns, "": marks}).round(3)


def _known(kind: str, name: str | None, known: list[str]) -> str:
    if name is not None and name not in known:
        raise ValueError(unknown(kind, name, known, of="this table"))
    return known[0] if name is None else name
