"""A folder: Hugging Face's layout (config.json and safetensors, in one file or several), or our own.

Our own has the same files; its config.json is `{"format": "lens", "model": ModelConfig.to_dict()}`, its
tensors have our names, and card.json may tell licence and description.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from lens import tokenizer_files
from lens.checkpoint import Checkpoint, Info, LazyTensors, Source, digest
from lens.progress import Progress, silent

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def open_folder(
    path: Path, *, name: str, origin: str, revision: str | None = None, progress: Progress = silent
) -> Checkpoint:
    """The checkpoint in `path`. Without a `revision`, it is the hash of config.json and the weights.

    Raises:
        ValueError: a file is missing, truncated, pickled or not what its name says; the message names it.
    """
    config = _json(path / "config.json") if (path / "config.json").exists() else None
    if config is None:
        ggufs = sorted(path.glob("*.gguf"))
        hint = f"; did you mean {str(ggufs[0])!r}?" if ggufs else ""
        raise ValueError(f"{str(path)!r} is not a model folder: it has no config.json{hint}")
    files = _weight_files(path)
    tensors = open_safetensors(files)
    card = _json(path / "card.json") if (path / "card.json").exists() else {}
    card.setdefault("size", sum(file.stat().st_size for file in files))
    if revision is None:
        revision = digest(path / "config.json", *files, progress=progress)
    tokenizer = tokenizer_files.read(path)
    return Checkpoint(name, config, tensors, tokenizer, revision, origin, card, _preprocessing(path))


def open_safetensors(files: list[Path]) -> LazyTensors:
    """The tensors of one or more safetensors files, read when asked for.

    Raises:
        ValueError: a file is truncated or corrupt, has an unknown type, or repeats a name of another file.
    """
    from safetensors import SafetensorError, safe_open

    infos: dict[str, Info] = {}
    home: dict[str, Any] = {}
    for file in files:
        try:
            opened = safe_open(file, framework="pt")
            for name in opened.keys():  # noqa: SIM118 - not a dict
                piece = opened.get_slice(name)
                if name in infos:
                    raise ValueError(f"{str(file)!r} repeats the tensor {name!r} of another file")
                if piece.get_dtype() not in _DTYPES:
                    kind = piece.get_dtype()
                    raise ValueError(f"{str(file)!r}: tensor {name!r} has type {kind}, which is not read")
                infos[name] = Info(tuple(piece.get_shape()), _DTYPES[piece.get_dtype()])
                home[name] = opened
        except SafetensorError as error:
            raise ValueError(f"{str(file)!r} is truncated or not a safetensors file: {error}") from error
    return LazyTensors(infos, lambda name: home[name].get_tensor(name))


def _preprocessing(path: Path) -> dict[str, Any] | None:
    """How pictures or sounds become the model's inputs, in a file of its own or beside the tokenizer's settings."""
    if (path / "preprocessor_config.json").exists():
        return _json(path / "preprocessor_config.json")
    whole = _json(path / "processor_config.json") if (path / "processor_config.json").exists() else {}
    return whole.get("image_processor") or whole.get("feature_extractor")


def _weight_files(path: Path) -> list[Path]:
    if (path / _INDEX).exists():
        return _shards(path)
    if (path / _SINGLE).exists():
        return [path / _SINGLE]
    pickles = sorted(p for p in path.iterdir() if p.suffix in _PICKLES and p.name != "training_args.bin")
    if pickles:
        raise ValueError(_pickled(pickles[0]))
    if any(re.fullmatch(r"model-\d+-of-\d+\.safetensors", p.name) for p in path.iterdir()):
        raise ValueError(f"{str(path)!r} has shards of weights but no {_INDEX}")
    raise ValueError(f"{str(path)!r} has no weights: neither {_SINGLE} nor {_INDEX}")


def _shards(path: Path) -> list[Path]:
    weight_map = _json(path / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise ValueError(f"{str(path / _INDEX)!r} has no 'weight_map'")
    files = [path / name for name in sorted(set(weight_map.values()))]
    for file in files:
        if file.parent != path:
            raise ValueError(f"{str(path / _INDEX)!r} points outside its folder: {str(file)!r}")
        if not file.exists():
            raise ValueError(f"{str(path)!r} lacks the shard {file.name!r} that {_INDEX} lists")
    return files


def _pickled(path: Path) -> str:
    return (
        f"{str(path)!r} is a pickle, which can run any code when it is read, so only safetensors are read; "
        "if you trust it, convert it with transformers: from_pretrained(folder).save_pretrained(new_folder)"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object")
    return value


def _accepts(name_or_path: str) -> bool:
    path = Path(name_or_path).expanduser()
    return path.is_dir() or (path.is_file() and path.suffix in (*_PICKLES, ".safetensors"))


def _open(name_or_path: str, progress: Progress) -> Checkpoint:
    path = Path(name_or_path).expanduser()
    if path.suffix in _PICKLES and path.is_file():
        raise ValueError(_pickled(path))
    if path.is_file():
        raise ValueError(f"{name_or_path!r} is a file of weights; give the folder, which has its config.json")
    name = path.resolve().name
    return open_folder(path, name=name, origin=f"folder {name}", progress=progress)


SOURCE = Source(rank=30, accepts=_accepts, open=_open)
