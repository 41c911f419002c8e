"""Floors: what is reached without what the probe claims to find. Each is judged on the same folds, by the same scores.

A floor is a file of `probes/floors/`. It says why it cannot be had in a setting, or gives decisions of the same shape
as the probes' own, each row's made without its fold.

Letters: n rows, k outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lens.progress import Progress, silent
from lens.registry import Registry
from probes import crossfit, given
from probes.activations import Activations
from probes.estimator import Kind
from probes.labelled import Labelled
from probes.trial import Trial

if TYPE_CHECKING:
    from lens.model import Transformer


@dataclass(frozen=True)
class Place:
    """Where probes read: a site of a store, and the rows of the store that stand for the data's.

    Args:
        site: its full name.
        layer: of the site, if it has one.
        position: which token was read, in words.
        rows: for `Activations.take`; None: all in order.
    """

    site: str
    layer: int | None
    position: str
    rows: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Answers:
    """How a model is asked itself: a prompt for each row, and the word that answers for each class.

    Args:
        words: class → the text that follows the prompt, such as " True"; its first token is looked at.
        template: the prompt; "{text}" is the row's text, "{word}" what the row covers of it.
    """

    words: Mapping[str, str]
    template: str = "{text}"

    def __post_init__(self) -> None:
        if not isinstance(self.words, Mapping) or not self.words:
            raise ValueError(
                f"the words are {given.sort(self.words)}; they must be a text for each class by its name"
            )
        for name, word in self.words.items():
            if not isinstance(word, str) or not word:
                raise ValueError(f"the word of the class {name!r} is {given.sort(word)}; it must be a text")


@dataclass(frozen=True, eq=False)
class Setting:
    """All that a floor may look at.

    Args:
        labelled: the rows, with the groups that the folds keep together.
        original: the same rows with the groups of the data set.
        store: where the activations are.
        model: what they are from; None where it is not at hand.
        kind, options, penalties: how the probes are fitted.
        answers: how the model is asked.
        argument: what the floor was given: `group-mean:country` gives "country".
        sites: those that are swept.
        harvested: activations that floors share, by what they are.
        progress, inside: told of activations that are harvested, and called within the fits of a site.
    """

    labelled: Labelled
    original: Labelled
    store: Activations
    kind: Kind
    penalties: tuple[float | None, ...]
    options: Mapping[str, Any]
    model: Transformer | None = None
    answers: Answers | None = None
    argument: str = ""
    seed: int = 0
    batch_size: int = 32
    device: Any = None
    sites: tuple[str, ...] = ()
    harvested: dict[str, Activations] = field(default_factory=dict)
    progress: Progress = silent
    inside: Progress = silent

    @property
    def prepend_bos(self) -> bool | None:
        """As for the store."""
        return self.store.record.get("prepend_bos")

    def probed(self, trial: Trial, x: Tensor) -> np.ndarray:
        """The same probe on other activations [n, d], judged by the same folds."""
        (found,) = crossfit.crossfit(
            self.kind, x, [trial], self.penalties, [crossfit.Extras()],
            options=self.options, device=self.device, seed=self.seed, progress=self.inside,
        )  # fmt: skip
        return found.decision

    def harvest(self, model: Transformer, sites: Sequence[str]) -> Activations:
        """Activations of another model, or at other sites, at the positions of the store."""
        from probes.harvest import harvest

        positions = str(self.store.record.get("positions", "last"))
        number = positions.removeprefix("token ")
        return harvest(
            model, self.labelled, list(sites), positions=positions if number == positions else int(number),
            prepend_bos=self.prepend_bos, batch_size=self.batch_size, progress=self.progress,
        )  # fmt: skip


Decide = Callable[[Trial, Place], np.ndarray]


@dataclass(frozen=True)
class Floor:
    """An entry of the registry `probes/floors/`.

    Args:
        summary: what it is, in one line.
        reads: the targets it is a floor of: "classes", "values", "heads".
        missing: why it cannot be had in a setting, in a few words; None where it can.
        prepare: what is done once for all targets and sites; gives the function that decides.
        per_site: whether its decisions depend on the site.
    """

    summary: str
    reads: tuple[str, ...]
    missing: Callable[[Setting], str | None]
    prepare: Callable[[Setting], Decide]
    per_site: bool = False


FLOORS = Registry("probes.floors", "FLOOR", Floor, "floor")


def floors() -> list[str]:
    """The names of all floors."""
    return FLOORS.names()


def get_floor(name: str) -> tuple[Floor, str]:
    """A floor and its argument, from a name such as "majority" or "group-mean:country".

    Raises:
        ValueError: there is none of that name; the message gives the nearest.
    """
    stem, _, argument = name.partition(":")
    return FLOORS.get(stem), argument


def chosen(
    names: Sequence[str] | None, setting: Setting, reads: Sequence[str]
) -> dict[str, tuple[Floor, Setting]]:
    """The floors that are computed, by name: those named, or all that can be had and fit a target.

    Raises:
        ValueError: a floor that is named and cannot be had, or that fits none of the targets.
    """
    found: dict[str, tuple[Floor, Setting]] = {}
    for name in floors() if names is None else names:
        floor, argument = get_floor(name)
        told = replace(setting, argument=argument)
        if not set(floor.reads) & set(reads):
            reason = f"it is a floor of {' and '.join(floor.reads)}, not of {' and '.join(reads)}"
        else:
            reason = floor.missing(told)
        if reason is None:
            found[name.replace("_", "-")] = (floor, told)
        elif names is not None:
            raise ValueError(f"the floor {name!r} cannot be had: {reason}")
    return found


def never(setting: Setting) -> str | None:
    """For floors that can always be had."""
    return None
