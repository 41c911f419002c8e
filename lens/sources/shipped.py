"""Models that ship inside the package: a folder of our own format in `lens/shipped/` each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lens.checkpoint import Checkpoint, Known, Source
from lens.progress import Progress
from lens.sources.folder import open_folder

FOLDER = Path(__file__).resolve().parent.parent / "shipped"


def _names() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def _card(name: str) -> dict[str, Any]:
    path = FOLDER / name / "card.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _known() -> list[Known]:
    return [
        Known(
            name=name,
            status="shipped",
            where=str(FOLDER / name),
            size=sum(path.stat().st_size for path in (FOLDER / name).iterdir()),
            licence=card.get("licence", ""),
            description=card.get("description", ""),
        )
        for name in _names()
        for card in [_card(name)]
    ]


def _open(name: str, progress: Progress) -> Checkpoint:
    return open_folder(FOLDER / name, name=name, origin="shipped with lens", progress=progress)


SOURCE = Source(rank=20, accepts=lambda name: name in _names(), open=_open, known=_known)
