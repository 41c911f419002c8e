"""Steering along a direction: how a measure answers to the dose.

1. The unit of a dose is the standard deviation of the activation's projection onto the direction u, over the
   prompts' last positions: x ← x + dose · sd · u at the steered positions of the site.
2. The prompts run once up to the site; for each dose only what follows is run.
3. The measure is taken at the last position of each prompt, the language-model loss over all next tokens.
4. Intervals are bootstraps over prompts (over groups, where there are any).
5. The monotone range is the longest in which the mean only rises or only falls, within noise (`probes/monotone.py`).

Letters: m dose, n prompt, b batch, p position, d d_model, r resample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from lens.progress import Progress, silent
from probes import given
from probes.directions import unit
from probes.intervals import mean_interval, percentiles, resampled_means
from probes.language_loss import text_losses
from probes.measures import Measure, as_measure, at_rows, logits_at
from probes.monotone import Monotone, monotone_range, spearman
from probes.prompts import Batch, Inputs, Prompts
from probes.suffix import Edit, Suffix, one_site

if TYPE_CHECKING:
    import pandas as pd

    from lens.model import Transformer

Start = int | str


@dataclass(frozen=True, eq=False)
class Dose:
    """A dose–response curve.

    Args:
        doses: in increasing order, in standard deviations `sd`.
        values: [m, n], the measure of each prompt at each dose.
        interval: [2, m], of the mean over prompts, 95%.
        loss: [m], language-model loss per token; None where it was not measured.
        loss_interval: [2, m].
        sd: one dose in units of the activation.
        direction: u [d].
        start: from which position on the prompts were steered.
        measure: what was measured.
        spearman: rank correlation of the mean with the dose.
        monotone: the longest range in which the mean is monotone within noise; None where there is none.
    """

    doses: tuple[float, ...]
    values: Float[Tensor, "m n"]
    interval: Float[Tensor, "2 m"]
    loss: Float[Tensor, " m"] | None
    loss_interval: Float[Tensor, "2 m"] | None
    sd: float
    site: str
    direction: Float[Tensor, " d"]
    start: Start
    measure: str
    spearman: float
    monotone: Monotone | None

    @property
    def unit(self) -> str:
        """What a dose of one is, in words."""
        return f"{self.sd:.4g} along the direction at {self.site}: one standard deviation over the prompts"

    @property
    def mean(self) -> Float[Tensor, " m"]:
        """Mean over prompts."""
        return self.values.mean(1)

    @property
    def table(self) -> pd.DataFrame:
        """One row per dose: mean, interval, loss and its interval, and whether it is in the monotone range."""
        import pandas as pd

        columns: dict[str, Any] = {"dose": self.doses, "mean": self.mean, "low": self.interval[0]}
        columns["high"] = self.interval[1]
        if self.loss is not None and self.loss_interval is not None:
            columns |= {
                "loss": self.loss,
                "loss_low": self.loss_interval[0],
                "loss_high": self.loss_interval[1],
            }
        ends = self.monotone
        columns["monotone"] = [ends is not None and ends.low <= dose <= ends.high for dose in self.doses]
        return pd.DataFrame(columns)


def steer(
    model: Transformer,
    inputs: Inputs,
    direction: Any,
    site: str,
    doses: Sequence[float | int],
    measure: Any,
    *,
    name: str | None = None,
    start: Start = "all",
    sd: float | int | None = None,
    loss_on: Inputs | None = None,
    groups: Sequence[Any] | None = None,
    prepend_bos: bool | None = None,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress = silent,
) -> Dose:
    """The dose–response curve of adding a direction to the activations at a site.

    Args:
        inputs: n prompts.
        direction: a vector [d], made a unit vector, or a probe with `.direction(name)`.
        site: one site with a vector per position, such as "blocks.12.hook_resid_post".
        doses: in standard deviations; of any sign.
        measure: a probe (its score downstream), a `LogitDifference`, or a function of the last logits [b, v] → [b].
        start: "all" positions, only the "last", or from a position on (negative: from the end).
        sd: one dose in units of the activation, instead of the standard deviation over these prompts.
        loss_on: texts whose language-model loss is measured, steered from `start` on (everywhere for "last", as a
            continuation would be). None: the prompts themselves, but no loss for "last".
        groups: prompts that belong together, for the intervals.
        prepend_bos: of texts, as for `probes.harvest`.
        batch_size: only speed and memory depend on it.

    Raises:
        ValueError: a site, direction, dose or measure that cannot be; a measure of a site before the steered one;
            fewer than two prompts and no `sd`; no spread along the direction.
    """
    given.check_model(model)
    prompts, measured = Prompts.of(model, inputs, prepend_bos), as_measure(measure)
    texts = prompts if loss_on is None else Prompts.of(model, loss_on, prepend_bos)
    job = _Steering.of(model, direction, site, name, start)
    job.suffix.check_reads(measured.reads)
    for dose in given.plain(doses, "doses"):
        if isinstance(dose, bool) or not isinstance(dose, int | float):
            raise ValueError(f"doses are numbers, and {given.sort(dose)} is none")
    places = sorted({float(dose) for dose in doses})
    if len(places) < 2 or not all(map(math.isfinite, places)):
        raise ValueError(f"a curve needs two different, finite doses or more, not {list(doses)}")
    if groups is not None and len(groups) != len(prompts):
        raise ValueError(f"there are {len(prompts)} prompts and {len(groups)} groups")
    prompts.at(start if isinstance(start, int) else "last")
    if sd is not None and not isinstance(sd, int | float):
        raise ValueError(f"sd is {given.sort(sd)}; it must be a number")
    size = job.spread(prompts, batch_size, progress) if sd is None else float(sd)
    if not math.isfinite(size) or size <= 0:
        raise ValueError(f"one dose is {size}; it must be above 0")
    own_loss = loss_on is None and start != "last"
    values, sums = job.curve(prompts, [p * size for p in places], measured, own_loss, batch_size, progress)
    if loss_on is not None:
        everywhere = _Steering(job.suffix, job.site, job.u, "all" if start == "last" else start)
        _, sums = everywhere.curve(texts, [p * size for p in places], None, True, batch_size, progress)
    names = None if groups is None else [(str(group),) for group in groups]
    resamples = resampled_means(values.T, names, seed=seed)  # [r, m]
    loss = interval = None
    if sums is not None:
        counts = texts.lengths.double() - 1
        if not float(counts.sum()):
            raise ValueError(
                "no text has a second token, so there is no next token to predict; give `loss_on`"
            )
        loss = sums.sum(1) / counts.sum()
        per_token = sums.T / counts.clamp(min=1)[:, None]
        interval = torch.stack(
            mean_interval(per_token, names if loss_on is None else None, weight=counts, seed=seed)
        )
    return Dose(
        tuple(places), values, torch.stack(percentiles(resamples)), loss, interval, size, job.site, job.u, start,
        measured.label, spearman(places, values.mean(1)), monotone_range(places, resamples),
    )  # fmt: skip


def generate_steered(
    model: Transformer,
    inputs: str | list[str] | Tensor,
    direction: Any,
    site: str,
    dose: float | int,
    *,
    sd: float | int = 1.0,
    start: Start = "all",
    name: str | None = None,
    max_new_tokens: int = 20,
    **options: Any,
) -> Any:
    """The prompts with their continuation, steered at the prompt's positions from `start` on and at every new one.

    Args:
        dose: times `sd` (`Dose.sd`) is what is added along the unit vector; with 1.0 it is in units of the activation.
        options: those of `lens.generate.generate`.

    Raises:
        ValueError: as for `steer`, or as for `generate`.
    """
    given.check_model(model)
    job = _Steering.of(model, direction, site, name, start)
    prompts = Prompts.of(model, inputs)
    first = _first(start, prompts.lengths)
    width = int(prompts.lengths.max())
    columns = first + width - prompts.lengths  # prompts are padded on the left
    step = dose * sd * job.u
    begun = False

    def edit(x: Tensor) -> Tensor:
        nonlocal begun
        here = torch.arange(x.shape[1]) >= (columns[:, None] if not begun else 0)
        begun = True
        return _added(x, here.expand(x.shape[0], -1), step)

    return model.generate(inputs, max_new_tokens, edits={job.site: edit}, **options)


@dataclass(frozen=True, eq=False)
class _Steering:
    """What to add where."""

    suffix: Suffix
    site: str
    u: Tensor
    start: Start

    @classmethod
    def of(cls, model: Transformer, direction: Any, site: str, name: str | None, start: Start) -> _Steering:
        full = one_site(model, site)
        axes = model.sites[full].shape.split()
        if axes[2:] != ["d_model"]:
            raise ValueError(
                f"{site!r} is [{model.sites[full].shape}]; steering takes a site [batch pos d_model]"
            )
        if isinstance(start, str) and start not in ("all", "last"):
            raise ValueError(f"start is {start!r}; it is 'all', 'last' or a position")
        return cls(Suffix.of(model, [full]), full, unit(direction, model.cfg.d_model, name), start)

    def spread(self, prompts: Prompts, batch_size: int, progress: Progress) -> float:
        """Standard deviation of the projection over the prompts' last positions."""
        if len(prompts) < 2:
            raise ValueError("one prompt has no standard deviation; give `sd`, or two prompts or more")
        found, done = [], 0
        for batch in prompts.batches(self.suffix.model, batch_size):
            progress(done, len(prompts), "measuring the spread along the direction")
            _, seen = self.suffix.run(batch, self.suffix.enter(batch), {}, [self.site], to_end=False)
            x = at_rows(seen, torch.arange(len(batch.index)), batch.lengths - 1)[self.site]
            found.append(x.cpu().double())
            done += len(batch.index)
        streams = torch.cat(found)
        sd = float((streams @ self.u).std())
        if sd <= 1e-6 * float(streams.norm(dim=1).mean()):  # rounding
            raise ValueError(f"the activations at {self.site!r} do not vary along the direction; give `sd`")
        return sd

    def curve(
        self,
        prompts: Prompts,
        steps: Sequence[float],
        measure: Measure | None,
        loss: bool,
        size: int,
        progress: Progress,
    ) -> tuple[Tensor, Tensor | None]:
        """The measure [m, n] and each prompt's summed loss [m, n]."""
        values = torch.zeros(len(steps), len(prompts), dtype=torch.float64)
        sums = torch.zeros_like(values)
        done, total, model = 0, len(prompts) * len(steps), self.suffix.model
        for batch in prompts.batches(model, size):
            entering = self.suffix.enter(batch)
            rows, last_at = torch.arange(len(batch.index)), batch.lengths - 1
            for m, step in enumerate(steps):
                progress(done, total, "steering")
                reads = measure.reads if measure is not None else ()
                to_end = loss or (measure is not None and measure.of_logits)
                last, seen = self.suffix.run(
                    batch, entering, {self.site: self._edit(batch, step)}, reads, to_end=to_end
                )
                if measure is not None:
                    logits = logits_at(model, last, rows, last_at) if measure.of_logits else None
                    found = measure(at_rows(seen, rows, last_at), logits)
                    values[m, batch.index] = found.detach().cpu().double()
                if loss:
                    sums[m, batch.index] = text_losses(model, last, batch)[0]
                done += len(batch.index)
        progress(total, total, "steering")
        return values, sums if loss else None

    def _edit(self, batch: Batch, step: float) -> Edit:
        first = _first(self.start, batch.lengths.cpu())
        here = torch.arange(batch.ids.shape[1]) >= first[:, None]
        return lambda x: _added(x, here, step * self.u)


def _first(start: Start, lengths: Tensor) -> Tensor:
    """The first steered position of each prompt."""
    if start == "all":
        return torch.zeros_like(lengths)
    if start == "last":
        return lengths - 1
    assert isinstance(start, int)
    return (lengths + start).clamp(min=0) if start < 0 else torch.full_like(lengths, start)


def _added(x: Tensor, here: Tensor, step: Tensor) -> Tensor:
    """x [b, p, d] with the vector `step` added where `here` [b, p]."""
    return torch.where(here.to(x.device)[..., None], x + step.to(x.device, x.dtype), x)
