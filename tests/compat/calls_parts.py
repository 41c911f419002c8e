"""What is asked of parts of a model that are called by themselves; `record_encoders.py` keeps what 2.18 answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.compat.calls import ids


def of_parts(model: Any) -> dict[str, Tensor]:
    """Embeddings, blocks, attention, MLP, norms and unembedding, each alone, with a hook and without."""
    block, tokens = model.blocks[0], ids()
    stream = torch.randn(2, 4, model.cfg.d_model, generator=torch.Generator().manual_seed(4))
    q, k, v = (torch.roll(stream, n, -1) for n in range(3))
    heads = torch.stack([stream * (h + 1) for h in range(model.cfg.n_heads)], 2)
    found = {
        "embed": model.embed(tokens),
        "unembed": model.unembed(stream),
        "ln_final": model.ln_final(stream),
        "ln1": block.ln1(stream),
        "block": block(stream),
        "attn of one": block.attn(stream, stream, stream),
        "attn of three": block.attn(q, k, v),
        "attn by name": block.attn(query_input=q, key_input=k, value_input=v),
        "masked attn": block.attn(q, k, v, attention_mask=torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]))[:, :3],
        "direct logits": model.unembed(model.ln_final(stream)),
    }
    if model.cfg.n_key_value_heads in (None, model.cfg.n_heads):
        model.set_use_split_qkv_input(True)
        found["attn by head"] = block.attn(heads, heads * 2, heads * 3)
        model.set_use_split_qkv_input(False)
    if model.cfg.positional_embedding_type == "standard":
        found["pos_embed"] = model.pos_embed(tokens)
        found["input"] = model.embed(tokens) + model.pos_embed(tokens)
    if not model.cfg.attn_only:
        found["mlp"] = block.mlp(stream)
        found["mlp of ln2"] = block.mlp(block.ln2(stream))
        with model.hooks(fwd_hooks=[("blocks.0.mlp.hook_post", lambda x, hook: x * 2)]):
            found["hooked mlp"] = block.mlp(stream)
    model.add_hook("blocks.0.attn.hook_z", lambda z, hook: z * 0.5)
    found["hooked attn"] = block.attn(stream, stream, stream)
    model.reset_hooks()
    return found
