import asyncio
from collections.abc import Awaitable, Collection
from types import TracebackType
from typing import Any

from pepperpy.network._core.record import Slot
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.tcp.client import NetworkClient
from pepperpy.network.tcp.client_link import ClientLink

class ClientSlots:
    """What changes in clients and their links as connections are lent."""

    def __init__(self, link: Slot, receiver: Slot, sender: Slot, kind_of_link: type[ClientLink]) -> None: ...

class PooledConnection:
    """A connection that one user after the other has."""

    lending: Lending
    protocol: StreamProtocol
    client: NetworkClient | None
    link: ClientLink
    expires_at: float
    idle_since: float
    used: bool
    is_dropped: bool
    def __init__(self, lending: Lending, client: NetworkClient, link: ClientLink, expires_at: float) -> None: ...
    def hand_over(self) -> NetworkClient: ...
    def pass_on(self) -> None: ...
    def forsake(self) -> bool: ...
    def flaw(self) -> str | None: ...
    def unwatch(self) -> None: ...
    def wake(self) -> str | None: ...

class Lending:
    """Lends connections and takes them back."""

    closed: bool
    loop: asyncio.AbstractEventLoop | None
    waiting: Any
    idle: Any
    lent: Any
    preparing: Any
    reused: int
    refill_failures: int
    timer: Any
    def __init__(
        self,
        waiting: Collection[object],
        min_size: int,
        max_idle: float,
        check_after: float,
        blank: NetworkClient,
        slots: ClientSlots,
    ) -> None: ...
    def lend(self, connection: PooledConnection) -> None: ...
    def put(self, client: NetworkClient, link: ClientLink, failure: str | None = None) -> None: ...
    def offer(self, connection: PooledConnection) -> None: ...
    def surplus(self) -> int: ...

class Loan:
    """What `acquire()` returns."""

    lending: Any
    timeout: float | None
    client: NetworkClient | None
    def __init__(self, lending: Lending, timeout: float | None) -> None: ...
    def take(self) -> NetworkClient | None: ...
    def enter(self) -> NetworkClient | None: ...
    def begin(self, connection: PooledConnection) -> NetworkClient: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> Awaitable[None]: ...
