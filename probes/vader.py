"""VADER's lexicon and evaluation data: words and sentences with a valence from −4 to 4, the mean of human ratings.

Hutto and Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text", ICWSM 2014.
The lexicon is in the package vaderSentiment. The sentences (tweets, snippets of film reviews, of product reviews, of
newspaper editorials) are only in its source archive, which pip fetches, held to the hash below, into the user's cache.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from lens import atomic
from lens.sources.wheel import cache_folder
from probes.dataset import package

VERSION = "3.3.2"
ARCHIVE = f"vaderSentiment-{VERSION}.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
LICENCE = "VADER's data: MIT"
SOURCE = f"vaderSentiment {VERSION}, https://github.com/cjhutto/vaderSentiment"
FILES = {
    "movies": "movieReviewSnippets",
    "news": "nytEditorialSnippets",
    "products": "amazonReviewSnippets",
    "tweets": "tweets",
}


@dataclass(frozen=True)
class Rated:
    """A word or sentence; `group` is the review or editorial that it is from."""

    text: str
    valence: float
    spread: float
    group: str


def lexicon() -> list[Rated]:
    """The words of the lexicon in their order: letters only, no emoticons.

    Raises:
        ValueError: vaderSentiment is not installed.
    """
    package("vaderSentiment")
    lines = (files("vaderSentiment") / "vader_lexicon.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line]
    return [
        Rated(word, float(valence), float(spread), word[:5])
        for word, valence, spread, *_ in rows
        if word.isascii() and word.isalpha() and word.islower() and len(word) > 2
    ]


def sentences(source: str, archive: str | Path | None = None) -> list[Rated]:
    """The sentences of one of `FILES`.

    Args:
        archive: the source archive, or a folder that holds the `…_GroundTruth.txt`; None: fetched once by pip.

    Raises:
        ValueError: it cannot be fetched, is not what was published, or a line is malformed.
    """
    name = f"{FILES[source]}_GroundTruth.txt"
    where = Path(archive) if archive else _fetched()
    if where.is_dir():
        try:
            text = (where / name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ValueError(f"{str(where / name)!r} cannot be read: {error.strerror or error}") from error
    else:
        text = _unpacked(where, name)
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        id, valence, sentence = (*line.split("\t"), "", "", "")[:3]
        try:
            rating = float(valence)
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {valence[:20]!r} is no rating") from error
        if sentence.strip():
            found.append(Rated(sentence.strip(), rating, 0.0, f"{source} {id.split('_')[0]}"))
    return found


def _unpacked(archive: Path, name: str) -> str:
    try:
        with tarfile.open(archive) as outer:
            inner = next(m for m in outer.getmembers() if m.name.endswith("hutto_ICWSM_2014.tar.gz"))
            held = outer.extractfile(inner)
            assert held is not None
            with tarfile.open(fileobj=io.BytesIO(held.read())) as tar:
                member = next(m for m in tar.getmembers() if m.name.endswith(f"/{name}"))
                file = tar.extractfile(member)
                assert file is not None
                return file.read().decode("utf-8", errors="replace")
    except (OSError, tarfile.TarError, StopIteration) as error:
        raise ValueError(f"{str(archive)!r} is not the source archive of vaderSentiment {VERSION}") from error


def _fetched() -> Path:
    """The archive in the user's cache, fetched if need be."""
    kept = cache_folder() / ARCHIVE
    if kept.is_file() and _sha256(kept) == SHA256:
        return kept
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"vaderSentiment=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
        options = [
            "--no-deps",
            "--no-binary=vaderSentiment",
            "--require-hashes",
            "--progress-bar=off",
            "--retries=2",
        ]
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(wanted), "-d", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        file = Path(folder, ARCHIVE)
        if done.returncode or not file.is_file() or _sha256(file) != SHA256:
            reason = (done.stderr.strip().splitlines() or ["no such file"])[-1]
            raise ValueError(
                f"VADER's sentences cannot be fetched ({reason}): get the file with `pip download --no-deps "
                f"--no-binary :all: vaderSentiment=={VERSION}` and give it as archive={ARCHIVE!r}"
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(kept, file.read_bytes())
    return kept


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
