"""Greater-than: "The war lasted from the year 1732 to the year 17" → a number above 32.

Where two digits are one token, all of them are answers: those above the start year are right, the others
wrong. Where every digit is its own token, the next digit is scored: those above the start year's tens are
right, those below are wrong, and the same digit, which may go either way, does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from circuits.pairs import Pairs
from circuits.task import Drawing, Task, draw_different, need, same_length, single_words, words_of
from lens.tokens import Tokenizer

NOUNS = [
    "war", "reign", "campaign", "siege", "voyage", "project", "trial", "drought", "famine", "conflict",
    "crisis", "strike", "marriage", "journey", "expedition", "revolution", "construction", "dispute",
    "empire", "rebellion", "study", "tour",
]  # fmt: skip
CENTURIES = range(11, 18)
YEARS = [f"{year:02}" for year in range(2, 99)]
CORRUPT_YEAR = "01"


@dataclass(frozen=True)
class Prompt:
    noun: str
    century: int
    year: str  # two digits

    def text(self, year: str) -> str:
        return f"The {self.noun} lasted from the year {self.century}{year} to the year {self.century}"


@dataclass(frozen=True)
class Answers:
    """The next tokens that can continue a prompt: text of one or two digits → token."""

    ids: dict[str, int]

    def split(self, year: str) -> tuple[list[int], list[int]]:
        """Right and wrong tokens after a war that began in this year."""
        size = len(next(iter(self.ids), ""))
        start = year[:size]
        right = [i for digits, i in self.ids.items() if digits > start]
        below = [i for digits, i in self.ids.items() if digits < start or (size == 2 and digits == start)]
        return right, below


def next_tokens(tokenizer: Tokenizer, prompt: str) -> Answers:
    """What digits after this prompt are to the tokenizer; nothing where they merge with those before them."""
    before = tokenizer.encode(prompt)

    def continued(digits: str) -> int | None:
        after = tokenizer.encode(prompt + digits)
        return after[-1] if after[:-1] == before else None

    for texts in ([f"{i:02}" for i in range(100)], [str(i) for i in range(10)]):
        found = {text: token for text in texts if (token := continued(text)) is not None}
        if len(found) >= 0.9 * len(texts):
            return Answers(found)
    return Answers({})


def build(drawing: Drawing) -> Pairs:
    tokenizer = words_of(drawing.model, "greater_than")
    nouns = need("greater_than", "nouns", single_words(tokenizer, NOUNS), at_least=3)
    answers = {c: next_tokens(tokenizer, Prompt(nouns[0], c, "50").text("50")) for c in CENTURIES}

    def length(century: int, year: str) -> int:
        return len(tokenizer.encode(Prompt(nouns[0], century, year).text(year)))

    dates = [(c, year) for c in CENTURIES for year in YEARS if all(answers[c].split(year))]
    dates = [date for date in dates if length(*date) == length(date[0], CORRUPT_YEAR)]
    dates = same_length(tokenizer, dates, lambda date: Prompt(nouns[0], *date).text(date[1]))
    if not dates:
        raise ValueError(f"greater_than: {drawing.model.cfg.name}'s tokenizer does not split years alike")

    def draw(_: int) -> Prompt:
        return Prompt(drawing.rng.choice(nouns), *drawing.rng.choice(dates))

    prompts = draw_different(drawing.n, draw, lambda p: p, "greater_than")
    split = [answers[p.century].split(p.year) for p in prompts]
    pairs = Pairs.from_text(
        drawing.model,
        clean=[p.text(p.year) for p in prompts],
        corrupt=[p.text(CORRUPT_YEAR) for p in prompts],
        answers=[right for right, _ in split],
        wrong=[below for _, below in split],
    )
    differs = (pairs.clean != pairs.corrupt).int()
    return replace(pairs, labels={"YY": differs.argmax(1), "END": pairs.ends})


TASK = Task(
    name="greater_than",
    title="Greater-than",
    about="Something lasted from one year to another of the same century: the second must be later.",
    source="Hanna et al. 2023, arXiv 2305.00586",
    corruptions={"01": "the start year becomes 01 of its century, after which nearly every year is later"},
    build=build,
    metric="prob_diff",
)
