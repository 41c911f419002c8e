"""What a source of weights delivers, before anybody knows which family it belongs to.

`lens/sources/` has one file per kind of source, each with one constant `SOURCE`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from lens.progress import Progress, silent
from lens.tokens import Tokenizer


@dataclass(frozen=True)
class Info:
    """Shape and type of a tensor that has not been read."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class LazyTensors(Mapping[str, torch.Tensor]):
    """Checkpoint names to tensors; each is read from disk when it is asked for, and not kept."""

    def __init__(self, infos: Mapping[str, Info], read: Callable[[str], torch.Tensor]) -> None:
        self.infos = dict(infos)
        self._read = read

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.infos:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def meta(self) -> dict[str, torch.Tensor]:
        """The same names with tensors that have shapes and no contents: nothing is read."""
        return {n: torch.empty(i.shape, dtype=i.dtype, device="meta") for n, i in self.infos.items()}


@dataclass(frozen=True)
class Checkpoint:
    """Configuration, weights and tokenizer as they were found."""

    name: str
    config: dict[str, Any]  # a Hugging Face config, or {"format": "lens", "model": ModelConfig.to_dict()}
    tensors: Mapping[str, torch.Tensor]
    tokenizer: Tokenizer | None
    revision: str  # of what was read: "sha256:" and 16 hex digits, or "git:" and 16 of a hub commit
    origin: str  # what a person would call where it came from
    card: dict[str, Any] = field(default_factory=dict)  # licence, description, … where the source knows them
    preprocessing: dict[str, Any] | None = (
        None  # settings of the Hugging Face processor of pictures or sounds
    )


@dataclass(frozen=True)
class Known:
    """A model that can be asked for by a plain name."""

    name: str
    status: Literal["shipped", "fetched", "not fetched"]
    where: str  # a path, or the package it would be fetched from
    size: int  # bytes on disk, or to be fetched
    licence: str
    description: str


@dataclass(frozen=True)
class Source:
    """One kind of place that weights come from.

    Sources are asked in the order of `rank`: the more explicitly a name says what it is (a file's suffix, a
    known name), the earlier.

    `accepts(name_or_path)` is quick and touches no network.
    `open(name_or_path, progress)` delivers the checkpoint or raises ValueError with one clear line.
    `known()` lists what can be asked for by a plain name.
    `fetch(name, progress)`, where weights come over a network, makes them available offline and gives their
    folder; what is there and damaged is fetched again.
    """

    rank: int
    accepts: Callable[[str], bool]
    open: Callable[[str, Progress], Checkpoint]
    known: Callable[[], list[Known]] = list
    fetch: Callable[[str, Progress], Path] | None = None


def digest(*paths: Path, progress: Progress = silent) -> str:
    """`sha256:` and the first 16 hex digits of the hash of the files' contents, in the order given."""
    total = hashlib.sha256()
    for i, path in enumerate(paths):
        progress(i, len(paths), f"hashing {path.name}")
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    progress(len(paths), len(paths), "hashed")
    return f"sha256:{total.hexdigest()[:16]}"
