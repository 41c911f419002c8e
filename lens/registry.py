"""A directory is a registry: one public module per entry, one public constant per module."""

import importlib
import pkgutil
from types import ModuleType
from typing import Generic, TypeVar

from lens.nearest import unknown

T = TypeVar("T")


def names(package: ModuleType) -> list[str]:
    """The entries of `package`, without importing them."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def collect(package: ModuleType, constant: str, kind: type[T]) -> dict[str, T]:
    """Import every public module of `package` and map its file name to its `constant`.

    Raises:
        TypeError: a module lacks the constant, or it is not a `kind`.
    """
    entries: dict[str, T] = {}
    for name in names(package):
        module = importlib.import_module(f"{package.__name__}.{name}")
        entry = getattr(module, constant, None)
        if not isinstance(entry, kind):
            raise TypeError(f"{module.__file__} must define {constant}: {kind.__name__}, found {entry!r}")
        entries[name] = entry
    return entries


class Registry(Generic[T]):
    """The entries of one directory, asked for by name and imported on first use.

    The directory is given by its package's name: an entry may import the module that defines what entries are.
    A name may be written with `-` for `_`, and is listed so.
    """

    def __init__(self, package: str, constant: str, kind: type[T], what: str) -> None:
        self.package, self.constant, self.kind, self.what = package, constant, kind, what
        self._entries: dict[str, T] | None = None

    def names(self) -> list[str]:
        """The names of all entries."""
        return [name.replace("_", "-") for name in names(importlib.import_module(self.package))]

    def get(self, name: str) -> T:
        """The entry of that name.

        Raises:
            ValueError: there is none; the message gives the nearest.
        """
        if self._entries is None:
            self._entries = collect(importlib.import_module(self.package), self.constant, self.kind)
        found = self._entries.get(name.replace("-", "_")) if isinstance(name, str) else None
        if found is None:
            raise ValueError(unknown(self.what, name, self.names()))
        return found
