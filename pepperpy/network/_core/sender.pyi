from typing import final

from pepperpy.network._core.directions import Sending
from pepperpy.network._core.waiter import Waiter
from pepperpy.network.checks import Timeout

# mypy takes what a Protocol declares for abstract; the compiled class has all of it.
@final
class Sender(Sending):  # type: ignore[misc]
    """One connection's sending side: what is accepted, when it leaves, who is held back."""

    bytes_sent: int
    sends: int
    loss_raised: bool
    @property
    def bytes_queued(self) -> int: ...
    @property
    def unfinished(self) -> bool: ...
    # More than the Protocol promises: a future-like object.
    def wait(self, timeout: Timeout, previous: Waiter | None) -> Waiter: ...
    def start_flush(self, timeout: Timeout) -> Waiter | None: ...
