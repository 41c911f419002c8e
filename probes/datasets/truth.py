"""True and false statements: "The city of Lyon is in France." — at the last token.

Marks and Tegmark, "The geometry of truth", COLM 2024 (arXiv:2310.06824). Each city has a true and a false statement;
the false countries are the true ones of the same cities in another order, so that no country is more often true than
false, and words alone tell nothing. Negated statements have the opposite truth: a probe that follows the association
of city and country, and not truth, turns around on them.
"""

from __future__ import annotations

import random

import numpy as np

from probes.dataset import Dataset, at_least, enough
from probes.geonames import LICENCE, SOURCE, City, known_cities
from probes.labelled import Classes, Labelled

FORMS = {False: "is in", True: "is not in"}


def build(
    n: int | None = 1000,
    seed: int = 0,
    negated: bool = False,
    population: int = 300_000,
    per_country: int = 12,
) -> Labelled:
    """Statements.

    Args:
        n: how many, half of them true; a multiple of 2, with `negated` of 4. None: all there are.
        negated: with the negation of every statement. Then `pairs` are a statement and its negation; else the two
            statements about a city, in random order.
        population, per_country: of the cities.
    """
    at_least(1, population=population, per_country=per_country)
    each = 4 if negated else 2
    cities = known_cities(population, per_country)
    if n is not None:
        at_least(2 * each, n=n)
        if n % each:
            raise ValueError(
                f"n is {n}; it must be a multiple of {each}: every city has as many true as false ones"
            )
        enough(each * len(cities), n, f"statements about cities of {population:,} people")
    rng = random.Random(f"truth {seed}")
    cities = rng.sample(cities, len(cities))[: None if n is None else n // each]
    stated: list[tuple[City, City, bool]] = []
    pairs = []
    for city, other in zip(cities, _others(cities, rng), strict=True):
        first = len(stated)
        two = rng.sample([city, other], 2)
        if negated:
            stated += [(city, country, no) for country in two for no in (False, True)]
            pairs += [[first, first + 1], [first + 2, first + 3]]
        else:
            stated += [(city, country, False) for country in two]
            pairs.append([first, first + 1])
    starts = [f"The city of {city.name} {FORMS[no]} " for city, _, no in stated]
    truth = [(city is country) != no for city, country, no in stated]
    return Labelled(
        "truth",
        tuple(f"{start}{country.phrase}." for start, (_, country, _) in zip(starts, stated, strict=True)),
        np.arange(len(stated)),
        None,
        {"truth": Classes(np.array(truth, dtype=np.int64), ("false", "true"))},
        groups=tuple(tuple(dict.fromkeys((a.country, b.country))) for a, b, _ in stated),
        columns={
            "city": np.array([city.name for city, _, _ in stated]),
            "country": np.array([city.country for city, _, _ in stated]),
            "stated": np.array([country.country for _, country, _ in stated]),
            "negated": np.array([no for _, _, no in stated], dtype=np.int64),
        },
        places={
            "city": np.array([[12, 12 + len(city.name)] for city, _, _ in stated]),
            "country": np.array(
                [
                    [len(start), len(start) + len(c.phrase)]
                    for start, (_, c, _) in zip(starts, stated, strict=True)
                ]
            ),
        },
        pairs=np.array(pairs),
        licence=LICENCE,
        source=SOURCE,
    )


def _others(cities: list[City], rng: random.Random) -> list[City]:
    """For each city one in another country, each city once.

    Raises:
        ValueError: that cannot be, one country having more than half of them.
    """
    by_country: dict[str, list[City]] = {}
    for city in cities:
        by_country.setdefault(city.country, []).append(city)
    most = max(map(len, by_country.values()))
    if 2 * most > len(cities):
        raise ValueError(f"{most} of {len(cities)} cities are in one country; allow fewer per_country")
    others = rng.sample(cities, len(cities))
    for i, city in enumerate(cities):
        while others[i].country == city.country:
            j = rng.randrange(len(cities))
            if others[j].country != city.country and others[i].country != cities[j].country:
                others[i], others[j] = others[j], others[i]
    return others


DATASET = Dataset(
    summary="true and false statements about cities' countries, with negations and contrast pairs",
    target="classes",
    licence=LICENCE,
    build=build,
)
