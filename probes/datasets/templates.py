"""What only the context tells: labels that no word carries, in texts made of templates.

order    which of two people was named first, at the name that comes again: "Anna met Tom … Later Tom"
colour   the colour that an object was given, where it is asked for: "The ball is red and the box is blue. The ball is"
count    how many things were listed, at the end: "On the table: a cup, a pen and a key. Altogether that makes"

Names, objects and colours are drawn so that every one is equally often on each side; the words of a text then tell
nothing (order), or which two colours it can be (colour), or, with the length of the text, everything (count): there
the floor of surface form is what a probe has to beat.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from lens.nearest import unknown
from probes.dataset import Dataset, at_least
from probes.labelled import Classes, Labelled, Target, Values

LICENCE = "CC0: made by this project"
NAMES = (
    "Anna Tom Maria John Sarah Peter Laura David Emma Paul Julia Mark Alice James Linda Robert Susan Michael Karen "
    "Daniel Nancy Kevin Helen Brian Ruth George Clara Henry Diana Frank"
).split()
OBJECTS = "ball box cup hat book chair lamp door car bag bowl coat plate boat table".split()
COLOURS = "red blue green yellow black white".split()
THINGS = "cup pen key book coin ring spoon fork ticket map card stone shell candle watch".split()
PLACES = ("On the table", "In the box", "In her bag", "On the shelf", "In the drawer")
ORDER = (
    "{} met {} at the station. Later {}",
    "{} wrote a letter to {} last week. Then {}",
    "In the morning {} saw {} in the park. After that {}",
)
COLOUR = (
    "The {} is {} and the {} is {}. The {} is",
    "They painted the {} {} and the {} {}. So now the {} is",
    "There was a {} that was {} and a {} that was {}. The colour of the {} was",
)
Row = tuple[str, tuple[int, int], str, tuple[str, ...], int]
"""Text, the characters that are read, label, groups, number of the template."""


def _order(i: int, rng: random.Random) -> Row:
    kind = rng.randrange(len(ORDER))
    first, second = rng.sample(NAMES, 2)
    label = i % 2
    named = (first, second)[label]
    text = ORDER[kind].format(first, second, named)
    return text, (len(text) - len(named), len(text)), ("first", "second")[label], (first, second), kind


def _colour(i: int, rng: random.Random) -> Row:
    kind = rng.randrange(len(COLOUR))
    a, b = rng.sample(OBJECTS, 2)
    asked_colour = COLOURS[i % len(COLOURS)]
    other = rng.choice([colour for colour in COLOURS if colour != asked_colour])
    asked, pair = rng.choice([(a, (asked_colour, other)), (b, (other, asked_colour))])
    text = COLOUR[kind].format(a, pair[0], b, pair[1], asked)
    return text, (text.rindex(" ") + 1, len(text)), asked_colour, (a, b), kind


def _count(i: int, rng: random.Random) -> Row:
    kind = rng.randrange(len(PLACES))
    number = 2 + i % 5
    things = [f"a {thing}" for thing in rng.sample(THINGS, number)]
    text = f"{PLACES[kind]}: {', '.join(things[:-1])} and {things[-1]}. Altogether that makes"
    return text, (text.rindex(" ") + 1, len(text)), str(number), (PLACES[kind],), kind


TASKS: dict[str, Callable[[int, random.Random], Row]] = {"order": _order, "colour": _colour, "count": _count}


def build(task: str = "order", n: int = 1000, seed: int = 0) -> Labelled:
    """Texts of one task, with all labels equally often.

    Args:
        task: "order", "colour" or "count".
        n: how many.
    """
    if task not in TASKS:
        raise ValueError(unknown("task of templates", task, TASKS))
    at_least(12, n=n)
    rng = random.Random(f"templates {task} {seed}")
    rows = [TASKS[task](i, rng) for i in range(n)]
    rng.shuffle(rows)
    target = Classes.of([label for _, _, label, _, _ in rows])
    targets: dict[str, Target] = {task: target}
    if task == "count":
        targets["number"] = Values.of([int(label) for _, _, label, _, _ in rows], "number", "things")
    return Labelled(
        f"templates-{task}",
        tuple(text for text, *_ in rows),
        np.arange(n),
        np.array([span for _, span, *_ in rows]),
        targets,
        groups=tuple(groups for _, _, _, groups, _ in rows),
        columns={"template": np.array([kind for *_, kind in rows])},
        licence=LICENCE,
        source="probes/datasets/templates.py",
    )


DATASET = Dataset(
    summary="who was named first, which colour an object has, how many things: told by the context only",
    target="classes",
    licence=LICENCE,
    build=build,
)
