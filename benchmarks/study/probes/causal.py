"""What acting on a probe's direction does: erasure with its price, and steering with its dose.

Erasure: an eraser of the sentiment of words is fitted to some words; probes are fitted anew to other words after it,
and the language-model loss is taken on sentences that have nothing to do with either. Beside it stand random
subspaces of the rank at which they hurt the probes as much.

Steering: a direction fitted to words is added to every position of neutral prompts, and the words that come next are
measured: good ones against bad ones. Beside it a random direction with the same dose.

Letters: n rows, d width.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

import probes
from benchmarks.study.probes.setting import SEED, activations, model, rows_of
from lens.progress import Progress
from probes.intervals import mean_interval
from probes.refit import Judge

LAYER = 12
SITE = f"blocks.{LAYER}.hook_resid_post"
JUDGED, TEXTS, BACKGROUND, DRAWS = 500, 24, 24, 3
SKIP = 1  # the first position's activations are of another size
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
DOSES = tuple(range(-12, 13, 2))
PENALTY = 0.01
GOOD = (" good", " great", " wonderful", " excellent", " nice")
BAD = (" bad", " terrible", " awful", " horrible", " poor")
STARTS = ("The film was", "I think the food was", "My new neighbour is", "The weather today is", "Her answer was",
          "The hotel room was", "What he did was", "The news this morning is", "Our trip was", "The music is",
          "I must say that the book is", "The service in this place is")  # fmt: skip


def study(progress: Progress) -> dict[str, Any]:
    """Erasure, then steering."""
    words = probes.load_dataset("sentiment-words", n=None, seed=SEED).only("sentiment")
    store = activations(words, progress, layers=(LAYER,))
    judged = chosen(words)
    return {
        "about": rows_of(words)
        | {
            "layer": LAYER,
            "fitted": int((~judged).sum()),
            "judged": int(judged.sum()),
            "width": store.width(SITE),
        },
        "erasure": erasure(words, store, judged, progress),
        "steering": steering(words, store, judged, progress),
    }


def chosen(words: probes.Labelled) -> np.ndarray:
    """Which words are judged, [n]: whole families, until there are enough."""
    assert words.groups is not None
    families = sorted({names[0] for names in words.groups})
    order = np.random.default_rng(SEED).permutation(len(families))
    rank = {families[i]: place for place, i in enumerate(order.tolist())}
    places = np.array([rank[names[0]] for names in words.groups])
    return places < np.sort(places)[JUDGED]


def erasure(
    words: probes.Labelled, store: probes.Activations, judged: np.ndarray, progress: Progress
) -> dict[str, Any]:
    """LEACE, LEACE that minds ordinary text, and the projection of the mean difference."""
    sentences = probes.load_dataset(
        "sentiment-sentences", n=TEXTS + BACKGROUND, seed=SEED + 1, sources="movies"
    ).texts
    texts, background = sentences[:TEXTS], sentences[TEXTS:]
    tokens = probes.harvest(model(), background, SITE, positions="all", progress=progress)
    ordinary = tokens.take(SITE, tokens.position >= SKIP)
    target = words.target()
    assert isinstance(target, probes.Classes)
    x, y = store.take(SITE), torch.tensor(target.labels)
    fitted = torch.from_numpy(~judged)
    erasers = {
        "LEACE": probes.fit_eraser("leace", x[fitted], y[fitted], site=SITE),
        "LEACE, minding text": probes.fit_eraser(
            "leace", x[fitted], y[fitted], site=SITE, background=ordinary
        ),
        "mean projection": probes.fit_eraser("mean_projection", x[fitted], y[fitted], site=SITE),
    }
    found: dict[str, Any] = {"texts": len(texts), "background": len(ordinary), "draws": DRAWS}
    rest = words.subset(judged)
    for name, eraser in erasers.items():
        test = probes.amnesic(
            model(), rest, eraser, task=probes.Refit(penalty=PENALTY), texts=list(texts), skip=SKIP, draws=DRAWS,
            equal_effect=name == "LEACE", seed=SEED, progress=progress,
        )  # fmt: skip
        found[name] = {
            "lines": [asdict(line) for line in test.lines],
            "equal effect asked": name == "LEACE",
            "saving": test.saving,
            "floor": test.floor,
            "rank": eraser.rank,
            "rows": test.rows,
            "tokens": test.tokens,
            "metric": test.metric,
            "own rows": own_rows(eraser(x[fitted]), y[fitted]),
        }
    found["by rows fitted"] = by_rows_fitted(words, x, judged)
    return found


def by_rows_fitted(words: probes.Labelled, x: torch.Tensor, judged: np.ndarray) -> list[dict[str, float]]:
    """How well probes of the judged words do after LEACE that was fitted to ever more of the others."""
    target, rest = words.target(), words.subset(judged)
    assert isinstance(target, probes.Classes) and rest.groups is not None
    judge = Judge.of(probes.Refit(penalty=PENALTY), rest)
    rows = np.random.default_rng(SEED).permutation(np.flatnonzero(~judged))
    found = []
    for share in SHARES:
        part = np.sort(rows[: round(share * len(rows))])
        eraser = probes.fit_eraser("leace", x[part], target.labels[part], site=SITE)
        scores = judge.scores(eraser(x[judged])[None])[0]
        low, high = mean_interval(scores, [rest.groups[row] for row in judge.judged.tolist()], seed=SEED)
        found.append(
            {"rows": len(part), "score": float(scores.mean()), "low": float(low), "high": float(high)}
        )
    return found


def own_rows(x: torch.Tensor, y: torch.Tensor) -> float:
    """Nats per row by which the best probe of erased rows beats a constant on these rows themselves."""
    (fit,) = probes.fit_many("logistic", x, [probes.Problem(y.numpy(), np.arange(len(y)), PENALTY)])
    assert fit.coef is not None and fit.intercept is not None
    logits = x.double() @ torch.from_numpy(fit.coef[0]) + float(fit.intercept[0])
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    share = y.double().mean()
    constant = loss(torch.logit(share).expand(len(y)), y.double())
    return float(constant - loss(logits, y.double()))


def steering(
    words: probes.Labelled, store: probes.Activations, judged: np.ndarray, progress: Progress
) -> dict[str, Any]:
    """Dose–response of two probes' directions and of a random one."""
    target = words.target()
    assert isinstance(target, probes.Classes)
    x, y = store.take(SITE), np.array(target.labels)
    rows = np.flatnonzero(~judged)
    directions: dict[str, torch.Tensor] = {}
    for kind, penalty in (("logistic", PENALTY), ("mass-mean", None)):
        (fit,) = probes.fit_many(kind, x, [probes.Problem(y, rows, penalty)])
        assert fit.coef is not None
        directions[kind] = torch.from_numpy(np.array(fit.coef[0]))
    generator = torch.Generator().manual_seed(SEED)
    directions["random"] = torch.randn(x.shape[1], generator=generator, dtype=torch.float64)
    measure = probes.LogitDifference.of(model(), list(GOOD), list(BAD))
    found: dict[str, Any] = {"prompts": list(STARTS), "good": list(GOOD), "bad": list(BAD)}
    size = float((x[rows].double() @ (directions["mass-mean"] / directions["mass-mean"].norm())).std())
    for name, direction in directions.items():
        dose = probes.steer(
            model(), list(STARTS), direction, SITE, DOSES, measure, sd=size, seed=SEED, progress=progress
        )
        found[name] = {
            "doses": dose.doses, "mean": dose.mean.tolist(), "interval": dose.interval.T.tolist(),
            "loss": None if dose.loss is None else dose.loss.tolist(), "sd": dose.sd, "spearman": dose.spearman,
            "monotone": None if dose.monotone is None else asdict(dose.monotone),
        }  # fmt: skip
    return found
