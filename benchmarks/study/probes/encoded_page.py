"""Truth, space and sentiment on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.study.cells import number, table
from benchmarks.study.probes.figures import COMMAND, inside, told
from benchmarks.study.probes.setting import best

# ---- truth


def truth(piece: dict[str, Any]) -> list[str]:
    """Its part of the page."""
    about, curve, top = piece["about"], piece["curve"], best(piece["curve"])
    mean = {row["layer"]: row for row in piece["mass-mean"]}
    negated = {row["layer"]: row for row in piece["negation"]}
    rows = []
    for row in curve:
        layer = row["layer"]
        turned = negated[layer]
        rows.append([
            str(layer), told(row), told(mean[layer]), number(row.get("floor_layer-0")),
            number(row.get("floor_random-init")), told(turned["statements → negations"]),
            told(turned["both → statements"]), told(turned["both → negations"]),
        ])  # fmt: skip
    turned, drawn = negated[top["layer"]], piece["permutations"]
    return [
        "### Truth: statements about cities, on held-out countries",
        "",
        f"{COMMAND.format('truth')}: {about['rows']} statements ({_example(about['example'])}), read at the "
        "last token; "
        f"a statement belongs to both of its countries ({about['groups']} of them), and {about['judged']} "
        "are judged by "
        f"probes that saw neither. AUROC.",
        "",
        f"Best: layer {top['layer']} with {told(top)}; chosen inside {inside(piece)}. Floors: n-grams "
        f"{number(top['floor_surface'])}{_behaviour(top)}. Of "
        f"{drawn} draws of labels shuffled in whole blocks of countries "
        f"{round(top['p_value'] * (drawn + 1)) - 1} reach this: "
        f"p = {number(top['p_value'])}. There is no control task: countries that are judged never recur, so "
        "that nothing "
        "about them could have been remembered.",
        "",
        _direction(turned, top["layer"]),
        "",
        *table(
            ("layer", "logistic", "mass-mean", "embeddings", "random weights", "asked about negations",
             "fitted to both, statements", "fitted to both, negations"),
            rows,
        ),
    ]  # fmt: skip


def _direction(row: dict[str, Any], layer: int) -> str:
    plain, turned = row["statements → statements"], row["statements → negations"]
    both = row["both → negations"]
    asked = (
        f"Asked about the negations of the statements that it is judged on, the probe of layer {layer} has "
    )
    asked += f"{told(turned)} (on the statements themselves {told(plain)})"
    if turned["high"] < 0.5:
        what = ": it orders negations the wrong way round. It follows the association of city and country, not truth."
    elif turned["low"] > 0.5:
        what = ": it orders negations rightly, too."
    else:
        what = (
            ": it does not tell true from false negations. What it follows on statements is the association "
            "of city "
            "and country, and not truth under negation."
        )
    if both["low"] > 0.5:
        more = (
            f" Fitted to statements and negations together, one direction orders negations with {told(both)}."
        )
    else:
        more = f" Fitted to both together, it has {told(both)} on negations: no direction that does both is found."
    return asked + what + more


def _behaviour(row: dict[str, Any]) -> str:
    return (
        f", the model's own answer when asked {number(row['floor_behaviour'])}"
        if "floor_behaviour" in row
        else ""
    )


def _example(texts: Sequence[str]) -> str:
    return f"*{texts[0]}*, negated *{texts[1]}*"


# ---- space


def space(piece: dict[str, Any]) -> list[str]:
    """Its part of the page."""
    about, splits = piece["about"], ("random cities", "held-out countries")
    tops = {name: best(piece[name]["curve"]) for name in splits}
    held = tops["held-out countries"]
    rows = []
    for i, row in enumerate(piece[splits[0]]["curve"]):
        cells = [str(row["layer"])]
        for name in splits:
            each = piece[name]
            curve = each["curve"][i]
            cells += [
                told(curve),
                number(each["latitude"][i]["score"]),
                number(each["longitude"][i]["score"]),
            ]
            cells.append(number(curve.get("floor_random-init")))
        rows.append(cells)
    return [
        "### Space: where cities are",
        "",
        f"{COMMAND.format('space')}: {about['rows']} cities of {about['groups']} countries, the last token "
        "of the name, "
        "ridge with its penalty by leave-one-out. R² of latitude and longitude, mean of both.",
        "",
        *(_split(name, piece[name], tops[name]) for name in splits),
        "",
        _map_or_countries(tops["random cities"], held),
        "",
        *table(
            ("layer", "random cities", "latitude", "longitude", "random weights", "held-out countries", "latitude",
             "longitude", "random weights"),
            rows,
        ),
        "![Cities where they are, and where a probe that saw no city of their country puts "
        "them](images/probes-map.svg)",
        "",
    ]  # fmt: skip


def _map_or_countries(random: dict[str, Any], held: dict[str, Any]) -> str:
    country, words = random["floor_group-mean:country"], held["floor_surface"]
    compared = "less" if random["score"] < country else "more"
    text = (
        f"On random cities the probe tells {compared} than the mean of a city's country would "
        f"({number(random['score'])} "
        f"against {number(country)}): by itself such a score does not show that there is more than "
        "countries. "
    )
    if held["low"] > max(0.0, words):
        return text + (
            f"On countries of which nothing was fitted {told(held)} is left, above what n-grams tell "
            f"({number(words)}): "
            "where in the world a city lies can be read, roughly, and not only its country."
        )
    return text + (
        f"On countries of which nothing was fitted {told(held)} is left, which is not shown to be more than "
        "nothing, or "
        f"than n-grams tell ({number(words)})."
    )


def _split(name: str, found: dict[str, Any], top: dict[str, Any]) -> str:
    country = top.get("floor_group-mean:country")
    known = "" if country is None else f", the country's mean {number(country)}"
    km = found["median_km"]
    return (
        f"- {name}: best at layer {top['layer']} with {told(top)}; chosen inside {inside(found)}. Floors: "
        "the mean of all "
        f"cities {number(top['floor_mean'])}{known}, n-grams {number(top['floor_surface'])}, embeddings "
        f"{number(top['floor_layer-0'])}, random weights {number(top['floor_random-init'])}. Median distance "
        "between told "
        f"and true place {km['probe']:,.0f} km ({km['mean']:,.0f} km for the mean of all cities)."
    )


# ---- sentiment


def sentiment(piece: dict[str, Any]) -> list[str]:
    """Its part of the page."""
    kinds = ("words", "sentences")
    rows = [
        [str(row["layer"]), *(
            cell for kind in kinds for cell in (
                told(piece[kind]["curve"][i]), number(piece[kind]["curve"][i]["floor_random-init"])
            )
        )]
        for i, row in enumerate(piece["words"]["curve"])
    ]  # fmt: skip
    tops = {kind: best(piece[kind]["curve"]) for kind in kinds}
    transfer = []
    for name, found in piece["transfer"].items():
        top, within = best(found["curve"]), found["inside"]
        transfer.append([
            name, str(found["fitted"]), str(found["judged"]), told(within or top), (within or top).get("layers", ""),
            f"{told(top)} at {top['layer']}", number(top["floor_surface"]),
        ])  # fmt: skip
    about = piece["about"]
    return [
        "### Sentiment: words and sentences",
        "",
        f"{COMMAND.format('sentiment')}: {about['words']['rows']} words of VADER's lexicon (word families "
        "kept together), "
        f"{about['sentences']['rows']} sentences of four sources, each at its last token. AUROC.",
        "",
        *(
            f"- {kind}: best at layer {tops[kind]['layer']} with {told(tops[kind])}; chosen inside "
            f"{inside(piece[kind])}; n-grams {number(tops[kind]['floor_surface'])}, embeddings "
            f"{number(tops[kind]['floor_layer-0'])}."
            for kind in kinds
        ),
        "",
        *table(("layer", "words", "random weights", "sentences", "random weights"), rows),
        "Transfer: layer and penalty are chosen by cross-validation among the rows that are fitted; the best "
        "layer for the "
        "judged rows is shown beside it.",
        "",
        *table(
            ("fitted → judged", "fitted", "judged", "AUROC", "layer", "best, after the fact", "n-grams"),
            transfer,
        ),
    ]
