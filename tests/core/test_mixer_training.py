"""Models with any mixer, built from their configuration alone: they learn, are saved and loaded, and are described."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from typer.testing import CliRunner

import lens
from lens.cli import app
from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.mixers.hyena import Hyena
from lens.mixers.linear_attention import LinearAttention
from lens.mixers.linformer import Linformer
from lens.mixers.mamba import Mamba
from lens.mixers.performer import Performer
from lens.mixers.retnet import RetNet
from lens.mixers.rwkv import Rwkv
from lens.model import Transformer
from lens.sparsity import Fixed, Strided
from lens.train import Recipe, fresh, next_token_loss, train

N, V = 12, 7
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "linear": ({"mixer": LinearAttention()}, "linear attention: 2 heads of 8, causal"),
    "performer": ({"mixer": Performer(n_features=16)}, "softmax attention estimated by 16 random features"),
    "retnet": ({"mixer": RetNet(d_value=16)}, "retention: 2 heads of 8 with values of 16"),
    "hyena": (
        {"mixer": Hyena(d_inner=16, length=N, d_filter=16, n_waves=4), "n_heads": 0, "n_kv_heads": 0},
        "Hyena of order 2: 16 channels",
    ),
    "linformer": (
        {"mixer": Linformer(n_slots=4, n_ctx=N), "causal": False},
        "keys and values of up to 12 positions become 4 slots",
    ),
    "shared": (
        {"mixer": Linformer(n_slots=4, n_ctx=N, sharing="layer"), "causal": False},
        "4 slots by a map in all layers",
    ),
    "strided": (
        {"windows": (Strided(stride=3), Fixed(block=4))},
        "see their block of 4 and the last of every",
    ),
    "mamba": ({"mixer": Mamba(d_inner=16, d_state=4, dt_rank=2, conv_width=3)}, "Mamba: 16 channels"),
    "rwkv": ({"mixer": Rwkv(d_attn=16)}, "RWKV-4"),
}
each = pytest.mark.parametrize("case", CASES)


def tiny(case: str) -> ModelConfig:
    fields = {"d_model": 16, "n_heads": 2, "d_head": 8, "n_kv_heads": 2, "d_mlp": 24, **CASES[case][0]}
    return ModelConfig(
        family="lens",
        name=case,
        n_ctx=N,
        embed=EmbedConfig(d_vocab=V, d_embed=16, n_positions=N),
        stack=StackConfig(n_layers=2, **fields),
        unembed=UnembedConfig(d_vocab=V, d_embed=16),
    )


def counting(n: int, generator: Generator) -> Tensor:
    """Documents that count upwards, modulo 7, from anywhere."""
    return (torch.randint(V, (n, 1), generator=generator) + torch.arange(N)) % V


def backwards(model: Transformer, ids: Tensor) -> Tensor:
    """For models that see what follows: the text said backwards, which no token knows without the others."""
    return F.cross_entropy(model(ids).flatten(0, 1), ids.flip(1).flatten())


@each
def test_it_learns_is_saved_loaded_and_described(case: str, tmp_path: Path) -> None:
    cfg = tiny(case)
    start = fresh(cfg, seed=1)
    recipe = Recipe(steps=30, batch_size=16, learning_rate=1e-2, warmup=5)
    loss = next_token_loss if cfg.causal else backwards
    trained = train(start, counting, recipe, loss=loss)
    assert trained.losses[0] > 1.5
    assert trained.losses[-1] < 0.6 * trained.losses[0]

    folder = lens.save(trained.model, tmp_path / "model")
    loaded = lens.load(folder, device="cpu")
    ids = counting(3, Generator().manual_seed(5))
    assert torch.equal(loaded(ids), trained.model(ids))
    assert replace(loaded.cfg, name=cfg.name) == cfg

    told = CliRunner().invoke(app, ["info", str(folder)])
    assert told.exit_code == 0, told.output
    assert CASES[case][1] in " ".join(told.output.split())


@each
def test_the_start_depends_on_its_seed_alone(case: str) -> None:
    assert fresh(tiny(case), seed=3).revision == fresh(tiny(case), seed=3).revision
    assert fresh(tiny(case), seed=3).revision != fresh(tiny(case), seed=4).revision


def test_features_of_performers_do_not_learn() -> None:
    """They are stored, of the seed in the configuration, and as they were after training."""
    cfg, name = tiny("performer"), "stack.blocks.1.attn.random.weight"
    start = fresh(cfg, seed=1)
    trained = train(start, counting, Recipe(steps=2)).model
    assert torch.equal(trained.state_dict()[name], start.state_dict()[name])
    other = replace(cfg, stack=replace(cfg.stack, mixer=Performer(n_features=16, seed=1)))
    assert torch.equal(fresh(cfg, seed=2).state_dict()[name], start.state_dict()[name])
    assert not torch.equal(fresh(other, seed=1).state_dict()[name], start.state_dict()[name])


def test_shared_maps_learn_as_one(tmp_path: Path) -> None:
    trained = train(fresh(tiny("shared")), counting, Recipe(steps=3), loss=backwards).model
    state = trained.state_dict()
    first, second = (state[f"stack.blocks.{layer}.attn.E.weight"] for layer in (0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, fresh(tiny("shared")).state_dict()["stack.blocks.0.attn.E.weight"])
    folder = lens.save(trained, tmp_path / "model")
    assert lens.load(folder, device="cpu").stack.blocks[1].attn.E.weight.shape == (4, N)  # type: ignore[union-attr]
