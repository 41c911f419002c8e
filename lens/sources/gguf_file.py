"""A GGUF file: llama.cpp's container of weights, metadata and tokenizer, quantised or not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.checkpoint import Checkpoint, Info, LazyTensors, Source, digest
from lens.progress import Progress

if TYPE_CHECKING:
    import torch

    from lens.sources._gguf_format import Gguf
    from lens.sources._gguf_names import Architecture


def _accepts(name_or_path: str) -> bool:
    return name_or_path.lower().endswith(".gguf")


def _open(name_or_path: str, progress: Progress) -> Checkpoint:
    """The checkpoint under Hugging Face's names.

    Raises:
        ValueError: the file is missing, truncated, or of a kind that is not read; one line names it.
    """
    from lens.sources import _gguf_names
    from lens.sources._gguf_format import read
    from lens.sources._gguf_tokenizer import tokenizer

    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise ValueError(f"no file {name_or_path!r}")
    progress(0, 2, f"reading {path.name}")
    file = read(path)
    try:
        arch = _gguf_names.architecture(file.metadata)
        if "token_embd.weight" not in file.tensors:
            raise ValueError("the GGUF file has no 'token_embd.weight'")
        n_vocab = file.tensors["token_embd.weight"].shape[0]
        config = _gguf_names.config(file.metadata, set(file.tensors), n_vocab)
        if "rope_freqs.weight" in file.tensors:
            config["rope_scaling"] = _gguf_names.rope_scaling(_tensor(file, "rope_freqs.weight"), config)
        tensors = _tensors(file, arch, config)
        made = tokenizer(file.metadata)
    except (ValueError, KeyError) as error:
        reason = f"its metadata has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{str(path)!r}: {reason}") from error
    progress(1, 2, f"hashing {path.name}")
    revision = digest(path)
    progress(2, 2, f"hashing {path.name}")
    card = {"licence": file.metadata.get("general.license"), "size": path.stat().st_size}
    return Checkpoint(path.stem, config, tensors, made, revision, f"GGUF file {path.name}", card)


def _tensors(file: Gguf, arch: Architecture, config: dict[str, Any]) -> LazyTensors:
    from lens.sources._gguf_names import rename

    sources: dict[str, str] = {}
    infos: dict[str, Info] = {}
    for name, entry in file.tensors.items():
        if name == "rope_freqs.weight":
            continue
        target = rename(name, arch)
        if target is None:
            raise ValueError(f"the GGUF tensor {name!r} is not one of a {arch.model_type} model")
        sources[target] = name
        infos[target] = Info(entry.shape, _dtype(entry.kind))
    return LazyTensors(infos, lambda name: arch.undo(name, _tensor(file, sources[name]), config))


def _dtype(kind: int) -> torch.dtype:
    """The type a tensor is delivered in: its own, or float32 for quantised ones."""
    import torch
    from gguf import GGMLQuantizationType

    return {
        GGMLQuantizationType.F16: torch.float16,
        GGMLQuantizationType.BF16: torch.bfloat16,
        GGMLQuantizationType.F64: torch.float64,
    }.get(GGMLQuantizationType(kind), torch.float32)


def _tensor(file: Gguf, name: str) -> torch.Tensor:
    import gguf
    import torch

    entry = file.tensors[name]
    kind, raw = gguf.GGMLQuantizationType(entry.kind), file.raw(name)
    if kind.name in ("F32", "F16", "BF16", "F64"):
        return torch.frombuffer(bytearray(raw), dtype=_dtype(entry.kind)).view(entry.shape)
    block = gguf.GGML_QUANT_SIZES[kind][
        1
    ]  # blocks are independent; in rows of up to 512 they are read fastest
    try:
        values = gguf.dequantize(raw.reshape(-1, math.gcd(len(raw) // block, 512) * block), kind)
    except NotImplementedError as error:
        reason = f"tensor {name!r} has type {kind.name}, which is not read"
        raise ValueError(f"{str(file.path)!r}: {reason}") from error
    return torch.from_numpy(values).view(entry.shape)


SOURCE = Source(rank=10, accepts=_accepts, open=_open)
