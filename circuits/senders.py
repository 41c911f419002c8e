"""What each sender writes to the residual stream, and how it differs between the corrupt and the clean prompt.

The residual stream is a sum, so a head's contribution is z W_O. Where a norm sits on a branch's output
(Gemma-2, OLMo-2) the contribution is z W_O through that norm with the divisor it has in that very run: the
shares of the heads then add up to what attention really wrote.

Letters: n pair, t position, h head, e d_head, d d_model, s sender.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lens.block import Block
    from lens.config import ModelConfig
    from lens.model import Transformer


def check_linear(cfg: ModelConfig) -> None:
    """Raise unless the residual stream only adds, which edges need.

    Raises:
        ValueError: the model normalises the stream itself after each sum (post-norm).
    """
    if "add" in cfg.stack.norm_placement and cfg.stack.norm != "none":
        raise ValueError(
            f"edges need a residual stream that only adds, and {cfg.name} normalises it after each sum (post-norm)"
        )


def embed_site(model: Transformer) -> str:
    """The stream that enters the first block: everything the embedding sends."""
    return model.block(0).hook_resid_pre


def sites(model: Transformer) -> list[str]:
    """The sites from which all senders of a run can be rebuilt."""
    names = [embed_site(model)]
    for block in map(model.block, range(model.cfg.n_layers)):
        names.append(block.attn.hook_z)
        if block.ln1_post is not None:
            names.append(block.ln1_post.hook_scale)
        if block.mlp is not None:
            names.append(block.hook_mlp_out)
    return names


def heads(
    block: Block, z: Float[Tensor, "... t h e"], scale: Float[Tensor, "... t 1"] | None
) -> Float[Tensor, "h ... t d"]:
    """Each head's share of what this block's attention wrote; `scale` is the divisor of `ln1_post`."""
    shares = torch.einsum("...he,hed->h...d", z, block.attn.W_O)
    if block.ln1_post is None:
        return shares
    if block.attn.o.bias is not None:  # the bias passes the norm as well: each head carries its part
        shares = shares + block.attn.o.bias / block.cfg.n_heads
    assert scale is not None
    return block.ln1_post.linear(shares, scale)


def all_senders(model: Transformer, graph: Graph, seen: Mapping[str, Tensor]) -> Float[Tensor, "n s t d"]:
    """Every sender's output in one run whose `sites` were read."""
    embed = seen[embed_site(model)]
    out = embed.new_empty(len(embed), graph.n_senders, *embed.shape[1:])
    out[:, 0] = embed
    for layer in range(model.cfg.n_layers):
        block = model.block(layer)
        shares = heads(block, seen[block.attn.hook_z], _scale(block, seen))
        out[:, graph.head_senders(layer)] = shares.transpose(0, 1)
        if graph.mlp:
            out[:, graph.mlp_sender(layer)] = seen[block.hook_mlp_out]
    return out


def differences(
    model: Transformer, graph: Graph, clean: Mapping[str, Tensor], corrupt: Mapping[str, Tensor]
) -> Float[Tensor, "n s t d"]:
    """Corrupt minus clean output of every sender, from the reads of both runs.

    Without output norms senders are linear in z, so the differences are taken before W_O.
    """
    if model.block(0).ln1_post is not None:
        return all_senders(model, graph, corrupt) - all_senders(model, graph, clean)
    return all_senders(model, graph, {site: corrupt[site] - clean[site] for site in sites(model)})


def _scale(block: Block, seen: Mapping[str, Tensor]) -> Tensor | None:
    return None if block.ln1_post is None else seen[block.ln1_post.hook_scale]
