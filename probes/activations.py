"""Activations of many rows at several sites: in memory, or a folder of memory-mapped shards.

A store is a list of shards, each with the activations of some consecutive texts at every site. Rows are numbered as
in the data they are from, whatever the order in which shards hold them.

Letters: n rows, d width of a site, k rows asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lens.nearest import unknown
from lens.sites import NamesFilter, Site, resolve
from probes import given, manifest

if TYPE_CHECKING:
    from lens.model import Transformer
    from probes.labelled import Labelled


class Activations:
    """What `probes.harvest` gives: `store[site]` [n, d], with where each row is from. Never changed once made.

    Args:
        shards: site → [rows, d] each; all have the same sites and widths. Their rows are those of the store
            sorted by text, rows of one text in their order.
        text: int64 [n], the text of each row.
        position: int64 [n], the token that was read; of an average, its last.
        offsets: int64 [n, 2], the characters of each row's token, where rows are all tokens of the texts.
        record: model, tokenizer and data by name and hash, positions and dtype, as plain JSON types.
        path: the folder, if there is one.
    """

    def __init__(
        self,
        shards: Sequence[Mapping[str, Tensor]],
        text: np.ndarray,
        position: np.ndarray,
        *,
        offsets: np.ndarray | None = None,
        record: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        self.text, self.position, self.offsets = text, position, offsets
        self.record, self.path = dict(record or {}), path
        self._shards = list(shards)
        self.sites = tuple(self._shards[0])
        self._widths = {site: self._shards[0][site].shape[1] for site in self.sites}
        lengths = [next(iter(shard.values())).shape[0] for shard in self._shards]
        self._starts = np.cumsum([0, *lengths])
        assert self._starts[-1] == len(text)

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else f"in {str(self.path)!r}"
        sites = f"{len(self.sites)} site{'s' * (len(self.sites) != 1)} from {self.sites[0]}"
        return f"Activations({self.n:,} rows at {sites}, {where})"

    @property
    def n(self) -> int:
        """How many rows."""
        return len(self.text)

    def width(self, site: str) -> int:
        """d of a site."""
        return self._widths[self._known(site)]

    def layer(self, site: str) -> int | None:
        """The layer of a site; None for the embedding and what comes after the last layer."""
        found = re.match(r"blocks\.(\d+)\.", self._known(site))
        return int(found[1]) if found else None

    def dtype(self, site: str) -> torch.dtype:
        """How the activations of a site are kept; float32 if only some shards had to be."""
        kept = {shard[self._known(site)].dtype for shard in self._shards}
        return kept.pop() if len(kept) == 1 else torch.float32

    def resolve(self, names: NamesFilter) -> tuple[str, ...]:
        """The sites that a filter stands for, such as "resid_post" for all layers; None: all of them.

        Raises:
            ValueError: there is none of that name.
        """
        known = {site: Site(site, "", "") for site in self.sites}
        if isinstance(names, str) and names in known:
            return (names,)
        try:
            return tuple(resolve(names, known))
        except ValueError as error:
            raise ValueError(str(error).replace("of this model", "of this store")) from error

    def __contains__(self, site: str) -> bool:
        return site in self._widths

    def __getitem__(self, site: str) -> Tensor:
        """All rows at a site, [n, d], as they are kept; on the CPU.

        Where a store on disk has one shard this is the mapped file itself: nothing is read until it is used.
        Otherwise one copy of this site is made.

        Raises:
            ValueError: no such site, or its file has been changed since it was opened.
        """
        parts = [shard[self._known(site)] for shard in self._shards]
        x = parts[0] if len(parts) == 1 else torch.cat([part.to(self.dtype(site)) for part in parts])
        return x if self._stored is None else x[torch.from_numpy(self._stored)]

    def take(self, site: str, rows: Sequence[int] | np.ndarray | slice | None = None) -> Tensor:
        """Some rows at a site: [k, d] float32, or float64 if kept so. Only these rows are read.

        Args:
            rows: row numbers [k]; a truth value for each row [n]; or ranges of rows [k, 2] to average over, as
                `rows_of` gives them. None: all.

        Raises:
            ValueError: no such site or row, or an activation that is not finite; the row is named.
        """
        wanted = np.arange(self.n) if rows is None else np.asarray(given.rows_numbered(rows, self.n))
        wanted = wanted if wanted.size else wanted.astype(np.int64)
        if wanted.dtype.kind not in "iub" or wanted.ndim not in (1, 2):
            raise ValueError("rows are row numbers [k], ranges of rows [k, 2], or a truth value for each row")
        if wanted.dtype == bool:
            if wanted.shape != (self.n,):
                raise ValueError(f"there are {self.n} rows, and {len(wanted)} truth values")
            wanted = np.flatnonzero(wanted)
        if wanted.ndim == 2:
            return self._averages(site, wanted)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.n):
            wrong = int(wanted.max() if wanted.max() >= self.n else wanted.min())
            raise ValueError(f"there is no row {wrong}: the store has {self.n}")
        stored = wanted if self._stored is None else self._stored[wanted]
        wide = torch.float64 if self.dtype(site) == torch.float64 else torch.float32
        found = torch.empty(len(stored), self.width(site), dtype=wide)
        which = np.searchsorted(self._starts, stored, side="right") - 1
        for i in np.unique(which).tolist():
            here = np.flatnonzero(which == i)
            local = torch.from_numpy(stored[here] - self._starts[i])
            found[torch.from_numpy(here)] = self._shards[i][site][local].to(wide)
        if not bool(torch.isfinite(found.sum())):
            check_finite(found, site, [f"row {row}" for row in wanted.tolist()])
        return found

    def _averages(self, site: str, ranges: np.ndarray) -> Tensor:
        lengths = ranges[:, 1] - ranges[:, 0]
        each = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        x = self.take(site, each + np.repeat(ranges[:, 0], lengths))
        return torch.segment_reduce(x, "mean", lengths=torch.from_numpy(lengths))

    def rows_of(self, labelled: Labelled, how: str = "last") -> np.ndarray:
        """The rows of this store that stand for those of `labelled`, for `take`.

        A store of all tokens gives the last or first token of each word, int64 [n]; or with "mean" the range of
        rows [n, 2] of its tokens. A store with a vector per row gives 0, 1, 2, …

        Raises:
            ValueError: the store is of other texts or other words, or a word has no token; the word is named.
        """
        if how not in ("last", "first", "mean"):
            raise ValueError(unknown("choice of tokens", how, ("last", "first", "mean")))
        self.check(labelled=labelled)
        if self.offsets is None:
            return np.arange(self.n)
        from probes.words import token_ranges, warn_of, widened

        firsts = np.searchsorted(self.text, np.arange(len(labelled.texts) + 1))
        ranges, wider = np.empty((labelled.n, 2), dtype=np.int64), {}
        by_text = np.argsort(labelled.text, kind="stable")
        edges = np.searchsorted(labelled.text[by_text], np.arange(len(labelled.texts) + 1))
        for i in range(len(labelled.texts)):
            rows = by_text[edges[i] : edges[i + 1]]
            offsets = self.offsets[firsts[i] : firsts[i + 1]]
            tokens = token_ranges(labelled, rows, offsets)
            wider |= widened(labelled, rows, offsets, tokens)
            ranges[rows] = firsts[i] + tokens
        warn_of(labelled, wider)
        return {"first": ranges[:, 0], "last": ranges[:, 1] - 1, "mean": ranges}[how]

    def check(self, *, model: Transformer | None = None, labelled: Labelled | None = None) -> None:
        """Raise a ValueError that says what differs if the store was made by another model or from other data."""
        known = self.record.get("data", {})
        where = f"the store {str(self.path)!r}" if self.path else "the given store"
        if labelled is not None:
            manifest.refuse_differences(
                where, known, manifest.about_data(labelled, all_tokens=self.offsets is not None)
            )
            if self.offsets is None and labelled.n != self.n:
                raise ValueError(f"{where} has {self.n} rows, and {labelled.name} has {labelled.n}")
        if model is not None:
            manifest.refuse_differences(where, self.record.get("model", {}), manifest.about_model(model))

    @cached_property
    def _stored(self) -> np.ndarray | None:
        """Row → its place in the shards; None where they are the same."""
        if (np.diff(self.text) >= 0).all():
            return None
        places = np.empty(self.n, dtype=np.int64)
        places[np.argsort(self.text, kind="stable")] = np.arange(self.n)
        return places

    def _known(self, site: str) -> str:
        if site not in self._widths:
            raise ValueError(unknown("site", site, self.sites, of="this store"))
        return site

    @classmethod
    def of(
        cls,
        activations: Mapping[str, Tensor | np.ndarray],
        *,
        text: Sequence[int] | np.ndarray | None = None,
        position: Sequence[int] | np.ndarray | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> Activations:
        """From plain tensors or NumPy arrays [n, d] by site; row i is of text i unless `text` says otherwise.

        Any name may stand for a site; layers are known of names such as "blocks.3.hook_resid_post".

        Raises:
            ValueError: no sites, another shape, or lengths that differ.
        """
        if not isinstance(activations, Mapping):
            raise ValueError(
                f"the activations are {given.sort(activations)}; give a tensor or array [n, d] for each site by name, "
                "such as {'blocks.3.hook_resid_post': x}, or what probes.harvest gives"
            )
        if not activations:
            raise ValueError("no sites are given")
        for site in activations:
            if not isinstance(site, str):
                raise ValueError(
                    f"a site is named by a text such as 'blocks.3.hook_resid_post', not by {site!r}"
                )
        activations = {site: given.activations(x, repr(site)) for site, x in activations.items()}
        n = len(next(iter(activations.values())))
        for site, x in activations.items():
            if x.ndim != 2 or not x.is_floating_point() or not x.shape[1]:
                raise ValueError(f"{site!r} is {x.dtype} {list(x.shape)}; activations are floating, [n, d]")
            if len(x) != n:
                raise ValueError(f"{site!r} has {len(x)} rows, and {next(iter(activations))!r} has {n}")
        rows = {}
        for name, values in {"text": text, "position": position}.items():
            default = np.arange(n) if name == "text" else np.full(n, -1)
            rows[name] = default if values is None else given.indices(values, f"{name} of rows")
            if rows[name].shape != (n,):
                raise ValueError(f"{name} is {list(rows[name].shape)}; there are {n} rows")
        order = torch.from_numpy(np.argsort(rows["text"], kind="stable"))
        in_order = bool((order.diff() == 1).all())
        shard = {
            site: x.detach().cpu() if in_order else x.detach().cpu()[order] for site, x in activations.items()
        }
        return cls([shard], rows["text"], rows["position"], record=record)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Activations:
        """A store that `probes.harvest(…, out=path)` finished, memory-mapped.

        Args:
            verify: compare the SHA-256 of every shard with the manifest, which reads them all once. Their
                presence and size are always looked at.

        Raises:
            ValueError: no store, an unfinished one, or one that is damaged; the file is named.
        """
        found = manifest.Manifest.read(given.path(path))
        found.refuse_damage(verify=verify)
        rows = found.rows()
        shards = [manifest.Shard(found.folder / shard["file"]) for shard in found.shards]
        record = found.record | {
            "kept_float32": manifest.counted(shard["kept_float32"] for shard in found.shards),
            "batch_size": found.batch_size,
        }
        return cls(
            shards, rows["text"], rows["position"],
            offsets=rows.get("offsets"), record=record, path=found.folder,
        )  # fmt: skip


def check_finite(x: Tensor, site: str, names: Sequence[str]) -> None:
    """Raise a ValueError that names the first row of x [k, d] that is not finite."""
    finite = x.isfinite().all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        kind = "NaN" if bool(x[row].isnan().any()) else "infinite"
        raise ValueError(f"the activation of {names[row]} at {site!r} is {kind}")
