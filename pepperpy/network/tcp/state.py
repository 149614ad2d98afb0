"""`ClientState`: whether a supervised client is connecting, connected, lost or closed, and who waits for a change."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import time
import weakref
from typing import TYPE_CHECKING

from pepperpy.network.config import NetworkConfig, State, observer_of
from pepperpy.network.detached import detached
from pepperpy.network.errors import (
    ClosedError,
    ConnectionLostError,
    NetworkError,
    NetworkTimeoutError,
    NotConnectedError,
    without_tracebacks,
)
from pepperpy.network.link import E, connection_error, remaining

if TYPE_CHECKING:
    from pepperpy.network._core.stream_protocol import StreamProtocol
    from pepperpy.network.events import Observer
    from pepperpy.network.tcp.client import NetworkClient


class ClientState:
    """The state of one client. Belongs to the loop in which the client connects.

    Attributes:
        now: The state. It begins as "closed".
        end: Why there will be no connection any more; None while there is or may be one.
        failures: How many attempts to reconnect have failed since the last connection was lost.
        config: The client's configuration, without its callables.
    """

    def __init__(self, client: NetworkClient, config: NetworkConfig) -> None:
        self._client = weakref.ref(client)
        self.config = config
        self.now: State = "closed"
        self.end: NetworkError | None = None
        self._id: int | None = None  # of its events; None before the first one
        self.failures: int = 0
        self._failure: NetworkError | None = None  # of the last of them
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Future[None] | None = None  # done at the next change; None if nobody waits
        self._failed: asyncio.Future[None] | None = None  # the same for the next failed attempt

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed the client."""
        return isinstance(self.end, ClosedError)

    # ---- Changes ----

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """`connect()` begins."""
        self._loop = loop
        self.end = None
        self.failures, self._failure = 0, None
        self.become("connecting")

    def finish(self, error: NetworkError) -> None:
        """There will be no connection any more; each call raises a copy of `error`."""
        self.end = error
        self.become("closed", error)

    def become(self, state: State, error: BaseException | None = None) -> None:
        """Change the state; wakes the tasks in `wait()`, calls `on_event`, and has the loop call `on_state`."""
        if state == self.now:
            return
        self.now = state
        if state == "lost":
            self.failures, self._failure = 0, None
        changed, self._changed = self._changed, None
        if self._loop is None or self._loop.is_closed():
            return
        if changed is not None and not changed.done():
            changed.set_result(None)
        client = self._client()
        if client is not None and (observer := self.observer(client.config)) is not None:
            from pepperpy.network.events import StateChanged

            observer.tell(StateChanged, state=state, error=error)
        if client is not None and client.config.on_state is not None:
            # Not directly: on_state may call anything, and this may run inside of a transport's callback.
            self._loop.call_soon(_call_on_state, self._client, state, context=contextvars.Context())

    def observer(self, config: NetworkConfig, attempt: int = 0) -> Observer | None:
        """What tells `on_event` of `config`, the client's own. It is not kept, because it may keep the client alive."""
        observer = observer_of(config, self._id, attempt)
        if observer is not None:
            self._id = observer.id
        return observer

    def attempt_failed(self, error: NetworkError) -> None:
        """An attempt to reconnect has failed, and there will be another one."""
        self.failures += 1
        # Its tracebacks would keep alive what the configuration's callables belong to: often the client.
        self._failure = without_tracebacks(error)
        failed, self._failed = self._failed, None
        if failed is not None and not failed.done():
            failed.set_result(None)

    # ---- Waiting ----

    async def wait(self, deadline: float, phase: str, fail_after: int | None = None) -> None:
        """Wait until the state changes. A cancellation disturbs no other task.

        Raises:
            NetworkTimeoutError: It has not changed in time.
            NetworkError: `fail_after` attempts to reconnect have failed; None: nobody counts them.
        """
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        if self._changed is None:
            self._changed = loop.create_future()
        changed = self._changed
        while True:
            futures = [changed]
            if fail_after is not None:
                if self._failure is not None and self.failures >= fail_after:
                    raise copy.copy(self._failure)
                if self._failed is None:
                    self._failed = loop.create_future()
                futures.append(self._failed)
            # Unlike `await`, this leaves the futures alone when the task is cancelled.
            waiting = asyncio.wait(futures, timeout=remaining(deadline), return_when=asyncio.FIRST_COMPLETED)
            await detached(waiting)
            if changed.done():
                return
            # uvloop's timers may come a millisecond early.
            if (now := time.monotonic()) >= deadline:
                elapsed = round(now - started, 3)
                what = f"{phase} timed out after {elapsed} s without a connection"
                raise self.error(NetworkTimeoutError, what, phase, elapsed=elapsed)

    # ---- Errors ----

    def raise_end(self) -> None:
        """Raise why there will be no connection any more, if that is so."""
        if self.end is not None:
            raise copy.copy(self.end)

    def why_unconnected(self, protocol: StreamProtocol) -> NetworkError:
        """Why there is no connection, and none under way; `protocol` is the last one."""
        if self.end is not None:
            return copy.copy(self.end)
        if protocol.state == "unconnected":
            return self.error(NotConnectedError, "not connected: call connect() or use `async with` first", "use")
        if protocol.state in ("closing", "closed"):
            return self.error(ClosedError, "connection was closed by this side", "use")
        what = "the peer has ended its stream" if protocol.at_eof else "connection lost"
        if protocol.loss is not None:
            what += f": {self.config.explained(protocol.loss)}"
        return self.error(ConnectionLostError, what, "use", protocol.loss)

    def error(
        self, kind: type[E], what: str, phase: str, cause: BaseException | None = None, /, **details: object
    ) -> E:
        """An error about this client, see `Link.error()`."""
        return connection_error(self.config, kind, what, phase, cause, **details)


def _call_on_state(reference: weakref.ref[NetworkClient], state: State) -> None:
    client = reference()
    if client is not None and client.config.on_state is not None:
        client.config.on_state(client, state)
