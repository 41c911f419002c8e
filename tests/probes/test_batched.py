"""Many problems over one site: each is what it would be alone, and left-out rows are scored as they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.batched import fit_many
from probes.estimator import estimators, get_estimator
from probes.finite import check_finite
from probes.problem import Problem
from tests.probes.cases import features, labels, standardised

LINEAR = ["logistic", "mass-mean", "lda", "nearest-centroid", "k-sparse"]


def problems(x: np.ndarray, classes: int = 2) -> list[Problem]:
    rng = np.random.default_rng(0)
    masks = [rng.random(len(x)) < 0.8 for _ in range(2)]
    return [Problem(labels("well", x, classes, seed=s), mask) for s in range(2) for mask in masks]


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("classes", [2, 3])
def test_left_out_rows_are_scored_by_the_fit_without_them(name: str, classes: int) -> None:
    x = torch.from_numpy(features("well"))
    fits = fit_many(name, x, problems(x.numpy(), classes))
    assert len(fits) == 4 and not fits.warnings
    for i, problem in enumerate(fits.problems):
        rows, decision = fits.left_out(i)
        assert (rows == np.flatnonzero(~np.asarray(problem.rows))).all()
        np.testing.assert_allclose(decision, fits.decision(i, x[rows]), rtol=1e-4, atol=1e-4)
        assert (fits.told(i, decision) == fits.predict(i, x[rows])).mean() > 0.97
        assert fits[i].coef is not None and fits[i].coef.shape == (1 if classes == 2 else classes, 24)


@pytest.mark.parametrize("name", ["logistic", "ridge", "mass-mean", "lda"])
def test_batched_kinds_agree_with_their_estimators(name: str) -> None:
    """On all rows standardisation is the same, so the probe must be."""
    x = features("well")
    y: Any = labels("well", x) if name != "ridge" else standardised(x)[:, :2] + 1.0
    fits = fit_many(
        name, torch.from_numpy(x), [Problem(y)], options={"tol": 1e-10} if name == "logistic" else {}
    )
    alone = get_estimator(name).new().fit(x, y)
    np.testing.assert_allclose(fits[0].coef, alone.coef_, rtol=1e-4, atol=1e-7 * np.abs(alone.coef_).max())
    np.testing.assert_allclose(fits[0].intercept, alone.intercept_, rtol=1e-4, atol=1e-6)


def test_ridge_values_and_their_left_out_rows() -> None:
    x = features("well")
    y = standardised(x)[:, :2] * 3 + 1
    mask = np.arange(len(x)) % 5 > 0
    fits = fit_many("ridge", torch.from_numpy(x), [Problem(y, mask), Problem(y[:, 0], mask, 10.0)])
    rows, values = fits.left_out(0)
    assert values.shape == (48, 2) and fits[0].penalty == 0.01 and fits[1].penalty == 10.0
    np.testing.assert_allclose(values, y[rows], atol=0.01)
    assert fits.predict(1, torch.from_numpy(x)).shape == (240, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_activations_of_any_precision(dtype: torch.dtype) -> None:
    x = torch.from_numpy(standardised(features("well"))).to(dtype)
    fits = fit_many("logistic", x, problems(x.double().numpy()))
    assert all(fit.converged for fit in fits) and np.isfinite(fits.left_out(0)[1]).all()


def test_what_did_not_converge_is_listed() -> None:
    x = features("separable")
    two = [Problem(labels("separable", x), None, C) for C in (1e-5, 1e4)]
    fits = fit_many("logistic", torch.from_numpy(x), two, options={"max_iter": 4})
    assert fits[0].converged and not fits[1].converged
    assert fits.warnings == ("problem 1 did not converge in 4 steps",)


def test_bad_input_is_one_line() -> None:
    x = torch.from_numpy(features("well"))
    y = labels("well", x.numpy())
    for value, what in ((torch.nan, "NaN"), (torch.inf, "an infinity")):
        broken = x.clone()
        broken[17, 3] = value
        for name in ("logistic", "ridge", "nearest-centroid"):
            with pytest.raises(ValueError, match=f"^row 17 of the activations has {what}$"):
                fit_many(name, broken, [Problem(y)])
    with pytest.raises(ValueError, match="every fitted row of problem 1 has the class 0"):
        fit_many("logistic", x, [Problem(y), Problem(y, y == 0)])
    with pytest.raises(ValueError, match="y of problem 0 has 3 rows and the activations 240"):
        fit_many("lda", x, [Problem(y[:3])])
    with pytest.raises(ValueError, match="row 240 is outside the 240 rows"):
        fit_many("lda", x, [Problem(y, np.array([0, 240]))])
    with pytest.raises(ValueError, match=r"the mask of rows is \[3\], and there are 240 rows"):
        fit_many("lda", x, [Problem(y, np.ones(3, dtype=bool))])
    with pytest.raises(ValueError, match="C is -1.0; it must be positive"):  # noqa: RUF043
        fit_many("logistic", x, [Problem(y, None, -1.0)])
    large = torch.full((4, 2), 6e4, dtype=torch.float16)
    check_finite(large)  # its sum overflows, it does not


def test_classes_keep_their_numbers() -> None:
    """Problems may have some of the classes only; predictions are elements of y."""
    x = features("well")
    y = labels("well", x, 4)
    fits = fit_many("logistic", torch.from_numpy(x), [Problem(y, y != 1), Problem(y, (y == 1) | (y == 3))])
    assert fits[0].classes is not None and fits[0].classes.tolist() == [0, 2, 3]
    assert set(fits.predict(1, torch.from_numpy(x))) <= {1, 3}
    assert fits.left_out(1)[1].ndim == 1 and fits.left_out(0)[1].shape[1] == 3


def test_pairs_heads_and_sequences_reach_their_estimators() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(40, 6)))
    y = np.arange(40) % 2
    pairs = np.stack([np.arange(20), np.arange(20, 40)], 1)
    half = np.isin(np.arange(40), np.r_[5:20, 25:40])
    fits = fit_many("ccs", x, [Problem(y, half, pairs=pairs)], options={"steps": 5})
    assert fits[0].coef is not None and fits.left_out(0)[1].shape == (10,)
    heads = np.where(np.arange(40) % 4 == 0, -1, np.arange(40) - 1)
    fits = fit_many(
        "structural-distance", x, [Problem(heads, np.arange(40) >= 8)], options={"rank": 3, "epochs": 1}
    )
    assert fits.left_out(0)[1].shape == (8, 3)
    with pytest.raises(ValueError, match="a row is fitted and its head is not"):
        fit_many(
            "structural-depth", x, [Problem(heads, np.arange(40) >= 6)], options={"rank": 3, "epochs": 1}
        )
    texts, mask = x.reshape(10, 4, 6), torch.ones(10, 4, dtype=torch.bool)
    fits = fit_many("attention-pooling", texts, [Problem(y[:10], np.arange(10) < 6)], mask=mask)
    assert fits.left_out(0)[1].shape == (4,)


@pytest.mark.parametrize("name", [n for n in estimators() if get_estimator(n).many is not None])
def test_progress_is_told(name: str) -> None:
    seen = []
    x = features("well")
    y: Any = labels("well", x)
    fit_many(
        name, torch.from_numpy(x), [Problem(y), Problem(1 - y)], progress=lambda *told: seen.append(told)
    )
    assert seen[-1][:2] == (2, 2) and name in seen[-1][2]


def test_an_unknown_option_is_named() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    problem = Problem(np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"'max_iters' is not a.* option of logistic probes.*max_iter"):
        fit_many("logistic", x, [problem], options={"max_iters": 5})
