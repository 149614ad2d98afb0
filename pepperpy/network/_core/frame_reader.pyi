from collections.abc import Awaitable, Callable
from typing import Any, Self, final

from pepperpy.network._core.framer import Framer
from pepperpy.network._core.receiver import Receiver
from pepperpy.network.checks import Timeout

WAIT: object
END: object

@final
class FrameReader:
    """Messages by one framer, each then passed through `loads` if that is not None; `discards` those too large."""

    discarded: int
    def __new__(cls, framer: Framer, loads: Callable[[bytes], Any] | None, discards: bool = False) -> Self: ...
    def hold(self, receiver: Receiver) -> None: ...
    def let_go(self, receiver: Receiver) -> None: ...
    # The stream is a Receiver, or a PendingReceiver.
    def take(self, stream: Any) -> Any: ...
    def take_all(self, stream: Any) -> Any: ...
    def wait(self, stream: Any, timeout: Timeout, previous: Awaitable[None] | None) -> Awaitable[None]: ...
