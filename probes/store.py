"""Trained probes on disk: one folder, whole or not at all.

probes.json            the record: model and its revision, data and their hash, site, estimator, the table, versions
probes.safetensors     `<site>.coef` [k, d] and `<site>.intercept` [k], in the units of the activations, float64

Letters: n rows, d width of a site, k columns (1 for two classes, else one per class).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lens import atomic
from lens.nearest import unknown
from probes.evaluate import Row

FORMAT = "probes.trained"
VERSION = 1
RECORD_FILE = "probes.json"
TENSOR_FILE = "probes.safetensors"


@dataclass(frozen=True, eq=False)
class Trained:
    """One probe per site, frozen, with what they were measured to do.

    `rows` judge probes that were fitted to all folds but one; the directions kept here are fitted to all texts.

    Args:
        coef: site → [k, d]. With two classes a single direction, towards the second; else one per class.
        intercept: site → [k].
        classes: names of the classes.
        rows: accuracy, interval and floors per site.
        record: where all this came from.
    """

    coef: Mapping[str, Float[Tensor, "_ _"]]
    intercept: Mapping[str, Float[Tensor, " _"]]
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    record: Mapping[str, Any]

    def scores(self, site: str, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Scores of activations at a site, in float64.

        Raises:
            ValueError: there is no probe for that site, or the activations have another width.
        """
        if site not in self.coef:
            raise ValueError(unknown("probed site", site, self.coef))
        coef = self.coef[site]
        if x.shape[1] != coef.shape[1]:
            raise ValueError(f"the probe at {site!r} reads {coef.shape[1]} features, not {x.shape[1]}")
        return x.double().to(coef.device) @ coef.T + self.intercept[site]

    def predict(self, site: str, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """The class of each row, as an index into `classes`."""
        scores = self.scores(site, x)
        return (scores[:, 0] > 0).long() if len(self.classes) == 2 else scores.argmax(1)

    def save(self, directory: str | Path) -> Path:
        """Write a new folder; gives its path.

        Raises:
            FileExistsError: the folder exists.
            OSError: it cannot be written; nothing is left behind.
        """
        from safetensors.torch import save_file

        tensors = {f"{site}.coef": x.contiguous() for site, x in self.coef.items()}
        tensors |= {f"{site}.intercept": x.contiguous() for site, x in self.intercept.items()}
        record = {
            "format": FORMAT, "version": VERSION, **self.record, "classes": list(self.classes),
            "sites": [asdict(row) for row in self.rows],
        }  # fmt: skip
        with atomic.folder(directory) as partial:
            save_file(tensors, partial / TENSOR_FILE)
            atomic.write_json(partial / RECORD_FILE, record)
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path) -> Trained:
        """Read a folder that `save` wrote.

        Raises:
            ValueError: it is not such a folder, or a part of it is missing or damaged; one line says which.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = Path(directory, RECORD_FILE)
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            told = (record.pop("format"), record.pop("version"))
            classes, rows = tuple(record.pop("classes")), tuple(Row(**row) for row in record.pop("sites"))
        except OSError as error:
            raise ValueError(
                f"{str(directory)!r} is not a folder of probes: no readable {RECORD_FILE}"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(file)!r} is not a record of probes") from error
        if told != (FORMAT, VERSION):
            raise ValueError(
                f"{str(file)!r} is {told[0]!r} version {told[1]!r}, not {FORMAT!r} version {VERSION}"
            )
        file = Path(directory, TENSOR_FILE)
        try:
            tensors = load_file(file)
            coef = {row.site: tensors[f"{row.site}.coef"] for row in rows}
            intercept = {row.site: tensors[f"{row.site}.intercept"] for row in rows}
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{str(file)!r} cannot be read: {' '.join(str(error).split())}") from error
        except KeyError as error:
            raise ValueError(f"{str(file)!r} has no tensor {error}") from error
        return cls(coef, intercept, classes, rows, record)


def check_destination(directory: str | Path) -> None:
    """Whether a new folder can be written, asked before the work begins.

    Raises:
        ValueError: it exists, or its parent is not a folder that can be written to.
    """
    directory = Path(directory)
    if directory.exists() or directory.is_symlink():
        raise ValueError(f"{str(directory)!r} already exists; choose another folder")
    ancestor = next(parent for parent in directory.absolute().parents if parent.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise ValueError(f"cannot write to {str(directory)!r}: {str(ancestor)!r} is not a writable folder")


def directions(fitted: Any) -> tuple[Tensor, Tensor]:
    """`coef` [k, d] and `intercept` [k] of a fitted estimator as tensors."""
    return torch.tensor(fitted.coef_), torch.tensor(fitted.intercept_)
