import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import final

from pepperpy.network.timers import Timer

@final
class Limit:
    """A block with a time limit. Ends it by cancelling its task, and raises its error for that cancellation only."""

    ends_at: float
    def __init__(
        self,
        watched: set[Limit],
        timer: Timer,
        ends_at: float,
        error: Callable[[], TimeoutError],
        on_expire: Callable[[asyncio.Task[object]], object] | None = None,
    ) -> None: ...
    def __enter__(self) -> None: ...
    def expire(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
