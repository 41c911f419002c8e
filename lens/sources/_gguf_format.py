"""The container format of a GGUF file: key-value metadata, tensor directory, tensor data.

The specification is `docs/gguf.md` of github.com/ggml-org/ggml. Little-endian versions 2 and 3 are read. The
`gguf` package's own reader makes an array object per string, which for a vocabulary of 50,000 tokens takes
seconds; this one slices a memory map. Dequantisation is left to that package.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies. `shape` is in torch's order (rows first); `kind` is the number of a ggml type."""

    shape: tuple[int, ...]
    kind: int
    start: int  # bytes from the start of the file
    n_bytes: int


@dataclass(frozen=True)
class Gguf:
    """An open file: metadata values by key, tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Entry]
    _data: np.ndarray

    def raw(self, name: str) -> np.ndarray:
        """The bytes of a tensor: uint8 [bytes]."""
        entry = self.tensors[name]
        return self._data[entry.start : entry.start + entry.n_bytes]


def read(path: Path) -> Gguf:
    """Open `path`; tensor data stay on disk.

    Raises:
        ValueError: it is not a GGUF file of a known version, it is truncated, or a tensor's type is unknown.
        OSError: it cannot be opened.
    """
    import numpy as np

    if path.stat().st_size < 24:
        raise ValueError(f"{str(path)!r} is truncated: a GGUF file has a header of 24 bytes")
    data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # a plain array: slices of a memmap are slow
    cursor = _Cursor(data.data)
    if bytes(cursor.take(4)) != b"GGUF":
        raise ValueError(f"{str(path)!r} is not a GGUF file: it does not start with 'GGUF'")
    version = cursor.scalar("I")
    if version not in (2, 3):
        raise ValueError(f"{str(path)!r} has GGUF version {version} (or is big-endian); 2 and 3 are read")
    try:
        n_tensors, n_values = cursor.scalar("Q"), cursor.scalar("Q")
        metadata = {}
        for _ in range(n_values):
            key = cursor.string()
            metadata[key] = cursor.value(cursor.scalar("I"))
        directory = [_directory_entry(cursor) for _ in range(n_tensors)]
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is truncated or corrupt: its header cannot be read") from error
    alignment = int(metadata.get("general.alignment", 32)) or 32
    start = -(-cursor.at // alignment) * alignment
    tensors = {name: _locate(path, name, shape, kind, start + at) for name, shape, kind, at in directory}
    for name, entry in tensors.items():
        if entry.start + entry.n_bytes > len(data):
            raise ValueError(
                f"{str(path)!r} is truncated: tensor {name!r} ends at byte {entry.start + entry.n_bytes:,}, "
                f"the file at {len(data):,}"
            )
    return Gguf(path, metadata, tensors, data)


def _directory_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, n_axes = cursor.string(), cursor.scalar("I")
    if n_axes > 8:
        raise IndexError("more axes than any tensor has")
    shape = tuple(cursor.scalar("Q") for _ in range(n_axes))[::-1]
    return name, shape, cursor.scalar("I"), cursor.scalar("Q")


def _locate(path: Path, name: str, shape: tuple[int, ...], kind: int, start: int) -> Entry:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{str(path)!r}: tensor {name!r} has the unknown type {kind}") from error
    n = 1
    for size in shape:
        n *= size
    if not shape or shape[-1] % block:
        raise ValueError(f"{str(path)!r} is corrupt: tensor {name!r} of shape {shape} in blocks of {block}")
    return Entry(shape, kind, start, n // block * block_bytes)


class _Cursor:
    """Reads one value after another; running off the end raises IndexError."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.at = 0

    def take(self, n: int) -> memoryview:
        if n > len(self._view) - self.at:
            raise IndexError("past the end of the file")
        self.at += n
        return self._view[self.at - n : self.at]

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        return str(self.take(self.scalar("Q")), "utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            if kind not in _SCALARS:
                raise IndexError(f"unknown value type {kind}")
            return self.scalar(_SCALARS[kind])
        kind, n = self.scalar("I"), self.scalar("Q")
        if kind in _SCALARS:
            code = f"{n}{_SCALARS[kind]}"
            return list(struct.unpack("<" + code, self.take(struct.calcsize("<" + code))))
        if n > len(self._view):
            raise IndexError("more values than bytes")
        return self._strings(n) if kind == _STRING else [self.value(kind) for _ in range(n)]

    def _strings(self, n: int) -> list[str]:
        """`n` strings; a vocabulary has very many, so this is a plain loop."""
        view, at, length_at, found = self._view, self.at, _LENGTH.unpack_from, []
        for _ in range(n):
            start = at + 8
            at = start + length_at(view, at)[0]
            found.append(str(view[start:at], "utf-8"))
        if at > len(view):
            raise IndexError("past the end of the file")
        self.at = at
        return found
