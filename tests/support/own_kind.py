"""Which class of this package an error is of: `type(error)` may be one that is also a built-in exception."""

from __future__ import annotations

from pepperpy.network import errors


def own_kind(error: BaseException) -> type[BaseException]:
    """The class in `errors.__all__` that is nearest to the error's own, which has the same name; else its own."""
    return next((kind for kind in type(error).__mro__ if kind is getattr(errors, kind.__name__, None)), type(error))
