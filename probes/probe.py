"""A fitted probe, frozen: what it reads at one site, where it came from, and its folder on disk.

    scores(x) = x coefᵀ + intercept          in the units of the activations: no scaler has to be kept beside it

Two classes have one row of `coef`, positive for the second class; more classes one row each, the largest score
wins; values have one row each, and the score is the value; a low-rank map (structural probes) has r rows, and
squared lengths of x coefᵀ are depths, of differences of it distances.

probe.json, probe.safetensors       one probe: `Probe.save`, `Probe.load`
probes.json, probes.safetensors     a set of them, by name: `save_probes`, `load_probes`

Letters: n rows, d width of the site, k rows of `coef`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lens import atomic
from lens.nearest import unknown

Reads = Literal["classes", "values", "map"]
FORMAT, SET_FORMAT, VERSION = "probes.probe", "probes.set", 1


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe of one site.

    Args:
        coef: [k, d], in score per unit of activation, float64.
        intercept: [k].
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

    coef: Float[Tensor, "_ _"]
    intercept: Float[Tensor, " _"]
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
        k, d = self.coef.shape
        rows = {"classes": 1 if len(self.names) == 2 else len(self.names), "values": len(self.names)}
        if k != rows.get(self.reads, k):
            raise ValueError(f"a probe of {self.reads} {', '.join(self.names)} has {k} rows of weights")
        if len(self.intercept) != k:
            raise ValueError(f"there are {k} rows of weights and {len(self.intercept)} intercepts")
        for name, x in (("mean", self.mean), ("scale", self.scale)):
            if x is not None and len(x) != d:
                raise ValueError(f"the {name} has {len(x)} features, and the weights {d}")

    def __repr__(self) -> str:
        k, d = self.coef.shape
        reads = f"a map of rank {k}" if self.reads == "map" else ", ".join(self.names[:8])
        more = ", …" if self.reads != "map" and len(self.names) > 8 else ""
        return f"Probe({self.estimator} at {self.site}, {d} features: {reads}{more})"

    @property
    def width(self) -> int:
        """d, the features it reads."""
        return self.coef.shape[1]

    def scores(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n k"]:
        """x coefᵀ + intercept, in float64 on the device of x (float32 where that has none, such as mps).

        Raises:
            ValueError: x has another width.
        """
        if x.shape[-1] != self.width:
            raise ValueError(f"the probe of {self.site!r} reads {self.width} features, not {x.shape[-1]}")
        dtype = torch.float32 if x.device.type == "mps" else torch.float64
        coef, intercept = self.coef.to(x.device, dtype), self.intercept.to(x.device, dtype)
        return x.to(dtype) @ coef.T + intercept

    def predict(self, x: Float[Tensor, "*n d"]) -> Tensor:
        """The class as an index into `names` [*n] (int64), the values [*n, k], or the depth |x coefᵀ|² [*n].

        Raises:
            ValueError: x has another width.
        """
        scores = self.scores(x)
        if self.reads == "values":
            return scores
        if self.reads == "map":
            return scores.square().sum(-1)
        return (scores[..., 0] > 0).long() if len(self.names) == 2 else scores.argmax(-1)

    def direction(self, name: str | None = None) -> Float[Tensor, " d"]:
        """Unit vector [d], float64, in activation space: adding it to an activation raises the score of `name` most.

        None stands for the second of two classes, or for the only value. The first of two classes is the negative
        of the second.

        Raises:
            ValueError: no such class or value, none given where there are several, a map (which has no direction),
                or a probe without weights (a site without signal).
        """
        if self.reads == "map":
            raise ValueError(
                f"the {self.estimator} probe of {self.site!r} is a map of rank {len(self.coef)}, not a direction"
            )
        if name is None:
            if len(self.coef) > 1:
                raise ValueError(
                    f"the probe of {self.site!r} has several directions; choose from {', '.join(self.names)}"
                )
            row = self.coef[0]
        elif name not in self.names:
            raise ValueError(unknown("direction", name, self.names, of=f"the probe of {self.site!r}"))
        elif self.reads == "classes" and len(self.names) == 2:
            row = self.coef[0] if name == self.names[1] else -self.coef[0]
        else:
            row = self.coef[self.names.index(name)]
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
        return next(iter(_read(Path(directory, "probe"), FORMAT).values()))


def save_probes(directory: str | Path, probes: Mapping[str, Probe]) -> None:
    """Write probes.json and probes.safetensors into an existing folder (a run being written)."""
    _write(Path(directory, "probes"), SET_FORMAT, probes)


def load_probes(directory: str | Path) -> dict[str, Probe]:
    """The probes of a run folder, by name.

    Raises:
        ValueError: there are none, or a part is missing or damaged; one line says which.
    """
    return _read(Path(directory, "probes"), SET_FORMAT)


_TENSORS = ("coef", "intercept", "mean", "scale")
_WORDS = ("site", "names", "reads", "estimator", "target", "record")


def _write(stem: Path, told: str, probes: Mapping[str, Probe]) -> None:
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    entries = []
    for name, probe in probes.items():
        for part in _TENSORS:
            x = getattr(probe, part)
            if x is not None:
                tensors[f"{name}.{part}"] = x.detach().cpu().contiguous()
        entries.append({"name": name, **{word: getattr(probe, word) for word in _WORDS}})
    atomic.write_bytes(stem.with_suffix(".safetensors"), save(tensors))
    atomic.write_json(stem.with_suffix(".json"), {"format": told, "version": VERSION, "probes": entries})


def _read(stem: Path, told: str) -> dict[str, Probe]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

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
    tensor_file = stem.with_suffix(".safetensors")
    try:
        tensors = load_file(tensor_file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{str(tensor_file)!r} cannot be read: {' '.join(str(error).split())}") from error
    probes = {}
    try:
        for entry in entries:
            words: dict[str, Any] = {word: entry[word] for word in _WORDS}
            words["names"] = tuple(words["names"])
            for part in ("coef", "intercept"):
                if f"{entry['name']}.{part}" not in tensors:
                    raise ValueError(f"{str(tensor_file)!r} has no tensor '{entry['name']}.{part}'")
            parts: dict[str, Any] = {part: tensors.get(f"{entry['name']}.{part}") for part in _TENSORS}
            probes[entry["name"]] = Probe(**parts, **words)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} is not a record of probes") from error
    return probes
