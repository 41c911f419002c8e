"""What a caller gave, as what is needed: wrong sorts are one line that says what would do.

Letters: n rows, d width of a site.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def sort(value: Any) -> str:
    """What a value is called in messages: itself where it is short, else its type."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return repr(value) if plain and len(repr(value)) <= 40 else f"a {type(value).__name__}"


def short(text: str) -> str:
    """The beginning of a text, in quotes."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


def check_model(value: Any) -> None:
    """Raise a ValueError unless a value is a loaded model."""
    from lens.model import Transformer

    if not isinstance(value, Transformer):
        hint = f"; load it, lens.load({value!r})" if isinstance(value, str) else ""
        raise ValueError(f"the model is {sort(value)}; it must be one that lens.load gives{hint}")


def check_whole(least: int, **values: Any) -> None:
    """Raise a ValueError that names the first of the values that is no whole number of at least so much."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} is {sort(value)}; it must be a whole number of at least {least}")


def path(value: Any) -> Path:
    """A path.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"a path is a text, not {sort(value)}")
    return Path(value)


def names(value: Any, what: str) -> list[str]:
    """One name, or several, as a list.

    Raises:
        ValueError: something else; `what` says what they name.
    """
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, Iterable) or isinstance(found, Mapping):
        raise ValueError(f"{what} are {sort(value)}; they must be names")
    found = list(found)
    for name in found:
        if not isinstance(name, str):
            raise ValueError(f"{what} are names, and {sort(name)} is none")
    return found


def plain(values: Any, what: str) -> list[Any]:
    """A list, array, tensor or pandas series as a list of Python values.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    import pandas as pd

    if isinstance(values, np.ndarray | pd.Series | pd.Index):
        values = values.tolist()
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValueError(f"{what} are {sort(values)}; they must be a list, one for each row")
    return list(values)


def texts(values: Any) -> list[str]:
    """Texts, all of them `str`.

    Raises:
        ValueError: something else.
    """
    found = plain(values, "texts")
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise ValueError(f"text {i} is {sort(text)}, not a text")
    return found


def activations(x: Any, what: str) -> Tensor:
    """A tensor or NumPy array of floating-point numbers, as a tensor; the values are not copied where they need not be.

    Raises:
        ValueError: something else.
    """
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.dtype.itemsize <= 8:
        x = torch.from_numpy(np.ascontiguousarray(x) if x.flags.writeable else x.copy())
    if not isinstance(x, Tensor):
        kind = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else sort(x)
        raise ValueError(f"{what} is {kind}; it must be a tensor or array [n, d] of floating-point numbers")
    return x


def indices(values: Any, what: str) -> np.ndarray:
    """Rows by number, or a truth value for each row, as int64.

    Raises:
        ValueError: something else.
    """
    try:
        found = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (ValueError, TypeError):
        found = np.empty((0, 0))
    if found.ndim == 1 and found.dtype == bool:
        found = np.flatnonzero(found)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(f"{what} are row numbers [k], or a truth value for each row")
    return found.astype(np.int64)


def rows_numbered(values: Sequence[int] | np.ndarray | slice, n: int) -> Any:
    """A slice as the row numbers that it stands for; anything else as it is."""
    return np.arange(n)[values] if isinstance(values, slice) else values


def whole_numbers(values: Any, what: str) -> np.ndarray:
    """Whole numbers, as an array.

    Raises:
        ValueError: something else.
    """
    found = np.asarray(values)
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{what} are whole numbers, not {found.dtype}")
    return found


def groups(values: Any) -> tuple[tuple[str, ...], ...]:
    """What each row belongs to: one name, or several in a tuple or list.

    Raises:
        ValueError: something else than one entry for each row.
    """
    return tuple(
        tuple(map(str, group)) if isinstance(group, tuple | list) else (str(group),)
        for group in plain(values, "groups")
    )
