"""`NetworkPool`: connections to one server, lent to one task at a time. Arguments and documentation."""

from __future__ import annotations

import functools
from collections.abc import Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Never

from pepperpy.network._core.lending import Loan
from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import Default, Timeout, check_int, check_seconds, refuse_copies, seconds_of
from pepperpy.network.checks import check_timeout as check_limit
from pepperpy.network.config import NetworkConfig, check_config, explain_setting
from pepperpy.network.pool.connection import Check, Maker
from pepperpy.network.pool.slots import Slots
from pepperpy.network.tcp.client import NetworkClient, link_of

_DEFAULT = Default.TIMEOUT


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Where the connections of a pool are now, and counts over its life.

    Attributes:
        size: All connections: `in_use + idle + preparing + closing`; never above `max_size`.
        in_use: Lent to somebody.
        idle: Ready to be lent.
        preparing: Being connected or checked.
        closing: Being closed in order: idle for too long, too old, or with bytes that still have to leave.
        waiting: Tasks in the queue of `acquire()`.
        created: Connections made.
        reused: How often a connection was lent that had been lent before.
        timeouts: `acquire()` calls that ended with `PoolTimeoutError`.
        failures: How often no connection could be made.
        max_wait: The longest time, in seconds, that a successful `acquire()` has waited.
        dropped: How many connections were not lent again, by reason. Only reasons that occurred are present.
            "cancelled", "failed": CancelledError, or another exception, left the block.
            "closed": the user closed it. "lost": the peer or the network ended it.
            "unread": there were bytes that nobody had taken or asked for.
            "unfinished": a receive was still waiting, or was given up (its answer may still come); a send was waiting;
            `send_eof()` or `start_tls()` was called; a `pipeline()` had not been left.
            "unsent": the kernel has not taken all accepted bytes; they are sent before the connection closes.
            "unreleased": whoever had it has lost it; see `acquire()`.
            "check": `check` failed. "idle", "age": `max_idle` or `max_age` passed.
    """

    size: int
    in_use: int
    idle: int
    preparing: int
    closing: int
    waiting: int
    created: int
    reused: int
    timeouts: int
    failures: int
    max_wait: float
    dropped: dict[str, int]


_INSTEAD = {"size": "max_size=...", "maxsize": "max_size=...", "minsize": "min_size=...", "limit": "max_size=..."}


@explains_arguments(functools.partial(explain_setting, "NetworkPool", instead=_INSTEAD))
class NetworkPool:
    """Up to `max_size` connections to one server, for any number of tasks.

        async with NetworkPool(config, max_size=10) as pool:
            async with pool.acquire() as client:
                await client.send(b"PING\\r\\n")
                pong = await client.receive_line()

    A connection is lent again only if its next user can begin on it as on a new one. If an exception of any kind leaves
    the block, the connection is closed, because the rest of an answer may still come. So take the answer inside the
    block and judge it outside. A connection that was closed, holds unread bytes, or whose last receive timed out is
    closed too. After the block, a client that somebody kept has no connection.

    Waiting tasks are served strictly in their order, with the connection that comes first, returned or new. The idle
    connection that was used last is lent first. So those that are not needed stay idle, and `max_idle` ends them. An
    idle connection that receives anything, ends or is lost is dropped at once.

    A pool may be made anywhere. It belongs to the event loop of its first use. A closed pool stays closed.
    """

    def __init__(
        self,
        config: NetworkConfig,
        min_size: int = 0,
        max_size: int = 10,
        *,
        max_idle: float | None = 300.0,
        max_age: float | None = None,
        check: Check | None = None,
        check_after: float = 0.5,
        check_timeout: float = 1.0,
    ) -> None:
        """Nothing is opened before `async with` or the first `acquire()`.

        Args:
            config: The configuration of every connection. Its `on_connect` runs on each one before anybody gets it, to
                read a greeting or to log in. Its `on_event` is told of attempts to connect, of waits and of connections
                that are dropped, not of states. `reconnect`, `on_state` and `heartbeat` are refused: a pool replaces
                lost connections itself.
            min_size: Connections to open at the start and to keep, 0 or more. Lost ones are replaced in the background,
                with the waits of `retry_delay` and `max_retry_delay` after failures.
            max_size: The largest number of connections, 1 or more. 10: as asyncpg and HikariCP.
            max_idle: Seconds after which an idle connection is closed, down to `min_size`; None for never. 300: as
                asyncpg.
            max_age: Seconds after which a connection is no longer lent, but closed; up to a tenth less, at random. None
                for no limit.
            check: `async check(client)` runs on an idle connection before it is lent. If it raises or returns False,
                the connection is closed and replaced by a new one.
            check_after: Seconds that a connection must have been idle to be checked; 0 for all idle ones. A connection
                that goes from one user directly to the next is not checked. 0.5: HikariCP's `aliveBypassWindow`.
            check_timeout: Seconds that a check may take; then it has failed. Arbitrary: well below `config.timeout`, so
                that the waiting task can still get a new connection.

        Raises:
            TypeError, ValueError: An argument has a wrong type or is out of range, or a field of `config` is refused.
        """
        check_config("NetworkPool", config)
        check_int("min_size", min_size, 0)
        check_int("max_size", max_size, 1)
        if min_size > max_size:
            raise ValueError(f"min_size must be at most max_size={max_size}, not {min_size}")
        check_limit("max_idle", max_idle, zero=False)
        check_limit("max_age", max_age, zero=False)
        for name in ("reconnect", "on_state", "heartbeat"):
            if getattr(config, name) not in (False, None):
                raise ValueError(f"{name} is for single clients, and must be left out of the configuration of a pool")
        if check is not None and not callable(check):
            raise TypeError(f"check must be an async function of a client, or None, not {type(check).__name__}")
        check_seconds("check_after", check_after, zero=True)
        check_seconds("check_timeout", check_timeout, zero=False)
        self.config = config
        self.min_size = min_size
        self.max_size = max_size
        maker = Maker(config, max_age, check, check_timeout)
        self._slots = Slots(config, min_size, max_size, max_idle, None if check is None else check_after, maker)

    def __getstate__(self) -> Never:
        refuse_copies(self)

    def __repr__(self) -> str:
        return f"NetworkPool({self.config.address!r}, max_size={self.max_size!r})"

    @property
    def stats(self) -> PoolStats:
        """The present state, and counts since the pool was made."""
        slots = self._slots
        return PoolStats(
            size=slots.size,
            in_use=len(slots.lent),
            idle=len(slots.idle),
            preparing=len(slots.preparing),
            closing=len(slots.closing),
            waiting=len(slots.waiting),
            created=slots.created,
            reused=slots.reused,
            timeouts=slots.timeouts,
            failures=slots.failures,
            max_wait=slots.max_wait,
            dropped=dict(slots.dropped),
        )

    def acquire(self, timeout: Timeout = Default.TIMEOUT) -> Acquire:
        """Borrow a connection for a block, `async with pool.acquire() as client`, or until `release(client)`.

        Without a block: `client = await pool.acquire()`. In both forms the client is for one use: the connection goes
        on in a new client.

        Args:
            timeout: Seconds to wait for a connection, connecting included; a number from 0, None for no limit, by
                default `config.timeout`.

        Raises, on entering the block or on `await`:
            PoolTimeoutError: No connection became free or could be made in time. `details` has `elapsed` (seconds), the
                number of connections `in_use` and `preparing`, and of tasks `waiting`.
            ConnectError, NetworkTimeoutError: A new connection, begun for this task or for one before it in the queue,
                failed. So does anything else that `NetworkClient.connect` raises.
            ClosedError: The pool was closed before or meanwhile.
            UsageError: Called in another event loop, thread or process than the first time.

        Cancellation: Nothing is taken. A connection begun for this task serves the next. Leaving the block never waits.

        A client that is neither released nor in use any more, because whoever had it has lost it, costs its connection
        and a `ResourceWarning`. Its place goes to the next when Python frees the client. If the client is part of a
        reference cycle, such as an error and a frame that refers to it, that is the next garbage collection.
        """
        seconds = self.config.timeout
        return Acquire(self._slots, seconds if timeout is _DEFAULT else seconds_of(timeout, seconds))

    def release(self, client: NetworkClient) -> None:
        """Give back what `await acquire()` has returned; never waits. The client has no connection afterwards.

        The connection is lent again if its next user can begin on it as on a new one. The pool cannot know whether the
        rest of an answer may still come. If an exchange broke off, call `client.abort()` before this. The end of a
        block of `acquire()`, which sees the exception, does so by itself.

        Raises:
            UsageError: The client is not lent by this pool: it was released before, belongs to another one or to none.
                Or this is called in another event loop, thread or process than the first time.
            TypeError: `client` is not a `NetworkClient`.
        """
        if not isinstance(client, NetworkClient):
            raise TypeError(f"client must be a NetworkClient, not {type(client).__name__}")
        self._slots.put(client, link_of(client))

    async def __aenter__(self) -> NetworkPool:
        """Open `min_size` connections. If one fails, close the pool and raise what `acquire` raises."""
        await self._slots.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, timeout: Timeout = Default.TIMEOUT) -> None:
        """Close the pool: lend nothing more, wait for lent connections, close all. A second call does nothing.

        Tasks that wait in `acquire()` get `ClosedError`. On return all descriptors are closed.

        Args:
            timeout: Seconds to wait for lent connections; then they are aborted, and their users get `ClosedError`. A
                number from 0, None for no limit, by default `config.close_timeout`.

        Raises:
            UsageError: Called in another event loop while that of the pool is open.

        Cancellation: All connections are aborted.
        """
        await self._slots.close(seconds_of(timeout, self.config.close_timeout))

    def abort(self) -> None:
        """Close at once: all connections are aborted, lent ones too. Never waits; a second call does nothing.

        Tasks that wait in `acquire()`, and users of lent connections, get `ClosedError`.

        Raises:
            UsageError: Called in another thread or process.
        """
        self._slots.abort()


class Acquire(Loan):
    """What `NetworkPool.acquire()` returns: `async with` lends a connection for a block, `await` until `release()`."""

    __slots__ = ()
    lending: Slots

    def __await__(self) -> Generator[Any, None, NetworkClient]:
        if (client := self.take()) is None:
            client = yield from self._wait().__await__()
        return client

    async def _wait(self) -> NetworkClient:
        # Only a client notices that it was lost, as it is where there is no memory to return it from here.
        return (await self.lending.acquire(self.timeout)).hand_over()

    async def __aenter__(self) -> NetworkClient:
        if (client := self.enter()) is None:
            client = self.begin(await self.lending.acquire(self.timeout))
        return client
