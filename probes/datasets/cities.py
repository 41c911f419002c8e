"""Where cities are: latitude and longitude, and the country, read at the last token of the name.

Gurnee and Tegmark, "Language models represent space and time", ICLR 2024 (arXiv:2310.02207). Cities of a country are
near each other: unless whole countries are held out, a probe can do well by knowing countries only.
"""

from __future__ import annotations

import random

import numpy as np

from probes.dataset import Dataset, at_least, enough
from probes.geonames import LICENCE, SOURCE, known_cities, with_company
from probes.labelled import Classes, Labelled, Values

LEAST = 5
"""Cities of each country, at least."""


def build(n: int | None = 1000, seed: int = 0, population: int = 100_000, per_country: int = 40) -> Labelled:
    """Cities.

    Args:
        n: how many; None: all there are.
        population: of each, at least; smaller cities are known less.
        per_country: at most so many of a country.
    """
    at_least(1, population=population, per_country=per_country)
    cities = known_cities(population, per_country)
    if n is not None:
        at_least(LEAST, n=n)
        enough(len(cities), n, f"cities of {population:,} people")
    cities = with_company(cities, n, LEAST, random.Random(f"cities {seed}"))
    head, tail = "The city of ", " is"
    places = np.array([[city.latitude, city.longitude] for city in cities])
    return Labelled(
        "cities",
        tuple(f"{head}{city.name}{tail}" for city in cities),
        np.arange(len(cities)),
        np.array([[len(head), len(head) + len(city.name)] for city in cities]),
        {
            "coordinates": Values(places, ("latitude", "longitude"), "degrees"),
            "country": Classes.of([city.country for city in cities]),
        },
        groups=tuple((city.country,) for city in cities),
        columns={
            "city": np.array([city.name for city in cities]),
            "country": np.array([city.country for city in cities]),
            "continent": np.array([city.continent for city in cities]),
            "population": np.array([city.population for city in cities]),
        },
        licence=LICENCE,
        source=SOURCE,
    )


DATASET = Dataset(
    summary="latitude, longitude and country of cities, at the city's name",
    target="values",
    licence=LICENCE,
    build=build,
)
