"""What a head attends to, in one number each, from its pattern and the tokens alone.

A score is a mean over the queries where it can be asked, of the attention A that query i gives

- `previous_token`: to the token before it, A[i, i−1];
- `duplicate_token`: to earlier occurrences of its token, Σ A[i, j] over j < i with t[j] = t[i];
- `induction`: to what followed them, Σ A[i, j+1] over j + 1 < i with t[j] = t[i];
- `first_token`: to the first token of its text (a sink of attention), for all queries but that token itself;
- `entropy`: not to any token: −Σ A ln A, in nats; 0 looks at one token, ln n at n tokens alike.

Sources: induction heads, and "prefix matching" as their score, Olsson et al. 2022 (arXiv 2209.11895);
previous-token heads, Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits); duplicate-token
heads, Wang et al. 2022 (arXiv 2211.00593); attention sinks, Xiao et al. 2023 (arXiv 2309.17453).

A score that no query can be asked for (no token occurs twice) is NaN.

Letters: b batch, h head, p query position, k key position; `...` leading axes, usually the layer. Queries and
keys are the same positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Pattern = Float[Tensor, "... b h p k"]
Ids = Int[Tensor, "b p"]
Valid = Bool[Tensor, "b p"]
Scores = Float[Tensor, "... h"]


def previous_token(pattern: Pattern, ids: Ids, valid: Valid | None = None) -> Scores:
    """Attention to the token before the query, over queries that have one."""
    return _attention_to(pattern, _previous(ids), ids, valid)


def duplicate_token(pattern: Pattern, ids: Ids, valid: Valid | None = None) -> Scores:
    """Attention to earlier occurrences of the query's token, over queries that have one."""
    return _attention_to(pattern, _duplicates(ids, valid), ids, valid)


def induction(pattern: Pattern, ids: Ids, valid: Valid | None = None) -> Scores:
    """Attention to the tokens after earlier occurrences of the query's token, over queries that have one."""
    after = torch.zeros_like(_duplicates(ids, valid))
    after[..., 1:] = _duplicates(ids, valid)[..., :-1]
    return _attention_to(pattern, after & _earlier(ids), ids, valid)


def first_token(pattern: Pattern, ids: Ids, valid: Valid | None = None) -> Scores:
    """Attention to the first token of the text, over the queries after it."""
    real = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
    first = real & (real.long().cumsum(-1) == 1)
    return _attention_to(pattern, first[:, None, :] & _earlier(ids), ids, valid)


def entropy(pattern: Pattern, ids: Ids, valid: Valid | None = None) -> Scores:
    """−Σ A ln A in nats, over all queries but the first of the text, which can only look at itself."""
    real = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
    asked = real & (real.long().cumsum(-1) > 1)
    return _mean(torch.special.entr(pattern.float()).sum(-1), asked)


SCORES: dict[str, Callable[..., Tensor]] = {
    "previous_token": previous_token,
    "duplicate_token": duplicate_token,
    "induction": induction,
    "first_token": first_token,
    "entropy": entropy,
}
"""All scores by name."""


def head_scores(pattern: Tensor, ids: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
    """All scores of all heads.

    Args:
        pattern: attention [..., b, h, p, k]: one layer's, or `cache.stack("pattern")`.
        ids: the tokens [b, p].
        valid: True where a token is real, [b, p]; padding neither asks nor is looked for.

    Returns:
        name of the score → [..., h], float32, in the order of `SCORES`.

    Raises:
        ValueError: the shapes disagree.
    """
    b, p = ids.shape
    if pattern.ndim < 4 or pattern.shape[-4] != b or pattern.shape[-2:] != (p, p):
        raise ValueError(
            f"pattern {list(pattern.shape)} does not fit tokens {[b, p]}: "
            f"it must be [..., {b}, heads, {p}, {p}]"
        )
    return {name: score(pattern, ids, valid) for name, score in SCORES.items()}


def _attention_to(pattern: Pattern, keys: Bool[Tensor, "b p k"], ids: Ids, valid: Valid | None) -> Scores:
    """Attention that falls on `keys`, mean over the queries that have any."""
    if valid is not None:
        keys = keys & valid[:, :, None] & valid[:, None, :]
    return _mean(torch.einsum("...bhpk,bpk->...bhp", pattern.float(), keys.float()), keys.any(-1))


def _mean(values: Float[Tensor, "... b h p"], asked: Bool[Tensor, "b p"]) -> Scores:
    weights = asked.float()
    return torch.einsum("...bhp,bp->...h", values, weights) / weights.sum()


def _earlier(ids: Ids) -> Bool[Tensor, "1 p k"]:
    p = ids.shape[1]
    return torch.ones(1, p, p, dtype=torch.bool, device=ids.device).tril(-1)


def _previous(ids: Ids) -> Bool[Tensor, "b p k"]:
    b, p = ids.shape
    return torch.ones(p - 1, dtype=torch.bool, device=ids.device).diag(-1).expand(b, p, p)


def _duplicates(ids: Ids, valid: Valid | None) -> Bool[Tensor, "b p k"]:
    same = (ids[:, :, None] == ids[:, None, :]) & _earlier(ids)
    return same if valid is None else same & valid[:, None, :]
