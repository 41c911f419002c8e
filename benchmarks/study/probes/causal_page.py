"""Erasure and steering on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.study.cells import ends, number, table
from benchmarks.study.probes.figures import COMMAND, told


def causal(piece: dict[str, Any]) -> list[str]:
    """Its part of the page."""
    about, erased = piece["about"], piece["erasure"]
    erasers = {name: found for name, found in erased.items() if isinstance(found, dict)}
    first = next(iter(erasers.values()))
    rows = []
    for name, found in erasers.items():
        for line in found["lines"]:
            if line["erasure"] == "none" and name != next(iter(erasers)):
                continue
            what = {"none": "nothing erased", "random, same rank": f"random, same rank as {name}",
                    "random, equal effect": f"random, equal effect to {name}"}.get(line["erasure"], name)  # fmt: skip
            rows.append([
                what, str(line["rank"]), f"{number(line['score'])} {ends((line['score_low'], line['score_high']))}",
                f"{line['increase']:.3f} {ends((line['increase_low'], line['increase_high']))}",
            ])  # fmt: skip
    return [
        "### Erasing and steering sentiment",
        "",
        f"{COMMAND.format('causal')}: erasers at layer {about['layer']}, fitted to {about['fitted']:,} "
        "words. Probes are "
        f"fitted anew to {first['rows']} other words after the erasure (balanced accuracy, five folds); the "
        "loss is in nats "
        f"per token over {first['tokens']} tokens of {erased['texts']} film reviews, erased at all positions "
        "but the first. "
        f"Random erasures are means of {erased['draws']} draws; *equal effect* is the smallest rank at which "
        "they hurt the "
        "probes as much.",
        "",
        *(_erased(name, found) for name, found in erasers.items()),
        "",
        _by_rows(erased["by rows fitted"], about["width"]),
        "",
        *table(("", "rank", "probe fitted anew", "loss more than without erasure"), rows),
        *_steering(piece["steering"]),
    ]


def _erased(name: str, found: dict[str, Any]) -> str:
    line = found["lines"][1]
    low, high = line["score_low"], line["score_high"]
    chance = low <= found["floor"] <= high
    own = f"on the rows it was fitted to, the best probe gains {abs(found['own rows']):.1e} nats over a constant"
    saving, cost = found["saving"], ""
    if saving is not None:
        cost = f"; a random subspace of equal effect costs {saving[0]:.3f} {ends(saving[1:])} nats per token more"
    elif found["equal effect asked"]:
        cost = "; no random subspace hurts as much"
    return (
        f"- {name}: probes of new words are {'at chance' if chance else 'not at chance'}, "
        f"{number(line['score'])} {ends((low, high))} with the floor at {found['floor']:g}; {own}{cost}."
    )


def _by_rows(found: Sequence[dict[str, Any]], width: int) -> str:
    first, last = found[0], found[-1]
    falls = last["high"] < first["low"]
    each = ", ".join(f"{told(row)} from {row['rows']:,} words" for row in found)
    error = (width / last["rows"]) ** 0.5
    return (
        f"Fitted to ever more words, LEACE leaves {each}: what is left "
        f"{'falls' if falls else 'is not shown to fall'} with the rows it is fitted to. The erasure is exact "
        "for the "
        "covariance of those rows, from which that of other words is known to about √(d/n) of a standard "
        "deviation: "
        f"{error:.2f} with {width} dimensions and {last['rows']:,} rows."
    )


def _steering(found: dict[str, Any]) -> list[str]:
    curves = {name: each for name, each in found.items() if isinstance(each, dict)}
    doses = next(iter(curves.values()))["doses"]
    rows = [
        [f"{dose:g}", *(
            f"{each['mean'][i]:.2f} {ends(each['interval'][i], lambda v: f'{v:.2f}')}, {each['loss'][i]:.2f}"
            for each in curves.values()
        )]
        for i, dose in enumerate(doses)
    ]  # fmt: skip
    return [
        f"Steering: each direction is added at all positions of {len(found['prompts'])} prompts "
        f"(*{found['prompts'][0]}*, …); "
        "one dose is one standard deviation of the words along the mass-mean direction. Measured are the "
        "log-odds of "
        f"{', '.join(w.strip() for w in found['good'])} against {', '.join(w.strip() for w in found['bad'])} "
        "as the next "
        "word, with their interval over prompts, then the prompts' loss per token.",
        "",
        *(_monotone(name, each) for name, each in curves.items()),
        "",
        *table(("dose", *curves), rows),
    ]


def _monotone(name: str, found: dict[str, Any]) -> str:
    ranged, whole = found["monotone"], (found["doses"][0], found["doses"][-1])
    if ranged is None:
        return f"- {name}: monotone nowhere within noise; Spearman {number(found['spearman'])}."
    how = "rises" if ranged["sign"] > 0 else "falls"
    all_of_it = (ranged["low"], ranged["high"]) == whole
    at = dict(zip(found["doses"], found["mean"], strict=True))
    return (
        f"- {name}: {how} monotonically, within noise, from {ranged['low']:g} to {ranged['high']:g}"
        f"{', all doses tried' if all_of_it else f' of {whole[0]:g} to {whole[1]:g}'}, by "
        f"{abs(at[ranged['high']] - at[ranged['low']]):.2f}; Spearman {number(found['spearman'])}."
    )
