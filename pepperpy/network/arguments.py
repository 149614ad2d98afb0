"""Errors for unknown arguments and attributes that say what to write instead. All settings and clients raise them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type[Any])
# Makes the error for an unknown argument, from its name and the known names.
Explain = Callable[[str, Collection[str]], TypeError]

_NOTHING: Mapping[str, str] = MappingProxyType({})


def unknown_argument(name: str, known: Collection[str], instead: Mapping[str, str] = _NOTHING) -> TypeError:
    """The error for an argument that is not among the `known` ones. `instead` maps names to what to write for them."""
    what = f"unknown argument {name!r}"
    if name in instead:
        return TypeError(f"{what}: write {instead[name]}")
    import difflib  # here, because only a mistake needs it

    if close := difflib.get_close_matches(name, known, n=1):
        return TypeError(f"{what}: did you mean {close[0]!r}?")
    return TypeError(what)


def explains_arguments(explain: Explain = unknown_argument) -> Callable[[Class], Class]:
    """A class decorator: the constructor explains unknown arguments. Its signature stays, also for type checkers."""

    def decorated(cls: Class) -> Class:
        plain = cls.__init__
        known = list(inspect.signature(plain).parameters)[1:]
        names = frozenset(known)

        @functools.wraps(plain)
        def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
            if unknown := keywords.keys() - names:
                raise explain(min(unknown), known)
            plain(self, *arguments, **keywords)

        cls.__init__ = __init__
        return cls

    return decorated


def unknown_attribute(owner: object, name: str, instead: Mapping[str, str]) -> AttributeError:
    """The error for an attribute that `owner` has not. `instead` maps names of other libraries to what to write."""
    what = f"{type(owner).__name__!r} object has no attribute {name!r}"
    return AttributeError(f"{what}: write {instead[name]}" if name in instead else what, name=name, obj=owner)


def explains_attributes(instead: Mapping[str, str]) -> Callable[[Class], Class]:
    """A class decorator: unknown attributes raise `unknown_attribute()`. Type checkers see nothing of it."""

    def decorated(cls: Class) -> Class:
        def __getattr__(self: Any, name: str) -> Any:
            raise unknown_attribute(self, name, instead)

        cls.__getattr__ = __getattr__
        return cls

    return decorated
