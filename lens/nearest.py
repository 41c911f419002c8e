""" "Did you mean": the nearest valid choices for a name that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: object, choices: Iterable[str], n: int = 3) -> list[str]:
    """Up to `n` of `choices` that look like `name`, best first; none where that is no text."""
    choices = list(choices)
    if not isinstance(name, str):
        return []
    exact_part = [c for c in choices if name and name.lower() in c.lower()]
    close = get_close_matches(name, choices, n=n, cutoff=0.5)
    return list(dict.fromkeys([*close, *exact_part]))[:n]


def unknown(kind: str, name: object, choices: Iterable[str], of: str = "") -> str:
    """One line that names what was asked for and the nearest valid choices.

    >>> unknown("task", "io", ["ioi", "sva"])
    "'io' is not a known task; did you mean 'ioi'?"
    """
    choices = sorted(choices)
    guesses = nearest(name, choices)
    a = "an" if kind[:1] in "aeio" else "a"
    what = f"{name!r} is not {a} {kind} of {of}" if of else f"{name!r} is not a known {kind}"
    if guesses:
        return f"{what}; did you mean {' or '.join(repr(g) for g in guesses)}?"
    shown = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
    return f"{what}; choose from {shown}" if shown else what
