"""What all pages look at: a model, a clean prompt, its counterfactual, the answers and the metric.

The prompts are a person's own where the address has any (`prompt`, `corrupt`, `answer`, `wrong`), else a pair of
the run or of the task.

Letters: p position.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch

from circuits.metrics import METRICS, get_metric
from circuits.pairs import Pairs
from circuits.pairs_writing import SEPARATOR
from circuits.task import Task
from dashboard.kinds import no_pairs
from dashboard.state import View
from lens.model import Transformer

EMPTY = "The prompt is empty: type at least one word."
EXAMPLES = 32
"""Pairs that are drawn of a task; `example` counts through them."""


@dataclass(frozen=True)
class Words:
    """The texts of a pair as a person types them; several answers stand between `|`."""

    clean: str
    corrupt: str = ""
    answer: str = ""
    wrong: str = ""


@dataclass(frozen=True, eq=False)
class Subject:
    """One pair in one model. `name` is what `lens.load` was asked for.

    `pairs` is the one pair, or None where the texts do not make one; `why` says so then, in one line.
    `clean` int64 [p]. `batch` are the pairs that averages are taken over: of the task or run, or the one.
    """

    name: str
    model: Transformer
    words: Words
    clean: torch.Tensor
    pairs: Pairs | None
    batch: Pairs | None
    why: str
    metric: str
    title: str

    @property
    def ids(self) -> list[int]:
        """The clean prompt's tokens."""
        return self.clean.tolist()

    def key(self, *more: Hashable) -> tuple[Hashable, ...]:
        """What results about this subject are remembered by."""
        digest = tuple(self.ids) if self.pairs is None else self.pairs.digest
        return (self.model.revision, self.name, digest, self.metric, *more)


def own(view: View) -> bool:
    """Whether the prompts are a person's own."""
    return any(text is not None for text in (view.prompt, view.corrupt, view.answer, view.wrong))


def preset(model: Transformer, task: Task, example: int, examples: int = EXAMPLES) -> tuple[Pairs, int]:
    """The pairs of a task and which of them is looked at.

    Raises:
        ValueError: the task has no pairs for this model's tokenizer.
    """
    pairs = task.pairs(model, examples if not task.finite else None, 0)
    if task.finite and len(pairs) > examples:
        pairs = task.pairs(model, examples, 0)
    return pairs, min(example, len(pairs) - 1)


def of_pairs(
    name: str, model: Transformer, pairs: Pairs, example: int, metric: str | None, title: str
) -> Subject:
    """The subject of one of several pairs."""
    one = pairs[example]
    ids = one.clean[0][one.mask[0]]
    return Subject(name, model, words_of(model, one), ids, one, pairs, "", metric or usual_metric(one), title)


def of_words(name: str, model: Transformer, words: Words, metric: str | None) -> Subject:
    """The subject of a person's own texts.

    Raises:
        ValueError: the clean prompt is empty or longer than the context.
    """
    if not words.clean.strip():
        raise ValueError(EMPTY)
    ids = model.to_tokens(words.clean)[0].cpu()
    if len(ids) > model.cfg.n_ctx:
        raise ValueError(f"The prompt has {len(ids)} tokens; {model.name} reads at most {model.cfg.n_ctx}.")
    pairs, why = None, no_pairs(model.cfg)
    try:
        pairs = None if why else made(model, words)
    except ValueError as error:
        why = str(error)
    return Subject(name, model, words, ids, pairs, pairs, why, metric or usual_metric(pairs), "Own prompts")


def made(model: Transformer, words: Words) -> Pairs:
    """One pair from typed texts.

    Raises:
        ValueError: there is no counterfactual or no answer, or they do not fit; one line that says which.
    """
    if not words.corrupt.strip():
        raise ValueError("there is no counterfactual prompt yet")
    if not words.answer.strip():
        raise ValueError("there is no answer token yet")
    ids, others = (model.to_tokens(text)[0].tolist() for text in (words.clean, words.corrupt))
    if len(ids) != len(others):
        raise ValueError(
            f"the clean prompt has {len(ids)} tokens and the counterfactual {len(others)}; they must be equally long"
        )
    if ids == others:
        raise ValueError("the clean prompt and the counterfactual are the same")
    answers = [single(model, word) for word in words.answer.split(SEPARATOR)]
    wrong = [single(model, word) for word in words.wrong.split(SEPARATOR) if word.strip()]
    return Pairs.from_text(model, [words.clean], [words.corrupt], [answers], [wrong])


def single(model: Transformer, word: str) -> int:
    """The token of a word as typed, or else with a space before it, as words in a text have.

    Raises:
        ValueError: neither is one token.
    """
    try:
        return model.to_single_token(word)
    except ValueError:
        if word.startswith(" "):
            raise
    try:
        return model.to_single_token(" " + word.strip())
    except ValueError:
        return model.to_single_token(word)  # its own error is the one to show


def words_of(model: Transformer, pair: Pairs) -> Words:
    """The texts of one pair."""
    mask = pair.mask[0]
    clean, corrupt = (text_of(model, ids[0][mask]) for ids in (pair.clean, pair.corrupt))
    return Words(clean, corrupt, _answers(model, pair.answers), _answers(model, pair.wrong))


def text_of(model: Transformer, ids: torch.Tensor) -> str:
    """Tokens as text, without the beginning-of-text token that the tokenizer puts before every text."""
    found: list[int] = ids.tolist()
    first = None if model.tokenizer is None else model.tokenizer.bos_id
    return model.to_string(found[1:] if found and found[0] == first else found)


def _answers(model: Transformer, answers: Any) -> str:
    ids = [i for i in answers.flatten().tolist() if i >= 0]
    return SEPARATOR.join(model.to_str_tokens(ids)) if ids else ""


def usual_metric(pairs: Pairs | None) -> str:
    """The logit difference, or the log-probability of the answer where nothing is wrong."""
    without = pairs is not None and not bool((pairs.wrong >= 0).any())
    return "log_prob" if without else "logit_diff"


def metrics(differentiable: bool = False) -> list[str]:
    """Names of the metrics to choose from."""
    return [name for name in METRICS if not differentiable or get_metric(name).differentiable]
