"""A directory is a registry: one public module per entry, one public constant per module."""

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

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
