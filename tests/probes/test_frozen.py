"""Every kind of probe fitted, frozen, saved and read again; what cannot be read is refused; a whole run of each sort.

Kinds are found by their directory: a new file in `probes/estimators/` is tested here without an edit.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import probes
from lens.cli_errors import run as run_app
from lens.load import save
from lens.model import Transformer
from probes.cli import app
from probes.estimator import Kind, estimators, get_estimator
from probes.labelled import Classes, Labelled
from probes.plan import whole_texts
from probes.probe import Probe
from probes.weights import tensors_of
from tests.probes.conftest import WORDS

SITE = "blocks.1.hook_resid_post"
QUICK: dict[str, dict[str, Any]] = {
    "ccs": {"steps": 20, "starts": 2}, "mlp": {"hidden": 5}, "attention-pooling": {"heads": 2},
    "structural-depth": {"rank": 3, "epochs": 2}, "structural-distance": {"rank": 3, "epochs": 2},
    "k-sparse": {"k": 3},
}  # fmt: skip
CURVED = [name for name in estimators() if not get_estimator(name).linear]
N, D, TOKENS = 48, 6, 5


def problem(
    kind: Kind, c: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor | None, np.ndarray]:
    """Activations with offsets and scales of their own, a mask for texts, and what the kind is fitted to."""
    g = torch.Generator().manual_seed(seed)
    shape = (N, TOKENS, D) if kind.target == "sequences" else (N, D)
    labels = torch.arange(N) % c
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    x[..., :c] += 3 * torch.nn.functional.one_hot(labels, c).double().reshape(N, *[1] * (len(shape) - 2), c)
    x = x * torch.logspace(-2, 2, D, dtype=torch.float64) + 30
    mask = None
    if kind.target == "sequences":
        mask = torch.arange(TOKENS) < (1 + torch.arange(N) % TOKENS)[:, None]
    y = labels.numpy()
    if kind.target == "values":
        y = torch.randn(N, c, generator=g, dtype=torch.float64).numpy() + x[:, :c].numpy()
    if kind.target == "heads":  # trees of four words, each hanging from the one before
        y = np.where(np.arange(N) % 4 == 0, -1, np.arange(N) - 1)
    return x.to(dtype), mask, y


def frozen(kind: Kind, c: int, dtype: torch.dtype) -> tuple[probes.Fits, Probe]:
    x, mask, y = problem(kind, c, dtype)
    fits = probes.fit_many(kind, x, [probes.Problem(y)], mask=mask, options=QUICK.get(kind.name))
    reads = {"values": "values", "heads": "map"}.get(kind.target, "classes")
    names = () if reads == "map" else tuple(f"name {i}" for i in range(c))
    return fits, Probe(fits[0].weights, SITE, names, reads, kind.name, "label", record={"n": N})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "c"),
    [(name, c) for name in estimators() for c in (2, 3) if c == 2 or get_estimator(name).target != "pairs"],
)
def test_every_kind_is_kept_bit_by_bit(name: str, c: int, dtype: torch.dtype, tmp_path: Path) -> None:
    kind = get_estimator(name)
    fits, probe = frozen(kind, c, dtype)
    again = Probe.load(probe.save(tmp_path / "probe"))
    x, mask, _ = problem(kind, c, dtype, seed=1)
    read = (x,) if mask is None else (x, mask)
    scores = probe.scores(*read)
    assert torch.equal(again.scores(*read), scores) and torch.equal(
        again.predict(*read), probe.predict(*read)
    )
    for part, tensor in tensors_of(probe.weights).items():
        kept = tensors_of(again.weights)[part]
        assert kept.dtype == tensor.dtype == torch.float64 and torch.equal(kept, tensor)
    told = torch.from_numpy(fits.decision(0, x, mask)).reshape(scores.shape)
    torch.testing.assert_close(scores, told, rtol=1e-12, atol=1e-12 * float(told.abs().max()))
    if not kind.linear:
        assert torch.equal(scores, told), "the estimator and the frozen probe are one formula"
    if kind.target not in ("values", "heads"):
        assert probe.predict(*read).tolist() == fits.predict(0, x, mask).tolist()
    if kind.target == "heads":
        square = (told[:, None] - told[None]).square().sum(-1)
        torch.testing.assert_close(again.distances(x), square)
    assert (again.names, again.reads, again.estimator, again.site, again.record) == (
        probe.names, probe.reads, name, SITE, {"n": N},
    )  # fmt: skip


@pytest.mark.parametrize("name", estimators())
def test_linear_kinds_have_a_direction_and_others_say_which_do(name: str, tmp_path: Path) -> None:
    kind = get_estimator(name)
    _, probe = frozen(kind, 2, torch.float64)
    probe = Probe.load(probe.save(tmp_path / "probe"))
    assert probe.linear == kind.linear and probe.directed == kind.directed
    if kind.directed:
        u = probe.direction("name 1")
        assert float(u.norm()) == pytest.approx(1)
        x = problem(kind, 2, torch.float64)[0]
        assert (probe.scores(x + u) > probe.scores(x)).any(1).all()
        return
    why = "is a map of rank 3, not a direction" if kind.linear else "are not linear and have no direction"
    with pytest.raises(
        ValueError, match=f"^(the )?{name} probe.* {why}; ccs, k-sparse, lda, .*ridge have one$"
    ):
        probe.direction()


@pytest.mark.parametrize("name", [n for n in estimators() if get_estimator(n).target == "classes"])
def test_classes_keep_their_order(name: str) -> None:
    """Names in no order, one of which no row has."""
    kind = get_estimator(name)
    x, _, y = problem(kind, 3, torch.float64)
    x = (x - x.mean(0)) / x.std(0)  # nearest means go by plain distances
    names = ("zebra", "nobody", "ant", "cat")
    labels = np.array([0, 2, 3])[y]
    data = Labelled("animals", tuple(f"t{i}" for i in range(N)), np.arange(N), None,
                    {"animal": Classes(labels, names)})  # fmt: skip
    found = probes.sweep(
        {SITE: x}, data, name, cv=2, floors=[], bootstrap=2, controls=0, options=QUICK.get(name)
    )
    probe = found.probe()
    assert probe.names == ("zebra", "ant", "cat") and probe.outputs == 3
    right = [
        probe.names[i] == names[label] for i, label in zip(probe.predict(x).tolist(), labels, strict=True)
    ]
    assert np.mean(right) > 0.9
    told = probes.evaluate({"a": probe}, {SITE: x}, data)
    assert told.loc[told.metric == "accuracy", "score"].item() == pytest.approx(np.mean(right))
    assert probe.mean is not None and probe.scale is not None
    torch.testing.assert_close(probe.mean, x.mean(0))
    torch.testing.assert_close(probe.scale, x.std(0, correction=0))
    assert found.table.penalty.notna().all() == (kind.penalty is not None)


@pytest.mark.parametrize("name", CURVED)
def test_units_of_the_activations_do_not_matter(name: str) -> None:
    """Fits are to standardised features: probes of x and of a x + b decide the same where the fit came to rest."""
    kind = get_estimator(name)
    x, mask, y = problem(kind, 3, torch.float64)
    flat = x if mask is None else x[mask]
    x = (x - flat.mean(0)) / flat.std(0)
    a, b = (
        torch.logspace(2, -2, D).double(),
        100 * torch.randn(D, generator=torch.Generator().manual_seed(3)).double(),
    )
    fits = [
        probes.fit_many(kind, z, [probes.Problem(y)], mask=mask, options=QUICK.get(name))
        for z in (x, a * x + b)
    ]
    first, second = fits[0].decision(0, x, mask), fits[1].decision(0, a * x + b, mask)
    np.testing.assert_allclose(first, second, atol=2e-2 * np.abs(first).max())


def test_whole_texts() -> None:
    _, probe = frozen(get_estimator("attention-pooling"), 3, torch.float64)
    x, mask, _ = problem(get_estimator("attention-pooling"), 3, torch.float64)
    assert mask is not None and probe.texts
    padded = x.masked_fill(~mask[..., None], torch.nan)
    assert torch.equal(probe.scores(padded, mask), probe.scores(x, mask)), "padding may hold anything"
    torch.testing.assert_close(probe.scores(x[4:5, :5]), probe.scores(x, mask)[4:5])
    rows = frozen(get_estimator("mlp"), 2, torch.float64)[1]
    empty = mask.clone()
    empty[7] = False
    for call, message in (
        (lambda: probe.scores(x[0]), r"reads whole texts \[m, t, d\], not \[5, 6\]"),
        (lambda: probe.scores(x, mask[:, :3]), r"mask of truth values \[48, 5\], not torch.bool \[48, 3\]"),
        (lambda: probe.scores(x, mask.int()), "not torch.int32"),
        (lambda: probe.scores(x, empty), "text 7 has no tokens"),
        (lambda: probe.predict(x[..., :4], mask), "reads 6 features, not 4"),
        (lambda: rows.scores(x, mask), "reads rows, and takes no mask"),
        (lambda: rows.coef, "mlp probes are not linear"),
        (lambda: rows.distances(x[0]), "only maps have distances"),
        (lambda: probes.ProbeScore(probe, "name 1"), "reads whole texts, and a measure is of one position"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def changed(folder: Path, **tensors: Tensor | None) -> None:
    """Other tensors, in a record that does not know the digest of its file, as the first records did not."""
    record, file = folder / "probe.json", folder / "probe.safetensors"
    told = json.loads(record.read_text())
    told.pop("sha256", None)
    record.write_text(json.dumps(told))
    now: dict[str, Any] = {**load_file(file), **{f".{name}": x for name, x in tensors.items()}}
    save_file({name: x for name, x in now.items() if x is not None}, file)


def test_files_that_are_not_those_of_the_probe_are_refused(tmp_path: Path) -> None:
    _, probe = frozen(get_estimator("mlp"), 3, torch.float64)
    folder = probe.save(tmp_path / "mlp")
    _, other = frozen(get_estimator("mlp"), 3, torch.float32)
    foreign = (other.save(tmp_path / "other") / "probe.safetensors").read_bytes()
    tensors, record = folder / "probe.safetensors", folder / "probe.json"
    whole, text = tensors.read_bytes(), record.read_text()
    flipped = bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]])
    for content, message in (
        (whole[:-5], r"probe\.safetensors' cannot be read"),
        (b"", r"probe\.safetensors' cannot be read"),
        (
            flipped,
            r"probe\.safetensors' is damaged, or of another folder: probe\.json was written with other",
        ),
        (foreign, "is damaged, or of another folder"),
    ):
        tensors.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            Probe.load(folder)
    tensors.write_bytes(whole)
    for old, new, message in (
        ('"weights": "mlp"', '"weights": "mlq"', "'mlq' is not a known sort of weights; did you mean 'mlp'"),
        ('"weights": "mlp"', '"weights": "linear"', r"has no tensor '\.coef'"),
        ('"reads": "classes"', '"reads": "clases"', "'clases' is not a known reading of a probe"),
        ('"name 2"', '"name 2", "name 3"', "a probe of classes .* gives 3 scores"),
        (f'"site": "{SITE}"', '"site": 3', r"probe\.json' is not a record of probes"),
        (text, '{"format": "probes.probe", "version": 1, "probes": []}', "is not a record of probes"),
        ('"probes.probe"', '"circuits.run"', "is 'circuits.run' version 1, not 'probes.probe' version 1"),
    ):
        assert old in text
        record.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            Probe.load(folder)
    record.write_text(text)
    for change, message in (
        ({"shift": None}, r"has no tensor '\.shift'"),
        ({"shift": torch.zeros(4)}, r"shift is \[4\], and not \[h\], where h is 5"),
        ({"shift": torch.zeros(5, dtype=torch.int64)}, r"shift is torch.int64 \[5\], and not floating \[h\]"),
        ({"mean": torch.zeros(4)}, "the mean has 4 features, and the weights 6"),
    ):
        changed(folder, **change)
        with pytest.raises(ValueError, match=message):
            Probe.load(folder)
        record.write_text(text)
        tensors.write_bytes(whole)
    assert torch.equal(Probe.load(folder).scores(torch.ones(1, D)), probe.scores(torch.ones(1, D)))


def test_the_first_records_of_linear_probes_are_read(tmp_path: Path) -> None:
    """They knew neither a sort of weights nor a digest."""
    _, probe = frozen(get_estimator("ridge"), 2, torch.float64)
    folder = probe.save(tmp_path / "old")
    changed(folder)
    record = json.loads((folder / "probe.json").read_text())
    del record["probes"][0]["weights"]
    (folder / "probe.json").write_text(json.dumps(record))
    assert torch.equal(Probe.load(folder).coef, probe.coef)


# ---- whole runs


def call(*arguments: object) -> int:
    return run_app(app, [str(a) for a in arguments], name="probes")


def table(path: Path, seed: int) -> Path:
    """The label is the last word's first letter."""
    draw = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for word in [w for w in WORDS if w[0] in "bdm"] * 3:
            writer.writerow([" ".join([*draw.sample(WORDS, draw.randint(1, 4)), word]), word[0]])
    return path


@pytest.mark.parametrize(
    ("estimator", "more"),
    [("mlp", ("--option", "hidden=8")), ("attention_pooling", ("--position", "all"))],
)
def test_a_run_of_probes_that_are_not_linear(
    estimator: str,
    more: tuple[str, ...],
    tiny: Transformer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, data, other = (
        save(tiny, tmp_path / "tiny"),
        table(tmp_path / "a.csv", 0),
        table(tmp_path / "b.csv", 1),
    )
    run = tmp_path / "run"
    options = ("--model", model, "--folds", 3, "--layers", "1-2", "--floors", "majority", "--bootstrap", 20,
               "--controls", 0, "--seed", 3, *more)  # fmt: skip
    assert call("train", data, "--estimator", estimator, *options, "--out", run) == 0
    again = tmp_path / "again"
    assert call("train", "--config", run / "config.yaml", "--out", again) == 0
    for name in ("table.csv", "probes.safetensors", "probes.json", "predictions.safetensors"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    assert call("eval", run) == 0 and call("table", run) == 0
    assert call("plot", run, "--out", tmp_path / "pictures") == 0
    capsys.readouterr()
    assert call("eval", run, other, "--layers", "all", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    kept = probes.Run.load(run)
    probe, labelled = kept.probe(SITE), Labelled.from_csv(other)
    assert probe.names == ("b", "d", "m") and probe.record["penalty"] == {"alpha": 1.0}
    store = probes.harvest(tiny, labelled, [SITE], positions=kept.config.positions)
    read = whole_texts(store, SITE, labelled.n) if probe.texts else (store.take(SITE),)
    right = (probe.predict(*read).numpy() == labelled.target().labels).mean()  # type: ignore[union-attr]
    row = next(row for row in told if row["site"] == SITE and row["metric"] == "accuracy")
    assert row["score"] == pytest.approx(right) and right > 1 / 3

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("probes.cli_options.load_model", never)
    for command, line in (
        ("steer", "probes are not linear and have no direction; ccs, k-sparse,"),
        ("erase", "probes are not linear, and erasing takes away what linear ones read: ccs, k-sparse,"),
    ):
        assert call(command, run, "--layer", 1) != 0
        said = capsys.readouterr().err.strip()
        assert line in said and "\n" not in said
    assert call("train", data, "--estimator", "attention-pooling", "--model", model) != 0
    assert "read all tokens of whole texts" in capsys.readouterr().err
