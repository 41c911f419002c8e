"""Loaded models, shared by all sessions of the process: they never change, so sharing is safe."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from lens.progress import Progress

if TYPE_CHECKING:
    from lens.model import Transformer

Load = Callable[[str, Progress], "Transformer"]


class Shelf:
    """The models used last, at most `most`; loading is done under a lock, once per name."""

    def __init__(self, load: Load, most: int = 2) -> None:
        self._load, self._most = load, most
        self._models: OrderedDict[str, Transformer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, progress: Progress) -> Transformer:
        """The model `name`, loaded if it is not on the shelf.

        Raises:
            ValueError: there is no such model, or its files are damaged.
        """
        with self._lock:
            if name not in self._models:
                while len(self._models) >= self._most:
                    self._models.popitem(last=False)
                self._models[name] = self._load(name, progress)
            self._models.move_to_end(name)
            return self._models[name]

    def loaded(self, name: str) -> Transformer | None:
        """The model `name` if it is on the shelf."""
        return self._models.get(name)
