"""Labelled texts: what is read, and that each mistake in a file is one line that says where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.texts import Labelled


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv(tmp_path: Path) -> None:
    text = '\ufefflabel,id,text,group\nyes,1,"a, b",g1\nno,2," c\nd",g2\n\nyes,3,e,g1\n'
    found = Labelled.read(written(tmp_path, "data.csv", text))
    assert found.texts == ("a, b", " c\nd", "e")
    assert found.classes == ("no", "yes")
    assert found.labels == (1, 0, 1)
    assert found.groups == ("g1", "g2", "g1")


def test_jsonl_reads_what_csv_reads(tmp_path: Path) -> None:
    lines = '{"text": "a", "label": true}\n\n{"text": "b", "label": false, "more": []}\n'
    found = Labelled.read(written(tmp_path, "data.jsonl", lines))
    assert found == Labelled.read(written(tmp_path, "data.csv", "text,label\na,true\nb,false\n"))
    assert found.groups is None


CSV_MISTAKES = {
    "is empty; its first line names the columns": "",
    "has no texts": "text,label\n",
    "has no column 'label'; did you mean 'labels'?": "text,labels\na,b\n",
    "has no column 'text'; it has 'x', 'label'": "x,label\na,b\n",
    r"line 3: 3 values for 2 columns; a text with a comma": "text,label\na,x\nb,c,y\n",
    "line 3: the label is empty": "text,label\na,x\nb,\n",
    "line 2: the text is empty": 'text,label\n" ",x\n',
    "line 2: the group is empty": "text,label,group\na,x,\n",
    "line 3: unexpected end of data": 'text,label\na,x\n"b,y\n',
    "two classes or more; all 2 texts have the label 'x'": "text,label\na,x\nb,x\n",
    "is not UTF-8 text: byte 11 is invalid": b"text,label\n\xff,x\n",
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
    "line 1: no 'label'; did you mean 'labels'?": '{"text": "a", "labels": 1}\n',
    "line 1: the label is 0.5, not a text, a whole number, true or false": '{"text": "a", "label": 0.5}\n',
    "line 1: the text is 3, not a text": '{"text": 3, "label": 1}\n',
    "line 2: either every line has a group, or none": (
        '{"text": "a", "label": 1, "group": 1}\n{"text": "b", "label": 2}\n'
    ),
}


@pytest.mark.parametrize("message", JSONL_MISTAKES)
def test_jsonl_mistakes(message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        Labelled.read(written(tmp_path, "data.jsonl", JSONL_MISTAKES[message]))
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        Labelled.read(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match=r"neither a \.csv nor a \.jsonl file"):
        Labelled.read(tmp_path / "data.txt")


def test_values_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match="2 texts and 1 labels"):
        Labelled(("a", "b"), (0,), ("x", "y"))
    with pytest.raises(ValueError, match="2 texts and 3 groups"):
        Labelled.of(["a", "b"], ["x", "y"], [1, 2, 3])
    with pytest.raises(ValueError, match="label 2 is outside the 2 classes"):
        Labelled(("a", "b"), (0, 2), ("x", "y"))
    with pytest.raises(ValueError, match="no text has the label 'z'"):
        Labelled(("a", "b"), (0, 1), ("x", "y", "z"))
    with pytest.raises(ValueError, match="text 1 is empty"):
        Labelled.of(["a", ""], ["x", "y"])
