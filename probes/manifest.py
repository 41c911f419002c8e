"""The folder of a store: what it holds, by content, and whether that is still what was written.

manifest.json               what was harvested (model, tokenizer, data, sites, positions, dtype), and the shards
rows.safetensors            the text and token of each row
shard-00000.safetensors …   site → [rows, d], the rows of some consecutive texts

1. The manifest is written first, with no shards; then each shard, whole or not at all, and the manifest anew with
   its size and SHA-256. A process that is killed leaves the shards that were listed, and perhaps one that was not.
2. Opened for reading, every file must be there, of its size and its hash, or the store is refused.
3. Opened for writing, what was harvested must agree in every point; listed shards that are damaged are made again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lens import atomic
from lens.config import ModelConfig

if TYPE_CHECKING:
    from lens.model import Transformer
    from probes.labelled import Labelled

FORMAT = "probes.activations"
VERSION = 1
FILE = "manifest.json"
ROWS_FILE = "rows.safetensors"
NOT_COMPARED = ("name", "revision", "origin", "sites", "licence", "source", "device")
"""What equality does not depend on, or is compared in its own way; equality is by content."""


@dataclass
class Manifest:
    """The manifest of one folder.

    Args:
        folder: where it stands.
        record: what was harvested, as plain JSON types.
        bounds: the texts where shards begin, and the number of texts at the end.
        rows_sha256: of the rows' file.
        batch_size: texts per forward; smaller than asked for once memory ran out.
        shards: one entry for each that is finished: number, file, rows, bytes, sha256, kept_float32 (the sites
            whose values a narrower type could not hold).
    """

    folder: Path
    record: dict[str, Any]
    bounds: tuple[int, ...]
    rows_sha256: str
    batch_size: int
    shards: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder.

        Raises:
            ValueError: there is none, or it cannot be read, or is of another kind.
        """
        file = folder / FILE
        if not file.is_file():
            what = "there is no such folder" if not folder.exists() else f"it has no {FILE}"
            raise ValueError(f"{str(folder)!r} is not a store of activations: {what}")
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(held, dict):
                raise ValueError("it holds no object")
            if held["format"] != FORMAT or held["version"] != VERSION:
                raise ValueError(f'its "format" is not "{FORMAT}", version {VERSION}')
            if held.pop("sha256") != _sha_of(held):
                raise ValueError("it is not what was written, its SHA-256 differs")
        except (OSError, ValueError, KeyError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"the manifest {str(file)!r} cannot be read: {reason}") from error
        return cls(
            folder, held["record"], tuple(held["bounds"]), held["rows_sha256"], held["batch_size"], held["shards"]
        )  # fmt: skip

    def write(self) -> None:
        """Replace what stands in the folder."""
        held = {
            "format": FORMAT, "version": VERSION, "record": self.record, "bounds": list(self.bounds),
            "batch_size": self.batch_size, "rows_sha256": self.rows_sha256, "shards": self.shards,
        }  # fmt: skip
        atomic.write_json(self.folder / FILE, held | {"sha256": _sha_of(held)})

    @property
    def n_shards(self) -> int:
        return len(self.bounds) - 1

    @property
    def finished(self) -> bool:
        return len(self.shards) == self.n_shards

    def rows(self) -> dict[str, np.ndarray]:
        """`text` and `position` [n], and of all tokens `offsets` [n, 2]; int64."""
        from safetensors.numpy import load_file

        return {name: x.astype(np.int64) for name, x in load_file(self.folder / ROWS_FILE).items()}

    def damage(self, shard: Mapping[str, Any], *, verify: bool = True) -> str | None:
        """What is wrong with a shard's file; None if nothing is."""
        file = self.folder / shard["file"]
        if not file.is_file():
            return f"{str(file)!r} is missing"
        size = file.stat().st_size
        if size != shard["bytes"]:
            return f"{str(file)!r} has {size} bytes, not {shard['bytes']}"
        if verify and sha256(file) != shard["sha256"]:
            return f"{str(file)!r} is not what was written: its SHA-256 differs from the manifest's"
        return None

    def rows_damage(self) -> str | None:
        """What is wrong with the rows' file; None if nothing is."""
        file = self.folder / ROWS_FILE
        if not file.is_file():
            return f"{str(file)!r} is missing"
        if sha256(file) != self.rows_sha256:
            return f"{str(file)!r} is not what was written: its SHA-256 differs from the manifest's"
        return None

    def refuse_damage(self, *, verify: bool) -> None:
        """Raise a ValueError that names the file unless the store is finished and whole."""
        where = f"the store {str(self.folder)!r}"
        if not self.finished:
            raise ValueError(
                f"{where} is not finished: it has {len(self.shards)} of {self.n_shards} shards; harvest again"
            )
        for wrong in [self.rows_damage(), *(self.damage(shard, verify=verify) for shard in self.shards)]:
            if wrong:
                raise ValueError(f"{where} is damaged: {wrong}; harvest again to mend it")


class Shard(Mapping[str, Tensor]):
    """One file, memory-mapped: a tensor is read from the disk when its values are used."""

    def __init__(self, file: Path) -> None:
        from safetensors import safe_open

        self._file = safe_open(file, "pt")
        self._sites = tuple(json.loads(self._file.metadata()["sites"]))

    def __getitem__(self, site: str) -> Tensor:
        return self._file.get_tensor(site)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """Write a file whole or not at all; gives its bytes and SHA-256. Equal tensors give equal files."""
    from safetensors.torch import save_file

    with atomic.file(file) as temporary:
        save_file(dict(tensors), temporary, metadata={"sites": json.dumps(list(tensors))})
        return temporary.stat().st_size, sha256(temporary)


def counted(kept: Iterable[Sequence[str]]) -> dict[str, int]:
    """Site → in how many shards its values stayed float32, for the record."""
    return dict(Counter(site for sites in kept for site in sites))


def sha256(file: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# ---- what a store depends on


def about_model(model: Transformer, *, weights: bool = True) -> dict[str, Any]:
    """The model and its tokenizer, by name and content; weights are read through unless told not to."""
    known = {
        "name": model.name,
        "revision": model.revision,
        "origin": model.origin,
        "config_sha256": _sha_of(ModelConfig.to_dict(model.cfg)),
        "dtype": str(model.dtype).removeprefix("torch."),
        "tokenizer_sha256": _tokenizer(model),
    }
    return known | ({"weights_sha256": _weights(model)} if weights else {})


def about_data(labelled: Labelled, *, all_tokens: bool) -> dict[str, Any]:
    """The texts, and the rows in them unless all tokens are harvested, by content."""
    known: dict[str, Any] = {
        "name": labelled.name,
        "texts": len(labelled.texts),
        "texts_sha256": labelled.texts_fingerprint,
    }
    return known if all_tokens else known | {"rows": labelled.n, "rows_sha256": labelled.places_fingerprint}


def refuse_differences(where: str, held: Mapping[str, Any], wanted: Mapping[str, Any], of: str = "") -> None:
    """Raise a ValueError that names the first thing in which a store differs from what is wanted."""
    for key, value in wanted.items():
        if key in NOT_COMPARED:
            continue
        if isinstance(value, Mapping):
            refuse_differences(where, held.get(key, {}), value, f"{key} ")
            continue
        if key in held and held[key] != value:
            raise ValueError(f"{where} {_difference(key, of, held, wanted)}")


WORDS = {
    "config_sha256": "another configuration", "dtype": "another dtype", "tokenizer_sha256": "another tokenizer",
    "weights_sha256": "other weights", "texts_sha256": "other texts", "rows_sha256": "other rows or spans in the texts",
}  # fmt: skip


def _difference(key: str, of: str, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In what a store differs from what is wanted."""
    kind = of.strip() or ("model" if "weights_sha256" in held or "config_sha256" in held else "data")
    if key in ("texts", "rows"):
        return f"was made from other data: it has {held[key]} {key}, not {wanted[key]}{_names(held, wanted)}"
    if key.endswith("_sha256"):
        made = "by another model" if kind == "model" else "from other data"
        return f"was made {made}: it has {WORDS.get(key, key)}{_names(held, wanted)}"
    return f"was made otherwise: its {of}{key} is {_short(held[key])}, not {_short(wanted[key])}"


def _names(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The two names, where they differ."""
    old, new = held.get("name"), wanted.get("name")
    return f" ({old!r}, not {new!r})" if old != new else f" (both are called {old!r})"


def refuse_sites(where: str, held: Iterable[str], wanted: Sequence[str]) -> None:
    """Raise a ValueError that names a site which only one of them has."""
    if lacking := [site for site in wanted if site not in held]:
        raise ValueError(f"{where} was made otherwise: it has no {lacking[0]!r}")
    if further := [site for site in held if site not in wanted]:
        raise ValueError(f"{where} was made otherwise: it has {further[0]!r} too")


def _sha_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _weights(model: Transformer) -> str:
    import torch

    digest = hashlib.sha256()
    for name, x in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
        digest.update(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _tokenizer(model: Transformer) -> str | None:
    tokenizer = model.tokenizer
    if tokenizer is None:
        return None
    return _sha_of([tokenizer.backend.to_str(), tokenizer.special])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:20]}…"
