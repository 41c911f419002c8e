"""What a head looks for and what it writes, in tokens: its full QK and OV circuits.

1. A token's stream is its embedding alone, or what really stands at its position in a prompt, read as attention
   reads it: through the norm in front.
2. OV: values W_V and then W_O, through the gain of the final norm, times W_U: the logits that a head adds where it
   looks at that token, less their mean over the vocabulary, and without the final norm's divisor.
3. QK: a token asks as a query, every token of the vocabulary answers as a key with its embedding, a few thousand at
   a time; scores before the softmax, as seen from `distance` positions later where positions are rotary.

Learned positions are left out of embeddings. Source: Elhage et al. 2021, A Mathematical Framework for Transformer
Circuits ("full" circuits: from token to token).

Letters: t token asked about, n of the best tokens, v vocabulary, d d_model, p position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lens.frame import Frame
from lens.mixer import check_attention
from lens.progress import Progress, silent
from lens.taps import OFF

if TYPE_CHECKING:
    from lens.block import Block
    from lens.model import Transformer

CHUNK = 4096
EMBEDDING, STREAM = "embedding", "stream"


@dataclass(frozen=True, eq=False)
class TokenCircuit:
    """For each token asked about, the tokens of the vocabulary with the highest and the lowest value, in order.

    `own_rank`: where the token itself stands among all, 0 the highest.
    """

    high: Int[Tensor, "t n"]
    high_values: Float[Tensor, "t n"]
    low: Int[Tensor, "t n"]
    low_values: Float[Tensor, "t n"]
    own_rank: Int[Tensor, " t"]


@torch.no_grad()
def ov_circuit(
    model: Transformer,
    layer: int,
    head: int,
    ids: Sequence[int],
    *,
    source: str = EMBEDDING,
    k: int = 6,
    progress: Progress = silent,
) -> TokenCircuit:
    """The tokens that a head promotes and suppresses where it looks at each of `ids`.

    Args:
        source: "embedding", each token by itself; "stream", as it stands in the prompt `ids`.

    Raises:
        ValueError: there is no such head or source, or the model has no plain unembedding.
    """
    block = _block(model, layer, head, source)
    if model.cfg.unembed is None or model.unembed.transform is not None:
        raise ValueError(f"{model.name} has no linear unembedding: what its heads write are no logits")
    x = _read(model, block, ids, source)
    values = _projected(block, x, 0)[2][0, :, _kv(model, head)]  # [t, e]
    wrote = values @ block.attn.W_O[head]
    if block.ln1_post is not None:
        wrote = block.ln1_post.linear(wrote, block.ln1_post.scale(wrote))
    if model.ln_final is not None:
        wrote = model.ln_final.linear(wrote, wrote.new_ones(1))
    if model.unembed.project is not None:
        wrote = model.unembed.project(wrote)
    wrote = wrote * model.unembed.cfg.scale
    weight, rows = model.unembed.linear.weight, []
    centre = wrote @ weight.mean(0)
    for first in range(0, len(ids), 64):
        progress(first, len(ids), "token")
        part = wrote[first : first + 64] @ weight.T - centre[first : first + 64, None]
        rows.append(_best(part, torch.tensor(list(ids[first : first + 64]), device=part.device), k))
    return _joined(rows)


@torch.no_grad()
def qk_circuit(
    model: Transformer,
    layer: int,
    head: int,
    ids: Sequence[int],
    *,
    source: str = EMBEDDING,
    distance: int = 1,
    k: int = 6,
    progress: Progress = silent,
) -> TokenCircuit:
    """The tokens of the vocabulary that each of `ids`, as a query, would look at most and least.

    Args:
        source: where queries come from: "embedding", each token by itself; "stream", as it stands in the prompt
            `ids`. Keys are embeddings in either case.
        distance: how many positions the key lies before the query.

    Raises:
        ValueError: there is no such head or source, or the distance is negative or beyond the context.
    """
    block = _block(model, layer, head, source)
    if not 0 <= distance < model.cfg.n_ctx:
        raise ValueError(
            f"a distance of {distance} does not exist in a context of {model.cfg.n_ctx} positions"
        )
    queries = _projected(block, _read(model, block, ids, source), distance)[0][0, :, head]  # [t, e]
    queries = queries * block.attn.scale
    size = model.cfg.embed.d_vocab
    scores = queries.new_empty(len(ids), size)
    for first in range(0, size, CHUNK):
        progress(first, size, "token")
        some = list(range(first, min(first + CHUNK, size)))
        keys = _projected(block, _normed(block, token_streams(model, some)), 0)[1][0, :, _kv(model, head)]
        scores[:, first : first + len(some)] = queries @ keys.T
    cap = model.cfg.stack.attn_softcap
    if cap:
        scores = torch.tanh(scores / cap) * cap
    return _best(scores, torch.tensor(list(ids), device=scores.device), k)


def token_streams(model: Transformer, ids: Sequence[int]) -> Float[Tensor, "t d"]:
    """Each token's embedding as the first block gets it, without a position."""
    embed, tokens = model.embed, torch.tensor(list(ids), device=model.device)
    late = embed.cfg.project == "sum"
    x = embed.tokens(tokens) * embed.cfg.scale
    if embed.project is not None and not late:
        x = embed.project(x)
    if embed.types is not None:
        x = x + embed.types.weight[0]
    if embed.ln is not None:
        x = embed.ln(x)
    return embed.project(x) if embed.project is not None and late else x


def _block(model: Transformer, layer: int, head: int, source: str) -> Block:
    check_attention(model.cfg, "it has no attention heads")
    if not (0 <= layer < model.cfg.n_layers and 0 <= head < model.cfg.n_heads):
        last = f"a{model.cfg.n_layers - 1}.h{model.cfg.n_heads - 1}"
        raise ValueError(f"a{layer}.h{head} is not a head of {model.name}, which has a0.h0 to {last}")
    if source not in (EMBEDDING, STREAM):
        raise ValueError(f"{source!r} is not where tokens are read; choose {EMBEDDING!r} or {STREAM!r}")
    return model.block(layer)


def _kv(model: Transformer, head: int) -> int:
    return head * model.cfg.n_key_value_heads // model.cfg.n_heads


def _read(model: Transformer, block: Block, ids: Sequence[int], source: str) -> Float[Tensor, "t d"]:
    """What attention of this block reads of the tokens."""
    if source == EMBEDDING:
        return _normed(block, token_streams(model, ids))
    site = block.hook_resid_pre
    return _normed(block, model.activations(torch.tensor([list(ids)]), [site])[site][0])


def _normed(block: Block, x: Float[Tensor, "t d"]) -> Float[Tensor, "t d"]:
    return x if block.attn_norm is None else block.attn_norm(x)


def _projected(block: Block, x: Float[Tensor, "t d"], position: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as attention uses them, all as if they stood at one position."""
    frame = Frame(len(x), device=x.device, dtype=x.dtype)
    frame.positions = torch.full_like(frame.positions, position)
    return block.attn.project(x[None], frame, OFF)


def _best(values: Float[Tensor, "t v"], own: Int[Tensor, " t"], k: int) -> TokenCircuit:
    k = min(k, values.shape[-1])
    high, low = values.topk(k), values.topk(k, largest=False)
    mine = values.gather(1, own[:, None])
    rank = (values > mine).sum(-1)
    found = (high.indices, high.values, low.indices, low.values, rank)
    return TokenCircuit(*(x.cpu() if x.dtype == torch.int64 else x.float().cpu() for x in found))


def _joined(rows: list[TokenCircuit]) -> TokenCircuit:
    names = ("high", "high_values", "low", "low_values", "own_rank")
    return TokenCircuit(*(torch.cat([getattr(row, name) for row in rows]) for name in names))
