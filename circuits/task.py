"""A task: prompts that show a behaviour, corrupt prompts that break it, and the metric that measures it.

`circuits/tasks/` has one file per task with one constant `TASK`; the file's name is the task's name.

Building pairs is deterministic in (tokenizer, n, seed), and the first pairs of a longer draw are the pairs of
a shorter one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from circuits.check import Check, check
from circuits.pairs import Pairs
from circuits.pairs_files import ALL, task_of
from circuits.pairs_writing import SEPARATOR
from lens.nearest import unknown
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.metrics import Metric
    from lens.model import Transformer
    from lens.tokens import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True)
class Drawing:
    """What a task's `build` gets to work with."""

    model: Transformer
    n: int
    rng: random.Random
    corruption: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task.

    Args:
        name: the file's name.
        title: what people call it.
        about: what the model has to do.
        source: the paper that studied it.
        corruptions: name → what the corrupt prompt changes; the first is the default.
        build: makes the pairs; it need not set `task`.
        metric: the metric it is usually scored by.
        finite: whether there is a last pair, as in a file.
    """

    name: str
    title: str
    about: str
    source: str
    corruptions: dict[str, str]
    build: Callable[[Drawing], Pairs]
    metric: str = "logit_diff"
    finite: bool = False

    def pairs(
        self, model: Transformer, n: int | None = 32, seed: int = 0, corruption: str | None = None
    ) -> Pairs:
        """`n` pairs for this model's tokenizer; None: every pair of a finite task, in its own order.

        Raises:
            ValueError: `n` is below 1, the corruption is unknown, or the tokenizer does not have what the
                task needs (such as names that are single tokens).
        """
        if n is None and not self.finite:
            raise ValueError(f"{self.name} draws its pairs without end; say how many, such as n=32")
        if n is not None and n < 1:
            raise ValueError(f"at least one pair is needed; {n} were asked for")
        corruption = corruption or next(iter(self.corruptions))
        if corruption not in self.corruptions:
            raise ValueError(unknown("corruption", corruption, self.corruptions, of=self.name))
        rng = random.Random(f"{self.name} {seed}")
        return replace(self.build(Drawing(model, ALL if n is None else n, rng, corruption)), task=self.name)

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        layout: str | None = None,
        separator: str = SEPARATOR,
        metric: str | None = None,
        prepend_bos: bool | None = None,
        skip_unfit: bool | None = None,
    ) -> Task:
        """One's own pairs from a CSV file (or .tsv) with a header; `circuits.pairs_layouts` tells the columns.

        Args:
            path: the file, in UTF-8.
            layout: what the columns mean; None tells it from their names.
            separator: stands between several answers in one cell; a JSON list does as well.
            metric: None is the layout's own; log_prob where there are no wrong answers.
            prepend_bos: None puts before a text what the tokenizer itself puts there.
            skip_unfit: leave out rows that do not fit the tokenizer instead of refusing the file; None does
                so for the data sets whose authors do.

        Raises:
            ValueError: one line that names the file, its line and what is wrong there. Rows are made into
                tokens when pairs are asked for, and what is wrong with them is told then.
        """
        return task_of(
            cls,
            path,
            "csv",
            layout=layout,
            separator=separator,
            metric=metric,
            prepend_bos=prepend_bos,
            skip_unfit=skip_unfit,
        )

    @classmethod
    def from_jsonl(
        cls,
        path: str | Path,
        *,
        layout: str | None = None,
        separator: str = SEPARATOR,
        metric: str | None = None,
        prepend_bos: bool | None = None,
        skip_unfit: bool | None = None,
    ) -> Task:
        """One's own pairs from a file with a JSON object on each line; as `from_csv`.

        Answers are texts or token ids, or lists of them.
        """
        return task_of(
            cls,
            path,
            "jsonl",
            layout=layout,
            separator=separator,
            metric=metric,
            prepend_bos=prepend_bos,
            skip_unfit=skip_unfit,
        )

    def check(
        self,
        model: Transformer,
        pairs: Pairs,
        metric: str | Metric | None = None,
        *,
        progress: Progress = silent,
    ) -> Check:
        """The model's own score on the clean prompts, before anything is searched for in it."""
        return check(model, pairs, metric or self.metric, self.name, progress=progress)


# ---- what tasks share


def words_of(model: Transformer, task: str) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        ValueError: it has none, and the task is made of words.
    """
    if model.tokenizer is None:
        raise ValueError(f"{task} is made of words, and {model.cfg.name} has no tokenizer")
    return model.tokenizer


def same_length(tokenizer: Tokenizer, items: Iterable[T], text: Callable[[T], str]) -> list[T]:
    """The largest group of `items` whose texts have equally many tokens, so that a batch needs no padding.

    Texts that the tokenizer cannot encode are left out; the first of equally large groups wins.
    """
    groups: dict[int, list[T]] = {}
    for item in items:
        try:
            length = len(tokenizer.encode(text(item)))
        except ValueError:
            continue  # a closed vocabulary lacks a word of it
        groups.setdefault(length, []).append(item)
    return max(groups.values(), key=len, default=[])


def draw_different(n: int, draw: Callable[[int], T], key: Callable[[T], Hashable], task: str) -> list[T]:
    """`n` draws with different keys; `draw(i)` is called for the i-th until it gives a new one.

    Raises:
        ValueError: a thousand draws in a row gave nothing new.
    """
    seen: dict[Hashable, T] = {}
    while len(seen) < n:
        for _ in range(1000):
            drawn = draw(len(seen))
            if key(drawn) not in seen:
                seen[key(drawn)] = drawn
                break
        else:
            raise ValueError(
                f"{task} has about {len(seen)} different prompts for this tokenizer; {n} were asked for"
            )
    return list(seen.values())


def position_of(pairs: Pairs, ids: Iterable[int], occurrence: int = 0) -> torch.Tensor:
    """Int64 [n]: where the pair's own id stands in its clean prompt, the first time or a later one."""
    rows = zip(pairs.clean, pairs.mask, ids, strict=True)
    return torch.tensor([((row == i) & real).nonzero().flatten()[occurrence] for row, real, i in rows])
