"""Small models with random weights, one of each kind of block, for the tests of the core."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lens.config import EmbedConfig, Experts, ModelConfig, Rotary, StackConfig, UnembedConfig
from lens.model import Transformer
from lens.tokens import Tokenizer

N_LAYERS, N_CTX, D_VOCAB = 4, 40, 30
ROTARY = {"rotary": (Rotary(dim=4),) * N_LAYERS}

KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"positions": True, "attn_bias": frozenset({"q", "k", "v", "o"})},
    "llama": {"norm": "rms", "n_kv_heads": 2, "gated": True, "act_fn": "silu", **ROTARY},
    "windowed": {"n_kv_heads": 2, "windows": (3, None, 2, 4), **ROTARY},
    "parallel": {"parallel": True, "shared_norm": True, "rotary": (Rotary(dim=2),) * N_LAYERS},
    "sandwich": {
        "norm": "rms",
        "norm_placement": frozenset({"in", "out"}),
        "attn_softcap": 4.0,
        "qk_norm": "head",
        **ROTARY,
    },
    "post": {"positions": True, "norm_placement": frozenset({"add"}), "final_norm": False},
    "experts": {"norm": "rms", "experts": Experts(n=3, top_k=2), "gated": True, **ROTARY},
    "attention-only": {"positions": True, "d_mlp": None},
}


@cache
def model(kind: str = "llama", dtype: torch.dtype = torch.float64, tokenizer: bool = False) -> Transformer:
    """One specimen; with a tokenizer its texts are words `w3 w4 …`, of which `<bos>` and `<eos>` are special."""
    fields = {
        "n_layers": N_LAYERS,
        "d_model": 16,
        "n_heads": 4,
        "d_head": 4,
        "n_kv_heads": 4,
        "d_mlp": 24,
        **KINDS[kind],
    }
    n_positions = N_CTX if fields.pop("positions", False) else None
    cfg = ModelConfig(
        family="llama",
        name=kind,
        n_ctx=N_CTX,
        embed=EmbedConfig(d_vocab=D_VOCAB, d_embed=16, n_positions=n_positions),
        stack=StackConfig(**fields),
        unembed=UnembedConfig(d_vocab=D_VOCAB, d_embed=16),
    )
    made = Transformer(cfg, words() if tokenizer else None)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4
    return made.to(dtype)


def words() -> Tokenizer:
    """Ids 0 to 2 are special, id n is the word `wn`."""
    named = ["<bos>", "<eos>", "<pad>", *(f"w{i}" for i in range(3, D_VOCAB))]
    return Tokenizer.from_words(named, bos="<bos>", eos="<eos>", pad="<pad>", add_bos=True)


def ids(n: int = 3, length: int = 9, seed: int = 0) -> Tensor:
    """Random prompts without special tokens."""
    return torch.randint(3, D_VOCAB, (n, length), generator=torch.Generator().manual_seed(seed))
