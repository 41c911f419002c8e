"""Whether a caller gave labelled rows."""

from __future__ import annotations

from typing import Any

from probes import given
from probes.labelled import Labelled


def check_labelled(value: Any) -> None:
    """Raise a ValueError unless a value is labelled rows."""
    if not isinstance(value, Labelled):
        raise ValueError(
            f"the labelled rows are {given.sort(value)}; make them with probes.Labelled.of(texts, labels) or "
            "probes.load_dataset(name)"
        )
