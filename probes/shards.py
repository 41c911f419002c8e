"""The pieces of one harvest: which texts form a shard, and a shard's activations.

1. Consecutive texts are put into shards of at most so many rows, and so many tokens that not much is lost where the
   work is interrupted. A shard's texts are cut into batches of similar
   length. Both depend on the data only, so that every run makes the same batches, wherever it begins.
2. A shard's vectors are held in float32 until it is complete, then narrowed; where a site's values do not fit the
   narrower type, that site stays float32 in that shard.
3. Where memory runs out, the shard is begun again with batches of half the size.

Letters: m texts, n rows, k rows of a shard, d width of a site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lens.exhaustion import out_of_memory, release
from probes.activations import check_finite
from probes.labelled import Labelled
from probes.positions import Plan
from probes.reading import batches, read
from probes.words import described

if TYPE_CHECKING:
    from lens.model import Transformer
    from lens.tokens import Tokenizer


WORK = 8192
"""Tokens after which a shard ends, …"""
MOST_SHARDS = 256
"""… or this share of all tokens, if that is more: a manifest stays short."""


@dataclass(frozen=True, eq=False)
class Shards:
    """One harvest, cut into shards.

    Args:
        dtype: in which activations are kept.
        size: bytes of a shard before it is narrowed.
        prepend_bos: whether a beginning-of-text token is put in front; None: as the tokenizer does.
    """

    model: Transformer
    tokenizer: Tokenizer
    labelled: Labelled
    plan: Plan
    sites: list[str]
    dtype: torch.dtype
    size: int
    prepend_bos: bool | None = None

    @cached_property
    def wide(self) -> torch.dtype:
        """In which activations are held until a shard is complete."""
        return torch.float64 if torch.float64 in (self.model.dtype, self.dtype) else torch.float32

    @cached_property
    def widths(self) -> dict[str, int]:
        """Site → d, from one text."""
        text = int(self.plan.text[np.argmin(self.plan.lengths[self.plan.text])])
        found: dict[str, int] = {}

        def give(site: str, x: Tensor) -> None:
            found[site] = x.shape[1]

        read(self.model, [self._ids(text)], np.zeros(1, dtype=np.int64), np.array([[0, 1]]), self.sites, give)
        return {site: found[site] for site in self.sites}

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """The texts where shards begin, and m at the end."""
        most = max(1, self.size // (sum(self.widths.values()) * self.wide.itemsize))
        lengths = np.where(np.diff(self._edges), self.plan.lengths, 0)
        work = max(WORK, int(lengths.sum()) // MOST_SHARDS)
        bounds, held, tokens = [0], 0, 0
        for text, (count, length) in enumerate(
            zip(np.diff(self._edges).tolist(), lengths.tolist(), strict=True)
        ):
            if held and (held + count > most or tokens + length > work):
                bounds.append(text)
                held = tokens = 0
            held += count
            tokens += length
        return (*bounds, len(self.labelled.texts))

    def rows(self, first: int, stop: int) -> int:
        """How many rows the texts [first, stop) have."""
        return int(self._edges[stop] - self._edges[first])

    def make(
        self,
        texts: tuple[int, int],
        batch_size: int,
        told: Callable[[int], None],
        smaller: Callable[[int], None],
        room: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The shard of the texts [first, stop): site → [k, d], in `dtype` or, where that cannot hold it, as it was.

        Args:
            told: called with the number of texts done, those before the first included.
            smaller: called with the new batch size where memory ran out.
            room: from `room`, where the result is put; it is written over by the next call. None: new tensors.

        Raises:
            ValueError: an activation that is not finite.
            MemoryError: not even one text fits.
        """
        k = self.rows(*texts)
        if room is None:
            found = {site: torch.empty(k, width, dtype=self.wide) for site, width in self.widths.items()}
        else:
            found = {site: x[:k] for site, x in room.items()}
        while not self._attempt(found, texts, batch_size, told):
            batch_size = -(-batch_size // 2)
            release()
            smaller(batch_size)
        narrowed = {}
        for site in self.sites:
            x = found.pop(site)
            narrow = x.to(self.dtype)
            if not bool(narrow.isfinite().all()):
                narrow = x
            elif room is not None and narrow.dtype != x.dtype:
                narrow = x.view(-1).view(narrow.dtype)[: narrow.numel()].view(narrow.shape).copy_(narrow)
            narrowed[site] = narrow
        return narrowed

    def room(self, bounds: Sequence[int]) -> dict[str, Tensor]:
        """Site → space for the largest shard, so that no shard asks the system for memory anew."""
        most = max(self.rows(*texts) for texts in pairwise(bounds))
        return {site: torch.empty(most, width, dtype=self.wide) for site, width in self.widths.items()}

    def _attempt(
        self, found: dict[str, Tensor], texts: tuple[int, int], batch_size: int, told: Callable[[int], None]
    ) -> bool:
        """Whether memory sufficed."""
        try:
            self._read(found, *texts, batch_size, told)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if batch_size == 1:
                raise MemoryError(
                    "reading activations: one text alone does not fit the memory there is"
                ) from error
            return False
        return True

    def _read(
        self, found: dict[str, Tensor], first: int, stop: int, batch_size: int, told: Callable[[int], None]
    ) -> None:
        start = self._edges[first]
        texts = np.arange(first, stop)
        texts = texts[self._edges[texts + 1] > self._edges[texts]]
        done = first
        for batch in batches(texts, self.plan.lengths[texts], batch_size):
            told(done)
            edges = [(int(self._edges[i]), int(self._edges[i + 1])) for i in batch.tolist()]
            places = np.concatenate([np.arange(*edge) for edge in edges])
            rows = self._order[places]
            of = np.repeat(np.arange(len(batch)), self._edges[batch + 1] - self._edges[batch])
            ids = [self._ids(i) for i in batch.tolist()]
            keep = partial(self._keep, found, rows, places - start)
            read(self.model, ids, of, self.plan.tokens[rows], self.sites, keep)
            done += len(batch)
        told(stop)

    def _keep(
        self, found: dict[str, Tensor], rows: np.ndarray, places: np.ndarray, site: str, x: Tensor
    ) -> None:
        if not bool(torch.isfinite(x.sum())):
            check_finite(x, site, [self._name(row) for row in rows.tolist()])
        found[site][torch.from_numpy(places)] = x.to(self.wide)

    def _ids(self, text: int) -> list[int]:
        return self.tokenizer.prompt(self.labelled.texts[text], self.prepend_bos)

    def _name(self, row: int) -> str:
        if self.plan.offsets is None:
            return described(self.labelled, row)
        text, token = int(self.plan.text[row]), int(self.plan.tokens[row, 0])
        return f"text {text} {self.labelled.texts[text][:40]!r}, token {token}"

    @cached_property
    def _order(self) -> np.ndarray:
        """Place in the shards → row."""
        return np.argsort(self.plan.text, kind="stable")

    @cached_property
    def _edges(self) -> np.ndarray:
        """The place of each text's first row, and n at the end."""
        return np.searchsorted(self.plan.text[self._order], np.arange(len(self.labelled.texts) + 1))
