"""Loaded models, shared by all sessions of the process: they never change, so sharing is safe."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from lens.progress import Progress

if TYPE_CHECKING:
    from lens.model import Transformer

Load = Callable[[str, Progress], "Transformer"]


class Shelf:
    """The models used last, at most `most` beside those in use; loaded one at a time, once per name."""

    def __init__(self, load: Load, most: int = 2, in_use: Callable[[], Collection[str]] = tuple) -> None:
        """`in_use`: names of models that must stay, because work on them is queued or running."""
        self._load, self._most, self._in_use = load, most, in_use
        self._models: OrderedDict[str, Transformer] = OrderedDict()
        self._lock, self._loading = threading.Lock(), threading.Lock()

    def get(self, name: str, progress: Progress) -> Transformer:
        """The model `name`, loaded if it is not on the shelf.

        Raises:
            ValueError: there is no such model, or its files are damaged.
        """
        here = self._taken(name)
        if here is not None:
            return here  # at once, also while another model is being loaded
        with self._loading:
            here = self._taken(name)
            if here is not None:
                return here
            self._make_room()
            model = self._load(name, progress)
            with self._lock:
                self._models[name] = model
            return model

    def loaded(self, name: str) -> Transformer | None:
        """The model `name` if it is on the shelf."""
        return self._models.get(name)

    def _taken(self, name: str) -> Transformer | None:
        with self._lock:
            if name in self._models:
                self._models.move_to_end(name)
            return self._models.get(name)

    def _make_room(self) -> None:
        used = set(self._in_use())
        with self._lock:
            idle = [name for name in self._models if name not in used]
            for name in idle[: max(0, len(self._models) - self._most + 1)]:
                del self._models[name]
