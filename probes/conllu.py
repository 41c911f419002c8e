"""CoNLL-U: sentences of words with part of speech and head, and where each word stands in its text.

Format: https://universaldependencies.org/format.html. Ten columns a word, an empty line after each sentence.

1. A range line ("3-4  don't") is a surface token; the words in it follow. Empty nodes ("8.1") are left out.
2. Surface tokens are found in `# text` one after the other, with only white space between them; without that comment
   the text is made of them, with a space after each unless it says SpaceAfter=No.
3. Words in a surface token get their own part of it where their forms make it up ("do" + "n't"), else the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COLUMNS = 10


@dataclass(frozen=True)
class Word:
    """A syntactic word: where it stands in its sentence's text, and its head's index in the sentence (−1: root)."""

    form: str
    lemma: str
    upos: str
    head: int
    relation: str
    start: int
    end: int


@dataclass(frozen=True)
class Sentence:
    """A sentence; `document` is "" where the file names none."""

    id: str
    document: str
    text: str
    words: tuple[Word, ...]


def read_conllu(path: str | Path) -> list[Sentence]:
    """All sentences of a file.

    Raises:
        ValueError: the file cannot be read, has no sentences, or a line is malformed; one line that names it.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text: byte {error.start} is invalid") from error
    sentences: list[Sentence] = []
    document = ""
    for block in _blocks(lines):
        comments = dict(_comment(line) for _, line in block if line.startswith("#"))
        document = comments.get("newdoc id", comments.get("newdoc", document))
        rows = [_row(path, number, line) for number, line in block if not line.startswith("#")]
        rows = [row for row in rows if "." not in row.id]
        if rows:
            name = comments.get("sent_id") or str(len(sentences) + 1)
            sentences.append(_sentence(path, name, document, comments.get("text"), rows))
    if not sentences:
        raise ValueError(f"{str(path)!r} has no sentences")
    return sentences


@dataclass(frozen=True)
class _Row:
    line: int
    id: str
    form: str
    lemma: str
    upos: str
    head: str
    relation: str
    space_after: bool


def _blocks(lines: list[str]) -> Iterator[list[tuple[int, str]]]:
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []


def _comment(line: str) -> tuple[str, str]:
    key, _, value = line.lstrip("# ").partition("=")
    return key.strip(), value.strip()


def _row(path: str | Path, number: int, line: str) -> _Row:
    fields = line.split("\t")
    where = f"{str(path)!r}, line {number}"
    if len(fields) != COLUMNS:
        raise ValueError(f"{where}: {len(fields)} columns separated by tabs; CoNLL-U has {COLUMNS}")
    if not fields[0].replace("-", "").replace(".", "").isdigit() or not fields[1]:
        raise ValueError(f"{where}: {fields[0]!r} {fields[1]!r} is no word's number and form")
    if fields[0].isdigit() and not fields[6].isdigit():
        raise ValueError(f"{where}: the head of {fields[1]!r} is {fields[6]!r}, not a number")
    id, form, lemma, upos, _, _, head, relation, _, misc = fields
    return _Row(number, id, form, lemma, upos, head, relation, "SpaceAfter=No" not in misc.split("|"))


def _sentence(path: str | Path, name: str, document: str, text: str | None, rows: list[_Row]) -> Sentence:
    words = [row for row in rows if row.id.isdigit()]
    for i, row in enumerate(words, start=1):
        if int(row.id) != i:
            raise ValueError(
                f"{str(path)!r}, line {row.line}: word {row.id} of {name} stands where {i} is due"
            )
        if int(row.head) > len(words):
            raise ValueError(
                f"{str(path)!r}, line {row.line}: the head of {row.form!r} is {row.head}, and {name} has "
                f"{len(words)} words"
            )
    surface = _surface(rows)
    if text is None:
        text = "".join(token.form + " " * token.space_after for token, _ in surface).rstrip()
    places: list[tuple[int, int]] = []
    cursor = 0
    for token, inside in surface:
        cursor += len(text[cursor:]) - len(text[cursor:].lstrip())
        if not text.startswith(token.form, cursor):
            raise ValueError(
                f"{str(path)!r}, line {token.line}: the word {token.form!r} of {name} does not stand at "
                f"{text[cursor : cursor + 20]!r} of its text"
            )
        places += _inside(token.form, [word.form for word in inside], cursor)
        cursor += len(token.form)
    return Sentence(
        name, document, text,
        tuple(
            Word(row.form, row.lemma, row.upos, int(row.head) - 1, row.relation, *place)
            for row, place in zip(words, places, strict=True)
        ),
    )  # fmt: skip


def _surface(rows: list[_Row]) -> list[tuple[_Row, list[_Row]]]:
    """Surface tokens with the words in them."""
    found: list[tuple[_Row, list[_Row]]] = []
    last = 0
    for row in rows:
        if "-" in row.id:
            last = int(row.id.split("-")[1])
            found.append((row, []))
        elif int(row.id) <= last:
            found[-1][1].append(row)
        else:
            found.append((row, [row]))
    return found


def _inside(form: str, parts: list[str], start: int) -> list[tuple[int, int]]:
    """Where the words of a surface token stand."""
    if "".join(parts) != form:
        return [(start, start + len(form))] * len(parts)
    places = []
    for part in parts:
        places.append((start, start + len(part)))
        start += len(part)
    return places
