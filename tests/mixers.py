"""Small models with random weights, one or more per file of `lens/mixers`, hybrids among them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.mixers.big_bird import BigBird
from lens.mixers.hyena import Hyena
from lens.mixers.linear_attention import LinearAttention
from lens.mixers.linformer import Linformer
from lens.mixers.local_chunks import LocalChunks
from lens.mixers.lsh import Lsh
from lens.mixers.mamba import Mamba
from lens.mixers.mamba2 import Mamba2
from lens.mixers.perceiver import Perceiver
from lens.mixers.performer import Performer
from lens.mixers.retnet import RetNet
from lens.mixers.rwkv import Rwkv
from lens.model import Transformer
from lens.sparsity import Fixed, Strided
from tests.zoo import D_VOCAB

N_LAYERS, N_CTX = 3, 40
HEADLESS = {"n_heads": 0, "d_head": 0, "n_kv_heads": 0}
MAMBA = Mamba(d_inner=24, d_state=3, dt_rank=2, conv_width=3)
LONG = Mamba(d_inner=16, d_state=2, dt_rank=1, conv_width=1, bias=True, conv_bias=False, act_fn="gelu")
LONG_FILTERS = Hyena(
    d_inner=6, length=30, order=3, conv_width=1, d_filter=5, n_hidden=1, n_waves=2, frequency=1.0, floor=0.1
)
DECAYS = (1.0, 0.9, 0.5, 0.03)

EVERY_HEAD: dict[str, Any] = {"n_kv_heads": 4}
AROUND = LocalChunks(chunk=2, before=2, after=0, least=2, multiple=6)
AMONG = Perceiver(n_heads=3, d_head=5, d_value=2)
POST: dict[str, Any] = {"norm_placement": frozenset({"add"}), "final_norm": False}

SPECIMENS: dict[str, dict[str, dict[str, Any]]] = {
    "hyena": {
        "two": {"mixer": Hyena(d_inner=10, length=40, d_filter=6, n_waves=3, frequency=1.0), **HEADLESS},
        "three": {"mixer": (LONG_FILTERS, None, LONG_FILTERS), "norm": "rms"},
    },
    "big_bird": {
        "post": {"mixer": BigBird(block=2, n_random=1), "causal": False, **POST, "n_kv_heads": 4},
        "hybrid": {
            "mixer": (BigBird(block=1, n_random=0), None, BigBird(block=2, n_random=0)),
            "causal": False,
            "n_kv_heads": 4,
        },
    },
    "local_chunks": {
        "causal": {"mixer": LocalChunks(chunk=2, before=1, least=2, multiple=2)},
        "both": {
            "mixer": (LocalChunks(chunk=3, before=1, after=1, least=3, multiple=6), None, AROUND),
            "causal": False,
        },
    },
    "lsh": {
        "causal": {"mixer": Lsh(n_buckets=(4,), n_hashes=2, chunk=2, least=2, multiple=2), **EVERY_HEAD},
        "both": {
            "mixer": (Lsh(n_buckets=(2, 4), chunk=3, after=1, least=2, multiple=6, seed=7), AROUND, None),
            "causal": False,
            **EVERY_HEAD,
        },
        "two_streams": {
            "mixer": (Lsh(n_buckets=(4,), n_hashes=3, chunk=2, least=2, multiple=2), AROUND, None),
            **EVERY_HEAD,
            "streams": 2,
        },
    },
    "linear_attention": {
        "causal": {"mixer": LinearAttention(), "attn_bias": frozenset("qkvo"), "norm": "rms"},
        "both": {"mixer": (LinearAttention(), None, LinearAttention()), "causal": False},
    },
    "linformer": {
        "none": {"mixer": Linformer(n_slots=4, n_ctx=40, sharing="none"), "causal": False},
        "head": {
            "mixer": (Linformer(n_slots=3, n_ctx=40), None, Linformer(n_slots=5, n_ctx=40)),
            "causal": False,
        },
        "keys": {
            "mixer": Linformer(n_slots=3, n_ctx=40, sharing="key_value"),
            "causal": False,
            "d_mlp": None,
        },
        "layer": {"mixer": Linformer(n_slots=3, n_ctx=40, sharing="layer"), "causal": False, "n_kv_heads": 4},
    },
    "mamba": {
        "plain": {"mixer": MAMBA, "d_mlp": None, "norm": "rms", **HEADLESS},
        "hybrid": {"mixer": (MAMBA, None, LONG), "norm": "rms"},
        "parallel": {"mixer": MAMBA, "parallel": True, "shared_norm": True, **HEADLESS},
        "post": {"mixer": LONG, "norm_placement": frozenset({"add"}), "final_norm": False, **HEADLESS},
    },
    "mamba2": {
        "plain": {"mixer": Mamba2(d_state=3, n_groups=2, conv_width=3), "d_mlp": None, "norm": "rms"},
        "hybrid": {
            "mixer": (None, Mamba2(d_state=2, n_groups=1, conv_width=2, dt_min=0.2, dt_max=0.9), MAMBA)
        },
    },
    "perceiver": {
        "wide": {"mixer": Perceiver(n_heads=2, d_head=3, d_value=5), "causal": False},
        "replacing": {
            "mixer": (Perceiver(n_heads=4, d_head=2, d_value=2, adds=False), None, AMONG),
            "attn_bias": frozenset("qkvo"),
        },
    },
    "performer": {
        "causal": {"mixer": Performer(n_features=10), "d_mlp": None},
        "both": {"mixer": Performer(n_features=3, seed=2), "causal": False, "n_kv_heads": 4},
        "shared": {"mixer": Performer(n_features=4), "shared": (0, 1, 0)},
    },
    "retnet": {
        "plain": {"mixer": RetNet(d_value=6), "n_kv_heads": 4, "norm": "rms", "attn_bias": frozenset("ko")},
        "hybrid": {"mixer": (RetNet(d_value=4, decays=DECAYS), None, RetNet(d_value=2)), "n_kv_heads": 4},
    },
    "rwkv": {
        "plain": {"mixer": Rwkv(d_attn=12), **HEADLESS},
        "halved": {"mixer": (Rwkv(d_attn=16), Rwkv(d_attn=8), None), "halve_every": 1},
    },
    "attention": {
        "strided": {"windows": (Strided(stride=3), None, Strided(stride=2, part="far"))},
        "fixed": {"windows": (Fixed(block=3, part="near"), Fixed(block=4, part="far", summary=2), 2)},
        "both": {"windows": (Fixed(block=2), Strided(stride=4, part="near"), None), "causal": False},
    },
}
"""Fields of a `StackConfig` by the mixer's name, or `attention`, and one of its own; those left out are below."""

NAMES = [(mixer, name) for mixer, cases in SPECIMENS.items() for name in cases]


def config(mixer: str, name: str) -> ModelConfig:
    fields = {
        "d_model": 16,
        "n_heads": 4,
        "d_head": 4,
        "n_kv_heads": 2,
        "d_mlp": 20,
        **SPECIMENS[mixer][name],
    }
    return ModelConfig(
        family=mixer,
        name=f"{mixer}-{name}",
        n_ctx=N_CTX,
        embed=EmbedConfig(
            d_vocab=D_VOCAB, d_embed=16 // fields.get("streams", 1), copies=fields.get("streams", 1)
        ),
        stack=StackConfig(n_layers=N_LAYERS, **fields),
        unembed=UnembedConfig(d_vocab=D_VOCAB, d_embed=16),
    )


@cache
def model(mixer: str, name: str, dtype: torch.dtype = torch.float64) -> Transformer:
    """One specimen; every parameter is drawn from a wide normal."""
    made = Transformer(config(mixer, name))
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5
    return made.to(dtype)


def mixer_of(made: Transformer, layer: int = 0) -> Any:
    """The module that mixes positions in a layer."""
    block: Any = made.stack.blocks[layer]
    return getattr(block, block._mixes)


def ids(n: int = 3, length: int = 9, seed: int = 0) -> Tensor:
    return torch.randint(3, D_VOCAB, (n, length), generator=torch.Generator().manual_seed(seed))
