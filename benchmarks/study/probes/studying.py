"""All showcases, one piece each of `benchmarks/results/study-probes.json`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.keeping import Kept
from benchmarks.study.probes import causal, part_of_speech, sentiment, space, trees, truth
from benchmarks.study.probes.setting import NAME, SETTINGS
from lens.nearest import unknown
from lens.progress import Progress

SHOWS: dict[str, Callable[[Progress], dict[str, Any]]] = {
    "truth": truth.study, "space": space.study, "sentiment": sentiment.study, "causal": causal.study,
}  # fmt: skip
OF_TREEBANKS: dict[str, Callable[[str | Path, Progress], dict[str, Any]]] = {
    "part-of-speech": part_of_speech.study, "structural": trees.study,
}  # fmt: skip


def study(shows: Sequence[str], treebank: str | Path | None, again: bool, progress: Progress) -> None:
    """Compute what is missing of these showcases (none: all that can be had), or with `again` all of it.

    Raises:
        ValueError: an unknown showcase, or one that needs a treebank where none is given.
    """
    known = (*SHOWS, *OF_TREEBANKS)
    for show in shows:
        if show not in known:
            raise ValueError(unknown("showcase", show, known))
        if show in OF_TREEBANKS and treebank is None:
            raise ValueError(f"the showcase {show!r} needs --treebank, a file in CoNLL-U")
    kept = Kept(NAME, SETTINGS)
    for show in shows or [show for show in known if treebank is not None or show in SHOWS]:
        if again:
            kept.pieces.pop(show, None)
        kept.piece(show, lambda s=show: timed(s, treebank, progress))


def timed(show: str, treebank: str | Path | None, progress: Progress) -> dict[str, Any]:
    """One showcase, with the CPU time that it took (activations that are in the cache folder are only read)."""
    start = time.process_time()
    if show in SHOWS:
        found = SHOWS[show](progress)
    else:
        assert treebank is not None
        found = OF_TREEBANKS[show](treebank, progress)
    return {"cpu_seconds": time.process_time() - start, **found}
