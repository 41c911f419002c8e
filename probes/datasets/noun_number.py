"""Singular or plural, at a noun in a context that does not tell: regular and irregular forms.

Nouns are listed here, their forms come from lemminflect. A noun's two forms are one group, so that a probe is judged on
nouns that it has not seen; fitted to the regular ones, it can be judged on the irregular ones (column `irregular`),
whose plural does not only add s or es.
"""

from __future__ import annotations

import random

import numpy as np

from probes.dataset import Dataset, at_least, enough, package
from probes.labelled import Classes, Labelled

LICENCE = "lemminflect: MIT; its word forms are of the NIH SPECIALIST Lexicon, free for any use"
TEMPLATES = (
    "They talked about the {}",
    "I remember the {}",
    "She was looking for the {}",
    "We had heard of the {}",
    "He came back with the {}",
    "Nobody had noticed the {}",
)
NOUNS = (
    "man woman child foot tooth goose mouse louse crisis thesis basis analysis hypothesis diagnosis oasis phenomenon "
    "criterion bacterium nucleus stimulus fungus alumnus larva policeman fireman fisherman salesman gentleman "
    "craftsman chairman grandchild stepchild schoolchild workman businessman policewoman businesswoman chairwoman "
    "knife wife life leaf wolf shelf half thief loaf calf "
    "dog cat bird horse cow pig duck rabbit lion tiger bear snake turtle spider frog insect teacher doctor lawyer "
    "farmer driver singer actor writer painter student soldier sailor pilot judge king queen neighbor friend guest "
    "stranger cousin uncle sister brother car truck bus train boat ship plane bicycle engine wheel road street bridge "
    "tunnel tower castle house garden kitchen window door floor wall roof stair room chair table bed lamp mirror "
    "clock watch phone camera radio computer keyboard screen printer book letter newspaper magazine pencil pen bottle "
    "glass cup plate spoon fork bowl pan basket bag box suitcase shirt shoe hat coat sock glove ring necklace coin "
    "ticket stamp key button rope chain hammer nail ladder tree flower branch root seed apple orange banana cherry "
    "potato tomato carrot onion river lake mountain hill valley island beach forest desert cloud star planet storm "
    "village city town school church hospital hotel museum library market shop office factory bank farm party meeting "
    "story song picture film play game team club class lesson question answer problem reason idea plan dream secret "
    "promise gift mistake number color shape size sound smell taste"
).split()


def build(n: int | None = 1000, seed: int = 0) -> Labelled:
    """Nouns in templates, singular and plural alike often.

    Args:
        n: how many rows, a multiple of 2; None: every noun in every template.
    """
    inflect = package("lemminflect").getInflection
    rng = random.Random(f"noun number {seed}")
    every = []
    for noun in NOUNS:
        plural = inflect(noun, tag="NNS")[0]
        irregular = plural not in (f"{noun}s", f"{noun}es", f"{noun[:-1]}ies")
        every += [(noun, plural, template, irregular) for template in TEMPLATES]
    if n is not None:
        at_least(4, n=n)
        enough(2 * len(every), n, "nouns in templates")
    drawn = rng.sample(every, len(every))[: None if n is None else n // 2]
    rows = [
        (noun, form, template, irregular, number)
        for noun, plural, template, irregular in drawn
        for number, form in enumerate((noun, plural))
    ]
    starts = [template.index("{") for _, _, template, _, _ in rows]
    return Labelled(
        "noun-number",
        tuple(template.format(form) for _, form, template, _, _ in rows),
        np.arange(len(rows)),
        np.array([[start, start + len(form)] for start, (_, form, *_) in zip(starts, rows, strict=True)]),
        {"number": Classes(np.array([row[-1] for row in rows]), ("singular", "plural"))},
        groups=tuple((noun,) for noun, *_ in rows),
        types=tuple(form for _, form, *_ in rows),
        columns={
            "noun": np.array([row[0] for row in rows]),
            "template": np.array([row[2] for row in rows]),
            "irregular": np.array([row[3] for row in rows], dtype=np.int64),
        },
        licence=LICENCE,
        source="lemminflect, https://github.com/bjascob/LemmInflect",
    )


DATASET = Dataset(
    summary="singular or plural nouns, regular and irregular, in contexts that do not tell",
    target="classes",
    licence=LICENCE,
    build=build,
)
