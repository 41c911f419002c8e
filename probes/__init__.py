"""Linear probes: what the activations of a transformer encode, never without the floors that make it believable.

data = probes.Labelled.from_csv("animals.csv")                   # columns text, label and perhaps group
store = probes.harvest(model, data, "resid_post")                # a vector per row and layer
found = probes.sweep(store, data, "logistic", model=model)       # found.table; probes.short(found)
found.probe().direction()                                        # a unit vector to erase or to steer along
probes.train(model, data, site="resid_post").save("runs/animals")    # all of it, in a folder
"""

from __future__ import annotations

from probes.activations import Activations
from probes.amnesic import Amnesic, amnesic
from probes.batched import Fits, Problem, fit_many
from probes.config import Config
from probes.dataset import load_dataset
from probes.eraser import Eraser, fit_eraser
from probes.estimator import get_estimator
from probes.evaluate import evaluate
from probes.floor import Answers
from probes.harvest import harvest
from probes.labelled import Classes, Heads, Labelled, Values
from probes.measures import LogitDifference, ProbeScore
from probes.probe import Probe
from probes.refit import Refit
from probes.short import short
from probes.splits import Fold
from probes.steer import Dose, generate_steered, steer
from probes.store import Run
from probes.sweep import sweep
from probes.swept import Sweep
from probes.train import train
from probes.writers import Writers, writers

__all__ = [
    "Activations",
    "Amnesic",
    "Answers",
    "Classes",
    "Config",
    "Dose",
    "Eraser",
    "Fits",
    "Fold",
    "Heads",
    "Labelled",
    "LogitDifference",
    "Probe",
    "ProbeScore",
    "Problem",
    "Refit",
    "Run",
    "Sweep",
    "Values",
    "Writers",
    "amnesic",
    "evaluate",
    "fit_eraser",
    "fit_many",
    "generate_steered",
    "get_estimator",
    "harvest",
    "load_dataset",
    "short",
    "steer",
    "sweep",
    "train",
    "writers",
]  # fmt: skip
