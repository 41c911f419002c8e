"""Tables of labelled rows from CSV, JSON lines and Hugging Face data sets, with the line of every mistake.

1. A source becomes a `Table`: columns of plain values, and the line that each row stands in.
2. `rows_of` turns its columns into the fields of a `Labelled`; what is missing or malformed is told by line.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lens.nearest import nearest
from probes import given
from probes.targets import Classes, Target, Values

SPAN = ("start", "end")


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Args:
        name: a short name for the data.
        source: what messages call it, such as a path in quotes.
        origin: where it is from, for records.
        columns: name → a value per row.
        lines: what messages call each row, such as "line 3".
    """

    name: str
    source: str
    origin: str
    columns: dict[str, list[Any]]
    lines: list[str]

    def where(self, row: int) -> str:
        return f"{self.source}, {self.lines[row]}"

    def values(self, column: str) -> list[Any]:
        """The values of a column.

        Raises:
            ValueError: it is not there.
        """
        if column not in self.columns:
            raise ValueError(f"{self.source} has no column {column!r}; {_has(column, list(self.columns))}")
        return self.columns[column]

    def texts(self, column: str) -> list[str]:
        """The texts of a column.

        Raises:
            ValueError: it is not there, or a value is no text, or empty.
        """
        for row, value in enumerate(self.values(column)):
            self._refuse_none(column, row, value)
            if not isinstance(value, str):
                raise ValueError(f"{self.where(row)}: the {column} is {_shown(value)}, not a text")
            if not value.strip():
                raise ValueError(f"{self.where(row)}: the {column} is empty")
        return self.columns[column]

    def names(self, column: str) -> list[str]:
        """What can name a class, a group or a type: texts, whole numbers, truth values.

        Raises:
            ValueError: the column is not there, or a value is something else, or empty.
        """
        return [self._name(column, row, value) for row, value in enumerate(self.values(column))]

    def several(self, column: str) -> list[tuple[str, ...]]:
        """As `names`, where a row may have a list of them."""
        return [
            tuple(self._name(column, row, part) for part in (value if isinstance(value, list) else [value]))
            for row, value in enumerate(self.values(column))
        ]

    def _refuse_none(self, column: str, row: int, value: Any) -> None:
        if value is None:
            raise ValueError(f"{self.where(row)}: it has no {column!r}; every line has one, or none")

    def _name(self, column: str, row: int, value: Any) -> str:
        self._refuse_none(column, row, value)
        if isinstance(value, bool | int):
            return json.dumps(value)
        if not isinstance(value, str):
            raise ValueError(
                f"{self.where(row)}: the {column} is {_shown(value)}, not a text, a whole number, true or false"
            )
        if not value.strip():
            raise ValueError(f"{self.where(row)}: the {column} is empty")
        return value.strip()

    def numbers(self, column: str) -> list[float]:
        """The numbers of a column.

        Raises:
            ValueError: the column is not there, or a value is not a finite number.
        """
        found = []
        for row, value in enumerate(self.values(column)):
            self._refuse_none(column, row, value)
            number = _number(value)
            if number is None:
                raise ValueError(f"{self.where(row)}: the {column} is {_shown(value)}, not a finite number")
            found.append(float(number))
        return found

    def attribute(self, column: str) -> np.ndarray:
        """A column as an array: whole numbers or numbers where all its values are, else texts."""
        values = self.values(column)
        numbers = [_number(value) for value in values]
        if all(isinstance(number, int) for number in numbers):
            return np.array(numbers, dtype=np.int64)
        if all(number is not None for number in numbers):
            return np.array(numbers, dtype=np.float64)
        texts = [
            "" if value is None else value if isinstance(value, str) else json.dumps(value)
            for value in values
        ]
        return np.array(texts)


def rows_of(
    table: Table,
    text: str,
    label: str,
    values: Sequence[str],
    unit: str,
    group: str | Sequence[str],
    type: str,
) -> dict[str, Any]:
    """The fields of a `Labelled`, whose `from_table` tells what the arguments are.

    Raises:
        ValueError: one line that names the source and the line.
    """
    groups = given.names(group, "groups")
    values = given.names(values, "values")
    if values and label == "label" and label not in table.columns:
        label = ""
    texts = table.texts(text)
    targets: dict[str, Target] = {}
    if label:
        classes = Classes.of(table.names(label))
        if len(classes.names) < 2:
            raise ValueError(f"{table.source}: {one_class(classes.names, len(texts))}")
        targets[label] = classes
    if values:
        numbers = np.array([table.numbers(name) for name in values]).T
        targets["values"] = Values(numbers, tuple(values), unit)
    taken = {text, label, type, *values, *SPAN}
    joined = None
    if group != "group" or "group" in table.columns:
        taken |= set(groups)
        parts = zip(*(table.several(name) for name in groups), strict=True)
        joined = tuple(tuple(dict.fromkeys(name for part in row for name in part)) for row in parts)
    kept, index, spans = _spans(table, texts)
    return {
        "name": table.name,
        "source": table.origin,
        "texts": kept,
        "text": index,
        "spans": spans,
        "targets": targets,
        "groups": joined,
        "types": tuple(table.names(type)) if type in table.columns else None,
        "columns": {name: table.attribute(name) for name in table.columns if name not in taken},
    }


def _spans(table: Table, texts: list[str]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray | None]:
    """Texts, the text of each row, and its characters; equal texts one after the other are one text."""
    if not set(SPAN) & set(table.columns):
        return tuple(texts), np.arange(len(texts)), None
    kept: list[str] = []
    index = []
    for text in texts:
        if not kept or kept[-1] != text:
            kept.append(text)
        index.append(len(kept) - 1)
    spans = np.array([table.numbers(name) for name in SPAN]).T
    for row, (start, end) in enumerate(spans.tolist()):
        if start % 1 or end % 1 or not 0 <= start < end <= len(texts[row]):
            raise ValueError(
                f"{table.where(row)}: start {start:g} and end {end:g} are no characters of the text, "
                f"which has {len(texts[row])}"
            )
        if texts[row][int(start) : int(end)].isspace():
            raise ValueError(f"{table.where(row)}: the characters {start:g} to {end:g} of the text are blank")
    return tuple(kept), np.array(index, dtype=np.int64), spans.astype(np.int64)


def one_class(names: Sequence[str], n: int) -> str:
    """What is wrong with labels that are all the same."""
    return f"a probe needs two classes or more; all {n} rows have the label {''.join(names)!r}"


# ---- sources


def csv_table(path: str | Path) -> Table:
    """A CSV file in UTF-8 with a header.

    Raises:
        ValueError: it cannot be read, is empty, or a line has more or fewer values than the header.
    """
    return _collected(path, _csv_rows(given.path(path)))


def jsonl_table(path: str | Path) -> Table:
    """A file with one JSON object a line.

    Raises:
        ValueError: it cannot be read, is empty, or a line is no object.
    """
    return _collected(path, _jsonl_rows(given.path(path)))


def table_of(data: Any) -> Table:
    """What holds columns in memory: columns by name, a pandas data frame, a list of rows that are mappings.

    Raises:
        ValueError: something else, columns of different lengths, or no rows.
    """
    if isinstance(data, Table):
        return data
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        data = {str(name): data[name].astype(object).where(data[name].notna(), None) for name in data.columns}
    elif isinstance(data, list | tuple) and data and all(isinstance(row, Mapping) for row in data):
        keys = dict.fromkeys(key for row in data for key in row)
        data = {key: [row.get(key) for row in data] for key in keys}
    if not isinstance(data, Mapping):
        raise ValueError(
            f"the table is {given.sort(data)}; give columns by name, {{'text': […], 'label': […]}}, a data frame or "
            "a list of rows; Labelled.from_csv reads a file"
        )
    columns = {str(name): given.plain(values, f"the values of {name!r}") for name, values in data.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    for name, length in lengths.items():
        if length != next(iter(lengths.values())):
            raise ValueError(
                f"the table's column {name!r} has {length} rows, and {next(iter(lengths))!r} has "
                f"{next(iter(lengths.values()))}"
            )
    n = next(iter(lengths.values()), 0)
    if not n:
        raise ValueError("the table has no rows")
    return Table("table", "the table", "a table in memory", columns, [f"row {i}" for i in range(n)])


def huggingface_table(data: Any) -> Table:
    """One split of a Hugging Face data set, with the numbers of a `ClassLabel` as its names.

    Raises:
        ValueError: several splits, no rows, or a label of −1, which stands for none.
    """
    if isinstance(data, dict):
        raise ValueError(
            f"a data set has the splits {', '.join(map(repr, data))}; give one, data[{next(iter(data), '')!r}]"
        )
    if not hasattr(data, "column_names") or not hasattr(data, "features"):
        raise ValueError(
            f"the data set is {given.sort(data)}; give one split of a datasets.Dataset; Labelled.from_table takes "
            "columns by name, a data frame or a list of rows"
        )
    if not len(data):
        raise ValueError("the data set has no rows")
    info = getattr(data, "info", None)
    name = getattr(info, "dataset_name", None) or "huggingface"
    columns: dict[str, list[Any]] = {}
    for column in data.column_names:
        values = list(data[column])
        names = getattr(data.features[column], "names", None)
        if names is not None:
            if (
                bad := next((i for i, value in enumerate(values) if value is None or value < 0), None)
            ) is not None:
                raise ValueError(
                    f"the data set {name!r}, row {bad}: the {column} is {values[bad]}, which is no class"
                )
            values = [names[value] for value in values]
        columns[column] = values
    return Table(
        name,
        f"the data set {name!r}",
        f"the data set {name!r}",
        columns,
        [f"row {i}" for i in range(len(data))],
    )


Row = tuple[int, dict[str, Any]]


def _collected(path: str | Path, rows: Iterator[Row]) -> Table:
    columns: dict[str, list[Any]] = {}
    lines: list[str] = []
    try:
        for line, fields in rows:
            for name in [name for name in fields if name not in columns]:
                columns[name] = [None] * len(lines)
            for name, values in columns.items():
                values.append(fields.get(name))
            lines.append(f"line {line}")
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text: byte {error.start} is invalid") from error
    if not lines:
        raise ValueError(f"{str(path)!r} has no texts")
    return Table(Path(path).stem, repr(str(path)), Path(path).name, columns, lines)


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise ValueError(
                    f"{str(path)!r} is empty; its first line names the columns, such as text,label"
                )
            for name in header:
                if header.count(name) > 1:
                    raise ValueError(f"{str(path)!r} has two columns {name!r}")
            for row in reader:
                if not row:
                    continue  # a blank line
                if len(row) != len(header):
                    raise ValueError(
                        f"{str(path)!r}, line {reader.line_num}: {len(row)} values for {len(header)} columns; "
                        "a text with a comma is put in double quotes"
                    )
                yield reader.line_num, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise ValueError(f"{str(path)!r}, line {reader.line_num}: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
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
            yield number, record


def _has(column: str, columns: list[str]) -> str:
    guesses = nearest(column, columns, n=1)
    return f"did you mean {guesses[0]!r}?" if guesses else f"it has {', '.join(map(repr, columns))}"


def _number(value: Any) -> int | float | None:
    """A finite number, or a text that is one; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)[:40]
