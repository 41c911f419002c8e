"""Truth: statements about cities, judged on countries of which nothing was fitted.

1. Both countries of a statement are its groups: where one of them is held out, the statement is not fitted.
2. The same probes are asked about the negations of the statements that they are judged on. A direction that stands
   for truth orders negated statements as well; one that stands for "this city goes with this country" orders them
   the other way round.
3. Probes fitted to statements and negations together show whether there is a direction that does both.

Letters: n rows, f folds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import probes
from benchmarks.study.probes.setting import (
    PENALTIES,
    SEED,
    STREAM,
    activations,
    best,
    curve,
    folds_of,
    inside,
    judged,
    model,
    rows_of,
)
from lens.progress import Progress

N, PERMUTATIONS = 800, 19
ASKED = probes.Answers(
    {"true": " True", "false": " False"}, "{text}\nIs this statement true or false? Answer:"
)


def study(progress: Progress) -> dict[str, Any]:
    """Statements, their negations, and what of the floors."""
    both = probes.load_dataset("truth", n=2 * N, seed=SEED, negated=True)
    plain, negated = (np.flatnonzero(both.column("negated") == value) for value in (0, 1))
    data = both.subset(plain)
    everything = activations(both, progress)
    store = probes.Activations.of({site: everything.take(site, plain) for site in everything.sites})
    random = activations(data, progress, random=True)
    asked: dict[str, Any] = {
        "sites": STREAM, "metrics": ["auroc", "accuracy"], "seed": SEED, "progress": progress,
    }  # fmt: skip
    logistic = probes.sweep(
        store, data, "logistic", C=PENALTIES, permutations=PERMUTATIONS, model=model(), answers=ASKED,
        floors=["surface", "layer-0", "behaviour"], **asked,
    )  # fmt: skip
    floor = probes.sweep(random, data, "logistic", C=PENALTIES, floors=[], **asked)
    mean = probes.sweep(store, data, "mass-mean", floors=[], **asked)
    return {
        "about": rows_of(data) | {"judged": len(logistic.trial().judged), "example": list(both.texts[:4])},
        "curve": curve(logistic, metric="auroc", random=floor),
        "accuracy": curve(logistic, metric="accuracy", random=floor),
        "inside": inside(logistic),
        "mass-mean": curve(mean, metric="auroc"),
        "permutations": PERMUTATIONS,
        "negation": negation(everything, both, plain, negated, logistic),
    }


def negation(
    store: probes.Activations,
    both: probes.Labelled,
    plain: np.ndarray,
    negated: np.ndarray,
    found: probes.Sweep,
) -> list[dict[str, Any]]:
    """AUROC of truth on statements and on their negations, of probes of either and of both; layer after layer."""
    target = both.target()
    assert isinstance(target, probes.Classes) and both.groups is not None
    folds, y = folds_of(found), np.array(target.labels)
    assert (both.pairs == np.stack([plain, negated], 1)).all()
    penalty = best(curve(found, metric="auroc"))["penalty"]
    fitted = {"statements": [plain], "negations": [negated], "both": [plain, negated]}
    rows = []
    for site in store.resolve(STREAM):
        x = store.take(site)
        row: dict[str, Any] = {"layer": store.layer(site), "penalty": penalty}
        for name, kinds in fitted.items():
            problems = [
                probes.Problem(y, np.sort(np.concatenate([kind[fold.train] for kind in kinds])), penalty)
                for fold in folds
            ]
            fits = probes.fit_many("logistic", x, problems)
            for on, kind in (("statements", plain), ("negations", negated)):
                asked = np.concatenate([kind[fold.test] for fold in folds])
                decision = np.concatenate(
                    [fits.decision(f, x[kind[fold.test]]) for f, fold in enumerate(folds)]
                )
                fold = np.concatenate([np.full(len(part.test), f) for f, part in enumerate(folds)])
                row[f"{name} → {on}"] = judged(
                    "auroc", y[asked], decision, fold, [both.groups[i] for i in asked.tolist()]
                )
        rows.append(row)
    return rows
