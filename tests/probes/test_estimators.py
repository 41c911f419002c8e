"""Every estimator of the registry: scikit-learn's contract, parity where scikit-learn has the same, known answers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from probes.estimator import estimators, get_estimator
from probes.estimators.logistic import LogisticProbe
from probes.estimators.mass_mean import MassMeanProbe


def blobs(
    n: int, d: int, classes: int, *, seed: int = 0, apart: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes whose features have very different scales and offsets."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = generator.normal(size=(classes, d)) * apart
    x = centres[y] + generator.normal(size=(n, d))
    return x * generator.uniform(0.01, 100, d) + generator.normal(size=d) * 50, y


@pytest.mark.parametrize("name", estimators())
def test_contract_of_scikit_learn(name: str) -> None:
    """`check_estimator`, one check at a time, so that a failure names the check."""
    ran = 0
    for estimator, check in estimator_checks_generator(get_estimator(name).new()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check(estimator)
        except Exception as error:  # noqa: BLE001 - any failure of a check is told with its name
            if type(error).__name__ == "SkipTest":
                continue
            pytest.fail(f"{name}: {check.func.__name__}: {error!r}")
        ran += 1
    assert ran > 40


@pytest.mark.parametrize("name", estimators())
@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_linear_in_the_units_of_the_activations(name: str, classes: int) -> None:
    x, y = blobs(90, 6, classes)
    names = np.array(["ant", "bee", "cat"])[y]
    fitted: Any = get_estimator(name).new().fit(x, names)
    assert fitted.coef_.shape == ((1 if classes == 2 else classes), 6)
    scores = x @ fitted.coef_.T + fitted.intercept_
    np.testing.assert_allclose(np.squeeze(scores), fitted.decision_function(x), rtol=1e-9)
    index = scores[:, 0] > 0 if classes == 2 else scores.argmax(1)
    assert (fitted.classes_[index.astype(int)] == fitted.predict(x)).all()
    assert fitted.score(x, names) > 0.6


@pytest.mark.parametrize("name", estimators())
def test_planted_direction_is_recovered(name: str) -> None:
    """Isotropic noise around two means: both estimators must find the line between them."""
    generator = np.random.default_rng(0)
    direction = generator.normal(size=16)
    direction /= np.linalg.norm(direction)
    y = np.arange(4000) % 2
    x = generator.normal(size=(4000, 16)) + np.where(y == 1, 1.0, -1.0)[:, None] * direction + 5
    found = get_estimator(name).new().fit(x, y).coef_[0]
    assert found @ direction / np.linalg.norm(found) > 0.98


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(
    ("n", "d", "classes", "apart"),
    [(200, 8, 2, 0.5), (60, 100, 2, 0.5), (200, 8, 4, 0.5), (60, 100, 3, 0.5), (80, 3, 2, 20.0)],
    ids=["binary", "binary, n < d", "multinomial", "multinomial, n < d", "separable"],
)
def test_logistic_agrees_with_scikit_learn(n: int, d: int, classes: int, apart: float, C: float) -> None:
    x, y = blobs(n, d, classes, apart=apart)
    ours = LogisticProbe(C=C).fit(x, y)
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=C, tol=1e-9, max_iter=20_000).fit(scaler.transform(x), y)
    size = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.coef_ * scaler.scale_, theirs.coef_, atol=1e-3 * size, rtol=1e-3)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(scaler.transform(x)), atol=1e-4)


def test_logistic_gives_constant_features_no_weight() -> None:
    x, y = blobs(60, 4, 2)
    x[:, 1] = 0.1
    fitted = LogisticProbe().fit(x, y)
    assert abs(fitted.coef_[0, 1]) < 1e-9
    without = LogisticProbe().fit(np.delete(x, 1, axis=1), y)
    np.testing.assert_allclose(np.delete(fitted.coef_, 1, axis=1), without.coef_, rtol=1e-5)


def test_logistic_says_when_it_did_not_converge() -> None:
    x, y = blobs(100, 10, 2)
    with pytest.warns(ConvergenceWarning, match=r"after 2 steps with a gradient of .* above tol=1\.0e-07"):
        LogisticProbe(max_iter=2).fit(x, y)
    with pytest.raises(ValueError, match="C is 0; it must be positive"):
        LogisticProbe(C=0).fit(x, y)
    with pytest.raises(ValueError, match=r"tol is 1e-07 and max_iter 0; .* max_iter 1 or more"):
        LogisticProbe(max_iter=0).fit(x, y)


@pytest.mark.parametrize("classes", [2, 3])
def test_mass_mean_is_the_nearest_centroid(classes: int) -> None:
    x, y = blobs(91, 5, classes)
    ours = MassMeanProbe().fit(x, y)
    theirs = NearestCentroid().fit(x, y)
    np.testing.assert_allclose(ours.centroids_, theirs.centroids_, rtol=1e-9, atol=1e-9)
    assert (ours.predict(x) == theirs.predict(x)).all()
    if classes == 2:
        np.testing.assert_allclose(ours.coef_[0], x[y == 1].mean(0) - x[y == 0].mean(0), rtol=1e-9, atol=1e-9)
        halfway = ours.centroids_.mean(0)
        assert abs(ours.decision_function(halfway[None])[0]) < 1e-6 * np.abs(ours.intercept_[0])


def test_registry() -> None:
    assert get_estimator("mass_mean") is get_estimator("mass-mean")
    assert all(get_estimator(name).summary for name in estimators())
    with pytest.raises(ValueError, match="'logistc' is not a known estimator; did you mean 'logistic'"):
        get_estimator("logistc")
