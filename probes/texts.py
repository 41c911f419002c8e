"""Labelled texts: what a probe learns from, and the groups that must stay together when data are split."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lens.nearest import nearest

COLUMNS = ("text", "label", "group")


@dataclass(frozen=True)
class Labelled:
    """Texts with a class each.

    Args:
        texts: n texts.
        labels: the class of each text, as an index into `classes`.
        classes: names of the classes, each of which at least one text has.
        groups: what each text belongs to (its template, its subject, …); texts of one group are never on both
            sides of a split. None where there are no groups.

    Raises:
        ValueError: lengths differ, an empty text, a label outside the classes, a class without texts, or only
            one class.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.texts)
        if len(self.labels) != n:
            raise ValueError(f"there are {n} texts and {len(self.labels)} labels")
        if self.groups is not None and len(self.groups) != n:
            raise ValueError(f"there are {n} texts and {len(self.groups)} groups")
        for i, text in enumerate(self.texts):
            if not text:
                raise ValueError(f"text {i} is empty")
        counts = self.counts
        if wrong := [label for label in counts if not 0 <= label < len(self.classes)]:
            raise ValueError(f"label {wrong[0]} is outside the {len(self.classes)} classes")
        if missing := [name for i, name in enumerate(self.classes) if i not in counts]:
            raise ValueError(f"no text has the label {missing[0]!r}")
        if len(self.classes) < 2:
            only = f"all {n} texts have the label {''.join(self.classes)!r}" if n else "there are no texts"
            raise ValueError(f"a probe needs two classes or more; {only}")

    @property
    def counts(self) -> Counter[int]:
        """How many texts each class has."""
        return Counter(self.labels)

    @classmethod
    def of(cls, texts: Sequence[str], labels: Sequence[Any], groups: Sequence[Any] | None = None) -> Labelled:
        """From labels and groups of any kind, known by their names; classes are in the order of their names.

        Raises:
            ValueError: as for the class.
        """
        names = [str(label) for label in labels]
        classes = sorted(set(names))
        index = {name: i for i, name in enumerate(classes)}
        return cls(
            tuple(texts),
            tuple(index[name] for name in names),
            tuple(classes),
            None if groups is None else tuple(str(group) for group in groups),
        )

    @classmethod
    def from_csv(cls, path: str | Path) -> Labelled:
        """Read a CSV file in UTF-8 with columns `text`, `label` and, if it has it, `group`; others are ignored.

        Raises:
            ValueError: the file cannot be read, is empty, lacks a column or a value, or has one class only; one
                line that names the file, and the line where there is one.
        """
        return _labelled(path, _csv_rows(Path(path)))

    @classmethod
    def from_jsonl(cls, path: str | Path) -> Labelled:
        """Read a file of one JSON object a line, with keys `text`, `label` and perhaps `group`; others are ignored.

        Labels and groups are texts, whole numbers or truth values.

        Raises:
            ValueError: as for `from_csv`.
        """
        return _labelled(path, _jsonl_rows(Path(path)))

    @classmethod
    def read(cls, path: str | Path) -> Labelled:
        """Read a `.csv`, `.jsonl` or `.ndjson` file.

        Raises:
            ValueError: as for `from_csv`, or another kind of file.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".csv":
            return cls.from_csv(path)
        if suffix in (".jsonl", ".ndjson"):
            return cls.from_jsonl(path)
        raise ValueError(f"{str(path)!r} is neither a .csv nor a .jsonl file")


Fields = dict[str, str]


def _labelled(path: str | Path, rows: Iterable[tuple[int, Fields]]) -> Labelled:
    texts: list[str] = []
    labels: list[str] = []
    groups: list[str] = []
    try:
        for line, fields in rows:
            for column, value in fields.items():
                if not value.strip():
                    raise ValueError(f"{str(path)!r}, line {line}: the {column} is empty")
            if texts and ("group" in fields) != bool(groups):
                raise ValueError(f"{str(path)!r}, line {line}: either every line has a group, or none")
            texts.append(fields["text"])
            labels.append(fields["label"].strip())
            groups += [fields["group"].strip()] if "group" in fields else []
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text: byte {error.start} is invalid") from error
    if not texts:
        raise ValueError(f"{str(path)!r} has no texts")
    try:
        return Labelled.of(texts, labels, groups or None)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, Fields]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise ValueError(
                    f"{str(path)!r} is empty; its first line names the columns, such as text,label"
                )
            for column in ("text", "label"):
                if column not in header:
                    raise ValueError(f"{str(path)!r} has no column {column!r}; {_has(column, header)}")
            places = {column: header.index(column) for column in COLUMNS if column in header}
            for row in reader:
                if not row:
                    continue  # a blank line
                if len(row) != len(header):
                    raise ValueError(
                        f"{str(path)!r}, line {reader.line_num}: {len(row)} values for {len(header)} columns; "
                        "a text with a comma is put in double quotes"
                    )
                yield reader.line_num, {column: row[place] for column, place in places.items()}
        except csv.Error as error:
            raise ValueError(f"{str(path)!r}, line {reader.line_num}: {error}") from error


def _has(column: str, header: list[str]) -> str:
    guesses = nearest(column, header, n=1)
    return f"did you mean {guesses[0]!r}?" if guesses else f"it has {', '.join(map(repr, header))}"


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Fields]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{str(path)!r}, line {number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where}: not JSON: {error}") from error
            if not isinstance(record, dict):
                raise ValueError(f"{where}: not a JSON object")
            fields: Fields = {}
            for column in COLUMNS:
                if column in record:
                    fields[column] = _plain(record[column], column, where)
                elif column != "group":
                    raise ValueError(f"{where}: no {column!r}; {_has(column, list(record) or ['nothing'])}")
            yield number, fields


def _plain(value: Any, column: str, where: str) -> str:
    if isinstance(value, str):
        return value
    if column != "text" and isinstance(value, bool | int):
        return json.dumps(value)
    allowed = "a text" if column == "text" else "a text, a whole number, true or false"
    raise ValueError(f"{where}: the {column} is {json.dumps(value)[:40]}, not {allowed}")
