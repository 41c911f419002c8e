"""How well a probe reads a label from activations it was not fitted to, next to what it would score by luck.

1. Texts are split into folds once; all sites and all controls use the same folds. Classes have equal shares in
   each fold as far as possible; texts of one group are in one fold.
2. A probe is fitted to all folds but one and judged on that one, for each fold. The accuracy is the share of
   all texts whose class was predicted.
3. Two floors: `majority`, the share of the most frequent class; and `shuffled`, the same cross-validation with
   the labels permuted over the texts, averaged over several permutations.
4. The interval is a percentile bootstrap over texts (over groups, where there are groups): 2.5% to 97.5%. It
   covers the choice of texts, not the choice of folds or of the best site.

Letters: n texts, d width of a site, r bootstrap resamples, g groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lens.progress import Progress, silent
from probes.texts import Labelled
from probes.estimator import Kind, get_estimator

RESAMPLES = 2000
Split = tuple[np.ndarray, np.ndarray]  # rows to fit, rows to judge


@dataclass(frozen=True)
class Row:
    """What a probe scored at one site: all figures are shares of the n texts.

    `chosen_after_the_fact` marks the most accurate of several sites (the first, where some are equal): chosen on
    the very texts that it is judged on, so its accuracy is biased upwards.
    """

    site: str
    n: int
    accuracy: float
    low: float
    high: float
    majority: float
    shuffled: float
    chosen_after_the_fact: bool = False


def evaluate(
    activations: Mapping[str, Float[Tensor, "n _"]],
    labelled: Labelled,
    estimator: str = "logistic",
    *,
    folds: int = 5,
    seed: int = 0,
    shuffles: int = 5,
    progress: Progress = silent,
) -> list[Row]:
    """One row per site, in the order of `activations` (see `probes.harvest`). The same arguments give the same rows.

    Groups are kept together where `labelled` has them.

    Args:
        folds: how many, at least 2.
        seed: of the folds, the permutations and the bootstrap.
        shuffles: permutations of the labels that are averaged, at least 1.

    Raises:
        ValueError: an unknown estimator, a class with fewer texts than folds, fewer groups than folds, a fold
            whose other folds lack a class, activations of another number of texts or that are not finite.
    """
    kind = get_estimator(estimator)
    if shuffles < 1:
        raise ValueError(
            f"shuffles is {shuffles}; it must be at least 1, for an accuracy without a floor says little"
        )
    features = {site: _features(site, x, len(labelled.texts)) for site, x in activations.items()}
    labels = np.asarray(labelled.labels)
    splits = split(labelled, folds, seed)
    generator = np.random.default_rng(seed)
    permuted = [generator.permutation(labels) for _ in range(shuffles)]
    weights = _resampled(labelled, seed)
    rows = []
    done, total = 0, len(features) * (1 + shuffles)
    for site, x in features.items():
        scores = []
        for target in (labels, *permuted):
            progress(done, total, "fitting probes")
            scores.append(_right(kind, x, target, splits))
            done += 1
        low, high = np.quantile(weights @ scores[0] / weights.sum(1), [0.025, 0.975])
        rows.append(
            Row(
                site=site,
                n=len(labels),
                accuracy=float(scores[0].mean()),
                low=float(low),
                high=float(high),
                majority=max(labelled.counts.values()) / len(labels),
                shuffled=float(np.mean(scores[1:])),
            )
        )
    progress(total, total, "fitting probes")
    return _with_choice(rows)


def split(labelled: Labelled, folds: int, seed: int = 0) -> list[Split]:
    """Rows to fit and rows to judge, for each fold; every row is judged once, and no group is on both sides.

    Raises:
        ValueError: fewer than 2 folds, a class with fewer texts than folds, fewer groups than folds, or a fold
            without which a class has no texts left.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if folds < 2:
        raise ValueError(f"folds is {folds}; it must be at least 2")
    smallest, count = min(labelled.counts.items(), key=lambda item: item[1])
    if count < folds:
        name = labelled.classes[smallest]
        raise ValueError(f"the class {name!r} has {count} texts, fewer than the {folds} folds")
    rows, labels = np.arange(len(labelled.texts)), np.asarray(labelled.labels)
    if labelled.groups is None:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        found = list(splitter.split(rows, labels))
    else:
        n_groups = len(set(labelled.groups))
        if n_groups < folds:
            raise ValueError(f"there are {n_groups} groups, fewer than the {folds} folds")
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        found = list(splitter.split(rows, labels, list(labelled.groups)))
    for fold, (fit, judge) in enumerate(found):
        if not len(judge):
            raise ValueError(
                f"fold {fold + 1} of {folds} got no texts: the groups are too uneven; use fewer folds"
            )
        if lost := set(labelled.labels) - set(labels[fit].tolist()):
            raise ValueError(
                f"all texts of the class {labelled.classes[min(lost)]!r} fell into fold {fold + 1} of {folds}: "
                "its texts must be spread over more groups"
            )
    return found


def _features(site: str, x: Tensor, n: int) -> np.ndarray:
    if x.shape[0] != n:
        raise ValueError(f"the activations at {site!r} are of {x.shape[0]} texts, and there are {n} labels")
    if not bool(x.isfinite().all()):
        row = int((~x.isfinite().all(1)).nonzero()[0])
        raise ValueError(f"the activation of text {row} at {site!r} is not finite")
    return x.detach().cpu().double().numpy()


def _right(kind: Kind, x: np.ndarray, labels: np.ndarray, splits: Sequence[Split]) -> np.ndarray:
    """For each text whether its class was predicted by a probe that was fitted without its fold, [n] of 0 and 1."""
    right = np.zeros(len(labels))
    for fit, judge in splits:
        if (labels[fit] == labels[fit[0]]).all():  # only permuted labels come to this
            predicted = np.full(len(judge), labels[fit[0]])
        else:
            predicted = kind.new().fit(x[fit], labels[fit]).predict(x[judge])
        right[judge] = predicted == labels[judge]
    return right


def _resampled(labelled: Labelled, seed: int) -> np.ndarray:
    """How often each text is in each bootstrap resample, [r, n]; texts of one group come together."""
    if labelled.groups is None:
        member = np.arange(len(labelled.texts))
    else:
        member = np.unique(labelled.groups, return_inverse=True)[1]
    g = int(member.max()) + 1
    counts = np.random.default_rng([seed, 1]).multinomial(g, np.full(g, 1 / g), size=RESAMPLES)
    return counts[:, member].astype(float)


def _with_choice(rows: list[Row]) -> list[Row]:
    if len(rows) < 2:
        return rows
    best = max(range(len(rows)), key=lambda i: rows[i].accuracy)
    return [replace(row, chosen_after_the_fact=i == best) for i, row in enumerate(rows)]
