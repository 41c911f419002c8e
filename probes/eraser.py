"""Erasers: a frozen affine map that takes a concept out of an activation, and the fitters that make one.

    x ↦ x − L R (x − centre)        L [d, k], R [k, d], R L = 1

so what is taken out is the k coordinates R x; they keep their value at the centre (the mean of the fitted rows), and
a second erasure changes nothing. An eraser is a function of an activation, hence an edit of a run:

    model.run_with_cache(text, edits={eraser.site: eraser})

Each file of `probes/erasers/` is a fitter.

eraser.json            format, method, site, record
eraser.safetensors     left, right, centre, float64

Letters: n row, d width of the activation, c columns of the concept, k rank.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lens import atomic
from lens.registry import Registry
from probes import given
from probes.moments import double
from probes.targets import Classes, Heads, Values

FORMAT, VERSION = "probes.eraser", 1
RECORD_FILE, TENSOR_FILE = "eraser.json", "eraser.safetensors"


@dataclass(frozen=True, eq=False)
class Eraser:
    """x ↦ x − L R (x − centre).

    Args:
        method: how it was fitted, a name of the registry.
        left: L [d, k].
        right: R [k, d]; R L is the identity, so that the map is a projection.
        centre: [d].
        site: full name of the site that it was fitted at, None where it is not known.
        record: what the fitter found: rows, options, …

    Raises:
        ValueError: shapes that do not fit each other.
    """

    method: str
    left: Float[Tensor, "_ _"]
    right: Float[Tensor, "_ _"]
    centre: Float[Tensor, " _"]
    site: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.left.shape != self.right.T.shape or len(self.left) != len(self.centre):
            shapes = f"{list(self.left.shape)}, {list(self.right.shape)} and {list(self.centre.shape)}"
            raise ValueError(f"left [d, k], right [k, d] and centre [d] of an eraser do not fit: {shapes}")

    @classmethod
    def orthogonal(
        cls,
        method: str,
        basis: Float[Tensor, "d k"],
        centre: Float[Tensor, " d"],
        site: str | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> Eraser:
        """One that projects orthogonally; the columns of `basis` are orthonormal."""
        return cls(method, basis, basis.T.contiguous(), centre, site, record or {})

    @property
    def rank(self) -> int:
        """How many dimensions are taken out."""
        return self.left.shape[1]

    @property
    def width(self) -> int:
        """d, the width of the activations it takes."""
        return self.left.shape[0]

    def __call__(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """The activation without the concept, in its own dtype and on its own device.

        Half precision is worked on in float32. Trailing axes that are d together (the heads of `hook_z`) are d.

        Raises:
            ValueError: x has another width.
        """
        flat = self._flat(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        left, right, centre = (t.to(x.device, dtype) for t in (self.left, self.right, self.centre))
        flat = flat.to(dtype)
        return (flat - ((flat - centre) @ right.T) @ left.T).to(x.dtype).view(x.shape)

    def _flat(self, x: Tensor) -> Tensor:
        width = 1
        for axis in range(x.ndim - 1, -1, -1):
            width *= x.shape[axis]
            if width == self.width:
                return x.flatten(axis)
            if width > self.width:
                break
        raise ValueError(
            f"this {self.method} eraser takes activations {self.width} wide, not {list(x.shape)}"
        )

    def save(self, directory: str | Path) -> Path:
        """Write a new folder; gives its path.

        Raises:
            FileExistsError: the folder exists.
            OSError: it cannot be written; nothing is left behind.
        """
        from safetensors.torch import save_file

        tensors = {name: getattr(self, name).detach().cpu().clone().contiguous() for name in _TENSORS}
        told = {"format": FORMAT, "version": VERSION, "method": self.method, "site": self.site}
        with atomic.folder(directory) as partial:
            save_file(tensors, partial / TENSOR_FILE)
            atomic.write_json(partial / RECORD_FILE, told | {"record": dict(self.record)})
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path) -> Eraser:
        """Read a folder that `save` wrote.

        Raises:
            ValueError: it is not such a folder, or a part of it is missing or damaged; one line says which.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = given.path(directory) / RECORD_FILE
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            found = (told["format"], told["version"])
            words = {"method": str(told["method"]), "site": told["site"], "record": dict(told["record"])}
        except OSError as error:
            raise ValueError(f"{str(directory)!r} holds no eraser: no readable {RECORD_FILE}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(file)!r} is not a record of an eraser") from error
        if found != (FORMAT, VERSION):
            raise ValueError(
                f"{str(file)!r} is {found[0]!r} version {found[1]!r}, not {FORMAT!r} version {VERSION}"
            )
        file = Path(directory, TENSOR_FILE)
        try:
            tensors = load_file(file)
            return cls(**{name: tensors[name] for name in _TENSORS}, **words)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{str(file)!r} cannot be read: {' '.join(str(error).split())}") from error
        except KeyError as error:
            raise ValueError(f"{str(file)!r} has no tensor {error}") from error


_TENSORS = ("left", "right", "centre")


class Fitter(Protocol):
    """Takes rows in, batch by batch, and makes an eraser of all it was given."""

    def update(self, x: Float[Tensor, "n d"], z: Float[Tensor, "m c"]) -> None: ...

    def eraser(self, site: str | None = None) -> Eraser: ...


@dataclass(frozen=True)
class Method:
    """An entry of the registry `probes/erasers/`: what it is in one line, and how to make a fitter.

    `classes_only` ones cannot take real-valued concepts.
    """

    summary: str
    fitter: Callable[..., Fitter]
    classes_only: bool = False


ERASERS = Registry("probes.erasers", "ERASER", Method, "eraser")


def erasers() -> list[str]:
    """The names of all ways to erase."""
    return ERASERS.names()


def fit_eraser(
    method: str, x: Float[Tensor | np.ndarray, "n d"], y: Any, *, site: str | None = None, **options: Any
) -> Eraser:
    """An eraser of the concept y, fitted to activations x.

    Args:
        method: a name of `erasers()`, such as "leace".
        y: the class of each row (whole numbers, words, truth values), numbers [n] or [n, c] in floating point, or a
            target of a labelled data set; see `concept`.
        site: the site of x, for the record and for use as an edit.
        options: those of the method's fitter.

    Raises:
        ValueError: an unknown method or option, lengths that differ, a concept that is the same in all rows, or
            activations that are not finite.
    """
    entry = ERASERS.get(method)
    x = given.activations(x, "x")
    z = concept(y)
    if entry.classes_only and not is_classes(y):
        raise ValueError(f"{method} erases classes, and this concept is of real numbers; leace erases both")
    try:
        fitter = entry.fitter(**options)
    except TypeError as error:
        raise ValueError(f"the eraser {method!r} does not take these options: {error}") from error
    fitter.update(x, z)
    return fitter.eraser(site)


def is_classes(y: Any) -> bool:
    """Is y the class of each row, rather than real numbers?"""
    y = _plain(y)
    return y.ndim == 1 and y.dtype.kind != "f"


def concept(y: Any) -> Float[Tensor, "n c"]:
    """A concept as columns, float64: classes one-hot in the order of their names, real numbers as they are.

    Whole numbers, words and truth values [n] are classes; floating-point numbers [n] or [n, c] are values. `Classes`
    and `Values` are what they say.

    Raises:
        ValueError: something else.
    """
    y = _plain(y)
    if y.ndim == 1 and y.dtype.kind in "iubUSO":
        index = np.unique(y.astype(str) if y.dtype.kind == "O" else y, return_inverse=True)[1]
        return torch.nn.functional.one_hot(torch.from_numpy(index), int(index.max(initial=0)) + 1).double()
    if y.ndim not in (1, 2) or y.dtype.kind not in "iubf":
        raise ValueError(
            "a concept is a class for each row, or numbers [n] or [n, c]; "
            f"not {y.dtype} of shape {list(y.shape)}"
        )
    return double(torch.tensor(y)).view(len(y), -1)


def _plain(y: Any) -> np.ndarray:
    if isinstance(y, Classes):
        return y.labels
    if isinstance(y, Values):
        return y.values
    if isinstance(y, Heads):
        raise ValueError("syntactic heads are no concept that can be erased; give classes or values")
    return y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
