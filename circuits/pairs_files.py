"""Pairs of prompts in a CSV or JSONL file: read as a task.

1. A file is read whole: its columns, and its records with their line numbers.
2. Its columns tell what they mean (`pairs_layouts`).
3. All rows are made into pairs for the model's tokenizer. What does not fit is told with its line.
4. The pairs asked for are drawn by seed.

Texts are taken as they stand: the answer " Mary" has its space.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from circuits.pairs import Pairs
from circuits.pairs_layouts import COUNTERFACTUAL, Layout, Reading, Row, detect, get_layout
from circuits.pairs_writing import SEPARATOR, Kind

if TYPE_CHECKING:
    from circuits.task import Drawing, Task
    from lens.model import Transformer
    from lens.tokens import Tokenizer

CSV, JSONL = (".csv", ".tsv"), (".jsonl", ".ndjson")
MOST_COLUMNS = 1000
ALL = 0
"""What a finite task's `Drawing.n` is where every pair is asked for."""


@dataclass(frozen=True)
class Record:
    """One row of a file; objects within objects have their names joined by dots."""

    line: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class PairsFile:
    """A file that was read, and how its columns are to be understood."""

    path: Path
    columns: tuple[str, ...]
    records: tuple[Record, ...]
    layout: Layout
    separator: str
    prepend_bos: bool | None
    skip_unfit: bool

    def build(self, drawing: Drawing) -> Pairs:
        """The pairs drawn: the first n of the rows in an order given by the seed, or all in the file's order.

        Raises:
            ValueError: a row does not fit the model (with its line), or there are fewer than asked for.
        """
        corrupt = next(c for c in self.layout.corrupt(self.columns) if short(c) == drawing.corruption)
        reading = Reading(corrupt, self.separator, drawing.model.tokenizer)
        records, n = list(self.records), drawing.n
        if n != ALL:
            drawing.rng.shuffle(records)
        if self.skip_unfit:
            return self._of_fitting(drawing.model, records, reading, n)
        if n > len(records):
            raise ValueError(f"{self.path} has {len(records)} pairs; {n} were asked for")
        rows = [self._row(record, reading) for record in self.records]
        try:
            pairs_of(drawing.model, rows, self.prepend_bos)
        except ValueError:
            for record, row in zip(self.records, rows, strict=True):
                self._fit(drawing.model, record, row)
            raise
        chosen = records[: n or len(records)]
        return pairs_of(drawing.model, [self._row(r, reading) for r in chosen], self.prepend_bos)

    def _of_fitting(self, model: Transformer, records: Sequence[Record], reading: Reading, n: int) -> Pairs:
        rows: list[Row] = []
        unfit: list[str] = []
        for record in records:
            try:
                row = self._row(record, reading)
                self._fit(model, record, row)
            except ValueError as error:
                unfit.append(str(error))
                continue
            rows.append(row)
            if len(rows) == n:
                break
        if not rows or len(rows) < n:
            example = f" (the first that does not: {unfit[0]})" if unfit else ""
            raise ValueError(
                f"{self.path}: {len(rows)} of {len(records)} pairs fit {model.cfg.name}{example}"
            )
        return pairs_of(model, rows, self.prepend_bos)

    def _row(self, record: Record, reading: Reading) -> Row:
        try:
            return self.layout.row(record.fields, reading)
        except KeyError as error:
            raise ValueError(f"{self.path}, line {record.line}: {error.args[0]} is missing") from None
        except ValueError as error:
            raise ValueError(f"{self.path}, line {record.line}: {error}") from error

    def _fit(self, model: Transformer, record: Record, row: Row) -> None:
        try:
            pairs_of(model, [row], self.prepend_bos)
        except ValueError as error:
            message = str(error).removeprefix("pair 0: ")
            raise ValueError(f"{self.path}, line {record.line}: {message}") from error


def task_of(
    cls: type[Task],
    path: str | Path,
    kind: Kind | None = None,
    *,
    layout: str | None = None,
    separator: str = SEPARATOR,
    metric: str | None = None,
    prepend_bos: bool | None = None,
    skip_unfit: bool | None = None,
) -> Task:
    """A file of pairs as a task; where `kind` is None, its suffix tells whether it is CSV or JSONL.

    Raises:
        ValueError: there is no such file, it is empty, not UTF-8 or not what its suffix says, or a column is
            missing. One line, with the line of the file.
    """
    path = Path(path)
    columns, records = read(path, kind or kind_of(path))
    found = detect(columns) if layout is None else get_layout(layout)
    missing = found.missing(columns)
    if missing or not found.corrupt(columns):
        lacking = " and ".join(" or ".join(names) for names in missing) or "corrupt prompts"
        raise ValueError(f"{path} has no column {lacking}; its columns are {', '.join(columns)}")
    skips = found.skips if skip_unfit is None else skip_unfit
    file = PairsFile(path, columns, records, found, separator, prepend_bos, skips)
    scored = any(name.startswith(("wrong", "incorrect")) for name in columns) or found.name != "plain"
    return cls(
        name=path.stem,
        title=path.name,
        about=f"{len(records)} pairs in the layout {found.name}.",
        source=str(path),
        corruptions={short(c): f"column {c}" for c in found.corrupt(columns)},
        build=file.build,
        metric=metric or (found.metric if scored else "log_prob"),
        finite=True,
    )


def short(column: str) -> str:
    """The name of a corruption whose prompts are in this column."""
    return column.removesuffix(COUNTERFACTUAL).removesuffix("_ids")


def is_file_of_pairs(name: str) -> bool:
    """Whether a name is the path of such a file rather than the name of a task."""
    return Path(name).suffix.lower() in (*CSV, *JSONL)


def kind_of(path: Path) -> Kind:
    """What a file's suffix says it is.

    Raises:
        ValueError: it says neither.
    """
    if not is_file_of_pairs(path.name):
        raise ValueError(f"{path} must end in {', '.join((*CSV, *JSONL))}")
    return "csv" if path.suffix.lower() in CSV else "jsonl"


def pairs_of(model: Transformer, rows: Sequence[Row], prepend_bos: bool | None) -> Pairs:
    """Rows as pairs.

    Raises:
        ValueError: a row does not fit; the message begins with "pair" and its number here.
    """
    texts = [isinstance(prompt, str) for row in rows for prompt in (row.clean, row.corrupt)]
    if any(texts) and not all(texts):
        raise ValueError(f"pair {texts.index(False) // 2}: some prompts are texts and some are token ids")
    clean, corrupt = [row.clean for row in rows], [row.corrupt for row in rows]
    answers, wrong = [row.answers for row in rows], [row.wrong for row in rows]
    if texts[0]:
        pairs = Pairs.from_text(model, clean, corrupt, answers, wrong, prepend_bos=prepend_bos)  # type: ignore[arg-type]
    else:
        found = [[[as_id(model.tokenizer, a) for a in one] for one in many] for many in (answers, wrong)]
        pairs = Pairs.from_tokens(model, clean, corrupt, *(flat(ids) for ids in found))  # type: ignore[arg-type]
    groups = tuple(row.group for row in rows)
    return replace(pairs, labels=labels_of(pairs, rows), groups=groups if any(groups) else ())


def as_id(tokenizer: Tokenizer | None, answer: str | int) -> int:
    """The token of an answer."""
    if isinstance(answer, int):
        return answer
    if tokenizer is None:
        raise ValueError(f"the answer {answer!r} is a text, and the model has no tokenizer")
    return tokenizer.single(answer)


def flat(ids: list[list[int]]) -> Any:
    """One id per pair where every pair has one; else lists."""
    return [row[0] for row in ids] if all(len(row) == 1 for row in ids) else ids


def labels_of(pairs: Pairs, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Named positions [n] each, which every row must have."""
    names = list(dict.fromkeys(name for row in rows for name in row.labels))
    lengths = pairs.mask.sum(1).tolist()
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        for name in names:
            if name not in row.labels:
                raise ValueError(f"pair {i}: label.{name} is missing")
            if not 0 <= row.labels[name] < length:
                raise ValueError(f"pair {i}: label.{name} is {row.labels[name]}; there are {length} tokens")
    return {name: torch.tensor([row.labels[name] for row in rows]) for name in names}


# ---- reading


def read(path: Path, kind: Kind) -> tuple[tuple[str, ...], tuple[Record, ...]]:
    """Columns and records of a file.

    Raises:
        ValueError: as `task_of`.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not UTF-8") from error
    records = list(_csv(path, text) if kind == "csv" else _jsonl(path, text))
    if not records:
        raise ValueError(f"{path} is empty; at least one pair is needed")
    return tuple(dict.fromkeys(name for r in records for name in r.fields)), tuple(records)


def _csv(path: Path, text: str) -> Iterator[Record]:
    lines = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True
    )
    header: list[str] | None = None
    begins = 1
    try:
        for cells in lines:
            line, begins = begins, lines.line_num + 1
            if not any(cells):
                continue
            if header is None:
                header = [name.strip() for name in cells]
                if len(header) > MOST_COLUMNS:
                    raise ValueError(
                        f"{path}, line {line}: {len(header):,} columns; at most {MOST_COLUMNS:,} are read"
                    )
                twice = next((name for name in header if name and header.count(name) > 1), None)
                if twice is not None:
                    raise ValueError(f"{path}, line {line}: the column {twice!r} stands twice")
                continue
            if len(cells) != len(header):
                raise ValueError(f"{path}, line {line}: {len(cells)} cells; the header has {len(header)}")
            yield Record(line, dict(_flat({n: _cell(c) for n, c in zip(header, cells, strict=True) if n})))
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num}: {error}") from error


def _jsonl(path: Path, text: str) -> Iterator[Record]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            value = json.loads(content)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ValueError(f"{path}, line {line}: not a JSON object")
        yield Record(line, dict(_flat(value)))


def _cell(text: str) -> Any:
    """A cell of a CSV file: an object where it spells one in JSON, else the text."""
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _flat(fields: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
