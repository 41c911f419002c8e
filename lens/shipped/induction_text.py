"""Text that is predictable only by copying from itself, in plain English words.

A closed vocabulary of words in classes, `GRAMMAR` between the classes and Zipf's law inside them give endless
sentences of the right form and no sense, in which spans that have already been written are written again, at
any distance. Other documents are refrains: words drawn evenly, over and over in the same order. Only a model
that looks up what followed the earlier occurrence of the present word can foresee all that comes again.

The words of a refrain are all different. Where few words fill a document, it is foreseen half well by a model
that only counts them, and training can stay there for more than a thousand steps.

Letters: b documents, p positions, q positions without the first, v words without `BOS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Int
from torch import Generator, Tensor

BOS = "<bos>"

CLASSES = {
    "full stop": ".",
    "comma": ",",
    "conjunction": "and but so because while or",
    "determiner": "the a his her my our their this that every some one another two three no",
    "pronoun": "he she they we it you I nobody somebody everyone",
    "name": """
        Mary John Anna Peter Laura David Emma Paul Alice Tom Sarah James Kate Henry Lucy George Susan Jack
        Martin Helen Simon Rose Adam Clara
    """,
    "adjective": """
        old young big small red blue green white black dark bright long short new good bad happy sad cold
        warm quiet loud empty full heavy light tall deep rich poor strange simple clean sweet soft hard
        fast slow brave kind wild golden silver wooden broken hidden
    """,
    "noun": """
        man woman child king queen boy girl friend doctor teacher farmer sailor soldier painter dog cat
        horse bird fish cow sheep wolf bear mouse house door window wall roof table chair bed lamp clock
        mirror book letter picture map paper pen key box bag coat hat shoe ring knife cup bottle bread
        apple cake soup milk water wine tea sugar salt river lake sea island mountain hill forest field
        garden road bridge town village city street market school church ship boat train car wheel stone
        tree flower leaf grass snow rain wind storm fire sun moon star night day morning summer winter
        year song story secret dream
    """,
    "verb": """
        saw found took gave made lost kept held left met heard knew loved wanted needed followed called
        asked told helped watched carried opened closed painted bought sold broke built cut brought wrote
        drew washed hid moved passed crossed reached remembered forgot
    """,
    "preposition": "in on at with from near under over behind before after through without beside",
    "adverb": """
        slowly quickly never always often again soon then now today suddenly quietly alone together away
    """,
}
"""The words of each class, the most frequent first."""

GRAMMAR = {
    "full stop": {"determiner": 4, "name": 3, "pronoun": 2, "adverb": 1},
    "comma": {"conjunction": 6, "determiner": 2, "pronoun": 2},
    "conjunction": {"determiner": 4, "name": 3, "pronoun": 3},
    "determiner": {"noun": 6, "adjective": 4},
    "pronoun": {"verb": 8, "adverb": 2},
    "name": {"verb": 8, "conjunction": 1, "full stop": 1},
    "adjective": {"noun": 8, "adjective": 2},
    "noun": {"verb": 4, "preposition": 2, "full stop": 2, "conjunction": 1, "comma": 1},
    "verb": {"determiner": 5, "name": 2, "preposition": 2, "adverb": 1},
    "preposition": {"determiner": 7, "name": 3},
    "adverb": {"verb": 4, "full stop": 4, "comma": 2},
}
"""Weights of the class that follows a class."""

ZIPF_SHIFT = 3.0  # the r-th word of a class, from 0, has weight 1 / (r + ZIPF_SHIFT)


@cache
def words() -> tuple[str, ...]:
    """The vocabulary in the order of ids; `BOS` is first."""
    return (BOS, *(word for text in CLASSES.values() for word in text.split()))


@dataclass(frozen=True)
class Mixture:
    """What documents are made of.

    A share `refrains` of them are refrains: `shortest` to `longest` different words, drawn evenly, over and
    over. The others are sentences; at each fresh word a copy of an earlier span begins with probability `rate`,
    `span` words (least, most) long.
    """

    refrains: float = 0.6
    shortest: int = 8
    longest: int = 31
    rate: float = 0.3
    span: tuple[int, int] = (4, 20)


def documents(n: int, length: int, generator: Generator, mixture: Mixture = Mixture()) -> Int[Tensor, "b p"]:
    """`n` documents of `length` ids, each with `BOS` in front; the refrains come first."""
    sung = round(n * mixture.refrains)
    return torch.cat(
        [refrains(sung, length, generator, mixture), sentences(n - sung, length, generator, mixture)]
    )


def refrains(n: int, length: int, generator: Generator, mixture: Mixture = Mixture()) -> Int[Tensor, "b p"]:
    """Documents of different words that come again and again in the same order."""
    period = torch.randint(mixture.shortest, mixture.longest + 1, (n, 1), generator=generator)
    which = torch.arange(length - 1) % period
    return _with_bos(_different(n, generator).gather(1, which))


def sentences(n: int, length: int, generator: Generator, mixture: Mixture = Mixture()) -> Int[Tensor, "b p"]:
    """Documents of sentences with copied spans."""
    follow, (least, most) = _following(), mixture.span
    ids = torch.zeros(n, length, dtype=torch.long)
    source, left, rows = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long), torch.arange(n)
    for p in range(1, length):
        fresh = torch.multinomial(follow[ids[:, p - 1]], 1, generator=generator)[:, 0]
        begins = (torch.rand(n, generator=generator) < mixture.rate) & (left == 0) & (p > least)
        start = 1 + (torch.rand(n, generator=generator) * max(p - least, 1)).long()
        size = torch.randint(least, most + 1, (n,), generator=generator)
        source, left = torch.where(begins, start, source), torch.where(begins, size, left)
        copies = left > 0
        ids[:, p] = torch.where(copies, ids[rows, source], fresh)
        source, left = source + copies.long(), left - copies.long()
    return ids


def repeated(n: int, period: int, generator: Generator, times: int = 2) -> Int[Tensor, "b p"]:
    """`BOS`, then `period` different random words `times` times over: [n, 1 + times * period]."""
    return _with_bos(_different(n, generator)[:, :period].repeat(1, times))


def _different(n: int, generator: Generator) -> Int[Tensor, "b v"]:
    """All words but `BOS` in random orders."""
    return torch.rand(n, len(words()) - 1, generator=generator).argsort(-1) + 1


def _with_bos(ids: Int[Tensor, "b q"]) -> Int[Tensor, "b p"]:
    return torch.cat([torch.zeros_like(ids[:, :1]), ids], 1)


@cache
def _following() -> Tensor:
    """Probability of each word after each word, [v, v]; `BOS` counts as a full stop and never follows."""
    classes = [name for name, text in CLASSES.items() for _ in text.split()]
    column = {name: [i + 1 for i, c in enumerate(classes) if c == name] for name in CLASSES}
    by_class = {}
    for name, nexts in GRAMMAR.items():
        row = torch.zeros(len(words()))
        for other, weight in nexts.items():
            zipf = 1 / (torch.arange(len(column[other])) + ZIPF_SHIFT)
            row[column[other]] = weight / sum(nexts.values()) * zipf / zipf.sum()
        by_class[name] = row
    return torch.stack([by_class[name] for name in ["full stop", *classes]])
