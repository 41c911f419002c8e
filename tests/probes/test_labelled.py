"""Labelled rows: what is read, what goes together, and that each mistake is one line that says where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from probes.labelled import Classes, Heads, Labelled, Values


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def words() -> Labelled:
    """Two texts, five words, everything a row can have."""
    return Labelled(
        "words", ("The cat sat", "A dog ran off"), np.array([0, 0, 1, 1, 1]),
        np.array([[4, 7], [8, 11], [2, 5], [6, 9], [10, 13]]),
        {
            "kind": Classes.of(["noun", "verb", "noun", "verb", "adverb"]),
            "length": Values(np.array([[3.0, 1], [3, 2], [3, 3], [3, 4], [3, 5]]), ("letters", "place"), "units"),
            "heads": Heads(np.array([1, -1, 3, -1, 3])),
        },
        groups=(("a",), ("a", "b"), ("b",), ("c",), ("c",)),
        types=("cat", "sat", "dog", "ran", "off"),
        columns={"n": np.arange(5)},
        places={"all": np.array([[0, 11], [0, 11], [0, 13], [0, 13], [0, 13]])},
        pairs=np.array([[0, 2], [1, 3]]),
        licence="CC0",
    )  # fmt: skip


def test_rows() -> None:
    rows = words()
    assert rows.n == 5 and rows.words() == ["cat", "sat", "dog", "ran", "off"]
    assert isinstance(rows.target(), Classes) and isinstance(rows.target("heads"), Heads)
    assert rows.grouped_by("text", "n").groups == (("0", "0"), ("0", "1"), ("1", "2"), ("1", "3"), ("1", "4"))
    assert rows.grouped_by().groups is None
    assert list(rows.only("length", "kind").targets) == ["length", "kind"]
    with pytest.raises(ValueError, match="'kin' is not a target of words; did you mean 'kind'"):
        rows.target("kin")
    with pytest.raises(ValueError, match="'m' is not a column of words; choose from n, text"):
        rows.grouped_by("m")
    with pytest.raises(ValueError, match="read-only"):
        rows.text[0] = 3
    with pytest.raises(ValueError, match="texts has no labels"):
        Labelled.unlabelled(["a"]).target()


def test_subset() -> None:
    rows = words()
    part = rows.only("kind", "length").subset([4, 2, 1])
    assert (
        part.texts == rows.texts and part.words() == ["off", "dog", "sat"] and part.text.tolist() == [1, 1, 0]
    )
    assert part.target().labels.tolist() == [0, 1, 2]  # type: ignore[union-attr]
    assert part.target("length").values[:, 1].tolist() == [5, 3, 2]  # type: ignore[union-attr]
    assert part.groups == (("c",), ("b",), ("a", "b")) and part.types == ("off", "dog", "sat")
    assert part.columns["n"].tolist() == [4, 2, 1] and part.pairs is not None and part.pairs.shape == (0, 2)
    whole = rows.subset(rows.text == 1)
    assert whole.texts == ("A dog ran off",) and whole.target("heads").heads.tolist() == [1, -1, 1]  # type: ignore[union-attr]
    assert rows.subset(range(5)).fingerprint == rows.fingerprint
    assert rows.only("kind").subset([0, 2]).pairs.tolist() == [[0, 1]]  # type: ignore[union-attr]
    plain = Labelled.of(["a", "b", "c"], [1, 0, 1], [7, 8, 9]).subset([2, 0])
    assert plain.texts == ("c", "a") and plain.groups == (("9",), ("7",)) and plain.text.tolist() == [0, 1]
    for picked, message in {
        (): "no rows of words are left",
        (5,): "rows are 0 to 4, and 5 to 5 were asked",
    }.items():
        with pytest.raises(ValueError, match=message):
            rows.subset(list(picked))
    with pytest.raises(ValueError, match="a row of a tree cannot be taken twice"):
        rows.subset([1, 1])
    with pytest.raises(ValueError, match="no rows of words are left"):
        rows.subset(np.zeros(5, dtype=bool))


def test_fingerprints_are_of_content() -> None:
    rows = words()
    assert rows.fingerprint == words().fingerprint and len(rows.fingerprint) == 64
    relabelled = replace(rows, targets={"kind": Classes.of(list("abcde"))})
    moved = replace(rows, spans=np.array(rows.spans) - [1, 0])
    retold = replace(rows, texts=("The cat sit", rows.texts[1]))
    regrouped = replace(rows, groups=None)
    for other in (relabelled, moved, retold, regrouped):
        assert other.fingerprint != rows.fingerprint
    assert relabelled.places_fingerprint == rows.places_fingerprint != moved.places_fingerprint
    assert moved.texts_fingerprint == rows.texts_fingerprint != retold.texts_fingerprint


def test_targets() -> None:
    heads = Heads(np.array([1, -1, 1, 2, -1]))
    assert heads.depths.tolist() == [1, 0, 1, 2, 0]
    classes = Classes.of([True, False, True])
    assert classes.names == ("False", "True") and classes.counts == {"False": 1, "True": 2}
    for make, message in {
        lambda: Classes(np.array([0, 2]), ("x", "y")): "the label 2 of row 1 is outside the 2 classes",
        lambda: Classes(np.array([0, -1]), ("x", "y")): "the label -1 of row 1 is outside the 2 classes",
        lambda: Classes(np.array([0.5]), ("x",)): "labels are whole numbers \\[n\\], not float64 \\[1\\]",
        lambda: Classes(np.array([0]), ("x", "x")): "the class 'x' stands twice among the names",
        lambda: Values(np.array([[1.0, np.nan]]), ("a", "b")): "the b of row 0 is nan, not a finite number",
        lambda: Values(np.array([1.0]), ("a",)): "values are \\[n, 1\\] for 1 names, not \\[1\\]",
        lambda: Heads(np.array([1, 5])): "the head of row 1 is 5; there are 2 rows",
        lambda: Heads(np.array([-2])): "the head of row 0 is -2",
        lambda: Heads(np.array([-1, 2, 1])): "row 1 is above itself in its tree",
        lambda: Heads(np.array([0])): "row 0 is above itself in its tree",
        lambda: Heads(np.array([0.0])): "heads are row numbers \\[n\\], not float64",
    }.items():
        with pytest.raises(ValueError, match=message):
            make()


MISTAKES: dict[str, dict[str, Any]] = {
    "words has no texts": {"texts": ()},
    "text 1 is empty": {"texts": ("The cat sat", " ")},
    "row 2 is of text 7, and there are 2 texts": {"text": np.array([0, 0, 7, 1, 1])},
    "text are whole numbers, not float64": {"text": np.ones(5)},
    "without spans each text is one row": {"spans": None},
    r"the spans of 'word' are \[5\], not \[5, 2\]": {"spans": np.arange(5)},
    r"row 1: the characters 8 to 12 \(word\) are not in text 0 'The cat sat', which has 11": {
        "spans": np.array([[4, 7], [8, 12], [2, 5], [6, 9], [10, 13]])
    },
    r"row 0: the characters 7 to 7 \(word\) are not in": {"spans": np.array([[7, 7]] * 5)},
    r"row 0: the characters -1 to 3 \(all\) are not in": {"places": {"all": np.array([[-1, 3]] * 5)}},
    "there are 5 rows, and target 'kind' has 2": {"targets": {"kind": Classes.of(list("ab"))}},
    "there are 5 rows, and column 'n' has 3": {"columns": {"n": np.arange(3)}},
    "there are 5 rows, and groups has 1": {"groups": (("a",),)},
    "there are 5 rows, and types has 1": {"types": ("a",)},
    "row 4 has an empty group": {"groups": (("a",),) * 4 + ((),)},
    r"pairs are row numbers \[k, 2\] below 5": {"pairs": np.array([[0, 5]])},
    "row 1 has its head in another text": {"targets": {"heads": Heads(np.array([1, 2, -1, -1, -1]))}},
    "target 'heads': the rows of each text must stand together": {
        "text": np.array([1, 0, 1, 1, 1]), "spans": np.array([[0, 1]] * 5),
        "targets": {"heads": Heads(np.full(5, -1))},
    },
}  # fmt: skip


@pytest.mark.parametrize("message", MISTAKES)
def test_what_does_not_go_together(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(words(), **MISTAKES[message])


def test_of() -> None:
    rows = Labelled.of(["a", "b", "c"], ["y", "x", "y"], groups=[1, 2, 1])
    assert rows.target().names == ("x", "y") and rows.groups == (("1",), ("2",), ("1",))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="there are 2 texts and 1 labels"):
        Labelled.of(["a", "b"], [0])
    with pytest.raises(ValueError, match="there are 2 rows, and groups has 3"):
        Labelled.of(["a", "b"], ["x", "y"], [1, 2, 3])
    with pytest.raises(ValueError, match="two classes or more; all 2 rows have the label 'x'"):
        Labelled.of(["a", "b"], ["x", "x"])


# ---- files


def test_csv(tmp_path: Path) -> None:
    text = '\ufefflabel,id,text,group,type,note\nyes,1,"a, b",g1,t,x\nno,2," c\nd",g2,t,y\n\nyes,3,e,g1,u,z\n'
    found = Labelled.read(written(tmp_path, "data.csv", text))
    assert found.texts == ("a, b", " c\nd", "e") and found.name == "data" and found.spans is None
    assert found.target().names == ("no", "yes") and found.target().labels.tolist() == [1, 0, 1]  # type: ignore[union-attr]
    assert found.groups == (("g1",), ("g2",), ("g1",)) and found.types == ("t", "t", "u")
    assert found.columns["id"].tolist() == [1, 2, 3] and found.columns["note"].tolist() == ["x", "y", "z"]


def test_columns_by_other_names(tmp_path: Path) -> None:
    lines = "phrase,where,lat,lng,a,b\nParis,FR,48.9,2.35,x,y\nLyon,FR,45.8,4.8,x,x\nRome,IT,41.9,12.5,z,y\n"
    path = written(tmp_path, "data.csv", lines)
    found = Labelled.from_csv(
        path,
        text="phrase",
        label="where",
        values=["lat", "lng"],
        unit="degrees",
        group=["a", "b"],
        licence="CC0",
    )
    assert list(found.targets) == ["where", "values"] and found.licence == "CC0"
    values = found.target("values")
    assert (
        isinstance(values, Values)
        and values.names == ("lat", "lng")
        and values.values[2].tolist() == [41.9, 12.5]
    )
    assert found.groups == (("x", "y"), ("x",), ("z", "y"))
    only = Labelled.from_csv(path, text="phrase", values=["lat"])
    assert list(only.targets) == ["values"] and only.columns["where"].tolist() == ["FR", "FR", "IT"]
    with pytest.raises(ValueError, match='line 2: the where is "FR", not a finite number'):
        Labelled.from_csv(path, text="phrase", values=["where"])
    with pytest.raises(ValueError, match="has no column 'c'"):
        Labelled.from_csv(path, text="phrase", label="where", group="c")


def test_words_by_their_characters(tmp_path: Path) -> None:
    lines = "text,start,end,label\nthe cat,4,7,N\nthe cat,0,3,D\na dog,2,5,N\n"
    found = Labelled.from_csv(written(tmp_path, "data.csv", lines))
    assert found.texts == ("the cat", "a dog") and found.text.tolist() == [0, 0, 1]
    assert found.words() == ["cat", "the", "dog"]
    for bad in ("4,8", "7,7", "-1,2", "1.5,2", "8,9"):
        path = written(tmp_path, "data.csv", lines.replace("4,7", bad))
        with pytest.raises(
            ValueError, match=r"line 2: start .* and end .* are no characters of the text, which has 7"
        ):
            Labelled.from_csv(path)


def test_jsonl_reads_what_csv_reads(tmp_path: Path) -> None:
    lines = '{"text": "a", "label": true}\n\n{"text": "b", "label": false, "more": []}\n'
    found = Labelled.read(written(tmp_path, "data.jsonl", lines))
    other = Labelled.read(written(tmp_path, "data.csv", "text,label,more\na,true,\nb,false,[]\n"))
    assert found.fingerprint == other.fingerprint and found.groups is None
    lines = '{"text": "a", "label": 1, "group": ["x", 2]}\n{"text": "b", "label": 2, "group": "y"}\n'
    assert Labelled.read(written(tmp_path, "data.jsonl", lines)).groups == (("x", "2"), ("y",))


CSV_MISTAKES = {
    "is empty; its first line names the columns": "",
    "has no texts": "text,label\n",
    "has no column 'label'; did you mean 'labels'?": "text,labels\na,b\n",
    "has no column 'text'; it has 'x', 'label'": "x,label\na,b\n",
    "has two columns 'text'": "text,label,text\na,b,c\n",
    "line 3: 3 values for 2 columns; a text with a comma": "text,label\na,x\nb,c,y\n",
    "line 3: the label is empty": "text,label\na,x\nb,\n",
    "line 2: the text is empty": 'text,label\n" ",x\n',
    "line 2: the group is empty": "text,label,group\na,x,\nb,y,1\n",
    "line 2: the type is empty": "text,label,type\na,x,\nb,y,1\n",
    "line 3: unexpected end of data": 'text,label\na,x\n"b,y\n',
    "two classes or more; all 2 rows have the label 'x'": "text,label\na,x\nb,x\n",
    "is not UTF-8 text: byte 11 is invalid": b"text,label\n\xff,x\n",
    "has no column 'end'": "text,label,start\na,x,0\nb,y,0\n",
    'line 2: the start is "a", not a finite number': "text,label,start,end\na,x,a,1\nb,y,0,1\n",
}


@pytest.mark.parametrize("message", CSV_MISTAKES)
def test_csv_mistakes(message: str, tmp_path: Path) -> None:
    path = written(tmp_path, "data.csv", CSV_MISTAKES[message])
    with pytest.raises(ValueError) as caught:
        Labelled.read(path)
    told = str(caught.value)
    assert message in told and repr(str(path)) in told and "\n" not in told


JSONL_MISTAKES = {
    "line 2: not JSON": '{"text": "a", "label": 1}\n{"text"\n',
    "line 1: not a JSON object": "[1]\n",
    "has no column 'label'; did you mean 'labels'?": '{"text": "a", "labels": 1}\n',
    "line 2: it has no 'label'": '{"text": "a", "label": 1}\n{"text": "b"}\n',
    "line 1: the label is 0.5, not a text, a whole number, true or false": '{"text": "a", "label": 0.5}\n',
    "line 1: the text is 3, not a text": '{"text": 3, "label": 1}\n',
    "line 2: it has no 'group'; every line has one, or none": (
        '{"text": "a", "label": 1, "group": 1}\n{"text": "b", "label": 2}\n'
    ),
}


@pytest.mark.parametrize("message", JSONL_MISTAKES)
def test_jsonl_mistakes(message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        Labelled.read(written(tmp_path, "data.jsonl", JSONL_MISTAKES[message]))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        Labelled.read(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match=r"neither a \.csv nor a \.jsonl file"):
        Labelled.read(tmp_path / "data.txt")


class Split:
    """What a `datasets.Dataset` is asked for."""

    def __init__(self, columns: dict[str, list[Any]], names: list[str] | None = None) -> None:
        self.columns, self.column_names = columns, list(columns)
        self.features = {name: SimpleNamespace() for name in columns}
        if names:
            self.features["label"].names = names
        self.info = SimpleNamespace(dataset_name="imdb")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> list[Any]:
        return self.columns[column]


def test_huggingface() -> None:
    found = Labelled.from_huggingface(
        Split({"text": ["a", "b"], "label": [1, 0]}, ["neg", "pos"]), licence="x"
    )
    assert found.target().names == ("neg", "pos") and found.target().labels.tolist() == [1, 0]  # type: ignore[union-attr]
    assert found.name == "imdb" and found.source == "the data set 'imdb'"
    with pytest.raises(ValueError, match="the data set 'imdb', row 1: the label is -1, which is no class"):
        Labelled.from_huggingface(Split({"text": ["a", "b"], "label": [1, -1]}, ["neg", "pos"]))
    with pytest.raises(
        ValueError, match=r"a data set has the splits 'train', 'test'; give one, data\['train'\]"
    ):
        Labelled.from_huggingface({"train": 1, "test": 2})
    with pytest.raises(ValueError, match="the data set 'imdb' has no column 'text'; did you mean 'texts'"):
        Labelled.from_huggingface(Split({"texts": ["a"], "label": ["b"]}))
    with pytest.raises(ValueError, match="the data set has no rows"):
        Labelled.from_huggingface(Split({"text": []}))


def test_a_real_huggingface_dataset() -> None:
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    found = Labelled.from_huggingface(data)
    assert found.target().counts == {"no": 1, "yes": 2}  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="a data set has the splits 'train'"):
        Labelled.from_huggingface(datasets.DatasetDict(train=data))


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_label_is_not_a_class(missing: float | None) -> None:
    with pytest.raises(ValueError, match="row 1 has no label"):
        Labelled.of(["a", "b", "c", "d"], ["x", missing, "y", "x"])
