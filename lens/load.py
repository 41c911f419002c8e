"""From a name or path to a running model, and back to a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lens import atomic
from lens.checkpoint import Checkpoint, Known
from lens.config import ModelConfig
from lens.model import Transformer
from lens.nearest import unknown
from lens.parameters import aliases_of
from lens.progress import Progress, silent

BACKENDS = ("lens", "transformer-lens")
_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float64": torch.float64,
    "fp64": torch.float64,
}


def load(
    name_or_path: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    progress: Progress = silent,
    backend: Literal["lens", "transformer-lens"] = "lens",
) -> Transformer:
    """The model that `name_or_path` names.

    A known name (`smollm2`, `minilm`, fetched on first use; `induction-2l`, shipped), a folder (Hugging Face's layout,
    or one written by `save`), a .gguf file, or a Hugging Face id (`org/name`, `org/name@revision`).

    Args:
        device: by default the best present: cuda, mps, cpu.
        dtype: by default float32 on the CPU and the checkpoint's own type on an accelerator.
        progress: told about fetching and reading.
        backend: "transformer-lens" lets TransformerLens's TransformerBridge run the model, of any architecture that
            it has and no family here reads; see `lens.bridge`.

    Raises:
        ValueError: unknown name, damaged file, unsupported model, absent device; one line says which.
    """
    from lens.sources import open_checkpoint

    if backend not in BACKENDS:
        raise ValueError(unknown("backend", backend, BACKENDS))
    where = best_device() if device is None else device_of(device)
    wanted = None if dtype is None else dtype_of(dtype)
    checkpoint = open_checkpoint(name_or_path, progress)
    if wanted is None:
        wanted = torch.float32 if where.type == "cpu" else own_dtype(checkpoint.tensors)
    progress(0, 1, f"loading {checkpoint.name}")
    if backend == "transformer-lens":
        from lens import bridge

        return bridge.load(checkpoint, where, wanted)
    cfg, state = read(checkpoint, checkpoint.tensors)
    model = Transformer.from_state(
        cfg,
        state,
        tokenizer=checkpoint.tokenizer,
        preprocessing=checkpoint.preprocessing,
        device=where,
        dtype=wanted,
        revision=checkpoint.revision,
        origin=checkpoint.origin,
    )
    progress(1, 1, f"loaded {checkpoint.name}")
    return model


def save(model: Transformer, folder: str | Path, *, card: Mapping[str, Any] | None = None) -> Path:
    """Write a model in our own format to a new `folder`, which appears whole or not at all; gives its path.

    `card` goes to card.json: `licence`, `description`, and whatever else should travel with the weights.

    Raises:
        ValueError: TransformerLens runs the model.
        FileExistsError: `folder` exists.
        OSError: it cannot be written; nothing is left behind.
    """
    from safetensors.torch import save_file

    if not model.own:
        raise ValueError(f"{model.name} is run by TransformerLens; its checkpoint is what it was loaded from")
    aliases = aliases_of(model.cfg)
    state = {name: t.contiguous() for name, t in nn.Module.state_dict(model).items() if name not in aliases}
    with atomic.folder(folder) as partial:
        config = {"format": "lens", "model": ModelConfig.to_dict(model.cfg)}
        atomic.write_json(partial / "config.json", config)
        if card is not None:
            atomic.write_json(partial / "card.json", dict(card))
        if model.preprocessing is not None:
            atomic.write_json(partial / "preprocessor_config.json", model.preprocessing)
        if model.tokenizer is not None:
            model.tokenizer.save(partial)
        save_file(state, partial / "model.safetensors")
        (partial / "model.safetensors").chmod(0o644)  # safetensors makes files that only their owner can read
    return Path(folder)


def available() -> list[Known]:
    """The models that can be asked for by a plain name: where each is, its size and licence."""
    from lens.sources import known_models

    return known_models()


def fetch(name: str, progress: Progress = silent) -> Path:
    """Make a model available offline (`smollm2`, or a Hugging Face id); gives its folder.

    Raises:
        ValueError: it cannot be fetched; one line says why.
    """
    from lens.sources import fetch as fetch_from_source

    return fetch_from_source(name, progress)


def read(
    checkpoint: Checkpoint, tensors: Mapping[str, torch.Tensor]
) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """A checkpoint's config, and `tensors` under our names; they may be `meta` tensors (shapes only).

    Raises:
        ValueError: the family is unknown, or config or tensors do not fit it.
    """
    from lens import family

    if checkpoint.config.get("format") == "lens":
        values = checkpoint.config.get("model")
        if not isinstance(values, dict):
            raise ValueError(f"{checkpoint.name}: its config.json has no 'model'")
        try:
            cfg, state = ModelConfig.from_dict(values), dict(tensors)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{checkpoint.name}: its config.json is not complete: {error}") from error
    else:
        cfg, state = family.read(checkpoint.config, tensors)
    return replace(cfg, name=checkpoint.name), state


def best_device() -> torch.device:
    """cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def own_dtype(tensors: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The floating type that holds most of the numbers of a checkpoint."""
    from lens.checkpoint import LazyTensors

    infos = tensors.infos if isinstance(tensors, LazyTensors) else tensors
    counts: dict[torch.dtype, int] = {}
    for info in infos.values():
        if info.dtype.is_floating_point:
            counts[info.dtype] = counts.get(info.dtype, 0) + torch.Size(info.shape).numel()
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


def device_of(device: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: there is none of that kind here.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(unknown("device", str(device), ("cpu", "cuda", "mps"))) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for, and this machine has no CUDA device")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {str(device)!r} was asked for; this machine has {count} CUDA devices")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {str(device)!r} was asked for, and this machine has no MPS device")
    return found


def dtype_of(dtype: torch.dtype | str) -> torch.dtype:
    """The floating type of that name.

    Raises:
        ValueError: there is none.
    """
    if isinstance(dtype, torch.dtype):
        if not dtype.is_floating_point:
            raise ValueError(f"{dtype} is not a floating type")
        return dtype
    if dtype.removeprefix("torch.") not in _DTYPES:
        raise ValueError(unknown("dtype", dtype, _DTYPES))
    return _DTYPES[dtype.removeprefix("torch.")]
