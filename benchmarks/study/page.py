"""`docs/results.md`: what the studies found, as tables for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, ROOT
from benchmarks.study import nodes, planted, smollm2
from benchmarks.study.cells import ends as _ends
from benchmarks.study.cells import number as _number
from benchmarks.study.cells import percent as _percent
from benchmarks.study.cells import table
from benchmarks.study.keeping import read
from benchmarks.study.probes import section as probe_section
from circuits.truth import Recoveries, Recovery

PAGE = ROOT / "docs" / "results.md"
HEAD = """\
# Results

Made by `python -m benchmarks.study`; do not edit. The figures behind the tables lie in `benchmarks/results/` as JSON,
with the settings and the machine they were made on.
"""


def write(page: Path = PAGE) -> None:
    """Write the page from the files that are there."""
    parts = [HEAD]
    for name, section in SECTIONS.items():
        held = read(RESULTS / f"{name}.json")
        if held:
            parts.append("\n".join(section(held)))
    page.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


# ---- SmolLM2


def _smollm2(held: dict[str, Any]) -> list[str]:
    pieces, settings = held["pieces"], held["settings"]
    tasks = [t for t in smollm2.TASKS if f"{t} check" in pieces]
    lines = [
        "## SmolLM2-135M-Instruct on six tasks",
        "",
        f"`python -m benchmarks.study smollm2`: {settings['examples']} pairs each, seed {settings['seed']}, every "
        "task's own metric and first corruption, counterfactual ablation. Faithfulness is (m(circuit) − m(corrupt)) / "
        "(m(model) − m(corrupt)). CPR and CMD are MIB's areas over 0.1% to 100% of the edges; *clipped* means that "
        "faithfulness is cut to 0…1 first. Completeness is the mean gap between circuit and model when the same nodes "
        f"are knocked out of both ({settings['sets']} random halves of the circuit's nodes, and none), as a share of "
        f"what the model gains over the corrupt run; stability the overlap (Jaccard) of the top {settings['at']:,} "
        "edges of two bootstrap resamples of the pairs. Square brackets hold 95% bootstrap intervals over the pairs "
        "(stability: the central 95% of overlaps). The edges are ranked and measured on the same pairs.",
        "",
        *_checks(pieces, tasks),
    ]
    for task in tasks:
        lines += _task(pieces, task)
    return lines


def _checks(pieces: dict[str, Any], tasks: list[str]) -> list[str]:
    rows = []
    for task in tasks:
        c = pieces[f"{task} check"]
        rows.append([
            task, c["metric"], f"{_number(c['mean'])} ± {_number(c['se'])}",
            f"{_percent(c['accuracy'])} [{_percent(c['low'])}, {_percent(c['high'])}]",
            f"{c['positions'] - c['first_difference']} of {c['positions']}",
        ])  # fmt: skip
    header = (
        "task",
        "metric",
        "the model (mean ± s.e.)",
        "right against wrong",
        "positions that differ or follow",
    )
    return table(header, rows)


def _task(pieces: dict[str, Any], task: str) -> list[str]:
    found = {m: pieces[f"{task} {m}"] for m in smollm2.METHODS if f"{task} {m}" in pieces}
    if not found:
        return []
    check = pieces[f"{task} check"]
    lines = [f"### {task}", "", f"*{check['clean']}* / *{check['corrupt']}*", ""]
    sizes = [f"{n:,}" for n in smollm2.SIZES]
    rows = []
    for method, piece in found.items():
        at = dict(zip(piece["n_edges"], piece["faithfulness"], strict=True))
        rows.append([method, *(_percent(at.get(n)) for n in smollm2.SIZES), f"{piece['cpu_seconds']:.0f} s"])
    lines += table(("faithfulness at edges", *sizes, "CPU time to find"), rows)
    rows = []
    for method, piece in found.items():
        ends = dict(zip(piece["n_edges"], piece["intervals"], strict=True)).get(smollm2.AT, [None, None])
        complete, stable = piece.get("completeness"), piece.get("stability")
        rows.append([
            method, f"[{_percent(ends[0])}, {_percent(ends[1])}]",
            f"{_number(piece['cpr'])} {_ends(piece['cpr_interval'])}", _number(piece["cpr_clipped"]),
            f"{_number(piece['cmd'])} {_ends(piece['cmd_interval'])}", _number(piece["cmd_clipped"]),
            "–" if complete is None else f"{_percent(complete['mean gap'])} {_ends(complete['interval'], _percent)}",
            _stability(piece, stable),
        ])  # fmt: skip
    header = (
        "", f"faithfulness at {smollm2.AT:,}, 95%", "CPR", "CPR clipped", "CMD", "CMD clipped",
        "completeness: gap", "stability",
    )  # fmt: skip
    return [*lines, *table(header, rows), *_verified(found)]


def _stability(piece: dict[str, Any], stable: dict[str, Any] | None) -> str:
    if stable is not None:
        return f"{_number(stable['mean'])} {_ends(stable['interval'])}"
    if "seeds" in piece:
        return f"{_number(piece['seeds']['mean'])} (two seeds)"
    return "–"


def _verified(found: dict[str, Any]) -> list[str]:
    about = found.get("screen then verify", {}).get("verified")
    if about is None:
        return []
    first = about["top"][0]
    return [
        f"Of the {about['edges']} strongest edges by EAP-IG, measured exactly, {about['same sign']} have the sign that "
        f"was estimated. The strongest is {first['sender']} → {first['receiver']}: estimated "
        f"{_number(first['estimate'])} {_ends(first['estimate_interval'])}, exactly {_number(first['exact'])} "
        f"{_ends(first['exact_interval'])}.",
        "",
    ]


# ---- nodes and roles


def _nodes(held: dict[str, Any]) -> list[str]:
    pieces, settings = held["pieces"], held["settings"]
    methods = [m for m in nodes.METHODS if m in pieces]
    lines = [
        "## Estimates against exact patching: all 301 nodes of SmolLM2",
        "",
        f"`python -m benchmarks.study nodes`: IOI, {settings['examples']} pairs; each node's whole output given its "
        "corrupt value. Pearson's correlation with its 95% bootstrap interval over the pairs, then "
        "Spearman's, then the share "
        "with the right sign.",
        "",
    ]
    kinds = list(pieces[methods[0]]["kinds"]) if methods else []
    rows = []
    for method in methods:
        cells = []
        for kind in kinds:
            row = pieces[method]["kinds"][kind]
            ends = row["intervals"].get("pearson", [None, None])
            cells.append(
                f"{_number(row['pearson'])} {_ends(ends)}, {_number(row['spearman'])}, {_percent(row['sign'])}"
            )
        rows.append([method, *cells])
    counts = [f"{kind} ({pieces[methods[0]]['kinds'][kind]['n']})" for kind in kinds]
    lines += table(("", *counts), rows)
    return [*lines, *_roles(pieces["roles"])] if "roles" in pieces else lines


def _roles(found: dict[str, Any]) -> list[str]:
    lines = [
        "### Roles of heads on IOI",
        "",
        "Classes follow from attention, copying and direct effects by stated rules (`circuits/roles.py`); a head may "
        f"have several. The model's logit difference is {_number(found['metric'])}. Without a class: all its "
        "heads carry "
        "the corrupt prompt's values. *Movers attend* is the mean attention of the mover heads from END to "
        "IO, and to S1, "
        "before → after.",
        "",
    ]
    rows = []
    for role in found["roles"]:
        name, heads = role["role"], role["heads"]
        if not heads:
            continue
        out = found["without"][name]
        shifts = out["shifts"]
        mover = next((r["role"] for r in found["roles"] if "mover" in r["role"] and r["heads"]), None)
        moved = [
            "–"
            if mover is None or mover == name or mover not in shifts.get(f, {})
            else _shift(shifts[f][mover])
            for f in ("END→IO", "END→S1")
        ]
        rows.append([name, " ".join(heads[:8]) + (" …" if len(heads) > 8 else ""),
                     f"{_number(out['metric_without'])}", *moved])  # fmt: skip
    return [
        *lines,
        *table(("role", "heads", "logit difference without them", "movers attend to IO", "to S1"), rows),
    ]


def _shift(ends: list[float]) -> str:
    return f"{ends[0]:.2f} → {ends[1]:.2f}"


# ---- planted


def _planted(held: dict[str, Any]) -> list[str]:
    pieces, settings = held["pieces"], held["settings"]
    lines = [
        "## Known circuits: every method on planted models",
        "",
        f"`python -m benchmarks.study planted`: {len(pieces)} models ({settings['seeds']} seeds of each family and "
        f"difficulty), {settings['examples']} pairs each. *Causal* truth: edges whose exact patch changes the "
        "metric by "
        "more than 1% of clean − corrupt; *structural*: edges by which the construction carries what depends "
        "on the words. "
        "Means over models with 95% bootstrap intervals over models; chance is 0.5 for AUROC and the share of true "
        "edges for AUPRC. Methods that keep or drop edges are asked at several strictness levels, and an edge ranks by "
        "how long it stays.",
        "",
    ]
    for difficulty in dict.fromkeys(key.split()[0] for key in pieces):
        models = [piece for key, piece in pieces.items() if key.split()[0] == difficulty]
        rows = []
        for method in planted.METHODS:
            cells = []
            for truth in ("causal", "structural"):
                each = [_recovery(m, method, truth) for m in models if method in m["methods"]]
                if each:
                    s = Recoveries(tuple(each)).summary()
                    cells += [f"{s[n]:.3f} {_ends(s[f'{n}_interval'])}" for n in ("auroc", "auprc")]
            if cells:
                rows.append([method, *cells])
        sizes = sorted(m["n_edges"] for m in models)
        chance = sum(m["truth"]["causal"] / m["n_edges"] for m in models) / len(models)
        lines += [
            f"### {difficulty}",
            "",
            f"{len(models)} models of {sizes[0]} to {sizes[-1]:,} edges; AUPRC by chance {chance:.3f} (causal).",
            "",
            *table(("", "AUROC, causal", "AUPRC, causal", "AUROC, structural", "AUPRC, structural"), rows),
        ]
    return [*lines, *_by_family(pieces)]


def _by_family(pieces: dict[str, Any]) -> list[str]:
    """Where each method fails: hard models, family by family."""
    families = list(dict.fromkeys(key.split()[1] for key in pieces))
    hard = {f: [p for key, p in pieces.items() if key.split()[:2] == ["hard", f]] for f in families}
    rows = [
        [
            method,
            *(_number(sum(m["methods"][method]["causal"][1] for m in ms) / len(ms)) for ms in hard.values()),
        ]
        for method in planted.METHODS
    ]
    return [
        "### Where methods fail: AUPRC against causal truth, hard models by family",
        "",
        *table(("", *families), rows),
        *FAILURES,
    ]


FAILURES = (
    "- **Exact** patches rank the causal edges first by construction; against structural truth they too "
    "miss edges whose work others do when they are gone (backups, copies), and so does everything that is"
    " measured one edge at a time.",
    "- **One gradient** (EAP, clean–corrupted) is blind where attention has decided or an MLP's steps are"
    " flat: at *hard* the softmax is saturated and the gradient near zero although the edge carries "
    "everything.",
    "- **Integrated gradients** see across the saturation and lose only where several edges must move "
    "together.",
    "- **RelP** holds attention patterns constant, so edges into queries and keys score zero. On SmolLM2 it is "
    "among the best where information is carried by what heads read (agreement, pronouns, capitals, "
    "greater-than), and useless where the corrupt prompt changes where heads look (IOI, coloured objects: no "
    "better than random edges, or worse).",
    "- **Information-flow routes** say what is large in the stream, not what matters to the metric.",
    "- **Subnetwork probing** learns gates of nodes; all edges of a node rank alike, so its AUPRC on "
    "edges is low.",
    "- **Edge Pruning** and **ACDC** look for a set of edges that suffices, not for every edge with an "
    "effect: redundant ones are dropped, which costs recall against either truth.",
    "",
)


def _recovery(model: dict[str, Any], method: str, truth: str) -> Recovery:
    auroc, auprc = model["methods"][method][truth]
    return Recovery(auroc, auprc, model["truth"][truth], model["n_edges"])


SECTIONS = {
    smollm2.NAME: _smollm2,
    nodes.NAME: _nodes,
    planted.NAME: _planted,
    probe_section.NAME: probe_section.section,
}
