"""Linear probes: what the activations of a transformer encode, never without the floors that make it believable.

data = probes.Labelled.from_csv("animals.csv")                   # columns text, label and perhaps group
store = probes.harvest(model, data, "resid_post")                # a vector per row and layer
found = probes.sweep(store, data, "logistic", model=model)       # found.table: scores, intervals, floors
found.probe().direction()                                        # a unit vector to erase or to steer along
probes.train(model, data, site="resid_post").save("runs/animals")    # all of it, in a folder
"""

from __future__ import annotations

from probes.activations import Activations
from probes.batched import Fits, Problem, fit_many
from probes.config import Config
from probes.eraser import Eraser, fit_eraser
from probes.estimator import get_estimator
from probes.evaluate import evaluate
from probes.floor import Answers
from probes.harvest import harvest
from probes.labelled import Classes, Heads, Labelled, Values
from probes.probe import Probe
from probes.splits import Fold
from probes.store import Run
from probes.sweep import sweep
from probes.swept import Sweep
from probes.train import train
from probes.writers import Writers, writers

__all__ = [
    "Activations",
    "Answers",
    "Classes",
    "Config",
    "Eraser",
    "Fits",
    "Fold",
    "Heads",
    "Labelled",
    "Probe",
    "Problem",
    "Run",
    "Sweep",
    "Values",
    "Writers",
    "evaluate",
    "fit_eraser",
    "fit_many",
    "get_estimator",
    "harvest",
    "sweep",
    "train",
    "writers",
]  # fmt: skip
