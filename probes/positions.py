"""Where activations are read: labelled rows become tokens of tokenised texts.

1. Every text is tokenised once to know its length and the tokens of its rows; only numbers are kept.
2. A choice of positions picks among a row's tokens: the last, the first, all of them averaged, or what a function
   says; "all" makes a row of every token that stands for characters of its text.

Letters: m texts, n rows, p tokens of a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lens import arguments
from lens.nearest import unknown
from lens.progress import Progress, silent
from probes.labelled import Labelled
from probes.words import described, token_ranges, warn_of, widened

if TYPE_CHECKING:
    from lens.model import Transformer
    from lens.tokens import Tokenizer

Chooser = Callable[[str, Sequence[tuple[int, int]], tuple[int, int]], int]
"""Of a text, the characters of each of its tokens and a row's tokens [first, stop): the token to read."""
Positions = str | int | Chooser
HOW = ("last", "first", "mean")
ALL = "all"


@dataclass(frozen=True)
class Choice:
    """A choice of positions, checked.

    Args:
        name: for the record.
        how: which of a row's tokens; "" where `token` or `chooser` says.
        place: the named span to look at instead of the row's own.
        token: a token of the text by number, from its end where negative.
    """

    name: str
    how: str = ""
    place: str | None = None
    token: int | None = None
    chooser: Chooser | None = None


def choose(positions: Positions, labelled: Labelled) -> Choice:
    """What `positions` means for these rows.

    Raises:
        ValueError: it is not "last", "first", "mean", "all", a place of the data such as "city" or "city:mean",
            a token's number or a function.
    """
    if isinstance(positions, bool) or not (isinstance(positions, str | int) or callable(positions)):
        raise ValueError(f"positions is {positions!r}; it is a name, a token's number or a function")
    if isinstance(positions, int):
        return Choice(f"token {positions}", token=positions)
    if not isinstance(positions, str):
        return Choice(_function_name(positions), chooser=positions)
    if positions in (*HOW, ALL):
        return Choice(positions, how=positions)
    place, _, how = positions.partition(":")
    if place in labelled.places and (how or "last") in HOW:
        return Choice(f"{place}:{how or 'last'}", how=how or "last", place=place)
    known = [*HOW, ALL, *(f"{name}:{how}" for name in labelled.places for how in HOW)]
    raise ValueError(unknown("choice of positions", positions, known))


def _function_name(function: Chooser) -> str:
    code = getattr(function, "__code__", None)
    content = b"" if code is None else code.co_code + repr(code.co_consts).encode()
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    return f"{name} {hashlib.sha256(content).hexdigest()[:12]}"


@dataclass(frozen=True, eq=False)
class Plan:
    """Which tokens are read.

    Args:
        lengths: int64 [m], tokens of each text.
        text: int64 [n].
        tokens: int64 [n, 2], the tokens [first, stop) that are averaged.
        offsets: int64 [n, 2], characters of each token, for "all".
    """

    lengths: np.ndarray
    text: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray | None

    @property
    def n(self) -> int:
        return len(self.text)


def plan(
    model: Transformer,
    tokenizer: Tokenizer,
    labelled: Labelled,
    choice: Choice,
    progress: Progress = silent,
    prepend_bos: bool | None = None,
) -> Plan:
    """Which tokens are read, in the order of the data's rows.

    Raises:
        ValueError: a text that is too long for the model or has no tokens, a word that no token stands for, or a
            position past the end; text and word are named.
    """
    m = len(labelled.texts)
    lengths = np.zeros(m, dtype=np.int64)
    order = np.argsort(labelled.text, kind="stable")
    edges = np.searchsorted(labelled.text[order], np.arange(m + 1))
    ranges = np.zeros((labelled.n, 2), dtype=np.int64)
    every: list[np.ndarray] = []
    wider: dict[int, str] = {}
    for i, text in enumerate(labelled.texts):
        if i % 1000 == 0:
            progress(i, m, "aligning tokens")
        try:
            ids, offsets = _encoded(tokenizer, text, prepend_bos)
            arguments.check_length(model.cfg, len(ids))
        except ValueError as error:
            raise ValueError(f"text {i} {_short(text)}: {error}") from error
        lengths[i] = len(ids)
        if choice.how == ALL:
            characters = np.array(offsets, dtype=np.int32).reshape(-1, 2)
            if not (characters[:, 0] < characters[:, 1]).any():
                raise ValueError(f"text {i} {_short(text)} has no tokens")
            every.append(characters)
            continue
        rows = order[edges[i] : edges[i + 1]]
        found = token_ranges(labelled, rows, offsets, choice.place)
        wider |= widened(labelled, rows, offsets, found, choice.place)
        ranges[rows] = _chosen(choice, labelled, rows, offsets, found)
    progress(m, m, "aligning tokens")
    if choice.token is None:
        warn_of(labelled, wider, choice.place)
    if choice.how != ALL:
        return Plan(lengths, labelled.text, ranges, None)
    text_of = np.repeat(np.arange(m), lengths)
    characters = np.concatenate(every).astype(np.int64)
    token = np.arange(len(text_of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    real = characters[:, 0] < characters[:, 1]
    token = token[real]
    return Plan(lengths, text_of[real], np.stack([token, token + 1], 1), characters[real])


def check_prepend_bos(tokenizer: Tokenizer, prepend_bos: bool | None) -> None:
    """Raise a ValueError unless the tokenizer can do what is asked for."""
    if prepend_bos is not None and not isinstance(prepend_bos, bool):
        raise ValueError(f"prepend_bos is {prepend_bos!r}; it is true, false, or none: as the tokenizer does")
    if prepend_bos and tokenizer.bos_id is None:
        raise ValueError("prepend_bos is true, and this tokenizer has no beginning-of-text token")


def _encoded(
    tokenizer: Tokenizer, text: str, prepend_bos: bool | None
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids as `tokenizer.prompt` gives them, and the characters of each; (0, 0) for what was added."""
    if prepend_bos is None:
        return tokenizer.encode_with_offsets(text, add_special=True)
    ids, offsets = tokenizer.encode_with_offsets(text)
    if not prepend_bos:
        return ids, offsets
    assert tokenizer.bos_id is not None
    return [tokenizer.bos_id, *ids], [(0, 0), *offsets]


def _chosen(
    choice: Choice,
    labelled: Labelled,
    rows: np.ndarray,
    offsets: Sequence[tuple[int, int]],
    found: np.ndarray,
) -> np.ndarray:
    """Among the tokens [k, 2] of some rows of one text, those to read, [k, 2]."""
    if choice.how == "mean":
        return found
    if choice.how in ("first", "last"):
        token = found[:, 0] if choice.how == "first" else found[:, 1] - 1
    elif choice.token is not None:
        token = np.full(len(rows), choice.token if choice.token >= 0 else len(offsets) + choice.token)
    else:
        assert choice.chooser is not None
        token = np.zeros(len(rows), dtype=np.int64)
        for i, row in enumerate(rows.tolist()):
            text = labelled.texts[labelled.text[row]]
            picked = choice.chooser(text, offsets, (int(found[i, 0]), int(found[i, 1])))
            if isinstance(picked, bool) or not isinstance(picked, int | np.integer):
                raise ValueError(
                    f"{described(labelled, row)}: positions gave {picked!r}, not a token's number"
                )
            token[i] = picked
    if (outside := np.flatnonzero((token < 0) | (token >= len(offsets)))).size:
        row = int(rows[outside[0]])
        asked = choice.token if choice.token is not None else int(token[outside[0]])
        raise ValueError(
            f"{described(labelled, row)}: position {asked} is past the end of {len(offsets)} tokens"
        )
    return np.stack([token, token + 1], 1)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
