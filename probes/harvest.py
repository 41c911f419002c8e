"""Activations of labelled rows, harvested once, in memory or into a folder that survives being killed.

1. Every text is tokenised and aligned with its rows (`positions.py`); what is wrong with any of them is told now.
2. Texts are put into shards, shards are cut into batches of similar length (`shards.py`).
3. One forward per batch reads all sites and stops at the deepest (`reading.py`).
4. A finished shard is written whole or not at all and entered with its hash in the manifest (`manifest.py`). Begun
   again, a harvest checks what is there and makes what is missing or damaged; the result is, bit for bit, that of
   an undisturbed run on the same machine.

Memory beyond the model and the data is bounded, whatever the number of rows: one shard (`shard_size`, at least one
text's rows), the forward of one batch of at most 4,096 tokens (or one text) and its vectors at one site, and some 100
bytes per row for where it is from. In memory (`out=None`) the result comes on top, its largest site twice.

Letters: m texts, n rows, d width of a site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lens.atomic import check_writable
from lens.nearest import unknown
from lens.progress import Progress, silent
from lens.sites import NamesFilter
from lens.text import tokenizer_of
from probes import given, manifest
from probes.activations import Activations
from probes.labelled import Labelled
from probes.lock import locked
from probes.manifest import Manifest
from probes.positions import ALL, Choice, Positions, check_prepend_bos, choose, plan
from probes.reading import probed_sites
from probes.shards import Shards

if TYPE_CHECKING:
    from lens.model import Transformer

DTYPES = {
    "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64,
}  # fmt: skip
SHARD_SIZE = 256 * 2**20
LABEL = "reading activations"


def harvest(
    model: Transformer,
    data: Labelled | Iterable[str],
    sites: NamesFilter = "resid_post",
    *,
    positions: Positions = "last",
    dtype: str | None = None,
    out: str | Path | None = None,
    prepend_bos: bool | None = None,
    batch_size: int = 32,
    shard_size: int = SHARD_SIZE,
    progress: Progress = silent,
) -> Activations:
    """Activations [n, d] of every row at every site.

    Args:
        data: labelled rows, or plain texts. A text's own tokens are looked at, not those that the tokenizer adds.
        sites: a site name, a shorthand ("resid_post" for every layer), a list of those, or a function of the full
            name. Axes after the position are flattened: [head, d_head] becomes d.
        positions: "last", "first" or "mean", of the tokens of each row (a word's, or the whole text's); "all", a
            row for each token of every text; a place of the data, such as "city" (its last token) or "city:mean";
            a token of each text by number, 0 its first (with what the tokenizer adds) and −1 its last; or a
            function (text, characters of each token, (first, stop) of the row) → token.
        dtype: "float16", "bfloat16", "float32" or "float64"; None: float32, or float64 of a float64 model. Where
            a site's values in a shard do not fit, they stay float32 there, as the record tells.
        out: a folder to write to. If it holds the beginning of this same harvest, that is gone on with; if it
            holds all of it, nothing is run. Where batches and shards were cut is then taken from there.
        prepend_bos: put the beginning-of-text token in front of each text, or not; None: as the tokenizer does, which
            for some (SmolLM2) is not: then a text's first word stands at position 0, whose activations are of another
            size than all others in many models.
        batch_size: texts per forward. Only speed, memory and the last bits of the values depend on it.
        shard_size: bytes per shard before they are narrowed to `dtype`. A shard also ends after some 8,192 tokens (a
            256th of all, if that is more), so that little is lost with what is not finished.
        progress: told (texts done, m, label) between batches; may raise `Cancelled`, after which the shards that
            are finished stay, and the same call goes on.

    Raises:
        ValueError: an unknown site, dtype or choice of positions, a site without vectors, a text that is empty or
            longer than the context, a word that no token stands for, a position past the end, activations that are
            not finite (text, word and site are named), a folder that cannot be written, holds something else (it says
            what differs) or is being written.
        MemoryError: not even one text fits.
        OSError: the disk is full.
    """
    given.check_model(model)
    given.check_whole(1, batch_size=batch_size, shard_size=shard_size)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(unknown("dtype", dtype, DTYPES))
    labelled = data if isinstance(data, Labelled) else _texts(data)
    names = probed_sites(model, sites)
    choice = choose(positions, labelled)
    tokenizer = tokenizer_of(model)
    check_prepend_bos(tokenizer, prepend_bos)
    if out is not None:
        check_folder(out)
    kept = DTYPES[dtype] if dtype else torch.float64 if model.dtype == torch.float64 else torch.float32
    planned = plan(model, tokenizer, labelled, choice, progress, prepend_bos)
    shards = Shards(model, tokenizer, labelled, planned, names, kept, shard_size, prepend_bos)
    if out is None:
        return _in_memory(shards, choice, batch_size, progress)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _write(shards, folder, choice, batch_size, progress)
        return Activations.open(folder, verify=False)


def check_folder(out: str | Path) -> None:
    """Raise a ValueError unless activations can be written to a folder, which may exist."""
    folder = given.path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file; a folder is written there")
    check_writable(folder)


def _texts(data: Any) -> Labelled:
    texts = [] if data is None or isinstance(data, str) else given.texts(data)
    if not texts:
        raise ValueError("expected labelled rows, or a list of texts with at least one text")
    return Labelled.unlabelled(texts)


def _in_memory(shards: Shards, choice: Choice, batch_size: int, progress: Progress) -> Activations:
    sizes, told = [batch_size], _teller(shards, progress)
    pieces = [shards.make(texts, sizes[-1], told, sizes.append) for texts in pairwise(shards.bounds)]
    record = _record(shards, choice, weights=False)
    record["kept_float32"] = manifest.counted(_wide_sites(shards, piece) for piece in pieces)
    joined = {}
    for site in shards.sites:
        parts = [piece.pop(site) for piece in pieces]
        dtype = shards.wide if site in record["kept_float32"] else shards.dtype
        joined[site] = parts[0] if len(parts) == 1 else torch.cat([part.to(dtype) for part in parts])
    planned = shards.plan
    return Activations(
        [joined], planned.text, planned.tokens[:, 1] - 1, offsets=planned.offsets, record=record
    )  # fmt: skip


def _write(shards: Shards, folder: Path, choice: Choice, batch_size: int, progress: Progress) -> None:
    """Make what the folder lacks of this harvest."""
    found = _begin(shards, folder, choice, batch_size)
    told = _teller(shards, progress)
    room = None if found.finished else shards.room(found.bounds)

    def smaller(size: int) -> None:
        found.batch_size = size
        found.write()

    for i, texts in enumerate(pairwise(found.bounds)):
        if any(entry["number"] == i for entry in found.shards):
            told(texts[1])
            continue
        tensors = shards.make(texts, found.batch_size, told, smaller, room)
        file = f"shard-{i:05}.safetensors"
        size, sha256 = manifest.write_tensors(folder / file, tensors)
        found.shards.append(
            {
                "number": i, "file": file, "rows": shards.rows(*texts), "bytes": size, "sha256": sha256,
                "kept_float32": _wide_sites(shards, tensors),
            }
        )  # fmt: skip
        found.shards.sort(key=lambda entry: entry["number"])
        found.write()


def _begin(shards: Shards, folder: Path, choice: Choice, batch_size: int) -> Manifest:
    """The manifest of what is there and whole, or a new one.

    Raises:
        ValueError: the folder holds something else, or its manifest cannot be trusted.
    """
    for stale in (*folder.glob(".*.partial"), *folder.glob(".tmp*")):  # the second are safetensors' own
        stale.rmdir() if stale.is_dir() else stale.unlink(missing_ok=True)
    record = _record(shards, choice)
    if not (folder / manifest.FILE).is_file():
        others = [file.name for file in folder.iterdir() if file.name not in (manifest.ROWS_FILE, ".lock")]
        if others:
            raise ValueError(
                f"{str(folder)!r} is no store of activations and not empty: it holds {others[0]!r}; name a new folder"
            )
        found = Manifest(folder, record, shards.bounds, "", batch_size)
    else:
        found = Manifest.read(folder)
        where = f"the store {str(folder)!r}"
        found.record.setdefault("prepend_bos", None)  # older stores are as the tokenizer said
        manifest.refuse_differences(where, found.record, record)
        manifest.refuse_sites(where, found.record["sites"], shards.sites)
        found.shards = [entry for entry in found.shards if found.damage(entry) is None]
    if not found.rows_sha256 or found.rows_damage():
        planned = shards.plan
        arrays = {"text": planned.text, "position": planned.tokens[:, 1] - 1}
        arrays |= {} if planned.offsets is None else {"offsets": planned.offsets}
        rows = {name: torch.from_numpy(x.astype(np.int32)) for name, x in arrays.items()}
        found.rows_sha256 = manifest.write_tensors(folder / manifest.ROWS_FILE, rows)[1]
    found.write()
    return found


def _record(shards: Shards, choice: Choice, *, weights: bool = True) -> dict[str, Any]:
    data, model = shards.labelled, shards.model
    return {
        "model": manifest.about_model(model, weights=weights),
        "data": manifest.about_data(data, all_tokens=choice.how == ALL),
        "positions": choice.name,
        "prepend_bos": shards.prepend_bos,
        "dtype": str(shards.dtype).removeprefix("torch."),
        "sites": shards.widths,
        "licence": data.licence,
        "source": data.source,
        "device": model.device.type,
    }


def _wide_sites(shards: Shards, tensors: Mapping[str, Tensor]) -> list[str]:
    """The sites that could not be narrowed."""
    return [site for site, x in tensors.items() if x.dtype != shards.dtype]


def _teller(shards: Shards, progress: Progress) -> Callable[[int], None]:
    total = len(shards.labelled.texts)
    return lambda done: progress(done, total, LABEL)
