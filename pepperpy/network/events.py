"""What clients tell `on_event` of: one small frozen object for each thing that happened.

Imported only where something is observed. `Observer` makes the events and calls `on_event`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal, TypeVar

T = TypeVar("T")

logger = logging.getLogger("pepperpy.network.events")

_ids = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What the events of `on_event` have in common. None holds a secret.

    Attributes:
        at: When it happened, in seconds of `time.monotonic()`.
        id: What it belongs to: one call of an `HTTPClient`; one `NetworkClient`, for all its connections; of a
            `NetworkPool`, one connection that it makes, or the pool itself. Unique in the process.
        host: Where it happened: the server's name or address, or a proxy's. The path of a Unix socket.
        port: Its port; 0 for a Unix socket.
        attempt: The attempt to connect, or to send the request, from 1; 0 where it belongs to none.
    """

    at: float
    id: int
    host: str
    port: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Event):
    """Something that took time has ended, well or not. It began at `at - seconds`.

    Attributes:
        seconds: How long it took.
        error: Why it failed; None: it did not. `asyncio.CancelledError`: a time limit or the caller has ended it, or
            another address was faster.
    """

    seconds: float
    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupDone(Done):
    """A name was looked up. An answer of the last seconds takes no time; an IP address counts as looked up too.

    Attributes:
        addresses: In the order of preference; empty if it failed.
    """

    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectDone(Done):
    """A socket was connected to one address, or was not. A race of several addresses tells of each.

    Attributes:
        address: The IP address, or the path of the Unix socket. Empty where aiohttp connects: then this is all of it,
            with the lookup, the proxy's answer and TLS, which have no events of their own there.
    """

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyDone(Done):
    """A proxy has agreed to pass on bytes to `host` and `port`, or has not. Its own connection comes before that.

    Of TLS to an `https://` proxy it tells as well. For an `http://` URL, an HTTP proxy is asked for nothing before the
    request: there is this event for TLS to the proxy alone, and none with an `http://` proxy.

    Attributes:
        proxy: Its URL, without password.
    """

    proxy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSDone(Done):
    """A handshake of TLS has ended: of connecting, of `start_tls()`, or of a connection that was accepted or given.

    Attributes:
        version: `TLSv1.3`, say; empty if it failed.
    """

    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDone(Done):
    """An attempt has ended: one to connect, of a `NetworkClient`; or one to send a request and get its answer.

    Attributes:
        retry_in: Seconds until the next attempt; None: there is none. A client that reconnects may wait longer, where
            many others have lost the same server.
        status: The status of the HTTP answer, if one came.
    """

    retry_in: float | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Event):
    """A `NetworkClient` is in another state. What `on_state` is told, but at once.

    Attributes:
        state: As of `on_state`: "connecting", "connected", "lost" or "closed".
        error: Of "lost": what ended the connection, if known. Of "closed": what calls raise from now on.
    """

    state: Literal["connecting", "connected", "lost", "closed"]
    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatDone(Done):
    """The probe of a heartbeat has ended, with the peer's answer if it waits for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWaitDone(Done):
    """A task has waited for a connection of a pool. Nothing is told where one is idle.

    In an `HTTPClient`: for one of `max_connections`, or a place to make one. In a `NetworkPool`: until the connection
    was ready.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionDropped(Event):
    """A `NetworkPool` does not lend a connection again.

    Attributes:
        reason: A key of `PoolStats.dropped`: "lost", "unread", "idle", ...
    """

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(Event):
    """A call of an `HTTPClient` begins. It is told in the task and the context (`contextvars`) of the caller.

    Attributes:
        method: Of the request.
        url: Without user, password, fragment and the values of the query.
        headers: Headers to send with every request of this call, for trace propagation. They replace those of the same
            name. This dict is the one thing that `on_event` may change.
    """

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStarted(Event):
    """The head of an answer is there. Each redirect that is followed has one of its own.

    Attributes:
        method: As in `CallStarted`, of this request.
        url: As in `CallStarted`, of this request.
        status: Of the answer.
        version: Of HTTP: "1.1".
        seconds: From having a connection until the head had come.
        reused: Whether the connection had carried a request before.
    """

    method: str
    url: str
    status: int
    version: str
    seconds: float
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDone(Done):
    """A call of an `HTTPClient` has ended: its body is read, or given up. `attempt` says how many attempts it took.

    Attributes:
        method: As in `CallStarted`.
        url: As in `CallStarted`.
        status: Of the last answer, if one came.
    """

    method: str
    url: str
    status: int | None


OnEvent = Callable[[Event], object]


class Observer:
    """Tells `on_event` what happens to one client or call.

    If `on_event` raises, nothing else changes: the loop's exception handler is called, as for any callback of the
    loop. Where no loop runs, the error is logged.

    Attributes:
        id, host, port, attempt: Of its events.
    """

    __slots__ = ("_on_event", "attempt", "host", "id", "port")

    def __init__(self, on_event: OnEvent, host: str, port: int, id: int | None = None, attempt: int = 0) -> None:
        """Args: id: None: a new one."""
        self._on_event = on_event
        self.id: int = next(_ids) if id is None else id
        self.host: str = host
        self.port: int = port
        self.attempt: int = attempt

    def tell(self, kind: type[Event], *, at: float | None = None, **facts: Any) -> None:
        """Make an event and tell it. Never raises, but for KeyboardInterrupt and SystemExit. `at`: None: now."""
        if at is None:
            at = monotonic()
        host, port = facts.pop("host", self.host), facts.pop("port", self.port)
        self.pass_on(kind(at=at, id=self.id, host=host, port=port, attempt=self.attempt, **facts))

    def tell_done(self, kind: type[Done], began: float, **facts: Any) -> None:
        """Make and tell the event of what began then and ends now."""
        now = monotonic()
        self.tell(kind, at=now, seconds=now - began, **facts)

    def pass_on(self, event: Event) -> None:
        """Tell an event that is made."""
        try:
            self._on_event(event)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            report(error, "on_event")

    async def timed(
        self, step: Awaitable[T], kind: type[Done], result: Callable[[T], dict[str, Any]] | None = None, **facts: Any
    ) -> T:
        """Await `step`, and tell how long it took and how it ended. `result` gives further facts of its outcome."""
        began = monotonic()
        try:
            outcome = await step
        except BaseException as error:
            self.tell_done(kind, began, error=error, **facts)
            raise
        if result is not None:
            facts |= result(outcome)
        self.tell_done(kind, began, error=None, **facts)
        return outcome


def report(error: BaseException, what: str) -> None:
    """A callback of the user, called `what`, has raised `error`."""
    message = f"{what} raised {type(error).__name__}"
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        logger.error("%s", message, exc_info=error)
    else:
        loop.call_exception_handler({"message": message, "exception": error})


def lookup_facts(found: list[Any]) -> dict[str, Any]:
    """What `LookupDone` says of the outcome of `look_up()`."""
    return {"addresses": tuple(str(address[0]) for *_, address in found)}
