import asyncio
from collections.abc import Generator
from typing import Any

class Handover:
    """What a task awaits until somebody gives it something."""

    outcome: Any
    is_given: bool
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None: ...
    @property
    def is_over(self) -> bool: ...
    def give(self, outcome: object) -> None: ...
    def __await__(self) -> Generator[Any]: ...
