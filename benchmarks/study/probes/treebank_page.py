"""What was found with a treebank, on the page."""

from __future__ import annotations

from typing import Any

from benchmarks.study.cells import number, table
from benchmarks.study.probes.figures import COMMAND, inside, told
from benchmarks.study.probes.setting import best


def part_of_speech(piece: dict[str, Any]) -> list[str]:
    """Its part of the page."""
    about, top = piece["about"], best(piece["curve"])
    rows = [
        [
            str(row["layer"]), told(row), number(row["control"]), number(row["selectivity"]),
            f"{row['compression']:.2f}", number(row["floor_random-init"]),
        ]
        for row in piece["curve"]
    ]  # fmt: skip
    most = max(piece["curve"], key=lambda row: row["selectivity"])
    short = max(piece["curve"], key=lambda row: row["compression"])
    return [
        "### Part of speech",
        "",
        f"{COMMAND.format('part-of-speech')}: {about['rows']:,} words of {about['texts']} sentences from "
        f"{_file(about)}, "
        f"{len(about['tags'])} tags of 30 words or more, logistic with C = {about['C']:g}, documents kept "
        "together. The "
        "control task gives every word type a tag at random; selectivity is accuracy less its accuracy. "
        "Compression is the "
        "uniform code's bits by the online code's.",
        "",
        f"Best: layer {top['layer']} with accuracy {told(top)}; chosen inside {inside(piece)}. Most "
        "selective: layer "
        f"{most['layer']} with {number(most['selectivity'])}. Shortest code: layer {short['layer']}, "
        f"{short['compression']:.2f} "
        f"times shorter than uniform. Floors: most frequent tag {number(top['floor_majority'])}, n-grams of "
        "the word "
        f"{number(top['floor_surface'])}, embeddings {number(top['floor_layer-0'])}.",
        "",
        *table(("layer", "accuracy", "control task", "selectivity", "compression", "random weights"), rows),
    ]


def structural(piece: dict[str, Any]) -> list[str]:
    """Its part of the page."""
    about, chain = piece["about"], piece["linear chain"]
    top = max(piece["layers"], key=lambda row: row["uuas"]["score"])
    below = piece["embeddings"]

    def cells(name: str, row: dict[str, Any], random: dict[str, Any] | None) -> list[str]:
        return [name, told(row["uuas"]), told(row["distance_spearman"]),
                "–" if random is None else told(random["uuas"])]  # fmt: skip

    better = top["uuas"]["low"] > chain["uuas"]["high"]
    return [
        "### Dependency trees: a structural probe of MiniLM",
        "",
        f"{COMMAND.format('structural')}: {about['texts']:,} sentences of 3 to 30 words from {_file(about)}, "
        "words at the "
        f"mean of their pieces; rank {about['rank']}, {about['epochs']} epochs, fitted to "
        f"{about['fitted']:,} words and "
        f"judged on {about['judged']:,} of other documents. Punctuation counts.",
        "",
        f"Best: layer {top['layer']} with UUAS {told(top['uuas'])}; the linear chain has "
        f"{told(chain['uuas'])}"
        + (": the probe is above it." if better else ": the probe is not shown to be above it."),
        "",
        *table(
            ("", "UUAS", "distance Spearman", "UUAS, random weights"),
            [
                cells("linear chain", chain, None),
                cells("embeddings", below, None),
                *(cells(f"layer {row['layer']}", row, row.get("random-init")) for row in piece["layers"]),
            ],
        ),
    ]


def _file(about: dict[str, Any]) -> str:
    return f"{about['file']} (SHA-256 {about['sha256'][:12]}…)"
