"""What is measured of a run at one position per prompt: a probe's score, a logit difference, or any function.

A measure says which sites it reads and whether it needs logits, and gives one number per prompt.

Letters: b prompt, d width of a site, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lens.nearest import unknown
from lens.text import tokenizer_of
from probes import given
from probes.probe import Probe

if TYPE_CHECKING:
    from lens.model import Transformer


@runtime_checkable
class Measure(Protocol):
    """One number per prompt."""

    @property
    def label(self) -> str: ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Full names of the sites that it reads."""
        ...

    @property
    def of_logits(self) -> bool: ...

    def __call__(self, seen: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        """[b] from activations [b, d] by site, and logits [b, v] where they are needed."""
        ...


@dataclass(frozen=True)
class ProbeScore:
    """A probe's score of one class (or value) at its own site; of two classes the score towards that class.

    Args:
        name: of the class; None: the second of two, or the only value.

    Raises:
        ValueError: no such class, or a probe of whole texts.
    """

    probe: Probe
    name: str | None = None

    of_logits = False

    def __post_init__(self) -> None:
        if not isinstance(self.probe, Probe):
            raise ValueError(f"the probe is {given.sort(self.probe)}, not a Probe")
        if self.name is not None and self.name not in self.probe.names:
            raise ValueError(unknown("class", self.name, self.probe.names, of="this probe"))
        if self.probe.texts:
            raise ValueError(
                f"the probe of {self.probe.site!r} reads whole texts, and a measure is of one position"
            )
        if self.name is None and self.probe.outputs > 1:
            raise ValueError(f"this probe has several scores; choose from {', '.join(self.probe.names)}")

    @property
    def label(self) -> str:
        return f"score of {self.name or self.probe.names[-1]} at {self.probe.site}"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.probe.site,)

    def __call__(self, seen: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        scores = self.probe.scores(seen[self.probe.site].flatten(1))
        if self.name is None:
            return scores[:, 0]
        if self.probe.outputs > 1 or self.probe.reads == "values":
            return scores[:, self.probe.names.index(self.name)]
        return scores[:, 0] if self.name == self.probe.names[1] else -scores[:, 0]


@dataclass(frozen=True)
class LogitDifference:
    """log Σ exp logits of some tokens minus that of others: the log-odds of one answer against the other.

    With one token on each side it is the difference of the two logits.

    Args:
        positive, negative: token ids.
    """

    positive: tuple[int, ...]
    negative: tuple[int, ...]
    label: str = "logit difference"

    of_logits = True
    reads = ()

    @classmethod
    def of(
        cls, model: Transformer, positive: str | Sequence[str], negative: str | Sequence[str]
    ) -> LogitDifference:
        """From words, each of them one token of the model (mind the space in front).

        Raises:
            ValueError: a word that is not one token, no words, or a word on both sides.
        """
        tokenizer = tokenizer_of(model)
        given.check_model(model)
        sides = [given.names(words, "the words of a logit difference") for words in (positive, negative)]
        if not all(sides):
            raise ValueError("a logit difference needs a word on each side")
        if both := set(sides[0]) & set(sides[1]):
            raise ValueError(f"{min(both)!r} stands on both sides of the logit difference")
        ids = [tuple(tokenizer.single(word) for word in words) for words in sides]
        return cls(ids[0], ids[1], f"log p({', '.join(sides[0])}) − log p({', '.join(sides[1])})")

    def __call__(self, seen: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        assert logits is not None
        wide = logits.double()
        return wide[:, list(self.positive)].logsumexp(1) - wide[:, list(self.negative)].logsumexp(1)


@dataclass(frozen=True)
class OfLogits:
    """A function of the logits [b, v] that gives [b]."""

    function: Callable[..., Any]
    label: str = "function of the logits"

    of_logits = True
    reads = ()

    def __call__(self, seen: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        assert logits is not None
        found = self.function(logits)
        if not isinstance(found, Tensor) or found.shape != (len(logits),):
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"a measure gives one number per prompt, [{len(logits)}]; not {got}")
        return found


def as_measure(given: Any) -> Measure:
    """A measure: one itself, a probe (its score), or a function of the logits.

    Raises:
        ValueError: something else.
    """
    if isinstance(given, Probe):
        return ProbeScore(given)
    if isinstance(given, Measure):
        return given
    if callable(given):
        return OfLogits(given, getattr(given, "__name__", OfLogits.label))
    raise ValueError(
        f"a measure is a probe, a LogitDifference or a function of the logits, not {type(given).__name__}"
    )


def at_rows(seen: Mapping[str, Tensor], rows: Tensor, at: Tensor) -> dict[str, Tensor]:
    """Activations [b, d] at some positions of what was read [b, p, …]."""
    return {name: x[rows.to(x.device), at.to(x.device)].flatten(1) for name, x in seen.items()}


def logits_at(model: Transformer, last: Tensor, rows: Tensor, at: Tensor) -> Tensor:
    """Logits [b, v] at some positions of the last stream [b, p, d]."""
    picked = last[rows.to(last.device), at.to(last.device)]
    return torch.cat([model.to_logits(part[None])[0] for part in picked.split(256)])
