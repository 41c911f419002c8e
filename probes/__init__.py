"""Linear probes: what the activations of a transformer encode, never without the floors that make it believable.

data = probes.Labelled.from_csv("animals.csv")                       # columns text, label and perhaps group
activations = probes.harvest(model, data.texts, ["resid_post"])      # {site: [n, d]}
rows = probes.evaluate(activations, data, "logistic", folds=5)       # accuracy, interval, floors, per site
probes.train(model, data, site="resid_post").save("runs/animals")    # all of it, and the directions
"""

from __future__ import annotations

from probes.activations import Activations
from probes.batched import Fits, Problem, fit_many
from probes.eraser import Eraser, fit_eraser
from probes.estimator import get_estimator
from probes.evaluate import Row, evaluate
from probes.harvest import harvest
from probes.labelled import Classes, Heads, Labelled, Values
from probes.store import Trained
from probes.train import train
from probes.writers import Writers, writers

__all__ = [
    "Activations",
    "Classes",
    "Eraser",
    "Fits",
    "Heads",
    "Labelled",
    "Problem",
    "Row",
    "Trained",
    "Values",
    "Writers",
    "evaluate",
    "fit_eraser",
    "fit_many",
    "get_estimator",
    "harvest",
    "train",
    "writers",
]  # fmt: skip
