"""What a person writes down about a run: a note, pinned nodes and named groups of nodes, in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from circuits.places import place
from lens import atomic

FILE = "notes.json"
FORMAT = "dashboard.notes"
LONGEST, LONGEST_NAME = 20_000, 60
MOST_GROUPS, MOST_NODES = 40, 2000


@dataclass(frozen=True)
class Notes:
    """A note, pins, and groups by name.

    Raises:
        ValueError: too long, too many, a name without letters, or what is not the name of a node.
    """

    text: str = ""
    pins: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.text) > LONGEST:
            raise ValueError(f"the note has {len(self.text):,} characters; at most {LONGEST:,} are kept")
        if len(self.groups) > MOST_GROUPS:
            raise ValueError(f"there are {len(self.groups)} groups; at most {MOST_GROUPS} are kept")
        for name in self.groups:
            if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
                raise ValueError(f"a group's name has 1 to {LONGEST_NAME} letters; this is {name[:80]!r}")
        for nodes in (self.pins, *self.groups.values()):
            if len(nodes) > MOST_NODES:
                raise ValueError(f"{len(nodes)} nodes are too many; at most {MOST_NODES} are kept")
            for node in nodes:
                place(node)

    def pinned(self, node: str, on: bool) -> Notes:
        """With a node pinned, or not."""
        others = tuple(name for name in self.pins if name != node)
        return replace(self, pins=(*others, node) if on else others)

    def grouped(self, name: str, nodes: tuple[str, ...]) -> Notes:
        """With a group of these nodes; without it where there are none."""
        groups = {k: v for k, v in self.groups.items() if k != name}
        return replace(self, groups={**groups, name: tuple(dict.fromkeys(nodes))} if nodes else groups)


def read(folder: Path | None) -> Notes:
    """The notes of a run folder; empty where there are none.

    Raises:
        ValueError: the file is damaged.
    """
    if folder is None or not (folder / FILE).is_file():
        return Notes()
    try:
        values: Any = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f'its "format" is not "{FORMAT}"')
        text, pins, groups = values["text"], values["pins"], values["groups"]
        names = [*pins, *(node for nodes in groups.values() for node in nodes)]
        if not isinstance(text, str) or not all(isinstance(name, str) for name in names):
            raise ValueError("it holds other things than texts")
        return Notes(text, tuple(pins), {name: tuple(nodes) for name, nodes in groups.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{str(folder / FILE)!r} holds no notes that can be read: {error}") from error


def write(folder: Path, notes: Notes) -> None:
    """Keep notes in a run folder: the file is whole, the old one or the new one.

    Raises:
        OSError: the folder cannot be written to.
    """
    groups = {name: list(nodes) for name, nodes in notes.groups.items()}
    values = {"format": FORMAT, "text": notes.text, "pins": list(notes.pins), "groups": groups}
    atomic.write_json(folder / FILE, values)
