"""`ClientState`: whether a supervised client is connecting, connected, lost or closed, and who waits for a change."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import time
import weakref
from typing import TYPE_CHECKING

from pepperpy.network._core.handover import Handover
from pepperpy.network.config import NetworkConfig, State, observer_of
from pepperpy.network.errors import (
    ClosedError,
    ConnectionLostError,
    NetworkError,
    NetworkTimeoutError,
    without_tracebacks,
)
from pepperpy.network.link import E, connection_error, remaining
from pepperpy.network.watchdog import time_limit

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
        # Who waits, and for how many failures at most; None: however many there are. Each is given None for a change of
        # the state, or the failure.
        self._waiting: dict[Handover, int | None] = {}

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
        if self._loop is None or self._loop.is_closed():
            return
        self._tell()
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
        # Its tracebacks would keep alive what the configuration's callables belong to: often the client.
        self._failure = without_tracebacks(error)
        self.failures += 1
        self._tell(self._failure)

    # ---- Waiting ----

    async def wait(self, deadline: float, phase: str, fail_after: int | None = None) -> None:
        """Wait until the state changes. A cancellation disturbs no other task.

        Raises:
            NetworkTimeoutError: It has not changed in time.
            NetworkError: `fail_after` attempts to reconnect have failed; None: nobody counts them.
        """
        if fail_after is not None and self._failure is not None and self.failures >= fail_after:
            raise copy.copy(self._failure)
        started = time.monotonic()
        waiter = Handover(asyncio.get_running_loop())
        self._waiting[waiter] = fail_after
        try:
            with time_limit(remaining(deadline)):
                await waiter
        except TimeoutError:
            if not waiter.is_given:
                elapsed = round(time.monotonic() - started, 3)
                what = f"{phase} timed out after {elapsed} s without a connection"
                raise self.error(NetworkTimeoutError, what, phase, elapsed=elapsed) from None
        finally:
            del self._waiting[waiter]
        if waiter.outcome is not None:
            raise copy.copy(waiter.outcome)

    def _tell(self, failure: NetworkError | None = None) -> None:
        """Wake who waits for this."""
        try:
            self._tell_all(failure)
        except MemoryError:
            # Tried once more, because nobody else may call this again.
            self._tell_all(failure)

    def _tell_all(self, failure: NetworkError | None) -> None:
        for waiter, fail_after in self._waiting.items():
            is_due = failure is None or (fail_after is not None and self.failures >= fail_after)
            if is_due and not waiter.is_over:
                waiter.give(failure)

    # ---- Errors ----

    def raise_end(self) -> None:
        """Raise why there will be no connection any more, if that is so."""
        if self.end is not None:
            raise copy.copy(self.end)

    def why_unconnected(self, protocol: StreamProtocol) -> NetworkError:
        """Why there is no connection, and none under way; `protocol` is the last one."""
        if self.end is not None:
            return copy.copy(self.end)
        if (error := protocol.unusable()) is not None:
            return error
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
