"""Erasers: the theorem, the least movement, numbers computed another way, files and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lens.model import Transformer
from probes.eraser import Eraser, concept, erasers, fit_eraser
from probes.erasers.leace import Leace
from probes.moments import Moments
from probes.targets import Classes, Heads, Values

D = 12
GUARDING = ("leace", "mean-projection")  # these guard by theorem; inlp only tries


def rows(
    n: int = 400, classes: int = 2, d: int = D, seed: int = 0, rank: int | None = None
) -> tuple[Tensor, Tensor]:
    """Correlated, badly scaled activations that encode a class in several directions."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, rank or d, generator=g, dtype=torch.float64)
    scales = torch.logspace(-2, 2, d, dtype=torch.float64)
    means = torch.randn(classes, rank or d, generator=g, dtype=torch.float64)
    y = torch.randint(classes, (n,), generator=g)
    return (torch.randn(n, rank or d, generator=g, dtype=torch.float64) + means[y]) @ mix.T * scales + 5, y


def correlations(x: Tensor, z: Tensor, before: Tensor | None = None) -> Tensor:
    """Covariance of every feature with every column, over their standard deviations (those `before` the erasure)."""
    sd = (x if before is None else before).std(0, correction=0)
    x, z = x - x.mean(0), z - z.mean(0)
    return (x.T @ z) / len(x) / (sd[:, None] * z.std(0, correction=0)).clamp(min=1e-300)


def moved(x: Tensor, erased: Tensor, norm: Tensor) -> float:
    """Mean square of the movement in the norm of a positive matrix."""
    return float(torch.einsum("nd,de,ne->", x - erased, norm, x - erased) / len(x))


# ------------------------------------------------------------------ the theorem


@pytest.mark.parametrize("method", GUARDING)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("case", ["plenty", "rank-deficient", "n < d"])
def test_no_covariance_is_left(method: str, classes: int, case: str) -> None:
    x, y = {
        "plenty": lambda: rows(400, classes),
        "rank-deficient": lambda: rows(400, classes, rank=7),
        "n < d": lambda: rows(30, classes, d=50),
    }[case]()
    eraser = fit_eraser(method, x, y)
    assert eraser.rank == classes - 1
    erased = eraser(x)
    whitened = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    kept = whitened.Vh[: torch.linalg.matrix_rank(x - x.mean(0), rtol=1e-9)]
    before, after, z = x @ kept.T, erased @ kept.T, concept(y)
    assert correlations(before, z).abs().max() > 0.2
    assert correlations(after, z, before).abs().max() < 1e-9, "in the units of each principal axis"
    torch.testing.assert_close(erased.mean(0), x.mean(0), msg="the mean stays")
    torch.testing.assert_close(eraser(erased), erased, rtol=1e-9, atol=1e-8, msg="a projection")


def test_real_concepts_of_any_scale() -> None:
    x, _ = rows()
    g = torch.Generator().manual_seed(1)
    z = torch.stack([x[:, 0] * 1e6 + 1e9, x[:, 11] * 1e-4 + torch.randn(len(x), generator=g).double()], 1)
    eraser = fit_eraser("leace", x, z)
    assert eraser.rank == 2
    assert correlations(eraser(x), z, x).abs().max() < 1e-8
    assert fit_eraser("leace", x, torch.cat([z, z[:, :1] * 2], 1)).rank == 2, (
        "a copy of a column adds nothing"
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_every_linear_probe_is_at_chance(classes: int) -> None:
    """Logistic loss, squared loss and accuracy of scikit-learn's probes, on the fitted rows and on others."""
    from sklearn.linear_model import LogisticRegression, Ridge

    x, y = rows(600, classes)
    eraser = fit_eraser("leace", x, y)
    erased, labels = eraser(x).numpy(), y.numpy()
    scaled = (erased - erased.mean(0)) / erased.std(0)
    share = np.bincount(labels) / len(labels)

    before = ((x - x.mean(0)) / x.std(0)).numpy()
    assert LogisticRegression(max_iter=1000).fit(before, labels).score(before, labels) > 0.8
    logistic = LogisticRegression(C=1e3, tol=1e-10, max_iter=2000).fit(scaled, labels)
    loss = -np.log(logistic.predict_proba(scaled)[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(-(share * np.log(share)).sum(), abs=1e-8), (
        "the loss of the constant predictor"
    )
    assert np.abs(logistic.coef_).max() < 1e-4
    one_hot = np.eye(classes)[labels]
    ridge = Ridge(alpha=1e-6).fit(scaled, one_hot)
    assert np.square(ridge.predict(scaled) - one_hot).mean() == pytest.approx(
        np.square(one_hot - share).mean(), rel=1e-9
    )

    # On other rows: a new probe on rows that the eraser has not seen either, and its interval.
    new, truth = (t[600:] for t in rows(5000, classes, seed=0))
    eraser = fit_eraser("leace", new[:3000], truth[:3000])
    after, truth = eraser(new[3000:]).numpy(), truth[3000:].numpy()
    after = (after - after.mean(0)) / after.std(0)
    right = LogisticRegression().fit(after[:400], truth[:400]).predict(after[400:]) == truth[400:]
    half = 1.96 * right.std() / np.sqrt(len(right))
    chance = np.square(np.bincount(truth) / len(truth)).sum()
    assert right.mean() - half < chance < right.mean() + half + 0.03


def test_leace_moves_least() -> None:
    """Theorem 4.3: in the mean square of every norm, among all affine maps that leave no covariance."""
    x, y = rows()
    leace = fit_eraser("leace", x, y)
    g = torch.Generator().manual_seed(3)
    centred = x - x.mean(0)
    half = torch.randn(D, D, generator=g, dtype=torch.float64)
    norms = {
        "Euclid": torch.eye(D, dtype=torch.float64),
        "covariance": torch.linalg.inv(centred.T @ centred / len(x)),
        "any": half @ half.T,
    }
    others = [fit_eraser("mean-projection", x, y)(x), fit_eraser("inlp", x, y)(x)]
    # Any affine map with the constraint: r(x) = A (x − m) + b where A takes the covariance Γ with the concept to zero.
    gamma = centred.T @ (concept(y)[:, 1:] - concept(y)[:, 1:].mean(0))
    free = torch.eye(D, dtype=torch.float64) - gamma @ torch.linalg.pinv(
        gamma
    )  # its rows are orthogonal to Γ
    best = torch.eye(D, dtype=torch.float64) - leace.left @ leace.right
    for size in (1e-3, 0.1, 1.0):
        for _ in range(10):
            a = best + size * torch.randn(D, D, generator=g, dtype=torch.float64) @ free
            assert (a @ gamma).abs().max() < 1e-8 * gamma.abs().max()
            others.append(centred @ a.T + x.mean(0) + size * torch.randn(D, generator=g, dtype=torch.float64))
    for name, norm in norms.items():
        least = moved(x, leace(x), norm)
        assert all(moved(x, other, norm) > least for other in others), name


def test_leace_is_the_formula() -> None:
    """r(x) = x − W⁺ P W (x − m), written out with NumPy's inverse square root."""
    x, y = rows(500, 3)
    x = x / x.std(0)
    centred = (x - x.mean(0)).numpy()
    z = concept(y).numpy()
    sigma, gamma = centred.T @ centred / len(x), centred.T @ (z - z.mean(0)) / len(x)
    values, vectors = np.linalg.eigh(sigma)
    w, w_inverse = (vectors * values**p @ vectors.T for p in (-0.5, 0.5))
    p = (w @ gamma)[:, :2] @ np.linalg.pinv((w @ gamma)[:, :2])
    expected = x.numpy() - centred @ (w_inverse @ p @ w).T
    np.testing.assert_allclose(fit_eraser("leace", x, y)(x).numpy(), expected, rtol=1e-7, atol=1e-7)


def test_shrinkage_keeps_the_guard() -> None:
    x, y = rows(30, 2, d=50)
    plain, shrunk = fit_eraser("leace", x, y), fit_eraser("leace", x, y, shrinkage=0.1)
    assert correlations(shrunk(x), concept(y), x).abs().max() < 1e-9
    assert moved(x, shrunk(x), torch.eye(50).double()) > moved(x, plain(x), torch.eye(50).double())
    new = rows(500, 2, d=50, seed=9)[0]
    assert shrunk(new).norm() < 1.5 * new.norm()


def test_a_background_is_moved_least() -> None:
    """The labelled rows are guarded all the same; of all maps that guard them it moves the background least."""
    x, y = rows()
    g = torch.Generator().manual_seed(5)
    text = torch.randn(3000, D, generator=g, dtype=torch.float64) @ torch.randn(
        D, D, generator=g, dtype=torch.float64
    )
    plain, with_text = fit_eraser("leace", x, y), fit_eraser("leace", x, y, background=text)
    assert correlations(with_text(x), concept(y), x).abs().max() < 1e-9
    identity = torch.eye(D, dtype=torch.float64)
    least = moved(text, with_text(text), identity)
    gamma = (x - x.mean(0)).T @ (concept(y)[:, 1:] - concept(y)[:, 1:].mean(0))
    free = identity - gamma @ torch.linalg.pinv(gamma)
    best = identity - with_text.left @ with_text.right
    others = [plain(text), fit_eraser("mean-projection", x, y)(text)]
    for _ in range(10):
        a = best + 0.3 * torch.randn(D, D, generator=g, dtype=torch.float64) @ free
        others.append((text - text.mean(0)) @ a.T + text.mean(0))
    assert all(moved(text, other, identity) > 0.99 * least for other in others)
    assert moved(text, others[0], identity) > 1.5 * least
    few = fit_eraser("leace", x, y, background=text[:4])
    assert correlations(few(x), concept(y), x).abs().max() < 1e-6, "also where the background hardly varies"
    for wrong, message in (
        (text[:1], "the background has 1 rows"),
        (text[:, :3], "the background is 3 wide and"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_eraser("leace", x, y, background=wrong)


# ------------------------------------------------------------------ the other ways


def test_mean_projection_is_the_difference_of_means() -> None:
    x, y = rows()
    eraser = fit_eraser("mean-projection", x, y)
    difference = x[y == 1].mean(0) - x[y == 0].mean(0)
    unit = difference / difference.norm()
    torch.testing.assert_close(eraser(x), x - ((x - x.mean(0)) @ unit)[:, None] * unit)
    torch.testing.assert_close(eraser(x)[y == 0].mean(0), eraser(x)[y == 1].mean(0))


def test_inlp_takes_directions_until_none_helps() -> None:
    from sklearn.linear_model import LogisticRegression

    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (4000,), generator=g)
    x = torch.randn(4000, D, generator=g, dtype=torch.float64)
    x[:, :2] += 1.5 * y[:, None]
    new, truth = x[2000:].numpy(), y[2000:].numpy()
    x, y = x[:2000], y[:2000]
    eraser = fit_eraser("inlp", x, y)
    accuracies = eraser.record["accuracies"]
    assert accuracies[0] > 0.8
    assert accuracies[-1] < 0.55
    assert 1 <= eraser.rank == len(accuracies) - 1 < 4
    torch.testing.assert_close(eraser.right @ eraser.left, torch.eye(eraser.rank).double())
    erased = eraser(torch.from_numpy(new)).numpy()
    assert LogisticRegression().fit(erased, truth).score(erased, truth) < 0.57
    assert fit_eraser("inlp", x, y, rank=3).rank == 3
    first = fit_eraser("inlp", x, y, rank=1)
    weights = (
        LogisticRegression(max_iter=300)
        .fit(((x - x.mean(0)) / x.std(0, correction=0)).numpy(), y.numpy())
        .coef_[0]
    )
    direction = torch.from_numpy(weights) / x.std(0, correction=0)
    cosine = torch.nn.functional.cosine_similarity(first.left[:, 0], direction, dim=0)
    assert abs(float(cosine)) > 0.999


def test_inlp_takes_the_plane_of_several_classes() -> None:
    x, y = rows(900, 4)
    assert fit_eraser("inlp", x, y, rank=5).rank == 5
    assert fit_eraser("inlp", x, y, rank=D).rank == D


def test_random_subspaces() -> None:
    x, y = rows()
    small, large = (fit_eraser("random", x, y, rank=k, seed=3) for k in (2, 5))
    assert (small.rank, large.rank) == (2, 5)
    torch.testing.assert_close(large(small(x)), large(x), msg="contained in the larger one of the same seed")
    assert not torch.allclose(small(x), fit_eraser("random", x, y, rank=2, seed=4)(x))
    everything = fit_eraser("random", x, y, rank=D)(x)
    torch.testing.assert_close(everything, x.mean(0).expand_as(x), rtol=1e-9, atol=1e-9)
    assert torch.equal(fit_eraser("random", x, y, rank=0)(x), x)


# ------------------------------------------------------------------ every way


@pytest.mark.parametrize("method", erasers())
def test_an_eraser_keeps_shape_dtype_and_itself_on_disk(method: str, tmp_path: Path) -> None:
    x, y = rows()
    eraser = fit_eraser(method, x, y, site="blocks.1.hook_resid_post")
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        erased = eraser(x.to(dtype).view(4, 100, D))
        assert erased.dtype == dtype
        exact = eraser(x.to(dtype).double())
        error = (erased.double().view(-1, D) - exact).abs().max() / x.abs().max()
        assert error <= max(torch.finfo(dtype).eps, 1e-5 if dtype != torch.float64 else 0)
    assert torch.equal(eraser(x.view(400, 3, 4)).view(400, D), eraser(x)), "heads"
    assert eraser(x[0]).shape == (D,)
    again = Eraser.load(eraser.save(tmp_path / "eraser"))
    assert torch.equal(again(x), eraser(x))
    assert (again.method, again.site, again.record) == (
        method,
        "blocks.1.hook_resid_post",
        dict(eraser.record),
    )
    with pytest.raises(FileExistsError):
        eraser.save(tmp_path / "eraser")
    with pytest.raises(ValueError, match=f"this {method} eraser takes activations 12 wide"):
        eraser(x[:, :5])


@pytest.mark.parametrize("method", erasers())
def test_rows_may_come_in_batches(method: str) -> None:
    from probes.eraser import ERASERS

    x, y = rows(300, 3)
    fitter = ERASERS.get(method).fitter()
    for start in (0, 7, 150):
        stop = {0: 7, 7: 150, 150: 300}[start]
        fitter.update(x[start:stop], concept(y)[start:stop])
    torch.testing.assert_close(fitter.eraser()(x), fit_eraser(method, x, y)(x), rtol=1e-6, atol=1e-6)


def test_moments_of_shifted_batches() -> None:
    x, y = rows(301)
    x = x + 1e6
    z = concept(y)
    moments = Moments()
    for part_x, part_z in zip(x.split(37), z.split(37), strict=True):
        moments.update(part_x, part_z)
    expected = np.cov(torch.cat([x, z], 1).numpy().T, bias=True)
    np.testing.assert_allclose(moments.xx.numpy(), expected[:D, :D], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(moments.xz.numpy(), expected[:D, D:], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(moments.zz.numpy(), expected[D:, D:], rtol=1e-9)


def test_classes_of_any_kind() -> None:
    x, y = rows()
    same = fit_eraser("leace", x, y)(x)
    classes = Classes(y.numpy(), ("a", "b", "nobody"))
    values = Values(y.double().numpy()[:, None], ("y",), "")
    lists = ["no" if v else "yes" for v in y], [bool(v) for v in y]
    for labels in (y.bool(), y.numpy(), y.double(), *lists, classes, values):
        torch.testing.assert_close(fit_eraser("leace", x, labels)(x), same)


def test_an_eraser_is_an_edit(tiny: Transformer) -> None:
    """In a run the concept is gone from the site, and what follows changes."""
    ids = torch.randint(1, 40, (60, 6), generator=torch.Generator().manual_seed(0))
    for site in ("blocks.1.hook_resid_post", "blocks.1.attn.hook_z"):
        clean, cache = tiny.run_with_cache(ids, [site])
        x, y = cache[site].flatten(0, 1).flatten(1), (ids > 20).flatten()
        eraser = fit_eraser("leace", x, y, site=site)
        logits, edited = tiny.run_with_cache(ids, [site], edits={site: eraser})
        after = edited[site].flatten(0, 1).flatten(1).double()
        assert correlations(x.double(), concept(y)).abs().max() > 0.1
        assert correlations(after, concept(y)).abs().max() < 1e-5
        assert not torch.allclose(logits, clean)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("method", "x", "y", "options", "message"),
    [
        ("leac", rows()[0], rows()[1], {}, "'leac' is not a known eraser; did you mean 'leace'"),
        ("leace", rows()[0], rows()[1][:-1], {}, "400 activations and 399 values"),
        ("leace", rows()[0], torch.zeros(400).long(), {}, "the same in all 400 rows: there is nothing to erase"),
        ("leace", rows()[0], torch.full((400,), 0.1), {}, "the same in all 400 rows"),
        ("mean-projection", rows()[0], ["a"] * 400, {}, "the same in all 400 rows"),
        ("inlp", rows()[0], ["a"] * 400, {}, "the same in all 400 rows"),
        ("inlp", rows()[0], rows()[0][:, 0], {}, "inlp erases classes, and this concept is of real numbers"),
        ("inlp", rows()[0][:2], [0, 1], {}, "2 rows are too few to keep some aside; give a rank"),
        ("inlp", rows()[0], rows()[1], {"rank": 13}, "rank is 13 and the activations have 12 dimensions"),
        ("leace", rows()[0][:1], rows()[1][:1], {}, "two rows or more, not from 1"),
        ("leace", rows()[0], rows()[1], {"shrinkage": 2.0}, "shrinkage is 2.0; it is between 0 and 1"),
        ("leace", rows()[0], rows()[1], {"rank": 2}, "'leace' does not take these options"),
        ("random", rows()[0], rows()[1], {"rank": 13}, "rank is 13 and the activations have 12 dimensions"),
        ("random", rows()[0], rows()[1], {"rank": -1}, "rank is -1"),
        ("leace", rows()[0], [[["x"]]], {}, "a concept is a class for each row"),
        ("leace", rows()[0], Heads(np.arange(-1, 399)), {}, "syntactic heads are no concept"),
    ],
)  # fmt: skip
def test_bad_input(method: str, x: Tensor, y: object, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        fit_eraser(method, x, y, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", erasers())
@pytest.mark.parametrize(("value", "word"), [(torch.nan, "NaN"), (torch.inf, "infinite")])
def test_activations_must_be_finite(method: str, value: float, word: str) -> None:
    x, y = rows()
    x[17, 3] = value
    with pytest.raises(ValueError, match=f"the activation of row 17 is {word}"):
        fit_eraser(method, x, y)


def test_files_that_are_no_erasers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no eraser"):
        Eraser.load(tmp_path)
    x, y = rows()
    folder = fit_eraser("leace", x, y).save(tmp_path / "eraser")
    record = json.loads((folder / "eraser.json").read_text())
    for change, message in (
        ("{", "is not a record of an eraser"),
        (json.dumps({**record, "version": 9}), "version 9, not 'probes.eraser' version 1"),
    ):
        (folder / "eraser.json").write_text(change)
        with pytest.raises(ValueError, match=message):
            Eraser.load(folder)
    (folder / "eraser.json").write_text(json.dumps(record))
    data = (folder / "eraser.safetensors").read_bytes()
    (folder / "eraser.safetensors").write_bytes(data[:-9])
    with pytest.raises(ValueError, match="cannot be read"):
        Eraser.load(folder)
    with pytest.raises(ValueError, match=r"of an eraser do not fit: \[12, 1\], \[1, 12\] and \[11\]"):
        Eraser("leace", torch.zeros(12, 1), torch.zeros(1, 12), torch.zeros(11))


def test_nothing_to_find_is_no_error() -> None:
    """Activations that do not covary with the concept are left as they are."""
    x = torch.tensor([[1.0, 2.0], [-1.0, 5.0], [1.0, 2.0], [-1.0, 5.0]]).double()
    eraser = Leace()
    eraser.update(x, concept([0, 0, 1, 1]))
    assert eraser.eraser().rank == 0
    assert torch.equal(eraser.eraser()(x), x)
