"""Everything about a run of probes in one zip: its files, what was told of each row, pictures, and a report.

The report is one file without scripts and without anything loaded from elsewhere; every text in it is escaped.

Letters: b judged row, k output.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboard import notes
from dashboard.bundle import STYLE, folder_name
from dashboard.figures.probe_scores import metric_name
from lens.progress import Progress, silent
from probes.drawing.pictures import pictures

if TYPE_CHECKING:
    from probes.store import Predictions, Run

OWN_TABLES = (".csv", ".jsonl", ".ndjson")


def bundle(run: Run, name: str, progress: Progress = silent) -> bytes:
    """The zip of a run of probes that is kept in a folder; all its files lie in one folder, called `folder_name(name)`.

    Raises:
        ValueError: its notes are damaged.
        Cancelled: raised by `progress`.
    """
    assert run.path is not None
    name, written = folder_name(name), notes.read(run.path)
    drawn = {
        f"{target}-{kind}": svg for target in run.targets for kind, svg in _pictures(run, target).items()
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(run.path.iterdir()):
            if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                zipped.writestr(f"{name}/{path.name}", path.read_bytes())
        pieces = list(_made(run, drawn, written.text))
        for i, (file, text) in enumerate(pieces):
            progress(i, len(pieces), file)
            zipped.writestr(f"{name}/{file}", text)
    return out.getvalue()


def _pictures(run: Run, target: str) -> dict[str, str]:
    try:
        return pictures(run, target)
    except ValueError:
        return {}  # nothing of this target can be drawn; its numbers are in the table


def _made(run: Run, drawn: dict[str, str], note: str) -> Iterator[tuple[str, str]]:
    for i, (target, told) in enumerate(run.predictions.items()):
        yield f"told-{i + 1}-{_file(target)}.csv", _told(told)
    for i, (title, svg) in enumerate(drawn.items()):
        yield f"picture-{i + 1}-{_file(title)}.svg", svg
    yield "report.html", report(run, drawn, note)


def _file(name: str) -> str:
    """Letters and digits of a name."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name)[:60]


def _told(found: Predictions) -> str:
    """One line per judged row: its number, its fold, what is true and what was said."""
    import pandas as pd

    def columns(word: str, values: np.ndarray) -> dict[str, np.ndarray]:
        if values.ndim == 1:
            return {word: values}
        return {f"{word} {k}": values[:, k] for k in range(values.shape[1])}

    table: dict[str, Any] = {"row": found.rows, "fold": found.fold}
    if found.reads == "classes":
        table["true"] = np.array([_cell(name) for name in found.names])[found.y]
    else:
        table |= columns("true", found.y)
    return pd.DataFrame(table | columns("decision", found.decision)).to_csv(index=False)


def _cell(name: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in "=+-@\t\r" else name


# ---- the report


def report(run: Run, drawn: dict[str, str], note: str) -> str:
    """The page."""
    config, data = run.config, run.record["sweep"]["data"]
    title = f"{data['name']} in {config.model}"
    sections = [_scores(run, target) for target in run.targets]
    sections += [f"<h2>{escape(name)}</h2>{svg}" for name, svg in drawn.items()]
    if note:
        sections.append(f"<h2>Notes</h2><pre>{escape(note)}</pre>")
    record = json.dumps(dict(run.record), indent=2, ensure_ascii=False)
    sections.append(f"<h2>Where it comes from</h2><pre>{escape(record)}</pre>")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    how = f"{config.estimator} on {config.site}, position {config.positions}, {config.cv} folds, {data['n']} rows"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title><style>{STYLE}</style></head>
<body><h1>{escape(title)}</h1><p>{escape(how)}</p>
{"".join(sections)}
</body></html>
"""


def scores(run: Run, target: str) -> list[tuple[str, str, str]]:
    """Place, score and its 95% interval, of the places of a target and of the layer chosen inside the folds."""
    curve, inside = run.curve(target), run.inside(target)
    rows = [row for _, row in curve.iterrows()] + ([] if inside is None else [inside])
    return [
        (
            "chosen inside the folds" if row is inside else str(row.site),
            f"{row.score:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
        )
        for row in rows
    ]


def _scores(run: Run, target: str) -> str:
    metric = metric_name(str(run.targets[target]["metric"]))
    head: Sequence[str] = ("place", metric, "95% interval")
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in scores(run, target)
    ]
    return f"<h2>{escape(target)}</h2><table>{''.join(lines)}</table>"
