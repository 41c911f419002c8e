"""Everything about a run in one zip: its data, tables, pictures, and a report that opens in any browser.

The report is one file without scripts and without anything loaded from elsewhere; every text in it is escaped.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from circuits import evidence
from circuits.drawing import page, picture, svg
from circuits.exchange import FORMATS
from dashboard import notes
from dashboard.figures import raster
from dashboard.figures.verdicts import QUESTIONS, answer, share
from dashboard.notes import Notes
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.store import Run

DATA = (
    "run.json", "summary.json", "scores.safetensors", "circuit.json", "circuit.graphml", "pairs.safetensors",
    "pairs.json", evidence.FILE, notes.FILE, "truth.json",
)  # fmt: skip
"""The files of a run's folder that are taken along."""

MOST_EDGES, MOST_LETTERS = 400, 100
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; color: #1f2328; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 0.5rem 0; } td, th { padding: 0.2rem 0.8rem 0.2rem 0; text-align: left;
vertical-align: top; border-bottom: 1px solid #d8dee4; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; background: #f6f8fa; padding: 0.8rem; border-radius: 6px; }
svg { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { body { background: #15171a; color: #e6e8eb; } td, th { border-color: #3a3f45; }
pre { background: #22262b; } }
"""


def bundle(run: Run, name: str, progress: Progress = silent) -> bytes:
    """The zip of a run that is kept in a folder; all its files lie in one folder, called `folder_name(name)`.

    Raises:
        ValueError: its notes are damaged.
        Cancelled: raised by `progress`.
    """
    assert run.path is not None
    name = folder_name(name)
    written, kept = notes.read(run.path), _evidence(run)
    title = f"{run.info['task']} in {run.info['model']['name']}"
    drawn = picture.of_circuit(
        run.circuit, max_edges=MOST_EDGES, title=title, pins=_of_graph(run, written.pins),
        groups={group: _of_graph(run, nodes) for group, nodes in written.groups.items()},
    )  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in DATA:
            path = run.path / file
            if path.is_file() and not path.is_symlink():
                zipped.writestr(f"{name}/{file}", path.read_bytes())
        pieces = list(_made(run, kept, written, drawn, title))
        for i, (file, make) in enumerate(pieces):
            progress(i, len(pieces), file)
            zipped.writestr(f"{name}/{file}", make())
    return out.getvalue()


def folder_name(name: str) -> str:
    """`name` as a folder may be called on every system, without a path in it."""
    return re.sub(r"[^\w.+ -]", "-", name)[:MOST_LETTERS].strip(". ") or "run"


def _made(
    run: Run, kept: Mapping[str, Any], written: Notes, drawn: Any, title: str
) -> Iterator[tuple[str, Any]]:
    """The files that are made for the bundle, each with what makes it."""
    yield "edges.csv", lambda: FORMATS.get("csv").write(run.circuit)
    yield "nodes.csv", lambda: _csv(["node", "estimated effect"], run.scores.nodes().items())
    yield "pairs.csv", lambda: _pairs(run)
    for kind, rows in tables(kept).items():
        yield f"{kind}.csv", lambda rows=rows: _csv(rows[0], rows[1])
    yield "circuit.svg", lambda: svg.draw(drawn)
    yield "circuit.png", lambda: raster.png(drawn)
    yield "circuit.html", lambda: page.draw(drawn)
    yield "report.html", lambda: report(run, kept, written, svg.draw(drawn), title)


def _evidence(run: Run) -> dict[str, Any]:
    try:
        return evidence.load(run.path) if run.path else {}
    except ValueError:
        return {}  # the file itself goes along as it is


def _of_graph(run: Run, nodes: Sequence[str]) -> list[str]:
    known = {*run.circuit.graph.senders, "logits"}
    return [node for node in nodes if node in known]


def tables(kept: Mapping[str, Any]) -> dict[str, tuple[list[str], list[Sequence[Any]]]]:
    """Evidence as tables, by kind: headings and rows."""
    found: dict[str, tuple[list[str], list[Sequence[Any]]]] = {}
    readers = {
        "curve": (
            ["edges", "faithfulness", "low", "high", "random edges"],
            lambda x: [
                (n, f, *ends, floor)
                for n, f, ends, floor in zip(
                    x["n_edges"], x["faithfulness"], x["intervals"], x["random"]["faithfulness"], strict=True
                )
            ],
        ),
        "completeness": (
            ["knocked out", "circuit", "model", "gap"],
            lambda x: [(" ".join(r["knocked_out"]), r["circuit"], r["model"], r["gap"]) for r in x["sets"]],
        ),
        "minimality": (
            ["node", "share lost", "low", "high"],
            lambda x: [(r["node"], r["drop"], *r["interval"]) for r in x["nodes"]],
        ),
        "agreement": (
            ["node", "kind", "estimate", "exact"],
            lambda x: [(r["name"], r["kind"], r["estimate"], r["exact"]) for r in x["points"]],
        ),
    }
    for kind, (headings, read) in readers.items():
        try:
            if kind in kept and "skipped" not in kept[kind]:
                found[kind] = (headings, read(kept[kind]))
        except (KeyError, TypeError, ValueError):
            continue  # damaged; the file itself goes along as it is
    return found


def _csv(headings: Sequence[str], rows: Any) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(headings)
    table.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value


def _pairs(run: Run) -> str:
    pairs = run.pairs
    return _csv(["clean", "corrupt"], zip(pairs.clean_text, pairs.corrupt_text, strict=True))


# ---- the report


def report(run: Run, kept: Mapping[str, Any], written: Notes, drawing: str, title: str) -> str:
    """The page."""
    info, summary = run.info, run.summary
    sections = [
        _table("What was found", _found(summary), numbers=True),
        f"<h2>The circuit</h2>{drawing}",
        _table("How sure one can be", _answers(kept, summary)),
        f"<h2>Notes</h2><pre>{escape(written.text)}</pre>" if written.text else "",
        _table("Groups", [(group, ", ".join(nodes)) for group, nodes in written.groups.items()]),
        _table("Strongest heads", [(n, f"{v:+.4f}") for n, v in summary["heads"]], numbers=True),
        _table("Examples", list(zip(run.pairs.clean_text, run.pairs.corrupt_text, strict=True))[:12]),
        f"<h2>Where it comes from</h2><pre>{escape(json.dumps(dict(info), indent=2, ensure_ascii=False))}</pre>",
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title><style>{STYLE}</style></head>
<body><h1>{escape(title)}</h1>
<p>{escape(f"{info['method']}, {info['examples']} pairs, metric {info['metric']}, {info.get('created', '')}")}</p>
{"".join(sections)}
</body></html>
"""


def _found(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("Model's metric on clean prompts", f"{summary['metric_model']:.3f}"),
        ("With everything ablated", f"{summary['metric_corrupt']:.3f}"),
    ]
    for circuit in summary["circuits"]:
        n, random = circuit["n_edges"], circuit["random"]["faithfulness"]
        floor = "" if random is None else f" (random sets {share(random)})"
        rows.append((f"Faithfulness of {n:,} edge{'s' * (n != 1)}", share(circuit["faithfulness"]) + floor))
    return rows


def _answers(kept: Mapping[str, Any], summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for question in QUESTIONS:
        try:
            text = answer(question, kept, summary)
        except ValueError:
            continue  # damaged; the file itself goes along as it is
        if text is not None:
            rows.append((question.title, text))
    return rows


def _table(title: str, rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    if not rows:
        return ""
    last = ' class="n"' if numbers else ""
    body = "".join(f"<tr><td>{escape(row[0])}</td><td{last}>{escape(row[1])}</td></tr>" for row in rows)
    return f"<h2>{escape(title)}</h2><table>{body}</table>"
