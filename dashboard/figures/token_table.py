"""A head's QK or OV circuit to a table that can be read: a row per token, its best and worst tokens beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from lens.head_circuits import TokenCircuit

if TYPE_CHECKING:
    import pandas as pd

Spell = Callable[[list[int]], list[str]]


def visible(token: str) -> str:
    """A token with its spaces and line breaks seen."""
    return token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")


def token_table(
    found: TokenCircuit, tokens: Sequence[str], spell: Spell, *, names: tuple[str, str, str, str]
) -> pd.DataFrame:
    """One row per token: the token, its own rank from 1, its highest tokens with their values, and its lowest.

    `names` are those of the four columns.

    Raises:
        ValueError: there is not one row per token.
    """
    import pandas as pd

    if len(found.high) != len(tokens):
        raise ValueError(f"rows of {len(found.high)} tokens do not fit {len(tokens)}")
    columns = [
        [visible(token) for token in tokens],
        (found.own_rank + 1).tolist(),
        [_listed(ids, values, spell) for ids, values in zip(found.high, found.high_values, strict=True)],
        [_listed(ids, values, spell) for ids, values in zip(found.low, found.low_values, strict=True)],
    ]
    return pd.DataFrame(dict(zip(names, columns, strict=True)))


def _listed(ids: Tensor, values: Tensor, spell: Spell) -> str:
    texts = spell(ids.tolist())
    return "   ".join(
        f"{visible(text)} {value:+.1f}" for text, value in zip(texts, values.tolist(), strict=True)
    )
