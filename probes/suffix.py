"""Runs that differ from one site on share everything before it: prompts run once up to a layer, and each
intervention runs only what follows.

1. The suffix begins with the block of the earliest site; or behind it, where that site is the block's output.
2. `enter` gives the clean stream that enters it. An edit of the block's output acts on that stream, the others
   as taps of the run.
3. `run` goes on from there, to the sites that are to be read or to the last stream.

Letters: b batch, p position, d d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from lens.sites import resolve
from lens.taps import Halt, Taps
from probes.prompts import Batch

if TYPE_CHECKING:
    from lens.model import Transformer

Edit = Callable[[Tensor], Tensor]


def one_site(model: Transformer, name: str) -> str:
    """The full name of one site inside a block that holds vectors per position.

    Raises:
        ValueError: it is none, or several.
    """
    names = resolve(name, model.sites)
    if len(names) != 1:
        raise ValueError(f"{name!r} stands for {len(names)} sites ({names[0]}, …); give one, with its layer")
    site = model.sites[names[0]]
    axes = site.shape.split()
    if site.layer is None or axes[:2] != ["batch", "pos"] or "key" in axes or site.conditional:
        raise ValueError(
            f"{name!r} cannot be edited by a vector: it is [{site.shape}], not one per position of a layer"
        )
    return names[0]


@dataclass(frozen=True, eq=False)
class Suffix:
    """What of a model's run follows some sites.

    Args:
        start: the first block that runs.
    """

    model: Transformer
    start: int

    @classmethod
    def of(cls, model: Transformer, sites: Iterable[str]) -> Suffix:
        """The suffix from the earliest of these sites (full names, see `one_site`) on."""
        return cls(model, min(cls._first(model, site) for site in sites))

    @staticmethod
    def _first(model: Transformer, site: str) -> int:
        layer = model.sites[site].layer
        assert layer is not None
        block = model.block(layer)
        return layer + 1 if site == block.hook_resid_post and not block.after_sum else layer

    @property
    def output(self) -> str | None:
        """The site that is the entering stream itself: the output of the block before."""
        return self.model.block(self.start - 1).hook_resid_post if self.start else None

    def enter(self, batch: Batch) -> Float[Tensor, "b p d"]:
        """The clean stream that enters the first block of the suffix."""
        return self.model(batch.ids, attention_mask=batch.attention_mask, stop_at_layer=self.start)

    def run(
        self,
        batch: Batch,
        entering: Float[Tensor, "b p d"],
        edits: Mapping[str, Edit],
        reads: Iterable[str] = (),
        *,
        to_end: bool = True,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The last stream (where the run goes to the end) and what was read, after the edits.

        Args:
            reads: sites of the suffix, or its `output`.
            to_end: False stops at the deepest site read; the stream given back then means nothing.
        """
        x, seen, inside = entering, {}, dict(edits)
        if self.output is not None and self.output in inside:
            x = inside.pop(self.output)(x)
        wanted = set(reads)
        if self.output in wanted:
            wanted.discard(self.output)
            seen[self.output] = x
        if not to_end and not wanted:
            return x, seen
        taps = Taps(wanted, inside, halt=not to_end)
        last = x
        with suppress(Halt):
            last = self.model(
                x, attention_mask=batch.attention_mask, taps=taps, start_at_layer=self.start,
                stop_at_layer=self.model.cfg.n_layers,
            )  # fmt: skip
        return last, seen | taps.seen

    def check_reads(self, names: Iterable[str]) -> None:
        """Raise unless the suffix passes every site (full names).

        Raises:
            ValueError: a site that comes before the intervention, which cannot change it.
        """
        for name in names:
            layer = self.model.sites[name].layer
            if layer is None or (layer < self.start and name != self.output):
                raise ValueError(f"{name!r} is not downstream: the run is changed from layer {self.start} on")
