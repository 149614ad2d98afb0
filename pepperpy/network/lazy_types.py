"""Classes that annotations name before their module is imported: so `typing.get_type_hints()` works all the same."""

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
