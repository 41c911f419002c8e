"""CoNLL-U: words, their places, heads; a line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.conllu import read_conllu
from probes.dataset import load_dataset
from probes.labelled import Heads, Values
from tests.probes.conllu_file import write


def test_words_and_their_places(tmp_path: Path) -> None:
    first, second, third = read_conllu(write(tmp_path / "a.conllu"))
    assert (first.id, first.document, first.text) == ("s0", "d0", "We don't sleep here.")
    for sentence in (first, second):
        assert all(sentence.text[w.start : w.end] == w.form for w in sentence.words)
    assert [w.form for w in second.words] == "Old dogs know the long way home".split()
    assert [third.text[w.start : w.end] for w in third.words] == ["El", "perro", "va", "al", "al", "río"]
    assert [w.head for w in first.words] == [3, 3, 3, -1, 3, 3] and first.words[2].relation == "advmod"


def test_without_comments(tmp_path: Path) -> None:
    first, second, third = read_conllu(write(tmp_path / "a.conllu", comments=False))
    assert first.text == "We don't sleep here." and second.text == "Old dogs know the long way home"
    assert (third.id, third.document, third.text) == ("3", "", "El perro va al río")


def test_trees(tmp_path: Path) -> None:
    trees = load_dataset("dependencies", path=write(tmp_path / "a.conllu"), n=None)
    heads, depth = trees.target(), trees.target("depth")
    assert isinstance(heads, Heads) and isinstance(depth, Values)
    assert heads.heads.tolist() == [3, 3, 3, -1, 3, 3, 7, 8, -1, 11, 11, 8, 8, 14, 15, -1, 18, 18, 15]
    assert depth.values[:, 0].tolist() == [1, 1, 1, 0, 1, 1, 2, 1, 0, 2, 2, 1, 1, 2, 1, 0, 2, 2, 1]
    whole = trees.subset(trees.text != 1)
    part = whole.target()
    assert isinstance(part, Heads) and part.heads.tolist() == [3, 3, 3, -1, 3, 3, 7, 8, -1, 11, 11, 8]
    with pytest.raises(ValueError, match="a tree cannot be cut: row 0 is taken without its head"):
        trees.subset([0, 1])


MISTAKES = {
    "line 4: 9 columns separated by tabs; CoNLL-U has 10": ("1\tWe\twe\t", "1\tWe\t"),
    "line 4: the head of 'We' is 'x', not a number": ("PRON\t_\t_\t4", "PRON\t_\t_\tx"),
    "line 4: the head of 'We' is 9, and s0 has 6 words": ("PRON\t_\t_\t4", "PRON\t_\t_\t9"),
    "line 8: word 7 of s0 stands where 4 is due": ("4\tsleep", "7\tsleep"),
    "line 8: the word 'slept' of s0 does not stand at 'sleep here.' of its text": ("4\tsleep", "4\tslept"),
    "line 4: 'one' 'We' is no word's number and form": ("1\tWe", "one\tWe"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(tmp_path: Path, message: str) -> None:
    path = write(tmp_path / "a.conllu")
    text = path.read_text()
    assert MISTAKES[message][0] in text
    path.write_text(text.replace(*MISTAKES[message]))
    with pytest.raises(ValueError, match=f"^'.*a.conllu', {message}$"):
        read_conllu(path)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    with pytest.raises(ValueError, match=r"a.conllu' cannot be read: No such file"):
        read_conllu(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"a.conllu' is not UTF-8 text: byte 0 is invalid"):
        read_conllu(path)
    path.write_text("# only a comment\n\n")
    with pytest.raises(ValueError, match=r"a.conllu' has no sentences"):
        read_conllu(path)
    with pytest.raises(
        ValueError, match=r"there are 3 sentences of 1 to 60 tagged words in '.*', and 4 were"
    ):
        load_dataset("pos", path=write(path), n=4)
