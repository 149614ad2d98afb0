"""What annotations name before its module is imported: so `typing.get_type_hints()` works all the same."""

from __future__ import annotations

import importlib
from typing import Any


class LazyGeneric:
    """Stands for a generic class, and imports it when an annotation is evaluated: `LazyGeneric("a.b", "C")[M]`.

    Importing `pepperpy.network` would take a third longer if `NetworkClient` imported the classes that its methods
    return (measured with `-X importtime`). Type checkers see a plain import under `TYPE_CHECKING` instead.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def __getitem__(self, parameters: Any) -> Any:
        return getattr(importlib.import_module(f"pepperpy.network.{self._module}"), self._name)[parameters]


class LazyModule:
    """Stands for a module, and imports it when an annotation is evaluated: `LazyModule("a").C | None`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)
