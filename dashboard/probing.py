"""Probes for the page: training them, a layer's activations in two dimensions, steered continuations.

1. Training: rows are made or read, harvested and judged once per position, and each position becomes a run.
2. A layer: its activations at the rows, by their first two principal components, and by linear discriminants
   (Fisher, "The use of multiple measurements in taxonomic problems", 1936) that are fitted to one half of the rows
   and shown on the other. With more features than rows any labels can be told apart on the rows that were fitted.
3. Steering: dose · sd · u is added from a position on, where sd is the spread of the activations along u.

No Streamlit: this runs in jobs.

Letters: n row, d width, c class, t test row.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lens import atomic
from lens.progress import Progress, silent
from probes import splits
from probes.config import Config
from probes.dataset import get_dataset, load_dataset
from probes.estimator import get_estimator
from probes.labelled import Classes, Heads, Labelled, Values
from probes.probe import Probe
from probes.steer import generate_steered
from probes.store import Run, check_destination
from probes.train import check, harvested, train

if TYPE_CHECKING:
    from dashboard.jobs import Job, Runner
    from dashboard.models import Shelf
    from lens.model import Transformer

REPEATS = "words that come again"
OWN = "my own table"
LARGEST = 2 * 2**20
TABLE = "data.csv"
MOST_ROWS = 400
LDA_WIDTH = 256
READS = {"pairs": "classes", "sequences": "classes"}
"""What targets kinds are fitted to, where that is not what they are called by."""

# ---- what is trained on


@dataclass(frozen=True)
class Source:
    """Rows by name: a data set with its options, a table that a person gave, or words that come again."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    table: bytes | None = None

    def rows(self, model: Transformer, n: int) -> Labelled:
        """At most `n` rows.

        Raises:
            ValueError: an unknown data set or option, or a table that cannot be read.
        """
        content = self.content(model, n)
        if content is None:
            known = get_dataset(self.name).options
            return load_dataset(self.name, **dict(self.options), **({"n": n} if "n" in known else {}))
        return replace(_read(content), name=self.name)

    def content(self, model: Transformer, n: int) -> bytes | None:
        """The table of rows that are not of a data set."""
        return repeats(model, n) if self.name == REPEATS else self.table


def repeats(model: Transformer, n: int, seed: int = 0) -> bytes:
    """A table of words of the model's own vocabulary: has the last one been there before?

    Half of the texts end with a word that comes again. Which words they are tells nothing: only the context does.

    Raises:
        ValueError: the model has no tokenizer, or one without words.
    """
    if model.tokenizer is None:
        raise ValueError(f"{model.name} has no tokenizer, so that no texts can be made for it")
    pieces = model.tokenizer.str_tokens(list(range(model.tokenizer.n_vocab)))
    words = sorted({p.strip() for p in pieces if re.fullmatch(r" ?[a-z]{3,9}", p)})
    if len(words) < 12:
        raise ValueError(f"{model.name} has fewer than 12 words to make texts of")
    rng = random.Random(f"repeats {seed}")
    lines = ["text,label"]
    for i in range(n):
        chosen = rng.sample(words, 6)
        last = rng.choice(chosen[:4]) if i % 2 else chosen[5]
        lines.append(f"{' '.join([*chosen[:5], last])},{'again' if i % 2 else 'new'}")
    return "\n".join(lines).encode()


def uploaded(filename: str, content: bytes) -> Source:
    """A table that a person gave: columns text and label, and perhaps group.

    Raises:
        ValueError: it is too large or cannot be read.
    """
    shown = Path(filename.replace("\\", "/")).name[:60]
    if len(content) > LARGEST:
        raise ValueError(f"{shown!r} has {len(content):,} bytes; at most {LARGEST:,} are taken")
    try:
        _read(content)
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from error
    return Source(shown, (), content)


def _read(content: bytes) -> Labelled:
    """A table, read from a private place under a fixed name."""
    with tempfile.TemporaryDirectory(prefix="lens-probe-") as folder:
        path = Path(folder) / TABLE
        path.write_bytes(content)
        try:
            return Labelled.from_csv(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), "the table")) from error


def options_of(dataset: str) -> dict[str, Any]:
    """The options of a data set that a form can ask for, with their defaults: switches and words, never files."""
    known = get_dataset(dataset).options
    return {name: value for name, value in known.items() if isinstance(value, bool | str)}


def fits(estimator: str, target: Any) -> bool:
    """Whether a kind of probe reads such a target."""
    reads = {Classes: "classes", Values: "values", Heads: "heads"}[type(target)]
    wanted = get_estimator(estimator).target
    return READS.get(wanted, wanted) == reads


# ---- training


@dataclass(frozen=True)
class Trained:
    """What such a job gives: the names of the runs' folders."""

    runs: tuple[str, ...]


def start(
    runner: Runner, shelf: Shelf, source: Source, n: int, config: Config, positions: Sequence[str], runs: Path
) -> Job:
    """Queue the training of probes of `config.model`, one run for each position.

    Raises:
        ValueError: no position, or a setting that does not exist.
    """
    kind = get_estimator(config.estimator)
    if kind.target in ("sequences", "heads"):
        positions = ["all"]
    if not positions:
        raise ValueError("no position is chosen: last is the usual one")
    stem = folder_name(source.name, config.model, config.estimator, datetime.now())

    def work(progress: Progress) -> Trained:
        model = shelf.get(config.model, progress)
        labelled, content = source.rows(model, n), source.content(model, n)
        known = labelled.targets
        target = next((name for name in known if fits(config.estimator, known[name])), next(iter(known)))
        made = []
        for i, position in enumerate(positions):
            at = f" at {position}" if len(positions) > 1 else ""

            def shown(done: int, total: int, label: str, i: int = i, at: str = at) -> None:
                progress(i * total + done, len(positions) * total, label + at)

            place = int(position) if re.fullmatch(r"-?\d+", position) else position
            settings = config.with_(positions=place, targets=[target])
            check(labelled, settings)
            out = runs / (f"{stem}-{re.sub(r'[^A-Za-z0-9-]+', '-', position)}" if at else stem)
            check_destination(out)
            run = train(model, labelled, settings, progress=shown)
            run.save(out)
            if content is not None:
                atomic.write_bytes(out / TABLE, content)
            made.append(out.name)
        return Trained(tuple(made))

    label = f"Train probes: {source.name} in {config.model} ({config.estimator}, {n} rows)"
    return runner.submit(label, work, lane=config.model, key=("probes", runs / stem))


def folder_name(dataset: str, model: str, estimator: str, when: datetime) -> str:
    """A folder name that says what the probes are of and when they were begun."""
    parts = [
        re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-.")[:40]
        for part in ("probes", dataset, Path(model).stem, estimator)
    ]
    return "-".join([*(part for part in parts if part), when.strftime("%Y%m%d-%H%M%S")])


# ---- a layer


@dataclass(frozen=True)
class Layer:
    """Activations of rows at one site, in two dimensions.

    Args:
        rows: [n] of the data.
        pca: [n, 2]; `explained` [2]: the share of the variance of each axis.
        lda_rows, lda: [t] and [t, 2], rows that the discriminants were not fitted to; empty where there are none,
            and `why` says so then. With two classes there is one discriminant; the other axis is the first principal
            component of what it leaves.
        sd: direction → standard deviation of the activations along it.
    """

    site: str
    rows: NDArray[np.int64]
    pca: NDArray[np.float32]
    explained: NDArray[np.float32]
    lda_rows: NDArray[np.int64]
    lda: NDArray[np.float32]
    why: str
    sd: Mapping[str, float]


def layers(
    model: Transformer, labelled: Labelled, run: Run, target: str, progress: Progress = silent
) -> dict[str, Layer]:
    """All sites of the run at its rows, or at some of them, evenly from all: one reading serves every layer.

    Raises:
        ValueError: a site or a position that is not there.
    """
    rows = np.unique(np.linspace(0, labelled.n - 1, min(labelled.n, MOST_ROWS)).astype(np.int64))
    trees = any(isinstance(found, Heads) for found in labelled.targets.values())
    part = labelled if len(rows) == labelled.n or trees else labelled.subset(rows)
    rows = np.arange(labelled.n) if part is labelled else rows
    positions = "last" if run.config.positions == "all" else run.config.positions
    config = run.config.with_(positions=positions, activations=None)
    sites = list(dict.fromkeys(run.curve(target).site))
    store = harvested(model, part, sites, config, progress)
    found = {}
    for i, site in enumerate(sites):
        progress(i, len(sites), "project layers")
        x = store.take(site, None).double().numpy()
        found[site] = _layer(x, rows, part, probe_at(run, target, site), target, site)
    return found


def _layer(
    x: NDArray[np.float64],
    rows: NDArray[np.int64],
    part: Labelled,
    probe: Probe | None,
    target: str,
    site: str,
) -> Layer:
    """One site: `x` [n, d] are its activations at the rows `part`, which have the numbers `rows` in all."""
    centred = x - x.mean(0)
    axes, sizes = _components(centred)
    found = part.target(target)
    lda_rows, lda, why = np.zeros(0, np.int64), np.zeros((0, 2), np.float32), ""
    if isinstance(found, Classes):
        try:
            lda_rows, lda = discriminants(x, found.labels, part.groups)
        except ValueError as error:
            why = str(error)
    else:
        why = "discriminants tell classes apart, and this target has none"
    names = () if probe is None else probe.names
    sd = {name: float((x @ probe.direction(name).numpy()).std()) for name in names if probe is not None}
    return Layer(
        site,
        rows,
        (centred @ axes).astype(np.float32),
        sizes.astype(np.float32),
        rows[lda_rows],
        lda,
        why,
        sd,
    )


def probe_at(run: Run, target: str, site: str) -> Probe | None:
    """The run's probe of a site, where it has one with a direction."""
    for probe in run.probes.values():
        if probe.target == target and probe.site == site:
            return probe if probe.directed else None
    return None


def _components(centred: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first two principal axes [d, 2] and the share of the variance along each; the sign is the largest's."""
    _, s, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2].T * np.sign(axes[:2].T[np.abs(axes[:2]).argmax(1), range(len(axes[:2]))])
    share = s**2 / max(float((s**2).sum()), 1e-300)
    missing = 2 - axes.shape[1]
    return np.pad(axes, ((0, 0), (0, missing))), np.pad(share[:2], (0, missing))


def discriminants(
    x: NDArray[np.float64], labels: NDArray[np.int64], groups: Any = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows [t] of one half and their place [t, 2] along the discriminants of the other; groups are kept together.

    Raises:
        ValueError: the rows cannot be halved, or one half lacks a class.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    half = splits.folds(len(x), 2, labels=labels, groups=groups, seed=0)[0]
    mean = x[half.train].mean(0)
    _, s, axes = np.linalg.svd(x[half.train] - mean, full_matrices=False)
    axes = axes[: max(1, min(LDA_WIDTH, int((s > 1e-9 * s[0]).sum())))].T
    fitted, shown = (x[half.train] - mean) @ axes, (x[half.test] - mean) @ axes
    found = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(fitted, labels[half.train])
    directions = found.scalings_[:, : min(2, len(found.classes_) - 1)]
    if directions.shape[1] == 1:
        u = directions[:, 0] / np.linalg.norm(directions[:, 0])
        rest, _ = _components(fitted - np.outer(fitted @ u, u))
        directions = np.stack([directions[:, 0], rest[:, 0]], 1)
    return half.test, (shown @ directions).astype(np.float32)


# ---- steering


@dataclass(frozen=True)
class Continued:
    """One prompt continued at some doses, in standard deviations."""

    doses: tuple[float, ...]
    texts: tuple[str, ...]


def continued(
    model: Transformer,
    probe: Probe,
    name: str,
    prompt: str,
    doses: Sequence[float],
    sd: float,
    *,
    start: str = "all",
    new: int = 24,
    progress: Progress = silent,
) -> Continued:
    """What the model writes after a prompt, steered along the direction of `name`; the likeliest token each time.

    Raises:
        ValueError: an empty prompt, or one that does not fit the context.
    """
    if not prompt.strip():
        raise ValueError("The prompt is empty: type at least one word.")
    texts = []
    for i, dose in enumerate(doses):

        def shown(done: int, total: int, label: str, i: int = i) -> None:
            progress(i * total + done, len(doses) * total, "write")

        text = generate_steered(
            model, prompt, probe, probe.site, dose, sd=sd, start=start, name=name, max_new_tokens=new, progress=shown,
        )  # fmt: skip
        texts.append(text.removeprefix(prompt))
    return Continued(tuple(doses), tuple(texts))
