"""The base of all settings: frozen dataclasses that can be copied with changes, and show what differs from defaults."""

from __future__ import annotations

import dataclasses
from typing import Any, Self


class Settings:
    """The base of a `@dataclass(frozen=True, repr=False)`. Override `_shown()` if a field may hold a secret."""

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, which is validated like a new one. An unknown field raises `TypeError`."""
        copy: Self = dataclasses.replace(self, **changes)  # type: ignore[type-var]
        return copy

    def __repr__(self) -> str:
        shown = []
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
            if value != default:
                shown.append(f"{item.name}={self._shown(item.name, value)}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _shown(self, name: str, value: Any) -> str:
        """The value of a field as the `repr` shows it."""
        return repr(value)
