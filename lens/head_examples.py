"""Where in a text a head is most active: windows of the text, and in each the position that shows most.

1. A text is cut into windows of equally many tokens, each with the usual first token in front.
2. Windows run in batches that stop at the head's layer, or at the end where the next token's logit is asked for.
3. A window is scored by its best position:
   - `attention`: the largest attention to a token other than the first, which is where idle heads look;
   - `output`: the norm of what the head writes, ‖z W_O‖;
   - `next token`: the head's own share of the logit of the token that really follows, above the mean logit of
     the vocabulary, through the final norm with the divisor of that run.

Letters: b window, p position, k key position, e d_head, d d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lens.mixer import check_attention
from lens.nearest import unknown
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from lens.cache import ActivationCache
    from lens.model import Transformer

ATTENTION, OUTPUT, NEXT = "attention", "output", "next token"
MEASURES = (ATTENTION, OUTPUT, NEXT)
WINDOW = 48
BATCH = 16


@dataclass(frozen=True)
class Example:
    """One window of a text: its tokens, the position where the head is most active, the key it then looks at most
    (the first token aside, where there is another), and by how much.

    `attention`: of that position to every position.
    """

    window: int
    ids: tuple[int, ...]
    query: int
    key: int
    value: float
    attention: tuple[float, ...]


def windows(model: Transformer, text: str, size: int = WINDOW) -> list[list[int]]:
    """The tokens of a text in windows of at most `size`, the usual first token included in each.

    Raises:
        ValueError: the text is empty, or the windows are shorter than 2 tokens or longer than the context.
    """
    if not 2 <= size <= model.cfg.n_ctx:
        raise ValueError(
            f"windows of {size} tokens do not fit {model.name}: they have 2 to {model.cfg.n_ctx}"
        )
    ids = model.to_tokens(text, prepend_bos=False)[0].tolist()
    usual = model.to_tokens(text)[0].tolist()
    first = usual[: len(usual) - len(ids)] if usual[-len(ids) :] == ids else []
    step = size - len(first)
    cut = [[*first, *ids[i : i + step]] for i in range(0, len(ids), step)]
    return [window for window in cut if len(window) >= 2]


@torch.no_grad()
def examples(
    model: Transformer,
    layer: int,
    head: int,
    texts: Sequence[Sequence[int]],
    *,
    by: str = ATTENTION,
    k: int = 10,
    progress: Progress = silent,
) -> list[Example]:
    """The windows in which a head is most active, most active first.

    Args:
        texts: windows of tokens, of any lengths.
        by: one of `MEASURES`.

    Raises:
        ValueError: no such measure or head; or the next token is asked of a model without linear unembedding.
    """
    if by not in MEASURES:
        raise ValueError(unknown("measure", by, MEASURES))
    check_attention(model.cfg, "it has no attention heads")
    if not (0 <= layer < model.cfg.n_layers and 0 <= head < model.cfg.n_heads):
        raise ValueError(f"a{layer}.h{head} is not a head of {model.name}")
    if by == NEXT and (model.cfg.unembed is None or model.unembed.transform is not None):
        raise ValueError(f"{model.name} has no linear unembedding to follow the next token's logit through")
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: list[Example] = []
    done = 0
    while done < len(order):
        progress(done, len(order), "window")
        length = len(texts[order[done]])
        batch = [i for i in order[done : done + BATCH] if len(texts[i]) == length]
        found += _batch(model, layer, head, batch, torch.tensor([list(texts[i]) for i in batch]), by)
        done += len(batch)
    progress(len(order), len(order), "window")
    return sorted(found, key=lambda example: -example.value)[:k]


def _batch(
    model: Transformer, layer: int, head: int, numbers: list[int], ids: Int[Tensor, "b p"], by: str
) -> list[Example]:
    attn, norm = model.block(layer).attn, model.ln_final
    sites = [attn.hook_pattern, attn.hook_z]
    if by == NEXT:
        sites += [] if norm is None else [norm.hook_scale]
        post = model.block(layer).ln1_post
        sites += [] if post is None else [post.hook_scale]
    cache = model.activations(ids, sites)
    pattern = cache[attn.hook_pattern][:, head].float()  # [b, p, k]
    elsewhere = pattern.clone()
    elsewhere[..., 0] = 0.0
    if by == ATTENTION:
        scores = elsewhere.amax(-1)
    else:
        wrote = cache[attn.hook_z][:, :, head] @ attn.W_O[head]
        scores = wrote.float().norm(dim=-1) if by == OUTPUT else _next(model, layer, wrote, ids, cache)
    value, at = scores.max(1)
    made = []
    for row, number in enumerate(numbers):
        query = int(at[row])
        key = int(elsewhere[row, query].argmax()) if float(elsewhere[row, query].max()) > 0 else 0
        weights = tuple(pattern[row, query].tolist())
        made.append(Example(number, tuple(ids[row].tolist()), query, key, float(value[row]), weights))
    return made


def _next(
    model: Transformer,
    layer: int,
    wrote: Float[Tensor, "b p d"],
    ids: Int[Tensor, "b p"],
    cache: ActivationCache,
) -> Float[Tensor, "b p"]:
    """The share of the next token's logit, −inf at the last position, which nothing follows."""
    post, norm, weight = model.block(layer).ln1_post, model.ln_final, model.unembed.linear.weight
    if post is not None:
        wrote = post.linear(wrote, cache[post.hook_scale])
    if norm is not None:
        wrote = norm.linear(wrote, cache[norm.hook_scale])
    if model.unembed.project is not None:
        wrote = model.unembed.project(wrote)
    towards = weight[ids[:, 1:].to(weight.device)] - weight.mean(0)
    share = (wrote[:, :-1] * towards).sum(-1).float() * model.unembed.cfg.scale
    return torch.cat([share, share.new_full((len(ids), 1), -torch.inf)], 1)
