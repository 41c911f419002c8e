"""Batched solvers beside scikit-learn, naive definitions, and Newton's method in float64 as the judge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import StratifiedKFold

from probes.solvers import discriminant, logistic, metric, newton, ridge
from probes.solvers.columns import Columns
from probes.solvers.design import Design
from tests.probes.cases import NAMES, features, labels, standardised

GRID = tuple(float(10.0**e) for e in range(-4, 4))


def objective(z: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: np.ndarray, C: float) -> float:
    """Σ −log p + |w|² / 2C, from the definition."""
    scores = z @ coef.T + intercept
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], 1)
    log_p = scores - np.logaddexp.reduce(scores, 1, keepdims=True)
    return float(-log_p[np.arange(len(y)), y].sum() + 0.5 / C * (coef**2).sum())


def judge(z: np.ndarray, y: np.ndarray, C: float) -> float:
    """The least objective of a binary problem, by plain Newton steps with halving, in float64."""
    a = np.concatenate([z, np.ones((len(z), 1))], 1)
    ridge = np.r_[np.full(z.shape[1], 1 / C), 0.0]
    w = np.zeros(a.shape[1])
    value = np.inf
    for _ in range(200):
        p = 1 / (1 + np.exp(-np.clip(a @ w, -700, 700)))
        gradient = a.T @ (p - y) + ridge * w
        hessian = a.T @ (a * (p * (1 - p))[:, None]) + np.diag(ridge + 1e-13)
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step < 1e-18:
            break
        t = 1.0
        value = objective(z, y, w[None, :-1], w[-1:], C)
        while objective(z, y, (w - t * step)[None, :-1], (w - t * step)[-1:], C) > value and t > 1e-9:
            t /= 2
        w = w - t * step
    return objective(z, y, w[None, :-1], w[-1:], C)


def solved(
    x: np.ndarray, questions: list[logistic.Question], tol: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Coefficients and intercepts for standardised features."""
    design = Design(torch.from_numpy(x))
    found = []
    for answer in logistic.solve(design, questions, tol):
        assert answer.excess <= tol
        coef, intercept = design.unpack(answer.weights)
        middle = coef @ x.mean(0)
        found.append((coef * np.where(x.std(0) > 0, x.std(0), 0.0), intercept + middle))
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logistic_reaches_the_minimum_that_newton_finds(name: str, dtype: str) -> None:
    x = features(name).astype(dtype)
    y = labels(name, x)
    z = standardised(x.astype(float))
    questions = [logistic.Question(torch.from_numpy(y), None, 2, C) for C in GRID]
    for (coef, intercept), C in zip(solved(x, questions, 1e-6), GRID, strict=True):
        excess = (objective(z, y, coef, intercept, C) - judge(z, y, C)) / len(y)
        assert -1e-9 < excess < 1e-5, C


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_has_scikit_learns_coefficients(name: str, classes: int) -> None:
    """Strictly convex in the weights, so there is one answer: within 1e-4 of the largest."""
    x = features(name)
    y, z = labels(name, x, classes), standardised(x)
    penalties = (0.01, 1.0, 100.0)
    questions = [logistic.Question(torch.from_numpy(y), None, classes, C) for C in penalties]
    for (coef, intercept), C in zip(solved(x, questions, 1e-12), penalties, strict=True):
        solver = "newton-cholesky" if classes == 2 else "lbfgs"
        theirs = LogisticRegression(C=C, solver=solver, tol=1e-12, max_iter=100_000).fit(z, y)
        np.testing.assert_allclose(coef, theirs.coef_, atol=1e-4 * np.abs(theirs.coef_).max())
        shift = theirs.intercept_ - intercept
        assert np.abs(shift - shift.mean() * (classes > 2)).max() < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_same_C_is_chosen_over_the_same_folds(name: str) -> None:
    x = features(name)
    y, z = labels(name, x), standardised(x)
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(x, y))
    masks = [
        torch.zeros(len(y), dtype=torch.bool).index_fill(0, torch.from_numpy(fit), True) for fit, _ in folds
    ]
    questions = [logistic.Question(torch.from_numpy(y), mask, 2, C) for C in GRID for mask in masks]
    ours = np.zeros((len(GRID), len(folds)))
    theirs = np.zeros_like(ours)
    for i, (coef, intercept) in enumerate(solved(x, questions, 1e-9)):
        c, f = divmod(i, len(folds))
        fit, left = folds[f]
        ours[c, f] = ((z[left] @ coef[0] + intercept[0] > 0) == y[left]).mean()
        model = LogisticRegression(C=GRID[c], solver="newton-cholesky", tol=1e-10).fit(z[fit], y[fit])
        theirs[c, f] = model.score(z[left], y[left])
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert ours.mean(1).argmax() == theirs.mean(1).argmax()


def test_rows_that_are_not_fitted_do_not_matter() -> None:
    """One chunk of labels × folds × C gives what each gives alone on its rows."""
    x = features("well")
    rng = np.random.default_rng(0)
    y = [labels("well", x, seed=s) for s in range(3)]
    masks = [torch.from_numpy(rng.random(len(x)) < 0.7) for _ in range(2)]
    together = [
        logistic.Question(torch.from_numpy(one), mask, 2, C, chain)
        for chain, one in enumerate(y) for mask in masks for C in (0.1, 10.0)
    ]  # fmt: skip
    design = Design(torch.from_numpy(x))
    answers = logistic.solve(design, together, 1e-11)
    for question, answer in zip(together, answers, strict=True):
        assert question.fitted is not None
        broken = question.label.clone()
        broken[~question.fitted] = 1 - broken[~question.fitted]
        other = logistic.Question(broken, question.fitted, 2, question.C)
        (alone,) = logistic.solve(design, [other], 1e-11)
        torch.testing.assert_close(answer.weights, alone.weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["well", "separable", "unbalanced"])
def test_folds_end_near_their_minimum_in_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a tolerance for which nothing is finished in float64: each fold's objective, from its definition."""
    monkeypatch.delattr(logistic, "newton")
    x = features(name)
    y, z = labels(name, x), standardised(x)
    masks = [torch.arange(len(y)) % 3 != f for f in range(3)]
    asked = [(mask, C) for mask in masks for C in (0.01, 1.0, 100.0)]
    found = solved(x, [logistic.Question(torch.from_numpy(y), mask, 2, C) for mask, C in asked], 1e-6)
    for (coef, intercept), (mask, C) in zip(found, asked, strict=True):
        rows = mask.numpy()
        above = objective(z[rows], y[rows], coef, intercept, C) - judge(z[rows], y[rows], C)
        assert -1e-6 < above / rows.sum() < 1e-5


@pytest.mark.parametrize("classes", [2, 3])
def test_the_objective_is_its_definition(classes: int) -> None:
    x = features("well")
    y, design = labels("well", x, classes), Design(torch.from_numpy(x))
    columns = logistic.columns_of(design, [logistic.Question(torch.from_numpy(y), None, classes, 0.2)])
    w = torch.randn(1, columns.k, design.width, dtype=torch.float64)
    w[:, :, design.r + 1 :] = 0
    found = columns.to(torch.float64).objective(w, w @ design.block(slice(0, design.n)).T)
    expected = objective(standardised(x), y, w[0, :, :24].numpy(), w[0, :, 24].numpy(), 0.2)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_conjugate_gradients_and_cholesky_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features("well")
    for classes in (2, 3):
        y = torch.from_numpy(labels("well", x, classes))
        found = []
        for dense in (10_000, 0):
            monkeypatch.setattr(newton, "DENSE", dense)
            question = logistic.Question(y, None, classes, 3.0)
            found += logistic.solve(Design(torch.from_numpy(x)), [question], 1e-14)
        torch.testing.assert_close(found[0].weights[:, :24], found[1].weights[:, :24], rtol=1e-5, atol=1e-7)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features("separable")
    y = torch.from_numpy(labels("separable", x))
    questions = [logistic.Question(y, None, 2, C) for C in (1000.0, 0.1, 10.0)]
    design = Design(torch.from_numpy(x))
    whole = logistic.solve(design, questions, 1e-10)
    monkeypatch.setattr(logistic, "ELEMENTS", 1)
    parts = logistic.solve(design, questions, 1e-10)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a.weights, b.weights, rtol=1e-3, atol=1e-4)


def test_the_line_search_finds_the_lowest_point() -> None:
    torch.manual_seed(0)
    for k in (1, 3):
        y = torch.nn.functional.one_hot(torch.randint(0, 3, (2, 50)), 3).transpose(1, 2)[:, :k].double()
        columns = Columns(y, torch.ones(2, 1, 50).double(), torch.full((2, 1, 5), 0.1).double())
        a = torch.randn(50, 5).double() * 4
        w, d = torch.randn(2, k, 5).double(), torch.randn(2, k, 5).double()
        z = w @ a.T
        downhill = (columns.gradient(a, w, z) * d).sum((1, 2), keepdim=True)
        d = -d * downhill.sign()
        zd = d @ a.T
        t = columns.line(w, z, d, zd, rounds=60)[:, None, None]
        slope = (columns.gradient(a, w + t * d, z + t * zd) * d).sum((1, 2))
        assert (slope.abs() < 0.05 * downhill.flatten().abs()).all()
        assert (columns.objective(w + t * d, z + t * zd) < columns.objective(w, z)).all()


def test_own_metric_is_the_inverse_of_the_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "KEPT", 1.0)
    x = features("well")
    design = Design(torch.from_numpy(x))
    columns = logistic.columns_of(
        design, [logistic.Question(torch.from_numpy(labels("well", x)), None, 2, 1.0)]
    )
    w = torch.randn(1, 1, design.width) * 0.1
    z = w @ design.features.T
    step = metric.OwnMetric.of(design, columns, z, torch.zeros(1))(g := torch.randn(1, 1, design.width))
    p = torch.sigmoid(z)[0, 0].double()
    a = design.features.double()
    hessian = a.T @ (a * (p * (1 - p))[:, None]) + columns.penalty[0, 0].double().diag()
    torch.testing.assert_close(
        step[0, 0].double(), torch.linalg.solve(hessian, g[0, 0].double()), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_ridge_chooses_and_fits_as_scikit_learn(name: str) -> None:
    x = features(name)
    z = standardised(x)
    rng = np.random.default_rng(2)
    y = z[:, :3] @ rng.normal(size=(3, 2)) + rng.normal(size=(len(z), 2)) + 5
    alphas = tuple(float(a) for a in np.logspace(-3, 5, 17))
    design = Design(torch.from_numpy(x))
    for per_target in (False, True):
        question = ridge.Question(torch.from_numpy(y), None, alphas, per_target)
        (answer,) = ridge.solve(design, [question])
        theirs = RidgeCV(alphas, alpha_per_target=per_target).fit(z, y)
        np.testing.assert_allclose(answer.alpha.numpy(), np.broadcast_to(theirs.alpha_, 2))
        coef, _ = design.unpack(answer.weights)
        standard = coef * x.std(0) * (np.abs(z).max(0) > 0)
        np.testing.assert_allclose(standard, theirs.coef_, atol=1e-4 * np.abs(theirs.coef_).max())


def test_leave_one_out_is_leaving_one_out() -> None:
    """Every row predicted by a fit to all others, features standardised over all."""
    x = features("well")[:40, :6]
    z = standardised(x)
    y = z[:, :1] + np.random.default_rng(0).normal(size=(40, 1))
    alphas = (0.01, 1.0, 100.0)
    fitted = torch.arange(40) < 30
    for rows, mask in ((np.arange(40), None), (np.arange(30), fitted)):
        naive = np.zeros(3)
        for i, alpha in enumerate(alphas):
            for row in rows:
                others = rows[rows != row]
                model = Ridge(alpha).fit(z[others], y[others])
                naive[i] += ((model.predict(z[[row]])[0] - y[row, 0]) ** 2).sum() / len(rows)
        (answer,) = ridge.solve(
            Design(torch.from_numpy(x)), [ridge.Question(torch.from_numpy(y), mask, alphas)]
        )
        assert answer.left_out is not None
        np.testing.assert_allclose(answer.left_out[:, 0], naive, rtol=1e-6)


def test_ridge_survives_a_condition_of_1e16() -> None:
    """Against the augmented least squares problem, which never forms a Gram matrix."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3))
    x = np.concatenate([x, x + 1e-7 * rng.normal(size=x.shape)], 1)
    y = rng.normal(size=(100, 1))
    design = Design(torch.from_numpy(x))
    z = design.block(slice(0, 100))[:, :6].numpy()
    for alpha in (1e-6, 1e-3, 1.0):
        (answer,) = ridge.solve(design, [ridge.Question(torch.from_numpy(y), None, (alpha,))])
        stacked = np.concatenate([z, np.sqrt(alpha) * np.eye(6)])
        exact = np.linalg.lstsq(stacked, np.r_[y[:, 0] - y.mean(), np.zeros(6)])[0]
        np.testing.assert_allclose(answer.weights[0, :6], exact, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("shrinkage", ["auto", None, 0.3])
def test_discriminants_from_their_definition(shrinkage: str | float | None) -> None:
    x = features("ill" if shrinkage == "auto" else "well")
    y, z = labels("well", x, 3), standardised(x)
    means = np.stack([z[y == c].mean(0) for c in range(3)])
    share = np.bincount(y) / len(y)
    covariance = (z - means[y]).T @ (z - means[y]) / len(y)
    s = ledoit_wolf_shrinkage(z - means[y], assume_centered=True) if shrinkage == "auto" else shrinkage or 0
    covariance = (1 - s) * covariance + s * np.trace(covariance) / z.shape[1] * np.eye(z.shape[1])
    slope = np.linalg.solve(covariance, means.T).T
    design = Design(torch.from_numpy(x))
    question = discriminant.Question(torch.from_numpy(y), None, 3)
    (weights,) = discriminant.discriminants(design, [question], shrinkage)
    coef, intercept = design.unpack(weights)
    scores = z @ slope.T - 0.5 * (slope * means).sum(1) + np.log(share)
    np.testing.assert_allclose(x @ coef.T + intercept, scores, rtol=1e-6, atol=1e-6)


def test_the_dual_is_the_primal() -> None:
    """Where there are more features than rows, the same answers come from the rows' inner products."""
    x = features("wide")
    y, z = labels("wide", x), standardised(x)
    design = Design(torch.from_numpy(x))
    assert design.basis is not None and design.r == len(x) - 1
    np.testing.assert_allclose(design.block(slice(0, 60))[:, :59] @ design.basis.T, z, atol=1e-9)
    alphas = (0.1,)
    (answer,) = ridge.solve(
        design, [ridge.Question(torch.from_numpy(y[:, None].astype(float)), None, alphas)]
    )
    coef, _ = design.unpack(answer.weights)
    np.testing.assert_allclose(coef[0] * x.std(0), Ridge(0.1).fit(z, y).coef_, rtol=1e-6, atol=1e-9)
