"""Runs of labelled texts through one or several erasures at once: what probes would read, and the loss.

1. Each batch of texts is run once up to the first erased site. The stream that enters what follows is kept between
   calls as long as there is room (`KEPT` bytes), else made again.
2. For every variant of the erasure only what follows is run: to the site that is read, or to the end where the
   language-model loss is asked for.
3. Where a probe reads the one erased site itself, nothing has to be run: the eraser acts on the activations of the
   rows.

Letters: v variant, n row, m text, b batch, p position, d width of the site that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lens.progress import Progress, silent
from probes.language_loss import text_losses
from probes.measures import Measure, at_rows, logits_at
from probes.positions import Positions, check_prepend_bos, choose, plan
from probes.prompts import Batch, Prompts
from probes.suffix import Edit, Suffix

if TYPE_CHECKING:
    from lens.model import Transformer
    from probes.labelled import Labelled

KEPT = 2**29
"""Bytes of entering streams that are kept."""
Variant = Mapping[str, Edit]


@dataclass(frozen=True, eq=False)
class Rows:
    """Where the labelled rows stand: texts as prompts, and for each row its text and its token.

    Args:
        text: int64 [n].
        at: int64 [n], the position of the row's token in its prompt.
    """

    prompts: Prompts
    text: Int[Tensor, " n"]
    at: Int[Tensor, " n"]

    @classmethod
    def of(
        cls,
        model: Transformer,
        labelled: Labelled,
        positions: Positions = "last",
        prepend_bos: bool | None = None,
    ) -> Rows:
        """One token of each row, as `probes.harvest` chooses it.

        Raises:
            ValueError: positions that average over tokens, or as for `probes.harvest`.
        """
        from lens.text import tokenizer_of

        tokenizer = tokenizer_of(model)
        check_prepend_bos(tokenizer, prepend_bos)
        planned = plan(model, tokenizer, labelled, choose(positions, labelled), prepend_bos=prepend_bos)
        tokens = torch.tensor(planned.tokens)
        if planned.n != labelled.n or bool((tokens[:, 1] - tokens[:, 0] > 1).any()):
            raise ValueError(f"positions are {positions!r}; here each row is one token, such as its 'last'")
        prompts = Prompts.of(model, list(labelled.texts), prepend_bos)
        return cls(prompts, torch.tensor(planned.text).long(), tokens[:, 1].long() - 1)

    def within(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Of the rows in a batch: their numbers, their places in the batch, their positions."""
        place = torch.full((len(self.prompts),), -1)
        place[batch.index] = torch.arange(len(batch.index))
        rows = (place[self.text] >= 0).nonzero()[:, 0]
        return rows, place[self.text[rows]], self.at[rows]


@dataclass(frozen=True, eq=False)
class Found:
    """What the variants did.

    Args:
        features: [v, n, d], what is read at the rows, in float32 or float64; None where nothing is read.
        values: [v, n], the measure at the rows.
        losses: [v, m], summed over the tokens of each text.
    """

    features: Float[Tensor, "v n d"] | None
    values: Float[Tensor, "v n"] | None
    losses: Float[Tensor, "v m"] | None


class ErasedRuns:
    """Texts, with or without rows, that are run through variants of an erasure.

    Args:
        given: rows, or plain texts.
        sites: the sites that variants edit, full names.
        only_rows: edit the rows' tokens only.
        skip: leave this many positions at the beginning of each text alone.
    """

    def __init__(
        self,
        model: Transformer,
        given: Rows | Prompts,
        sites: Sequence[str],
        *,
        only_rows: bool = False,
        skip: int = 0,
        batch_size: int = 16,
    ) -> None:
        self.model, self.sites, self.only_rows, self.skip = model, tuple(sites), only_rows, skip
        self.rows = given if isinstance(given, Rows) else None
        self.prompts = given.prompts if isinstance(given, Rows) else given
        self.suffix = Suffix.of(model, self.sites)
        self.batches = list(self.prompts.batches(model, batch_size))
        d, size = model.cfg.d_model, torch.finfo(model.dtype).bits // 8
        self.keeps = sum(batch.ids.numel() for batch in self.batches) * d * size <= KEPT
        self._entering: dict[int, Tensor] = {}
        self._clean: dict[str, Tensor] = {}

    @property
    def tokens(self) -> Float[Tensor, " m"]:
        """How many tokens of each text have one before them."""
        return self.prompts.lengths.double() - 1

    def know(self, site: str, x: Float[Tensor, "n d"]) -> None:
        """Take clean activations of the rows at a site as they were harvested.

        Raises:
            ValueError: of another number of rows.
        """
        n = 0 if self.rows is None else len(self.rows.text)
        if len(x) != n:
            raise ValueError(f"there are {n} rows and activations of {len(x)} at {site!r}")
        self._clean[site] = x

    def read(
        self, variants: Sequence[Variant], site: str, progress: Progress = silent
    ) -> Float[Tensor, "v n d"]:
        """Activations of the rows at a site under each variant."""
        assert self.rows is not None
        if self.sites == (site,) and bool((self.rows.at >= self.skip).all()):
            if site not in self._clean:
                found = self.run([{}], site, progress=progress).features
                assert found is not None
                self._clean[site] = found[0]
            clean = self._clean[site]
            return torch.stack([variant[site](clean) if variant else clean for variant in variants])
        features = self.run(variants, site, progress=progress).features
        assert features is not None
        return features

    def run(
        self,
        variants: Sequence[Variant],
        site: str | None = None,
        measure: Measure | None = None,
        *,
        loss: bool = False,
        progress: Progress = silent,
    ) -> Found:
        """Run every variant over every text.

        Args:
            site: read this at the rows.
            measure: take this at the rows.
            loss: sum the language-model loss of each text.
        """
        reads = ({site} if site else set()) | set(measure.reads if measure else ())
        to_end = loss or (measure is not None and measure.of_logits)
        n = 0 if self.rows is None else len(self.rows.text)
        features: Tensor | None = None
        values = torch.zeros(len(variants), n, dtype=torch.float64)
        losses = torch.zeros(len(variants), len(self.prompts), dtype=torch.float64)
        done, total = 0, len(variants) * len(self.prompts)
        for batch, entering in self._entered():
            here = self._edited(batch)
            for v, variant in enumerate(variants):
                progress(done, total, "erasing")
                edits = {name: _where(here, edit) for name, edit in variant.items()}
                last, seen = self.suffix.run(batch, entering, edits, reads, to_end=to_end)
                if loss:
                    losses[v, batch.index] = text_losses(self.model, last, batch)[0]
                if self.rows is not None and reads | ({"logits"} if measure else set()):
                    rows, place, at = self.rows.within(batch)
                    picked = at_rows(seen, place, at)
                    if site:
                        x = picked[site].cpu()
                        x = x if x.dtype == torch.float64 else x.float()
                        features = x.new_empty(len(variants), n, x.shape[1]) if features is None else features
                        features[v, rows] = x
                    if measure is not None:
                        logits = logits_at(self.model, last, place, at) if measure.of_logits else None
                        values[v, rows] = measure(picked, logits).detach().cpu().double()
                done += len(batch.index)
        progress(total, total, "erasing")
        return Found(features, values if measure else None, losses if loss else None)

    def _entered(self) -> Iterator[tuple[Batch, Tensor]]:
        for i, batch in enumerate(self.batches):
            entering = self._entering.get(i)
            if entering is None:
                entering = self.suffix.enter(batch)
                if self.keeps:
                    self._entering[i] = entering
            yield batch, entering

    def _edited(self, batch: Batch) -> Bool[Tensor, "b p"]:
        """Which positions are edited."""
        places = torch.arange(batch.ids.shape[1])
        here = (places >= self.skip).expand(len(batch.index), -1)
        if self.only_rows:
            assert self.rows is not None
            _, place, at = self.rows.within(batch)
            chosen = torch.zeros_like(here)
            chosen[place, at] = True
            here = here & chosen
        return here


def _where(here: Tensor, edit: Callable[[Tensor], Tensor]) -> Edit:
    if bool(here.all()):
        return edit

    def edited(x: Tensor) -> Tensor:
        mask = here.to(x.device).view(*here.shape, *[1] * (x.ndim - 2))
        return torch.where(mask, edit(x), x)

    return edited
