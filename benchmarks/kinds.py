"""What it costs to run a model of each kind: encoder, encoder–decoder, vision, audio; random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import lens
from benchmarks.measuring import Row, Work, ratios
from lens.family import read
from lens.inputs import ModelInputs
from lens.progress import Progress, silent

TITLE = "Running a model of another kind"
UNIT = "× a Hugging Face forward"
GOAL = 1.05
ABOUT = (
    "CPU time of one run in multiples of a Hugging Face forward with fused attention on the same weights and inputs, "
    "for shapes of BERT-small, T5-small, ViT-small and Whisper-tiny with random weights."
)


@dataclass(frozen=True)
class Shape:
    """A Hugging Face model, its inputs as Hugging Face names them, and the same inputs as ours."""

    name: str
    model: Callable[[], Any]
    inputs: Callable[[], dict[str, Tensor]]
    ours: Callable[[dict[str, Tensor]], ModelInputs | Tensor]


def measure(*, quick: bool = False, progress: Progress = silent) -> list[Row]:
    """Figures for every shape."""
    rows = []
    for shape in SHAPES:
        hf, model = twins(shape)
        given = shape.inputs()
        mine = shape.ours(given)
        check(shape.name, hf, model, given, mine)
        cases: dict[str, Work] = {
            "idle": lambda model=model, mine=mine: model(mine),
            "all patterns": lambda model=model, mine=mine: model.run_with_cache(mine, "pattern"),
            "all sites": lambda model=model, mine=mine: model.run_with_cache(mine),
        }
        with torch.no_grad():
            found = ratios(
                lambda hf=hf, given=given: hf(**given), cases, 3 if quick else 15, progress=progress
            )
        rows += [
            r.row("kinds", shape.name, case, UNIT, GOAL if case == "idle" else None)
            for case, r in found.items()
        ]
    return rows


def twins(shape: Shape) -> tuple[Any, lens.Transformer]:
    """The same weights in Hugging Face's model and ours."""
    torch.manual_seed(0)
    hf = shape.model().eval().requires_grad_(False)
    cfg, state = read(hf.config.to_dict(), hf.state_dict())
    return hf, lens.Transformer.from_state(cfg, {name: x.detach().clone() for name, x in state.items()})


def check(name: str, hf: Any, model: lens.Transformer, given: dict[str, Tensor], mine: Any) -> None:
    """Both compute the same, or comparing their times means nothing."""
    with torch.no_grad():
        expected = hf(**given).logits
        error = ((model(mine) - expected).abs().max() / expected.abs().max()).item()
    if error > 1e-4:
        raise ValueError(f"{name}: logits differ from Hugging Face's by {error:.1e} of their scale")


def _bert() -> Any:
    from transformers import BertConfig, BertForMaskedLM

    sizes: dict[str, Any] = {
        "hidden_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
    }
    return BertForMaskedLM(BertConfig(**sizes))


def _t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(T5Config(use_cache=False))  # the defaults are those of T5-small


def _vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    sizes: dict[str, Any] = {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "num_labels": 1000,
    }
    return ViTForImageClassification(ViTConfig(**sizes))


def _whisper() -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    layers: dict[str, Any] = {
        f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in WHISPER.items()
    }
    return WhisperForConditionalGeneration(WhisperConfig(d_model=384, use_cache=False, **layers))


WHISPER = {"layers": 4, "attention_heads": 6, "ffn_dim": 1536}


def _ids(rows: int, n: int, seed: int = 0) -> Tensor:
    return torch.randint(10, 10_000, (rows, n), generator=torch.Generator().manual_seed(seed))


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


SHAPES = (
    Shape(
        "BERT-small, 8 × 64 tokens",
        _bert,
        lambda: {"input_ids": _ids(8, 64)},
        lambda given: given["input_ids"],
    ),
    Shape(
        "T5-small, 8 × 64 to 8 × 32 tokens",
        _t5,
        lambda: {"input_ids": _ids(8, 64), "decoder_input_ids": _ids(8, 32, 1)},
        lambda given: ModelInputs(ids=given["decoder_input_ids"], source=ModelInputs(ids=given["input_ids"])),
    ),
    Shape(
        "ViT-small, 4 images of 224 × 224",
        _vit,
        lambda: {"pixel_values": _noise(4, 3, 224, 224)},
        lambda given: ModelInputs(image=given["pixel_values"]),
    ),
    Shape(
        "Whisper-tiny, 30 s to 32 tokens",
        _whisper,
        lambda: {"input_features": _noise(1, 80, 3000), "decoder_input_ids": _ids(1, 32)},
        lambda given: ModelInputs(
            ids=given["decoder_input_ids"], source=ModelInputs(mel=given["input_features"])
        ),
    ),
)
