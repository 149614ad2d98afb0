from collections.abc import Callable
from typing import Any

from pepperpy.network._framer import Framer
from pepperpy.network._receiver import Receiver
from pepperpy.network._waiter import Waiter
from pepperpy.network.tcp import Timeout

WAIT: object
END: object

class FrameReader:
    """Messages by one framer, each then passed through `loads` if that is not None."""

    def __init__(self, framer: Framer, loads: Callable[[bytes], Any] | None) -> None: ...
    def take(self, receiver: Receiver) -> Any: ...
    def take_all(self, receiver: Receiver) -> Any: ...
    def wait(self, receiver: Receiver, timeout: Timeout, previous: Waiter | None) -> Waiter: ...
