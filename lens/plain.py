"""Configurations as plain JSON types, and back: frozen dataclasses of numbers, names, tuples, sets and each other.

Reading goes by the annotations, so that a new field needs nothing here.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


class Open:
    """A base of dataclasses that are not listed in any annotation: their `kind` says where they are found."""

    @classmethod
    def of_kind(cls, kind: str) -> type:
        """The dataclass of that kind.

        Raises:
            ValueError: there is none.
        """
        raise NotImplementedError


def to_plain(value: Any) -> Any:
    """Dataclasses as objects, sets as sorted lists, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, frozenset):
        return sorted(to_plain(v) for v in value)
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse, for a value of the annotated type `kind`. Several dataclasses are told apart by `kind` fields.

    Raises:
        KeyError: a field is missing.
        TypeError: a field is unknown; the message names it.
    """
    origin, args = get_origin(kind), get_args(kind)
    if value is None or kind is Any:
        return value
    if origin in (Union, UnionType):
        options = [option for option in args if option is not NoneType]
        return from_plain(options[0] if len(options) == 1 else _chosen(options, value), value)
    if origin is tuple:
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        return tuple(from_plain(k, v) for k, v in zip(kinds, value, strict=True))
    if origin is frozenset:
        return frozenset(value)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        kind = kind.of_kind(value["kind"]) if isinstance(kind, type) and issubclass(kind, Open) else kind
        hints = _hints(kind)
        if missing := [f.name for f in dataclasses.fields(kind) if _needed(f) and f.name not in value]:
            raise KeyError(missing[0])
        return kind(**{name: from_plain(hints.get(name, Any), v) for name, v in value.items()})  # type: ignore[operator]
    return value


_hints = cache(get_type_hints)


def _needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _chosen(options: list[Any], value: Any) -> Any:
    """The dataclass whose `kind` field has the default that `value` states; for a list, the tuple."""
    if isinstance(value, list):
        return next((o for o in options if get_origin(o) is tuple), Any)
    if not isinstance(value, dict):
        return Any
    stated = value.get("kind")
    known = [o for o in options if dataclasses.is_dataclass(o)]
    found = [o for o in known if issubclass(o, Open) or getattr(o, "kind", None) == stated]  # type: ignore[arg-type]
    if len(found) != 1:
        raise TypeError(f"unknown kind {stated!r}")
    return found[0]
