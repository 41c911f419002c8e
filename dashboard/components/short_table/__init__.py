"""Short tables of texts, in which one column may be bars; drawn faster than those that can be sorted."""

from __future__ import annotations

from dashboard.components import assets
from dashboard.figures.short_table import ShortTable


def short_tables(*payloads: ShortTable, key: str) -> None:
    """Draw tables below each other."""
    assets.mount("short_table")(key=key, data={"tables": [dict(payload) for payload in payloads]})
