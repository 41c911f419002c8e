"""A fitted probe, frozen: what it reads at one site, where it came from, and its folder on disk.

Its weights (`probes/weights.py`) are in the units of the activations, so that no scaler has to be kept beside them.
Those of linear kinds are scores(x) = x coefᵀ + intercept; other kinds say what theirs are in their own files.

Two classes have one score, positive for the second class; more classes one each, the largest wins; values have one
each, which is the value; a low-rank map (structural probes) has r, and squared lengths of x coefᵀ + intercept are
depths, of differences of it distances.

probe.json, probe.safetensors       one probe: `Probe.save`, `Probe.load`
probes.json, probes.safetensors     a set of them, by name: `save_probes`, `load_probes`

Letters: n rows, m texts, t tokens of the longest text, w words, d width of the site, k scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lens import atomic
from lens.nearest import unknown
from probes import given
from probes.estimator import LINEAR, directed, name_of_weights, sort_of_weights
from probes.weights import Linear, Weights, axes_of, built, computed, sizes_of, tensors_of

Reads = Literal["classes", "values", "map"]
FORMAT, SET_FORMAT, VERSION = "probes.probe", "probes.set", 1


@dataclass(frozen=True, eq=False)
class Probe:
    """A probe of one site. Linear ones are also made by `Probe.of`.

    Args:
        weights: what it computes.
        site: full name of the site, such as "blocks.3.hook_resid_post".
        names: the classes, or the values.
        reads: "classes", "values", or "map" for a low-rank map whose lengths matter, not its rows.
        estimator: how it was fitted.
        target: the name of the target it was fitted to.
        mean, scale: [d] of the activations it was fitted to: mean and standard deviation (1 where a feature is
            constant). `coef * scale` are the weights per standard deviation, which compare features.
        record: where all this came from: model, data, penalty, rows, seed, versions.

    Raises:
        ValueError: shapes that do not fit each other.
    """

    weights: Weights
    site: str
    names: tuple[str, ...]
    reads: str = "classes"
    estimator: str = ""
    target: str = ""
    mean: Float[Tensor, " _"] | None = None
    scale: Float[Tensor, " _"] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reads not in get_args(Reads):
            raise ValueError(unknown("reading of a probe", self.reads, get_args(Reads)))
        k, d = self.outputs, self.width
        scores = {"classes": 1 if len(self.names) == 2 else len(self.names), "values": len(self.names)}
        if k != scores.get(self.reads, k):
            raise ValueError(f"a probe of {self.reads} {', '.join(self.names)} gives {k} scores")
        for name, x in (("mean", self.mean), ("scale", self.scale)):
            if x is not None and x.shape != (d,):
                raise ValueError(f"the {name} has {x.numel()} features, and the weights {d}")

    @classmethod
    def of(
        cls,
        coef: Float[Tensor, "_ _"],
        intercept: Float[Tensor, " _"],
        site: str,
        names: tuple[str, ...],
        reads: str = "classes",
        **rest: Any,
    ) -> Probe:
        """A linear probe.

        Args:
            coef: [k, d], in score per unit of activation.
            intercept: [k].
            rest: further fields of a probe.

        Raises:
            ValueError: shapes that do not fit each other.
        """
        return cls(built(Linear, {"coef": coef, "intercept": intercept}), site, names, reads, **rest)

    def __repr__(self) -> str:
        reads = f"a map of rank {self.outputs}" if self.reads == "map" else ", ".join(self.names[:8])
        more = ", …" if self.reads != "map" and len(self.names) > 8 else ""
        return f"Probe({self.estimator} at {self.site}, {self.width} features: {reads}{more})"

    @property
    def width(self) -> int:
        """d, the features it reads."""
        return sizes_of(type(self.weights), tensors_of(self.weights))["d"]

    @property
    def outputs(self) -> int:
        """k, the scores it gives."""
        return sizes_of(type(self.weights), tensors_of(self.weights))["k"]

    @property
    def texts(self) -> bool:
        """Whether it reads all tokens of whole texts, or else one activation a row."""
        return self.weights.TEXTS

    @property
    def linear(self) -> bool:
        """Whether its scores are linear in the activations."""
        return isinstance(self.weights, Linear)

    @property
    def coef(self) -> Float[Tensor, "k d"]:
        """Of a linear probe, in score per unit of activation.

        Raises:
            ValueError: it is not linear.
        """
        return self._linear.coef

    @property
    def intercept(self) -> Float[Tensor, " k"]:
        """Of a linear probe.

        Raises:
            ValueError: it is not linear.
        """
        return self._linear.intercept

    @property
    def _linear(self) -> Linear:
        if not isinstance(self.weights, Linear):
            raise ValueError(
                f"{self.estimator} probes are not linear and have no direction; {directed()} have one"
            )
        return self.weights

    @property
    def directed(self) -> bool:
        """Whether each of its names has a direction: it is linear, no map, and found some signal."""
        return self.linear and self.reads != "map" and bool(self.coef.norm(dim=1).gt(0).all())

    def scores(
        self, x: Float[Tensor, "*n d"] | np.ndarray, mask: Tensor | None = None
    ) -> Float[Tensor, "*m k"]:
        """[*n, k], in float64 on the device of x (float32 where that has none, such as mps).

        Args:
            x: activations [*n, d]; for a probe of whole texts [m, t, d], which gives [m, k].
            mask: for a probe of whole texts, which tokens are there, bool [m, t]; None: all.

        Raises:
            ValueError: x has another width, a mask for a probe of rows, a text without tokens.
        """
        x = given.activations(x, f"what the probe of {self.site!r} reads")
        if x.shape[-1] != self.width:
            raise ValueError(f"the probe of {self.site!r} reads {self.width} features, not {x.shape[-1]}")
        if not self.texts and mask is not None:
            raise ValueError(f"the probe of {self.site!r} reads rows, and takes no mask of tokens")
        if self.texts:
            _check_texts(x, mask, f"the probe of {self.site!r} reads whole texts")
        return computed(self.weights, x, mask)

    def predict(self, x: Float[Tensor, "*n d"] | np.ndarray, mask: Tensor | None = None) -> Tensor:
        """The class as an index into `names` [*n] (int64), the values [*n, k], or the depths: squared lengths [*n].

        Args:
            x, mask: as for `scores`.

        Raises:
            ValueError: as for `scores`.
        """
        scores = self.scores(x, mask)
        if self.reads == "values":
            return scores
        if self.reads == "map":
            return scores.square().sum(-1)
        return (scores[..., 0] > 0).long() if len(self.names) == 2 else scores.argmax(-1)

    def distances(self, x: Float[Tensor, "w d"] | np.ndarray) -> Float[Tensor, "w w"]:
        """Of a map: squared distances between the words of one text.

        Raises:
            ValueError: it is no map, or x has another width.
        """
        if self.reads != "map":
            raise ValueError(f"the probe of {self.site!r} reads {self.reads}; only maps have distances")
        points = self.scores(x)
        return (points[:, None] - points[None]).square().sum(-1)

    def direction(self, name: str | None = None) -> Float[Tensor, " d"]:
        """Unit vector [d], float64, in activation space: adding it to an activation raises the score of `name` most.

        None stands for the second of two classes, or for the only value. The first of two classes is the negative
        of the second.

        Raises:
            ValueError: no such class or value, none given where there are several, a probe that is not linear or a
                map (which have no direction), or a probe without weights (a site without signal).
        """
        coef = self.coef
        if self.reads == "map":
            raise ValueError(
                f"the {self.estimator} probe of {self.site!r} is a map of rank {len(coef)}, not a direction; "
                f"{directed()} have one"
            )
        if name is None:
            if len(coef) > 1:
                raise ValueError(
                    f"the probe of {self.site!r} has several directions; choose from {', '.join(self.names)}"
                )
            row = coef[0]
        elif name not in self.names:
            raise ValueError(unknown("direction", name, self.names, of=f"the probe of {self.site!r}"))
        elif self.reads == "classes" and len(self.names) == 2:
            row = coef[0] if name == self.names[1] else -coef[0]
        else:
            row = coef[self.names.index(name)]
        length = row.double().norm()
        if not length > 0:
            raise ValueError(f"the probe of {self.site!r} has no direction: it found no signal")
        return row.double() / length

    def save(self, directory: str | Path) -> Path:
        """Write a new folder; gives its path.

        Raises:
            FileExistsError: the folder exists.
            OSError: it cannot be written; nothing is left behind.
        """
        with atomic.folder(directory) as partial:
            _write(partial / "probe", FORMAT, {"": self})
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path) -> Probe:
        """Read a folder that `save` wrote.

        Raises:
            ValueError: it is not such a folder, or a part of it is missing or damaged; one line says which.
        """
        directory = given.path(directory)
        found = next(iter(_read(directory / "probe", FORMAT).values()), None)
        if found is None:
            raise ValueError(f"{str(directory / 'probe.json')!r} is not a record of probes")
        return found


def save_probes(directory: str | Path, probes: Mapping[str, Probe]) -> None:
    """Write probes.json and probes.safetensors into an existing folder (a run being written)."""
    _write(Path(directory, "probes"), SET_FORMAT, probes)


def load_probes(directory: str | Path) -> dict[str, Probe]:
    """The probes of a run folder, by name.

    Raises:
        ValueError: there are none, or a part is missing or damaged; one line says which.
    """
    return _read(Path(directory, "probes"), SET_FORMAT)


_SCALING = ("mean", "scale")
_WORDS: dict[str, type] = {
    "site": str, "names": list, "reads": str, "estimator": str, "target": str, "record": dict,
}  # fmt: skip


def _check_texts(x: Tensor, mask: Tensor | None, what: str) -> None:
    if x.ndim != 3:
        raise ValueError(f"{what} [m, t, d], not {list(x.shape)}")
    if mask is None:
        return
    if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        raise ValueError(
            f"{what} with a mask of truth values {list(x.shape[:2])}, not {mask.dtype} {list(mask.shape)}"
        )
    if not bool(mask.any(1).all()):
        raise ValueError(f"{what}, and text {int(mask.any(1).int().argmin())} has no tokens")


def _write(stem: Path, told: str, probes: Mapping[str, Probe]) -> None:
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    entries = []
    for name, probe in probes.items():
        scaling = {part: getattr(probe, part) for part in _SCALING if getattr(probe, part) is not None}
        for part, x in {**tensors_of(probe.weights), **scaling}.items():
            tensors[f"{name}.{part}"] = x.detach().cpu().contiguous().clone()
        form = name_of_weights(probe.weights)
        entries.append({"name": name, "weights": form, **{word: getattr(probe, word) for word in _WORDS}})
    content = save(tensors)
    record = {
        "format": told,
        "version": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "probes": entries,
    }
    atomic.write_bytes(stem.with_suffix(".safetensors"), content)
    atomic.write_json(stem.with_suffix(".json"), record)


def _read(stem: Path, told: str) -> dict[str, Probe]:
    file = stem.with_suffix(".json")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        found, entries = (record["format"], record["version"]), record["probes"]
    except OSError as error:
        raise ValueError(f"{str(file.parent)!r} holds no probes: no readable {file.name}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} is not a record of probes") from error
    if found != (told, VERSION):
        raise ValueError(
            f"{str(file)!r} is {found[0]!r} version {found[1]!r}, not {told!r} version {VERSION}"
        )
    tensors = _tensors(stem.with_suffix(".safetensors"), file.name, record.get("sha256"))
    try:
        return {entry["name"]: _probe(entry, tensors, stem) for entry in entries}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} is not a record of probes") from error


def _tensors(file: Path, record: str, digest: str | None) -> dict[str, Tensor]:
    """All tensors of a file that a record names; records of earlier versions name no digest."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = file.read_bytes()
        tensors = load(content)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{str(file)!r} cannot be read: {' '.join(str(error).split())}") from error
    if digest not in (None, hashlib.sha256(content).hexdigest()):
        raise ValueError(
            f"{str(file)!r} is damaged, or of another folder: {record} was written with other bytes"
        )
    return tensors


def _probe(entry: Mapping[str, Any], tensors: Mapping[str, Tensor], stem: Path) -> Probe:
    """One probe of a record; a KeyError or TypeError where the record is none."""
    words: dict[str, Any] = {word: entry[word] for word in _WORDS}
    if wrong := [word for word, sort in _WORDS.items() if not isinstance(words[word], sort)]:
        raise TypeError(wrong[0])
    name, file = entry["name"], str(stem.with_suffix(".safetensors"))
    try:
        form = sort_of_weights(entry.get("weights", LINEAR))
        parts = {part: f"{name}.{part}" for part in axes_of(form)}
        if lost := [key for key in parts.values() if key not in tensors]:
            raise ValueError(f"has no tensor {lost[0]!r}")
        weights = built(form, {part: tensors[key] for part, key in parts.items()})
        scaling: dict[str, Any] = {part: tensors.get(f"{name}.{part}") for part in _SCALING}
        return Probe(weights, **words | {"names": tuple(words["names"])}, **scaling)
    except ValueError as error:
        raise ValueError(f"{file!r}, probe {name!r}: {error}") from error
