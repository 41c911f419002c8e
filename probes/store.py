"""A run of probes on disk: one folder, whole or not at all.

run.json                   the record: settings, model and its revision, data and their hash, versions, times
config.yaml                the settings; `probes train --config config.yaml` makes the same run again
table.csv                  the table of `probes.swept`, numbers in full
probes.json, .safetensors  the probe of every place, fitted to all rows
predictions.safetensors    per target: what was said of each judged row by a probe not fitted to it, at the layer
                           that its fold chose, or else at the best place

Letters: b rows that are judged, k outputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lens import atomic
from lens.nearest import unknown
from probes import given
from probes.config import Config
from probes.probe import Probe, load_probes, save_probes
from probes.swept import INSIDE, Sweep

if TYPE_CHECKING:
    import pandas as pd

FORMAT, VERSION = "probes.run", 2
RECORD_FILE, CONFIG_FILE, TABLE_FILE, PREDICTIONS_FILE = (
    "run.json", "config.yaml", "table.csv", "predictions.safetensors",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Predictions:
    """What probes said of rows they were not fitted to.

    Args:
        site: where, or "chosen inside" where folds chose.
        rows: int [b], rows of the data.
        y: classes int [b], values [b, t], or [b, 2] for heads: how many rows on the head is, and the text.
        decision: [b] or [b, k].
        fold: int [b].
        names: of the classes or values.
        reads: "classes", "values" or "heads".
    """

    site: str
    rows: np.ndarray
    y: np.ndarray
    decision: np.ndarray
    fold: np.ndarray
    names: tuple[str, ...]
    reads: str


@dataclass(frozen=True, eq=False)
class Run:
    """What `probes train` made."""

    record: Mapping[str, Any]
    config: Config
    table: pd.DataFrame
    probes: Mapping[str, Probe]
    predictions: Mapping[str, Predictions]
    path: Path | None = None

    @property
    def targets(self) -> dict[str, Any]:
        """Target → what is known of it: reads, names, unit, metric, …"""
        return self.record["sweep"]["targets"]

    def target(self, name: str | None = None) -> str:
        """A target's name, checked; None: the first.

        Raises:
            ValueError: the run has no such target.
        """
        if name is not None and name not in self.targets:
            raise ValueError(unknown("target", name, self.targets, of="this run"))
        return name if name is not None else next(iter(self.targets))

    def curve(self, target: str | None = None, metric: str | None = None, value: str = "") -> pd.DataFrame:
        """The rows of one target and metric (None: the first), place after place."""
        target = self.target(target)
        metric = metric or self.targets[target]["metric"]
        t = self.table
        kept = (t.target == target) & (t.metric == metric) & (t.value == value) & ~t.chosen_inside
        return t.loc[kept].reset_index(drop=True)

    def inside(
        self, target: str | None = None, metric: str | None = None, value: str = ""
    ) -> pd.Series | None:
        """The row whose folds chose their own layer; None where nothing was chosen."""
        target = self.target(target)
        metric = metric or self.targets[target]["metric"]
        t = self.table
        found = t.loc[(t.target == target) & (t.metric == metric) & (t.value == value) & t.chosen_inside]
        return None if found.empty else found.iloc[0]

    def probe(self, site: str | None = None, target: str | None = None) -> Probe:
        """The probe of a site; None: of the best one, which was chosen after the fact.

        Raises:
            ValueError: no such site or target, or a run that keeps no probes of it.
        """
        target = self.target(target)
        mine = {name: probe for name, probe in self.probes.items() if probe.target == target}
        if not mine:
            raise ValueError(
                f"this run keeps no {self.config.estimator} probes of {target!r}; train it again"
            )
        if site is None:
            curve = self.curve(target)
            site = str(curve.loc[curve.score.idxmax()].site)
        for probe in mine.values():
            if probe.site == site:
                return probe
        raise ValueError(unknown("probed site", site, {probe.site for probe in mine.values()}))

    def save(self, directory: str | Path) -> Run:
        """Write a new folder; gives this run with its path.

        Raises:
            FileExistsError: the folder exists.
            OSError: it cannot be written; nothing is left behind.
        """
        from safetensors.torch import save

        tensors = {
            f"{target}.{part}": torch.from_numpy(np.ascontiguousarray(getattr(found, part)))
            for target, found in self.predictions.items()
            for part in ("rows", "y", "decision", "fold")
        }
        record = {"format": FORMAT, "version": VERSION, **self.record}
        record["predictions"] = {
            target: {"site": found.site, "names": list(found.names), "reads": found.reads}
            for target, found in self.predictions.items()
        }
        with atomic.folder(directory) as partial:
            atomic.write_json(partial / RECORD_FILE, record)
            atomic.write_bytes(partial / CONFIG_FILE, self.config.to_yaml().encode())
            atomic.write_bytes(partial / TABLE_FILE, self.table.to_csv(index=False).encode())
            atomic.write_bytes(partial / PREDICTIONS_FILE, save(tensors))
            save_probes(partial, self.probes)
        return replace(self, path=Path(directory))

    @classmethod
    def load(cls, directory: str | Path) -> Run:
        """Read a folder that `save` wrote.

        Raises:
            ValueError: it is not such a folder, or a part of it is missing or damaged; one line says which.
        """
        folder = given.path(directory)
        record, told = _record(folder)
        return cls(
            record, Config.read(folder / CONFIG_FILE), _table(folder / TABLE_FILE), load_probes(folder),
            _predictions(folder / PREDICTIONS_FILE, told), folder,
        )  # fmt: skip


def predictions_of(sweep: Sweep) -> dict[str, Predictions]:
    """Per target the decisions at the layer that each fold chose, or at the best place where none did."""
    found = {}
    for trial in sweep.trials:
        rows = trial.judged
        chosen = sweep.decisions.get((trial.target, INSIDE, ""))
        if chosen is None:
            best = sweep.best(trial.target)
            site, decision = str(best.site), sweep.decisions[trial.target, str(best.site), str(best.position)]
        else:
            site, decision = INSIDE, chosen
        found[trial.target] = Predictions(
            site, rows, trial.seen(trial.y)[rows], decision[rows], trial.fold[rows], trial.names, trial.reads
        )
    return found


def check_destination(directory: str | Path) -> None:
    """Whether a new folder can be written, asked before the work begins.

    Raises:
        ValueError: it exists, or its parent is not a folder that can be written to.
    """
    directory = Path(directory)
    if directory.exists() or directory.is_symlink():
        raise ValueError(f"{str(directory)!r} already exists; choose another folder")
    atomic.check_writable(directory)


def _record(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    file = folder / RECORD_FILE
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        found, told = (record.pop("format"), record.pop("version")), record.pop("predictions")
        _ = record["sweep"]["targets"], record["model"]["name"]
    except OSError as error:
        raise ValueError(f"{str(folder)!r} is not a run of probes: no readable {RECORD_FILE}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(file)!r} is not the record of a run of probes") from error
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{str(file)!r} is {found[0]!r} version {found[1]!r}, not {FORMAT!r} version {VERSION}"
        )
    return record, told


_WORDS = {"site", "position", "target", "value", "estimator", "metric", "layers", "note"}
_MARKS = {"chosen_inside", "chosen_after_the_fact"}


def _table(file: Path) -> pd.DataFrame:
    """The table, every number as it was written."""
    import pandas as pd

    try:
        table = pd.read_csv(StringIO(file.read_text(encoding="utf-8")), dtype=str, keep_default_na=False)
        for name in table.columns.difference([*_WORDS, *_MARKS]):
            table[name] = [float(text) if text else float("nan") for text in table[name]]
        for name in _MARKS:
            table[name] = [{"True": True, "False": False}[text] for text in table[name]]
        return table.astype({"layer": "Int64", "n": "int64"})
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{str(file)!r} is not the table of a run of probes") from error


def _predictions(file: Path, told: Mapping[str, Any]) -> dict[str, Predictions]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
        found = {}
        for target, about in told.items():
            rows, y, decision, fold = (
                tensors[f"{target}.{part}"].numpy() for part in ("rows", "y", "decision", "fold")
            )
            found[target] = Predictions(
                about["site"], rows, y, decision, fold, tuple(about["names"]), about["reads"]
            )
        return found
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{str(file)!r} cannot be read: {' '.join(str(error).split())}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} lacks {error}") from error
