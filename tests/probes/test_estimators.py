"""Every kind of probe: scikit-learn's contract, parity where scikit-learn has the same, known answers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from probes.estimator import Kind, estimators, get_estimator
from probes.estimators.attention_pooling import AttentionPoolingProbe
from probes.estimators.ccs import CCSProbe
from probes.estimators.k_sparse import KSparseProbe
from probes.estimators.lda import LDAProbe
from probes.estimators.logistic import LogisticProbe
from probes.estimators.mass_mean import MassMeanProbe
from probes.estimators.mlp import MLPProbe
from probes.estimators.nearest_centroid import NearestCentroidProbe
from probes.estimators.ridge import RidgeProbe
from probes.estimators.structural_depth import StructuralDepthProbe
from probes.estimators.structural_distance import StructuralDistanceProbe
from probes.trees import tree_distances

KINDS = {name: get_estimator(name) for name in estimators()}
CLASSIFIERS = [name for name, kind in KINDS.items() if kind.target in ("classes", "pairs", "sequences")]
LINEAR = [name for name, kind in KINDS.items() if kind.linear and kind.target == "classes"]
QUICK: dict[str, dict[str, Any]] = {"ccs": {"steps": 15, "starts": 2}, "mlp": {"hidden": 4, "alpha": 10.0}}

HEADS_NEEDED = {
    "check_fit_score_takes_y", "check_estimators_overwrite_params", "check_dont_overwrite_attributes",
    "check_estimators_fit_returns_self", "check_readonly_memmap_input", "check_n_features_in_after_fitting",
    "check_positive_only_tag_during_fit", "check_estimators_dtypes", "check_dtype_object",
    "check_pipeline_consistency", "check_estimators_nan_inf", "check_estimators_pickle",
    "check_f_contiguous_array_estimator", "check_transformer_data_not_an_array", "check_transformer_general",
    "check_transformer_preserve_dtypes", "check_methods_sample_order_invariance",
    "check_methods_subset_invariance", "check_fit2d_1feature", "check_dict_unchanged", "check_fit_idempotent",
    "check_fit_check_is_fitted", "check_n_features_in", "check_fit2d_predict1d", "check_dont_overwrite_parameters",
}  # fmt: skip
"""Checks that fit arbitrary numbers or classes as y. A structural probe refuses these: they are no trees."""
EXPECTED_FAILURES = {"structural-distance": HEADS_NEEDED, "structural-depth": HEADS_NEEDED}


class ChainDistance(StructuralDistanceProbe):
    """As if every y were a chain of heads, so that the checks above can be made of the rest."""

    def fit(self, X: Any, y: Any = None) -> Any:
        shape = getattr(X, "shape", None) or np.asarray(X).shape
        return super().fit(X, np.arange(shape[0]) - 1 if shape else y)


def blobs(
    n: int, d: int, classes: int, *, seed: int = 0, apart: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes whose features have very different scales and offsets."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = generator.normal(size=(classes, d)) * apart
    x = centres[y] + generator.normal(size=(n, d))
    return x * generator.uniform(0.01, 100, d) + generator.normal(size=d) * 50, y


def checks(estimator: Any) -> tuple[int, dict[str, Exception]]:
    """How many of scikit-learn's checks passed, and those that failed."""
    passed, failed = 0, {}
    for one, check in estimator_checks_generator(estimator):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check(one)
        except Exception as error:  # noqa: BLE001 - any failure of a check is told with its name
            if type(error).__name__ != "SkipTest":
                failed[check.func.__name__] = error
            continue
        passed += 1
    return passed, failed


@pytest.mark.parametrize("name", estimators())
def test_contract_of_scikit_learn(name: str) -> None:
    """`check_estimator`, one check at a time, so that a failure names the check."""
    passed, failed = checks(KINDS[name].new(**QUICK.get(name, {})))
    expected = EXPECTED_FAILURES.get(name, set())
    assert not {check: repr(error) for check, error in failed.items() if check not in expected}
    assert all(isinstance(error, ValueError | AssertionError) for error in failed.values())
    assert passed > (15 if expected else 45)


def test_structural_probes_keep_the_contract_where_y_is_trees() -> None:
    passed, failed = checks(ChainDistance(rank=2, epochs=2))
    assert passed > 35
    assert not {name: repr(error) for name, error in failed.items()}


@pytest.mark.parametrize("name", estimators())
def test_kinds_say_what_they_are(name: str) -> None:
    kind = KINDS[name]
    assert isinstance(kind, Kind) and kind.name == name and kind.summary
    assert (kind.penalty is None) == (kind.grid == ()) and list(kind.grid) == sorted(kind.grid)
    if kind.penalty is not None:
        assert kind.penalty in kind.new().get_params()


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_linear_in_the_units_of_the_activations(name: str, classes: int) -> None:
    x, y = blobs(90, 6, classes)
    names = np.array(["ant", "bee", "cat"])[y]
    fitted: Any = KINDS[name].new().fit(x, names)
    assert fitted.coef_.shape == ((1 if classes == 2 else classes), 6)
    scores = x @ fitted.coef_.T + fitted.intercept_
    np.testing.assert_allclose(np.squeeze(scores), fitted.decision_function(x), rtol=1e-9)
    index = scores[:, 0] > 0 if classes == 2 else scores.argmax(1)
    assert (fitted.classes_[index.astype(int)] == fitted.predict(x)).all()
    assert fitted.score(x, names) > 0.6


@pytest.mark.parametrize("name", LINEAR)
def test_planted_direction_is_recovered(name: str) -> None:
    """Isotropic noise around two means: the line between them must be found."""
    generator = np.random.default_rng(0)
    direction = generator.normal(size=16)
    direction /= np.linalg.norm(direction)
    y = np.arange(4000) % 2
    x = generator.normal(size=(4000, 16)) + np.where(y == 1, 1.0, -1.0)[:, None] * direction + 5
    found = KINDS[name].new().fit(x, y).coef_[0]
    assert found @ direction / np.linalg.norm(found) > 0.98


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_constant_features_and_no_signal_give_numbers(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    x[:, 2] = 7.0
    y = np.arange(60) // 2 % 2
    fitted = KINDS[name].new(**QUICK.get(name, {})).fit(x, y)
    assert np.isfinite(fitted.decision_function(x)).all()
    nothing = KINDS[name].new(**QUICK.get(name, {})).fit(np.full((60, 5), 3.0), y)
    scores = nothing.decision_function(np.full((4, 5), 3.0))
    assert np.isfinite(scores).all() and np.ptp(scores) < 1e-6


@pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if kind.target != "heads"])
def test_the_same_seed_gives_the_same_probe(name: str) -> None:
    x, y = blobs(60, 5, 2)
    found = [KINDS[name].new(**QUICK.get(name, {})).fit(x, y).predict(x) for _ in range(2)]
    assert (found[0] == found[1]).all()


def test_logistic_says_when_it_did_not_converge() -> None:
    x, y = blobs(100, 10, 2)
    with pytest.warns(ConvergenceWarning, match=r"after 2 steps, .* nats per row above .* tol is 1\.0e-10"):
        LogisticProbe(max_iter=2).fit(x, y)
    with pytest.raises(ValueError, match="C is 0; it must be positive"):
        LogisticProbe(C=0).fit(x, y)
    with pytest.raises(ValueError, match=r"tol is 1e-10 and max_iter 0; .* max_iter 1 or more"):
        LogisticProbe(max_iter=0).fit(x, y)


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_is_scikit_learns(classes: int) -> None:
    x, y = blobs(200, 8, classes, apart=0.5)
    ours = LogisticProbe(C=2.0).fit(x, y)
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=2.0, tol=1e-10, max_iter=20_000).fit(scaler.transform(x), y)
    size = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.coef_ * scaler.scale_, theirs.coef_, atol=1e-4 * size)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(scaler.transform(x)), atol=1e-5)


def test_ridge_is_scikit_learns() -> None:
    x, _ = blobs(80, 6, 2)
    scaler = StandardScaler().fit(x)
    y = scaler.transform(x) @ np.arange(12.0).reshape(6, 2) + np.random.default_rng(0).normal(size=(80, 2))
    alphas = tuple(float(a) for a in np.logspace(-3, 3, 13))
    for target in (y, y[:, 0]):
        ours = RidgeProbe(alphas=alphas).fit(x, target)
        theirs = RidgeCV(alphas).fit(scaler.transform(x), target)
        assert ours.alpha_ == pytest.approx(theirs.alpha_)
        np.testing.assert_allclose(ours.predict(x), theirs.predict(scaler.transform(x)), rtol=1e-6)
        assert ours.score(x, target) == pytest.approx(theirs.score(scaler.transform(x), target))
    with pytest.raises(ValueError, match=r"alpha is -1\.0; it must be positive"):
        RidgeProbe(alpha=-1).fit(x, y)


@pytest.mark.parametrize("classes", [2, 3])
def test_mass_mean_is_the_nearest_mean(classes: int) -> None:
    x, y = blobs(91, 5, classes)
    ours = MassMeanProbe().fit(x, y)
    theirs = NearestCentroid().fit(x, y)
    np.testing.assert_allclose(ours.centroids_, theirs.centroids_, rtol=1e-9, atol=1e-9)
    assert (ours.predict(x) == theirs.predict(x)).all()
    if classes == 2:
        np.testing.assert_allclose(ours.coef_[0], x[y == 1].mean(0) - x[y == 0].mean(0), rtol=1e-9, atol=1e-9)
        halfway = ours.centroids_.mean(0)
        assert abs(ours.decision_function(halfway[None])[0]) < 1e-6 * np.abs(ours.intercept_[0])


@pytest.mark.parametrize("classes", [2, 3])
def test_lda_without_shrinkage_is_scikit_learns(classes: int) -> None:
    x, y = blobs(150, 6, classes)
    ours, theirs = LDAProbe(shrinkage=None).fit(x, y), LinearDiscriminantAnalysis(solver="lsqr").fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-8)
    with pytest.raises(ValueError, match='shrinkage is 2; it is "auto", None or between 0 and 1'):
        LDAProbe(shrinkage=2).fit(x, y)


def test_nearest_centroid_from_its_definition() -> None:
    x, y = blobs(90, 7, 3)
    for threshold in (0.0, 1.5):
        probe = NearestCentroidProbe(threshold=threshold).fit(x, y)
        means = np.stack([x[y == c].mean(0) for c in range(3)])
        within = np.sqrt(((x - means[y]) ** 2).sum(0) / (90 - 3))
        unit = within + np.median(within)
        spread = np.sqrt(1 / 30 - 1 / 90)
        apart = (means - x.mean(0)) / (spread * unit)
        shrunk = x.mean(0) + spread * unit * np.sign(apart) * np.maximum(np.abs(apart) - threshold, 0)
        np.testing.assert_allclose(probe.centroids_, shrunk)
        distance = (((x[:, None] - shrunk) / unit) ** 2).sum(-1)
        assert (probe.predict(x) == distance.argmin(1)).all()


@pytest.mark.parametrize("ranking", ["mean-difference", "adaptive"])
def test_k_sparse_finds_the_planted_features(ranking: str) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = rng.normal(size=(400, 30)) * rng.uniform(0.1, 10, 30) + 3
    planted = [4, 11, 25]
    x[:, planted] += np.where(y == 1, 1, -1)[:, None] * x[:, planted].std(0)
    probe = KSparseProbe(k=3, ranking=ranking).fit(x, y)
    assert probe.features_.tolist() == planted
    assert set(np.flatnonzero(probe.coef_[0])) == set(planted)
    np.testing.assert_allclose(probe.coef_[:, planted], LogisticProbe().fit(x[:, planted], y).coef_)
    with pytest.raises(ValueError, match="'meandifference' is not a known ranking; did you mean 'mean-diff"):
        KSparseProbe(ranking="meandifference").fit(x, y)


def test_ccs_finds_contraries_without_labels() -> None:
    """Truth is planted along one direction; which side of a pair is negated, along another, stronger one."""
    rng = np.random.default_rng(0)
    truth, side = np.linalg.qr(rng.normal(size=(12, 2)))[0].T
    y = rng.integers(2, size=200)
    rows, labels = [], []
    for one in y:
        for negated in (0, 1):
            held = one ^ negated
            rows.append(rng.normal(size=12) * 0.3 + (2 * held - 1) * truth + 6 * negated * side)
            labels.append(held)
    x, labels = np.array(rows), np.array(labels)
    pairs = np.arange(400).reshape(-1, 2)
    probe = CCSProbe(steps=300).fit(x, labels, pairs)
    assert probe.coef_[0] @ truth > 3 * abs(probe.coef_[0] @ side)
    assert ((probe.decide_pairs(x, pairs) > 0.5) == labels[pairs[:, 0]]).mean() > 0.97
    flipped = CCSProbe(steps=300).fit(x, 1 - labels, pairs)  # labels choose the sign and nothing else
    np.testing.assert_allclose(flipped.coef_, -probe.coef_)
    with pytest.raises(ValueError, match="a pair names row 400 of 400 rows"):
        CCSProbe().fit(x, labels, [[0, 400]])


def test_mlp_learns_what_no_direction_can() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    assert LogisticProbe().fit(x, y).score(x, y) < 0.65
    assert MLPProbe(hidden=16, alpha=0.1).fit(x[:300], y[:300]).score(x[300:], y[300:]) > 0.85


def test_attention_pooling_reads_the_token_that_tells() -> None:
    """One token of each text, marked by a feature, tells the class; its place and the text's length vary."""
    rng = np.random.default_rng(0)
    m, t, d = 200, 7, 6
    x = rng.normal(size=(m, t, d))
    y = np.arange(m) % 2
    length = rng.integers(3, t + 1, size=m)
    mask = np.arange(t) < length[:, None]
    place = (rng.random(m) * length).astype(int)
    x[np.arange(m), place, 0] = 6
    x[np.arange(m), place, 1] = np.where(y == 1, 2.0, -2.0)
    x[~mask] = 1e3  # padding may hold anything
    probe = AttentionPoolingProbe(alpha=0.1).fit(x[:150], y[:150], mask[:150])
    assert probe.score is not None
    assert (probe.predict(x[150:], mask[150:]) == y[150:]).mean() > 0.9
    weights = probe.attention(x[150:], mask[150:])[:, 0]
    np.testing.assert_allclose(weights.sum(1), 1)
    assert (weights[~mask[150:]] == 0).all()
    assert (weights.argmax(1) == place[150:]).mean() > 0.9
    wider = np.concatenate([x[150:], np.zeros((50, 3, d))], 1)
    longer = np.concatenate([mask[150:], np.zeros((50, 3), dtype=bool)], 1)
    np.testing.assert_allclose(
        probe.decision_function(wider, longer), probe.decision_function(x[150:], mask[150:])
    )
    with pytest.raises(ValueError, match="text 1 has no tokens"):
        AttentionPoolingProbe().fit(x, y, mask & (np.arange(m) != 1)[:, None])


def forest(texts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[slice]]:
    """Words [n, d] whose squared distances in a hidden subspace are tree distances, their heads, and the texts."""
    rng = np.random.default_rng(seed)
    rows, heads, parts, at = [], [], [], 0
    for _ in range(texts):
        w = int(rng.integers(4, 9))
        above = [-1, *(int(rng.integers(i)) for i in range(1, w))]
        points, axes = np.zeros((w, 10)), rng.permutation(10)
        for i in range(1, w):
            points[i] = points[above[i]]
            points[i, axes[i]] += 1
        rows.append(points)
        heads += [h + at if h >= 0 else -1 for h in above]
        parts.append(slice(at, at + w))
        at += w
    hidden = np.concatenate(rows)
    x = np.concatenate([hidden, rng.normal(size=hidden.shape)], 1) @ rng.normal(size=(20, 20))
    return x, np.array(heads), parts


def test_structural_probes_find_planted_trees() -> None:
    x, heads, parts = forest(80)
    settings: dict[str, Any] = {"rank": 10, "epochs": 60, "lr": 0.02, "batch_size": 10}
    distance = StructuralDistanceProbe(**settings).fit(x, heads)
    depth = StructuralDepthProbe(**settings).fit(x, heads)
    off, below = [], []
    for part in parts:
        own = np.where(heads[part] < 0, -1, heads[part] - part.start)
        gold = tree_distances(own)
        off.append(np.abs(distance.distances(x[part]) - gold).mean())
        below.append(np.abs(depth.depths(x[part]) - gold[own.argmin()]).mean())
    assert np.mean(off) < 0.35 and np.mean(below) < 0.35
    np.testing.assert_allclose(distance.transform(x), x @ distance.coef_.T + distance.intercept_)


def test_structural_probes_refuse_what_is_no_tree() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(ValueError, match="the heads from row 1 go in a circle"):
        StructuralDistanceProbe().fit(x, np.array([-1, 2, 1, 0]))
    with pytest.raises(ValueError, match="a head is the row of another word, 0 to 3, or -1"):
        StructuralDistanceProbe().fit(x, np.array([-1, 0, 1, 4]))


def test_registry() -> None:
    assert get_estimator("mass_mean") is get_estimator("mass-mean")
    with pytest.raises(ValueError, match="'logistc' is not a known estimator; did you mean 'logistic'"):
        get_estimator("logistc")
    assert torch.initial_seed() == 0
