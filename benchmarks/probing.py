"""What it costs to fit probes, in multiples of scikit-learn's time in its best setting.

1. Activations of SmolLM2 at the last token of 5,000 statements about cities, true and false, harvested once to the
   user's cache. Labels: whether a statement is true; targets: latitude and longitude of its city.
2. scikit-learn is given features that are standardised already, in the precision it is quicker in. Its best setting is
   the quickest of those whose objectives end within `MATCHED` nats per row of the minimum, which ours are asked for as
   well; next to it, its defaults (`LogisticRegressionCV` for the search). The minimum is found by Newton's method in
   float64.
3. One thread, CPU time, our fit between two of theirs, at each of a few layers.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from benchmarks.measuring import Ratio, Row, ratios, seconds
from lens.progress import Progress, silent

TITLE = "Fitting probes"
UNIT = "× as fast as scikit-learn"
ABOUT = (
    "SmolLM2's residual stream (576 features) at the last token of 5,000 statements about cities; each of its thirty "
    "layers (`--all-layers`; without it, three) timed and summed. The label is whether the statement is true, the "
    "targets of the ridge regression are the city's latitude and longitude. scikit-learn runs with one BLAS thread on "
    "features that are standardised already; ours are not. Best setting: the quickest solver, precision and tolerance "
    "whose objectives end within 1e-5 nats per row of the minimum, as ours are asked to; there a search over C is a "
    "loop of warm starts per fold, which is quicker than `LogisticRegressionCV`, the default. Ridge regression's goal "
    "is measured against `RidgeCV` as it comes; the quickest of its settings stands beside it."
)
GOALS = {
    "one logistic": 1,
    "10 C × 5 folds, refit": 8,
    "ridge, 20 λ, 2 targets": 12,
    "32 permutations": 9,
}
N, LAYERS, HEADS = 5000, (5, 14, 24), 9
CS = tuple(float(c) for c in np.logspace(-4, 4, 10))
ALPHAS = tuple(float(a) for a in np.logspace(-2, 6, 20))
MATCHED = 1e-5
SETTINGS = [
    {"solver": solver, "tol": tol}
    for solver in ("lbfgs", "newton-cholesky", "newton-cg")
    for tol in (1e-4, 1e-5, 1e-6)
]


@cache
def data() -> tuple[Any, np.ndarray, np.ndarray]:
    """The store of activations, labels [n] and coordinates [n, 2]."""
    import platformdirs

    from benchmarks.models import smollm2
    from probes.activations import Activations
    from probes.dataset import load_dataset
    from probes.geonames import known_cities
    from probes.harvest import harvest
    from probes.labelled import Classes

    options = {"population": 50_000, "per_country": 40}
    statements = load_dataset("truth", n=N, **options)
    where = {city.name: (city.latitude, city.longitude) for city in known_cities(**options)}
    folder = platformdirs.user_cache_path("lens-workbench") / "benchmarks" / "probing"
    try:
        store = Activations.open(folder, verify=False)
    except (OSError, ValueError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        store = harvest(smollm2(), statements, ["resid_post", "z"], dtype="float16", out=folder)
    labels = statements.target()
    assert isinstance(labels, Classes)
    targets = np.array([where[city] for city in statements.columns["city"]])
    return store, np.array(labels.labels), targets


def features(site: str) -> tuple[Any, np.ndarray]:
    """Activations as they are [n, d], and standardised for scikit-learn."""
    x = data()[0].take(site).float()
    deviation = x.std(0, correction=0)
    return x, ((x - x.mean(0)) / deviation.clamp(min=1e-12)).numpy()


def excess(x: Any, y: np.ndarray, rows: np.ndarray, C: float, coef: np.ndarray, intercept: float) -> float:
    """How far weights of standardised features are above the least objective, in nats per row."""
    import torch

    from probes.solvers.design import Design
    from probes.solvers.logistic import Question, columns_of
    from probes.solvers.newton import newton

    design = Design(x)
    one = columns_of(design, [Question(torch.from_numpy(y), torch.from_numpy(rows), 2, C)]).to(torch.float64)
    w = torch.zeros(1, 1, design.width, dtype=torch.float64)
    w[0, 0, : design.r], w[0, 0, design.r] = torch.from_numpy(coef.astype(float)), float(intercept)
    a = design.block(slice(0, design.n))
    start = one.objective(w, w @ a.T)
    least, _, _ = newton(design, one, w, 1e-10 * float(start))
    return float(start - one.objective(least, least @ a.T)) / int(rows.sum())


def folds() -> list[np.ndarray]:
    """Fitted rows of five folds, as masks."""
    order = np.random.default_rng(0).permutation(N)
    return [~np.isin(np.arange(N), part) for part in np.array_split(order, 5)]


def permutations(y: np.ndarray, n: int = 32) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.permutation(y) for _ in range(n)]


def fit_theirs(z: np.ndarray, y: np.ndarray, setting: dict[str, Any], C: float = 1.0) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, max_iter=5000, **setting).fit(z, y)


def search_theirs(z: np.ndarray, y: np.ndarray, setting: dict[str, Any]) -> dict[tuple[int, float], Any]:
    """Every C on every fold, from small C to large, each from the last one's weights; then the best on all rows."""
    from sklearn.linear_model import LogisticRegression

    found: dict[tuple[int, float], Any] = {}
    score = np.zeros(len(CS))
    for f, rows in enumerate(folds()):
        model = LogisticRegression(max_iter=5000, warm_start=True, **setting)
        for c, C in enumerate(CS):
            model.set_params(C=C).fit(z[rows], y[rows])
            found[f, C] = (np.array(model.coef_)[0], np.array(model.intercept_)[0])
            score[c] += model.score(z[~rows], y[~rows])
    fit_theirs(z, y, setting, CS[int(score.argmax())])
    return found


def search_default(z: np.ndarray, y: np.ndarray) -> Any:
    """The search as scikit-learn offers it."""
    from sklearn.linear_model import LogisticRegressionCV

    kinds: Any = {"Cs": list(CS), "cv": 5, "max_iter": 5000}
    return LogisticRegressionCV(**kinds).fit(z, y)


def ours(x: Any, problems: list[Any]) -> Any:
    from probes.batched import fit_many

    return fit_many("logistic", x, problems, options={"tol": MATCHED})


def search_ours(x: Any, y: np.ndarray) -> Any:
    from probes.batched import Problem

    fits = ours(x, [Problem(y, rows, C) for rows in folds() for C in CS])
    score = np.zeros(len(CS))
    for i in range(len(fits)):
        left, decision = fits.left_out(i)
        score[i % len(CS)] += (fits.told(i, decision) == y[left]).mean()
    ours(x, [Problem(y, None, CS[int(score.argmax())])])
    return fits


def best_setting(x: Any, z: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """The quickest setting that ends near enough the minimum."""
    found: list[tuple[float, float, dict[str, Any]]] = []
    every = np.ones(N, dtype=bool)
    for setting in SETTINGS:
        start = time.process_time()
        model = fit_theirs(z, y, setting)
        spent = time.process_time() - start
        found.append((spent, excess(x, y, every, 1.0, model.coef_[0], model.intercept_[0]), setting))
    enough = [one for one in found if one[1] <= MATCHED] or [min(found, key=lambda one: one[1])]
    return min(enough, key=lambda one: one[0])[2]


def best_search(z: np.ndarray, y: np.ndarray, one: dict[str, Any]) -> dict[str, Any]:
    """The setting with which a search is quicker: that of a single fit, or Newton's method."""
    settings = [one, {"solver": "newton-cholesky", "tol": 1e-4}]
    return min(settings, key=lambda setting: seconds(lambda: search_theirs(z, y, setting)))


def measure(*, quick: bool = False, progress: Progress = silent, all_layers: bool = False) -> list[Row]:
    """Ratios of CPU time over the layers, how near the minimum both end, and peak memory."""
    from threadpoolctl import threadpool_limits

    layers = tuple(range(30)) if all_layers else LAYERS[:1] if quick else LAYERS
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = _logistic(layers, quick, progress)
        rows += _ridge(layers, progress)
        rows += _heads(range(0, 30, 10) if quick else range(30), progress)
    if not quick:
        for case in ("array API: one logistic", "array API: ridge, 20 λ, 2 targets", *MEMORY):
            progress(0, 1, case)
            value = _child(case)
            unit = "MB above the data" if case in MEMORY else UNIT
            if value is not None:
                rows.append(Row("probing", "", case, value, unit))
    return rows


def _row(name: str, setting: str, found: list[Ratio], goal: float | None = None) -> Row:
    """Medians over rounds, averaged over layers (harmonically, as times would be)."""
    values = [ratio.median for ratio in found]
    mean, best, worst = (1 / value for value in (float(np.mean(values)), min(values), max(values)))
    return Row("probing", setting, name, mean, UNIT, goal, worst, best, at_least=True)


def compare(theirs: Callable[[], object], mine: Callable[[], object], rounds: int) -> Ratio:
    return ratios(theirs, {"ours": mine}, rounds, times=1)["ours"]


def _once(theirs: Callable[[], object], mine: Callable[[], object]) -> Ratio:
    """Theirs between two of ours, where theirs takes many seconds."""
    before = seconds(mine)
    spent = seconds(theirs)
    return Ratio((before / spent, seconds(mine) / spent))


def _logistic(layers: Sequence[int], quick: bool, progress: Progress) -> list[Row]:
    _, y, _ = data()
    found: dict[tuple[str, str], list[Ratio]] = {}
    above: dict[str, list[float]] = {}
    settings: dict[str, Any] = {}
    for i, layer in enumerate(layers):
        progress(i, len(layers), f"layer {layer}")
        x, z = features(f"blocks.{layer}.hook_resid_post")
        if not settings:
            settings = {"one": best_setting(x, z, y), "permuted": best_setting(x, z, permutations(y)[0])}
            settings["search"] = best_search(z, y, settings["one"])
        for label, chosen in (("best", settings), ("default", {"one": {}, "permuted": {}, "search": {}})):
            for name, ratio in _three(x, z, y, chosen).items():
                found.setdefault((name, label), []).append(ratio)
        if not quick:
            _excesses(above, x, z, y, settings)
    rows = []
    for (name, label), each in found.items():
        key = {"32 permutations": "permuted", "10 C × 5 folds, refit": "search"}.get(name, "one")
        told = _told(settings[key]) if label == "best" else "its defaults"
        rows.append(_row(name, told, each, GOALS[name] if label == "best" else None))
    rows += [Row("probing", "largest excess", name, max(v), "nats per row") for name, v in above.items()]
    return rows


def _three(x: Any, z: np.ndarray, y: np.ndarray, settings: dict[str, Any]) -> dict[str, Ratio]:
    """One fit, a search, permutations: our time over theirs."""
    from probes.problem import Problem

    shuffled, one, permuted = permutations(y), settings["one"], settings["permuted"]
    search = settings["search"]
    theirs = (lambda: search_theirs(z, y, search)) if search else (lambda: search_default(z, y))
    return {
        "one logistic": compare(lambda: fit_theirs(z, y, one), lambda: ours(x, [Problem(y)]), 5),
        "10 C × 5 folds, refit": _once(theirs, lambda: search_ours(x, y)),
        "32 permutations": _once(
            lambda: [fit_theirs(z, p, permuted) for p in shuffled],
            lambda: ours(x, [Problem(p) for p in shuffled]),
        ),
    }


def _told(setting: dict[str, Any]) -> str:
    return f"{setting['solver']}, float32, tol {setting['tol']:g}"


def _excesses(
    above: dict[str, list[float]], x: Any, z: np.ndarray, y: np.ndarray, settings: dict[str, Any]
) -> None:
    """How far both end above the minimum: the single fit, a permutation, one fold at every third C."""
    from probes.problem import Problem

    every, shuffled = np.ones(N, dtype=bool), permutations(y)
    deviation, middle = x.double().std(0, correction=0).numpy(), x.double().mean(0).numpy()

    def mine(problem: Problem, C: float = 1.0) -> float:
        fit = ours(x, [problem])[0]
        rows = every if problem.rows is None else problem.rows
        return excess(
            x, problem.y, rows, C, fit.coef[0] * deviation, float(fit.intercept[0] + fit.coef[0] @ middle)
        )

    def add(name: str, value: float) -> None:
        above.setdefault(name, []).append(value)

    add("one logistic: ours", mine(Problem(y)))
    for name, setting in (("best", settings["one"]), ("defaults", {})):
        model = fit_theirs(z, y, setting)
        add(
            f"one logistic: scikit-learn, {name}",
            excess(x, y, every, 1.0, model.coef_[0], model.intercept_[0]),
        )
    add("32 permutations: ours", mine(Problem(shuffled[0])))
    model = fit_theirs(z, shuffled[0], settings["permuted"])
    add(
        "32 permutations: scikit-learn, best",
        excess(x, shuffled[0], every, 1.0, model.coef_[0], model.intercept_[0]),
    )
    theirs, rows = search_theirs(z, y, settings["search"]), folds()[0]
    for C in CS[::3]:
        add("10 C × 5 folds: ours", mine(Problem(y, rows, C), C))
        add("10 C × 5 folds: scikit-learn, best", excess(x, y, rows, C, *theirs[0, C]))


def _ridge(layers: Sequence[int], progress: Progress) -> list[Row]:
    from sklearn.linear_model import RidgeCV

    from probes.batched import Problem, fit_many

    _, _, targets = data()
    candidates = {(mode, dtype): [] for mode in ("svd", "eigen", "auto") for dtype in ("float64", "float32")}
    found: dict[str, list[Ratio]] = {"best": [], "defaults": []}
    best = ("svd", "float64")
    for i, layer in enumerate(layers):
        progress(i, len(layers), f"ridge, layer {layer}")
        x, z = features(f"blocks.{layer}.hook_resid_post")

        def theirs(mode: str, dtype: str, z: np.ndarray = z) -> Any:
            return RidgeCV(ALPHAS, gcv_mode=mode).fit(z.astype(dtype), targets.astype(dtype))

        def mine(x: Any = x) -> Any:
            return fit_many("ridge", x, [Problem(targets)], options={"alphas": ALPHAS})

        if i == 0:
            chosen = mine()[0].penalty
            spent = {key: seconds(lambda key=key: theirs(*key)) for key in candidates}
            right = [key for key in candidates if np.isclose(float(theirs(*key).alpha_), chosen)]
            best = min(right or candidates, key=lambda key: spent[key])
        found["best"].append(compare(functools.partial(theirs, *best), mine, 3))
        found["defaults"].append(compare(lambda: theirs("auto", "float64"), mine, 1))
    name = "ridge, 20 λ, 2 targets"
    return [
        _row(name, "its defaults", found["defaults"], GOALS[name]),
        _row(name, f"{best[0]}, {best[1]}", found["best"]),
    ]


def _heads(layers: Sequence[int], progress: Progress) -> list[Row]:
    """A single probe on the 64 values of each head."""
    from probes.batched import Problem

    _, y, _ = data()
    found, setting = [], {"solver": "lbfgs", "tol": 1e-5}
    for layer in layers:
        progress(layer, 30, "heads")
        x, z = features(f"blocks.{layer}.attn.hook_z")
        parts = [slice(64 * h, 64 * (h + 1)) for h in range(HEADS)]
        xs, zs = [x[:, p].contiguous() for p in parts], [np.ascontiguousarray(z[:, p]) for p in parts]
        found.append(
            compare(
                lambda zs=zs: [fit_theirs(one, y, setting) for one in zs],
                lambda xs=xs: [ours(one, [Problem(y)]) for one in xs],
                1,
            )
        )
    return [_row(f"one logistic for each of {HEADS * len(found)} heads", _told(setting), found)]


MEMORY = (
    "peak memory: 10 C × 5 folds, refit",
    "peak memory: ridge, 20 λ, 2 targets",
    "peak memory: 32 permutations",
)


def _child(case: str) -> float | None:
    """A figure from a process of its own; None where scikit-learn does not take tensors there."""
    command = [sys.executable, "-m", "benchmarks.probing_alone", case]
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise ValueError(f"measuring {case!r} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)
