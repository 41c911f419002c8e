"""A tiny model over a closed vocabulary of words, for the tests of probes."""

from __future__ import annotations

import pytest
import torch

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.model import Transformer

WORDS = tuple(a + b for a in "bdfgklmn" for b in ("ar", "el", "in", "op", "ut"))


@pytest.fixture
def tiny() -> Transformer:
    """Three layers, random weights, a beginning-of-text token."""
    from lens.tokens import Tokenizer

    tokenizer = Tokenizer.from_words(["<bos>", *WORDS], bos="<bos>", add_bos=True)
    cfg = ModelConfig(
        family="llama",
        name="tiny",
        n_ctx=12,
        embed=EmbedConfig(d_vocab=tokenizer.n_vocab, d_embed=16, n_positions=12),
        stack=StackConfig(n_layers=3, d_model=16, n_heads=4, d_head=4, n_kv_heads=4, d_mlp=24),
        unembed=UnembedConfig(d_vocab=tokenizer.n_vocab, d_embed=16),
    )
    model = Transformer(cfg, tokenizer)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model
