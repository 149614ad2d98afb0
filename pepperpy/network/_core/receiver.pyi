from typing import Self, final

from pepperpy.network._core.directions import Receiving, Separator
from pepperpy.network._core.waiter import Waiter
from pepperpy.network.checks import Timeout

@final
class Skip:
    """How far one skip has come."""

    def __new__(cls, separator: Separator) -> Self: ...

# mypy takes what a Protocol declares for abstract; the compiled class has all of it.
@final
class Receiver(Receiving):  # type: ignore[misc]
    """Takes raw bytes from one connection."""

    bytes_received: int
    receives: int
    loss_raised: bool
    limited_elsewhere: bool
    silence_allowed: bool
    @property
    def bytes_buffered(self) -> int: ...
    @property
    def at_eof(self) -> bool: ...
    @property
    def unfinished(self) -> bool: ...
    @property
    def is_busy(self) -> bool: ...
    @property
    def reading_paused(self) -> bool: ...
    # More than the Protocol promises: a future-like object.
    def wait(self, timeout: Timeout) -> Waiter: ...
