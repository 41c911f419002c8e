"""A fitted probe: scores, classes and directions in activation units, and its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probes.probe import Probe, load_probes, save_probes

SITE = "blocks.1.hook_resid_post"


def probe(k: int = 1, d: int = 5, names: tuple[str, ...] = ("no", "yes"), reads: str = "classes") -> Probe:
    generator = torch.Generator().manual_seed(k)
    coef = torch.randn(k, d, generator=generator, dtype=torch.float64)
    return Probe.of(
        coef, torch.randn(k, generator=generator, dtype=torch.float64), SITE, names, reads, estimator="logistic",
        target="label", mean=torch.zeros(d).double(), scale=torch.ones(d).double(), record={"C": 1.0},
    )  # fmt: skip


@pytest.mark.parametrize("c", [2, 3])
def test_scores_and_classes_are_those_of_scikit_learn(c: int) -> None:
    x, y = torch.randn(50, 5).double(), torch.arange(50) % c
    fitted = LogisticRegression().fit(x.numpy(), y.numpy())
    made = Probe.of(torch.tensor(fitted.coef_), torch.tensor(fitted.intercept_), SITE, tuple("abc"[:c]))
    expected = torch.tensor(fitted.decision_function(x.numpy())).reshape(50, -1)
    torch.testing.assert_close(made.scores(x), expected)
    assert made.predict(x).tolist() == fitted.predict(x.numpy()).tolist()
    assert made.predict(x.float().reshape(5, 10, 5)).shape == (5, 10)


@pytest.mark.parametrize("c", [2, 3])
def test_a_step_along_the_direction_raises_that_class_most(c: int) -> None:
    names = ("a", "b", "c")[:c]
    made = probe(1 if c == 2 else 3, names=names)
    x = torch.randn(7, 5).double()
    for i, name in enumerate(names):
        u = made.direction(name)
        assert float(u.norm()) == pytest.approx(1)
        change = made.scores(x + u) - made.scores(x)
        raised = change[:, 0] * (1 if i else -1) if c == 2 else change[:, i]
        assert (raised > 0).all()
        for other in torch.randn(20, 5).double():
            step = made.scores(x + other / other.norm()) - made.scores(x)
            assert ((step[:, 0] * (1 if i else -1) if c == 2 else step[:, i]) <= raised + 1e-12).all()
    if c == 2:
        torch.testing.assert_close(made.direction("a"), -made.direction("b"))
        torch.testing.assert_close(made.direction(), made.direction("b"))


def test_values_and_maps() -> None:
    values = probe(2, names=("lat", "lon"), reads="values")
    x = torch.randn(4, 5)
    torch.testing.assert_close(values.predict(x), values.scores(x))
    torch.testing.assert_close(values.direction("lon"), values.coef[1] / values.coef[1].norm())
    depths = probe(3, names=(), reads="map")
    torch.testing.assert_close(depths.predict(x), depths.scores(x).square().sum(1))


def test_folders(tmp_path: Path) -> None:
    made = probe()
    kept = Probe.load(made.save(tmp_path / "one"))
    assert torch.equal(kept.coef, made.coef) and torch.equal(kept.intercept, made.intercept)
    assert (kept.site, kept.names, kept.reads, kept.target, kept.record) == (
        SITE,
        ("no", "yes"),
        "classes",
        "label",
        {"C": 1.0},
    )
    assert kept.scale is not None and torch.equal(kept.scale, torch.ones(5).double())
    with pytest.raises(FileExistsError, match="already exists"):
        made.save(tmp_path / "one")
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"probe.json", "probe.safetensors"}

    save_probes(tmp_path, {"label a": made, "b": probe(2, names=("lat", "lon"), reads="values")})
    both = load_probes(tmp_path)
    assert list(both) == ["label a", "b"] and torch.equal(both["label a"].coef, made.coef)


def test_damaged_folders(tmp_path: Path) -> None:
    folder = probe().save(tmp_path / "one")
    tensors, record = folder / "probe.safetensors", folder / "probe.json"
    whole, text = tensors.read_bytes(), record.read_text()
    tensors.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"probe\.safetensors' cannot be read"):
        Probe.load(folder)
    tensors.write_bytes(whole)
    for old, new, message in (
        ('"name": ""', '"name": "x"', r"has no tensor 'x\.coef'"),
        ('"version": 1', '"version": 2', r"'probes\.probe' version 2, not 'probes\.probe' version 1"),
        ('"site"', '"sight"', "is not a record of probes"),
        (text, "[]", "is not a record of probes"),
    ):
        record.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            Probe.load(folder)
    with pytest.raises(ValueError, match=r"holds no probes: no readable probe\.json"):
        Probe.load(tmp_path)


def test_mistakes() -> None:
    made, several = probe(), probe(3, names=("a", "b", "c"))
    silent = Probe.of(torch.zeros(1, 3).double(), torch.zeros(1).double(), SITE, ("no", "yes"))
    for call, message in (
        (lambda: made.scores(torch.randn(2, 4)), "reads 5 features, not 4"),
        (lambda: made.direction("yess"), "'yess' is not a direction of .*; did you mean 'yes'"),
        (several.direction, "has several directions; choose from a, b, c"),
        (silent.direction, "has no direction: it found no signal"),
        (lambda: probe(3, names=(), reads="map").direction(), "is a map of rank 3, not a direction"),
        (lambda: probe(2), "a probe of classes no, yes gives 2 scores"),
        (lambda: probe(reads="clases"), "'clases' is not a known reading of a probe; did you mean 'classes'"),
        (
            lambda: Probe.of(torch.zeros(1, 3), torch.zeros(2), SITE, ("a", "b")),
            r"intercept is \[2\], and not \[k\], where k is 1",
        ),
        (
            lambda: Probe.of(torch.zeros(1, 3), torch.zeros(1), SITE, ("a", "b"), mean=torch.zeros(4)),
            "the mean has 4",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
