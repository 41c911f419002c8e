"""Long work over pairs: in batches that fit a memory budget, past out-of-memory errors, and resumable.

1. The pairs are cut into batches; what one batch gives is a dict of tensors whose first axis is its pairs.
2. A batch may do its work in parts (layers, circuits, integration points); each part is kept in the
   checkpoint, where there is one, as soon as it is there.
3. If memory runs out the batch size is halved and the batch is begun again, down to a single pair.
4. Begun again after it was killed, a sweep takes what the checkpoint holds and goes on with the rest, with the
   batch size it had; so the result is the one it would have had undisturbed.

A checkpoint is a folder: `sweep.json` says what is being computed, by content (model revision, digest of the
pairs, method, …), and one safetensors file per part, each written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.metrics import metric_name
from lens import atomic
from lens.exhaustion import out_of_memory, release
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.ablation import Ablation
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from lens.model import Transformer

FORMAT = "circuits.sweep"
FILE = "sweep.json"
WHOLE_FILE = "discovery.json"
"""Beside the checkpoints of the phases of one piece of work, which are needed until its end."""
Parts = dict[str, Tensor]


class Checkpoint:
    """A folder that holds the finished parts of one sweep.

    Args:
        directory: made when the first part is kept.
        about: what is computed, as plain JSON types; a folder that holds something else is refused.

    Raises:
        ValueError: the folder holds another sweep, or cannot be read; one line says which.
    """

    def __init__(self, directory: str | Path, about: Mapping[str, Any]) -> None:
        self.directory, self.about = Path(directory), json.loads(json.dumps(about))
        self.size: int | None = None
        self.done: list[tuple[int, int]] = []
        if self.directory.exists():
            self._open()

    def _open(self) -> None:
        file = self.directory / FILE
        if not file.is_file():
            if self.directory.is_dir() and not any(self.directory.iterdir()):
                return
            raise ValueError(f"{str(self.directory)!r} is not a checkpoint: it has no {FILE}")
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            known, size = held["about"], int(held["size"])
            done = [(int(a), int(b)) for a, b in held["done"]]
            if held["format"] != FORMAT:
                raise ValueError(f'its "format" is not "{FORMAT}"')
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the checkpoint {str(file)!r} cannot be read: {error}") from error
        differing = [
            key for key in sorted(known.keys() | self.about.keys()) if known.get(key) != self.about.get(key)
        ]
        if differing:
            key = differing[0]
            raise ValueError(
                f"the checkpoint {str(self.directory)!r} is of another piece of work: "
                f"its {key} is {known.get(key)!r}, not {self.about.get(key)!r}"
            )
        self.size, self.done = size, done

    def begin(self, size: int) -> int:
        """The batch size to use: the one that was in use, or `size` for a new sweep."""
        self.note(self.size or size)
        assert self.size is not None
        return self.size

    def note(self, size: int, done: slice | None = None) -> None:
        """Keep the batch size, and which pairs are finished."""
        self.size = size
        if done is not None:
            self.done.append((done.start, done.stop))
        state = {"format": FORMAT, "about": self.about, "size": size, "done": self.done}
        atomic.write_json(self.directory / FILE, state)

    def part(self, key: str, make: Callable[[], Parts]) -> Parts:
        """The part of that name: read if it is there, else made and kept.

        Raises:
            ValueError: the part's file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load, save

        file = self.directory / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
        if file.is_file():
            try:
                return load(file.read_bytes())
            except (OSError, SafetensorError) as error:
                raise ValueError(
                    f"a part of the checkpoint is damaged; delete {str(file)!r} and run again: {error}"
                ) from error
        parts = make()
        atomic.write_bytes(
            file, save({name: x.cpu().contiguous() for name, x in parts.items()}, {"key": key})
        )
        return parts

    def remove(self) -> None:
        """Delete the folder, what it was for being finished; but not that of one phase of a longer work."""
        if (self.directory.parent / WHOLE_FILE).is_file():
            return
        shutil.rmtree(self.directory, ignore_errors=True)


def checkpoint_at(
    directory: str | Path | None,
    model: Transformer,
    pairs: Pairs,
    metric: str | Metric,
    ablation: Ablation,
    about: Mapping[str, Any],
) -> Checkpoint | None:
    """The checkpoint in that folder, of work that these things determine; None where no folder is given."""
    if directory is None:
        return None
    known = {
        "model": f"{model.name} {model.revision}",
        "dtype": str(model.dtype),
        "pairs": pairs.digest,
        "metric": metric_name(metric),
        "ablation": ablation.to_dict(),
    }
    return Checkpoint(directory, known | dict(about))


@dataclass
class Batch:
    """One batch of a sweep: which pairs, and how its parts are kept."""

    rows: slice
    checkpoint: Checkpoint | None
    told: Callable[[int, int], None]

    def part(self, name: str, done: int, total: int, make: Callable[[], Parts]) -> Parts:
        """One of this batch's `total` parts; `done` came before it."""
        self.told(done, total)
        if self.checkpoint is None:
            return make()
        return self.checkpoint.part(f"{self.rows.start}-{self.rows.stop} {name}", make)


def sweep(
    n: int,
    size: int,
    work: Callable[[Batch], Parts],
    *,
    label: str,
    checkpoint: Checkpoint | None = None,
    progress: Progress = silent,
) -> Parts:
    """Everything that `work` gives for `n` pairs in batches of at most `size`, joined along the first axis.

    Raises:
        ValueError: the checkpoint is damaged.
        MemoryError: not even one pair fits; the message says what to do.
    """
    size = max(1, min(size, n))
    finished: list[tuple[int, int]] = []
    if checkpoint is not None:
        size, finished = checkpoint.begin(size), list(checkpoint.done)
    found: list[Parts] = []
    told = _Told(n, label, progress)
    first = 0
    while first < n:
        stop = finished.pop(0)[1] if finished else min(first + size, n)
        parts = _attempt(work, slice(first, stop), told, checkpoint)
        if parts is None:
            size = -(-(stop - first) // 2)
            release()
            if checkpoint is not None:
                checkpoint.note(size)
            continue
        found.append(parts)
        first = stop
    progress(1, 1, label)
    return {name: torch.cat([parts[name] for parts in found]) for name in found[0]}


@dataclass
class _Told:
    """What a sweep over `n` pairs tells of itself: parts done of all parts, each times its pairs."""

    n: int
    label: str
    progress: Progress
    parts: int = 1

    def __call__(self, rows: slice, done: int, parts: int) -> None:
        self.parts = parts
        self.progress(rows.start * parts + done * (rows.stop - rows.start), self.n * parts, self.label)


def _attempt(
    work: Callable[[Batch], Parts], rows: slice, told: _Told, checkpoint: Checkpoint | None
) -> Parts | None:
    """What one batch gives; None where memory ran out."""
    told(rows, 0, told.parts)  # before a batch's own runs, which come ahead of its first part
    batch = Batch(rows, checkpoint, lambda done, parts: told(rows, done, parts))
    try:
        if checkpoint is None:
            return work(batch)
        parts = checkpoint.part(f"{rows.start}-{rows.stop}", lambda: work(batch))
        if (rows.start, rows.stop) not in checkpoint.done:
            assert checkpoint.size is not None
            checkpoint.note(checkpoint.size, rows)
        return parts
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if rows.stop - rows.start == 1:
            raise MemoryError(f"{told.label}: one pair alone does not fit the memory there is") from error
    return None
