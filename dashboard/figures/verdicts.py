"""What the evidence for a circuit says, in one sentence per question. It reads what `circuits.evidence` keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

IDLE = 0.01


@dataclass(frozen=True)
class Question:
    """One piece of evidence: its name, what it asks, how that is answered, and the sentence that answers it."""

    kind: str
    title: str
    how: str
    answer: Callable[[Mapping[str, Any], Mapping[str, Any]], str]


def share(value: float | None) -> str:
    """A share in whole percent."""
    return "–" if value is None or value != value else f"{round(100 * value) + 0:d}%"  # noqa: PLR0124


def _range(ends: Any) -> str:
    low, high = ends
    return f"{share(low)} to {share(high)}"


def _curve(found: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    n, text, floor = _kept(summary)
    if n in found["n_edges"]:
        text += f"; the {n:,} strongest {_range(found['intervals'][found['n_edges'].index(n)])} (95%)"
    return f"{text}{floor}. Area under the curve {found['cpr']:.2f}, of random edges {found['random']['cpr']:.2f}."


def _kept(summary: Mapping[str, Any]) -> tuple[int, str, str]:
    """Of the run's own summary: the circuit's size, what it keeps, and what random edges keep, "" where none were."""
    mine = summary["circuits"][-1]
    n, random = mine["n_edges"], mine["random"]["faithfulness"]
    text = f"Its {n:,} edge{'s keep' if n != 1 else ' keeps'} {share(mine['faithfulness'])} of the behaviour"
    return n, text, f"; random sets of that size {share(random)}" if random is not None else ""


def begun(question: Question, summary: Mapping[str, Any]) -> str | None:
    """What the run's own summary says already of a question that is not measured yet, None where that is nothing."""
    if question.kind != "curve":
        return None
    try:
        _, text, floor = _kept(summary)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    return f"{text}{floor}. Other sizes and an interval: not measured yet."


def _completeness(found: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    return (
        f"With the same nodes taken away, circuit and model differ by {share(found['incompleteness'])} of the "
        f"behaviour, on average over {len(found['sets'])} sets."
    )


def _minimality(found: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    idle = sum(row["drop"] < IDLE for row in found["nodes"])
    n = len(found["nodes"])
    return f"{idle} of {n} heads and MLPs change less than {share(IDLE)} when they alone are taken away."


def _stability(found: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    return (
        f"Circuits of two resamples of the examples share {share(found['mean'])} of their edges (95% of them "
        f"{_range(found['interval'])}); random sets share {share(found['floor'])}."
    )


def _agreement(found: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    every = found["kinds"]["all"]
    pearson = "–" if every["pearson"] is None else f"{every['pearson']:.2f}"
    ends = every["intervals"].get("pearson") or [None, None]
    interval = "" if None in ends else f" (95% {ends[0]:.2f} to {ends[1]:.2f})"
    return (
        f"Over {every['n']} nodes, estimate and exact effect correlate by {pearson}{interval}, and have the same sign "
        f"in {share(every['sign'])}."
    )


def _truth(found: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    parts = [
        f"{kind}: AUROC {row['auroc']:.2f} (chance 0.50), AUPRC {row['auprc']:.2f} (chance {row['auprc_chance']:.2f}), "
        f"{row['n_positive']} of {row['n_edges']:,} edges"
        for kind, row in found.items()
    ]
    return f"The scores' ranking against the known circuit: {'; '.join(parts)}."


QUESTIONS = (
    Question(
        "curve", "Does it do the job?",
        "The strongest edges are kept, all others carry their ablated value; random edges stand beside them.", _curve,
    ),
    Question(
        "completeness", "Is anything missing?",
        "The same nodes are taken away from the circuit and from the model: a complete circuit loses the same.",
        _completeness,
    ),
    Question(
        "minimality", "Is anything idle?", "Each head and MLP of the circuit is taken away by itself.", _minimality,
    ),
    Question(
        "stability", "Would other examples give the same circuit?",
        "Examples are drawn again with replacement, and the strongest edges of two such draws compared.", _stability,
    ),
    Question(
        "agreement", "Can the estimates be trusted?",
        "Each node's estimated effect beside what patching it really does.", _agreement,
    ),
    Question(
        "truth", "Is it the circuit that is there?",
        "Where the circuit is known, because it was planted or because somebody knows it.", _truth,
    ),
)  # fmt: skip


def answer(question: Question, kept: Mapping[str, Any], summary: Mapping[str, Any]) -> str | None:
    """The sentence, or None where this is not measured.

    Raises:
        ValueError: what is kept of it is damaged.
    """
    found = kept.get(question.kind)
    if found is None:
        return None
    try:
        if "skipped" in found:
            return f"Not asked: {found['skipped']}."
        return question.answer(found, summary)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"what is kept of {question.kind} is damaged; measure it again") from error
