"""Continuing texts with TransformerLens's arguments: rows that have ended are filled up while others go on.

1. The prompt runs once; each step unembeds the last position, on cached keys and values.
2. A token is drawn from softmax(logits / temperature), less the penalty for how often a token was said, among the
   `top_k` likeliest or those whose probabilities reach `top_p`; or the likeliest is taken.
3. A row has ended once it said a token that ends texts; it goes on as padding.

Letters: b batch, p position, v vocabulary, n new token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lens.inputs import ModelInputs
from lens.nearest import unknown
from lens.text import tokenizer_of

if TYPE_CHECKING:
    from lens.compat.model import HookedTransformer

RETURNS = ("input", "str", "tokens")


def continued(
    model: HookedTransformer, input: Any, max_new_tokens: int, *, stop_at_eos: bool, eos_token_id: Any,
    do_sample: bool, top_k: int | None, top_p: float | None, temperature: float, freq_penalty: float,
    use_past_kv_cache: bool, prepend_bos: bool | None, padding_side: Any, return_type: str | None,
) -> Any:  # fmt: skip
    """The text(s) given and what they are continued with, or their ids [b, p n].

    Raises:
        ValueError: an option is out of range, or prompt and new tokens do not fit the context.
    """
    check_sampling(temperature, top_k, top_p, return_type)
    words = isinstance(input, str | list) and not (
        isinstance(input, list) and input and isinstance(input[0], int)
    )
    if return_type == "input":
        return_type = "str" if words else "tokens"
    _, ids, mask = model.read(input, prepend_bos, padding_side, None)
    if ids is None:
        raise ValueError("generation continues text or token ids, not a residual stream")
    model.frame(ids.shape[1] + max_new_tokens - 1)  # raises if it cannot fit
    stops, fill = ends(model, stop_at_eos, eos_token_id)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    past = model.new_past() if use_past_kv_cache else None
    said, step = ids, ids
    for _ in range(max_new_tokens):
        given = ModelInputs(ids=step, mask=mask)
        logits = model(given, past=past, logits_at=-1)[:, 0]
        token = sample_logits(logits, top_k, top_p, temperature if do_sample else 0.0, freq_penalty, said)
        if stops:
            token = torch.where(ended, fill, token)
            ended = ended | torch.isin(token, torch.tensor(stops, device=token.device))
        said = torch.cat([said, token[:, None].to(said.dtype)], 1)
        if stops and bool(ended.all()):
            break
        if past is None:
            step = said
            mask = None if mask is None else torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        else:
            step, mask = token[:, None], None
    if return_type != "str":
        return said
    tokenizer: Any = tokenizer_of(model)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in said]
    return texts[0] if len(texts) == 1 else texts


def sample_logits(
    final_logits: Tensor,
    top_k: int | None = None,
    top_p: float | None = None,
    temperature: float = 1.0,
    freq_penalty: float = 0.0,
    tokens: Tensor | None = None,
) -> Tensor:
    """One token per row of logits [b, v], [b]. A temperature of 0 takes the likeliest.

    `freq_penalty` times the number of times a token is in `tokens` [b, p] is taken from its logit. With `top_k`,
    `top_p` does not count.
    """
    if temperature == 0:
        return final_logits.argmax(-1)
    logits = final_logits.float() / temperature
    if freq_penalty > 0 and tokens is not None:
        count = torch.zeros_like(logits).scatter_add(1, tokens, torch.ones_like(tokens, dtype=logits.dtype))
        logits = logits - freq_penalty * count
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1]), -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    elif top_p is not None:
        ranked, order = logits.sort(-1, descending=True)
        p = ranked.softmax(-1)
        late = p.cumsum(-1) - p > top_p
        logits = logits.masked_fill(torch.zeros_like(late).scatter(-1, order, late), -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1)[:, 0]


def ends(model: Any, stop: bool, given: int | Sequence[int] | None) -> tuple[list[int], int]:
    """Tokens that end a row, and the one that fills it up: the tokenizer's own where several are given."""
    if not stop:
        return [], 0
    own = None if model.tokenizer is None else model.tokenizer.eos_id
    if given is None:
        if own is None:
            raise ValueError("stop_at_eos needs an eos_token_id where the tokenizer has none")
        return [own], own
    if isinstance(given, int):
        return [given], given
    return list(given), given[0] if own is None else own


def check_sampling(
    temperature: float, top_k: int | None, top_p: float | None, return_type: str | None
) -> None:
    """Raise unless every option is in its range."""
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; it must be 0 (greedy) or above")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must be above 0 and at most 1")
    if return_type not in (*RETURNS, None):
        raise ValueError(unknown("return type", return_type, RETURNS))
