"""Induction: random words, then some of them again: "… A B … A" → "B".

The clean prompt is a run of different random tokens followed by a stretch of it, which ends with A. In the
corrupt prompt A's first occurrence is another token, so that nothing tells what follows A. The wrong answer
is another token of the prompt that does not follow A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from circuits.pairs import Pairs
from circuits.task import Drawing, Task, draw_different

if TYPE_CHECKING:
    from lens.model import Transformer

LENGTH = 16  # different tokens
AGAIN = 4  # how many of them are repeated
SHORTEST = 6


@dataclass(frozen=True)
class Prompt:
    """`tokens` are all different; `start` is where the repeated stretch begins."""

    tokens: tuple[int, ...]
    start: int
    again: int
    other: int  # stands for A's first occurrence in the corrupt prompt
    wrong: int

    @property
    def first(self) -> int:
        """Position of A's first occurrence, from the first random token."""
        return self.start + self.again - 1

    @property
    def clean(self) -> list[int]:
        return [*self.tokens, *self.tokens[self.start : self.start + self.again]]

    @property
    def corrupt(self) -> list[int]:
        ids = self.clean
        ids[self.first] = self.other
        return ids

    @property
    def answer(self) -> int:
        return self.tokens[self.first + 1]


def plain_tokens(model: Transformer) -> list[int]:
    """Tokens to draw from: whole lower-case words if there are enough, else words, else any ordinary ones."""
    size = min(model.cfg.embed.d_vocab, model.cfg.d_vocab)
    tokenizer = model.tokenizer
    if tokenizer is None:
        return list(range(size))
    special = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id}
    ids = [i for i in range(min(size, tokenizer.n_vocab)) if i not in special]
    texts = dict(zip(ids, tokenizer.str_tokens(ids), strict=True))
    words = [i for i in ids if texts[i].strip().isalpha()]
    spaced = [i for i in words if texts[i].startswith(" ") and texts[i].islower() and len(texts[i]) > 3]
    return next((group for group in (spaced, words) if len(group) >= 2 * LENGTH), ids)


def build(drawing: Drawing) -> Pairs:
    model, rng = drawing.model, drawing.rng
    tokens = plain_tokens(model)
    front = [model.tokenizer.bos_id] if model.tokenizer is not None and model.tokenizer.prepends_bos else []
    room = min(model.cfg.n_ctx, model.cfg.embed.n_positions or model.cfg.n_ctx) - len(front)
    again = min(AGAIN, room // 4)
    length = min(LENGTH, room - again, len(tokens) - 1)
    if length < SHORTEST or again < 1:
        raise ValueError(
            f"induction needs prompts of {SHORTEST + 1} tokens and as many ordinary tokens to draw from; "
            f"{model.cfg.name} has room for {room} and {len(tokens)} of them"
        )

    def draw(_: int) -> Prompt:
        *kept, other = rng.sample(tokens, length + 1)
        start = rng.randrange(1, length - again)
        first = start + again - 1
        wrong = rng.choice([t for i, t in enumerate(kept) if i not in (first, first + 1)])
        return Prompt(tuple(kept), start, again, other, wrong)

    prompts = draw_different(drawing.n, draw, lambda p: p, "induction")
    first = torch.tensor([p.first for p in prompts]) + len(front)
    end = torch.full_like(first, len(front) + length + again - 1)
    return Pairs.from_tokens(
        model,
        clean=[[*front, *p.clean] for p in prompts],
        corrupt=[[*front, *p.corrupt] for p in prompts],
        answers=[p.answer for p in prompts],
        wrong=[p.wrong for p in prompts],
        labels={"A1": first, "B1": first + 1, "END": end},
    )


TASK = Task(
    name="induction",
    title="Induction",
    about="Part of a random sequence comes again: the model must go on as it went on the first time.",
    source="Olsson et al. 2022, arXiv 2209.11895",
    corruptions={"first": "the first occurrence of the last token becomes another token"},
    build=build,
)
