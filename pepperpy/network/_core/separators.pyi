from typing import Self, final

@final
class Separators:
    """Several separators; finds where the first of them ends."""

    def __new__(cls, separators: tuple[bytes, ...]) -> Self: ...
