"""`NetworkPool`: connections to one server, lent to one task at a time. Policy and documentation.

pool_slots.py         where each connection is, and who gets the next one
pool_connection.py    how one is made, and whether it can be lent again
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType

from pepperpy.network.checks import Default, Timeout, check_int, check_seconds, seconds_of
from pepperpy.network.checks import check_timeout as check_limit
from pepperpy.network.config import NetworkConfig, check_config
from pepperpy.network.errors import UsageError
from pepperpy.network.pool.connection import Check, Maker, PooledConnection
from pepperpy.network.pool.slots import Slots
from pepperpy.network.tcp.client import NetworkClient


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Where the connections of a pool are now, and counts over its life.

    Attributes:
        size: Connections there are: `in_use + idle + preparing + closing`; never above `max_size`.
        in_use: Lent to somebody.
        idle: Ready to be lent.
        preparing: Being connected or checked.
        closing: Ending in order: idle for too long, too old, or with bytes that still have to leave.
        waiting: Tasks in the queue of `acquire()`.
        created: Connections made.
        reused: How often one was lent that had been lent before.
        timeouts: `acquire()` calls that ended with `PoolTimeoutError`.
        failures: How often no connection could be made.
        max_wait: The longest time, in seconds, after which a waiting `acquire()` got a connection.
        dropped: How many connections were not lent again, by reason. "cancelled", "failed": the block was left by
            CancelledError, by another exception. "closed": the user closed it. "lost": the peer or the network did.
            "unread": there were bytes that nobody had taken or asked for. "unfinished": a receive was still waiting, or
            had been given up (its answer may come yet); a send was waiting; `send_eof()` or `start_tls()` was called.
            "unsent": the kernel did not take all that was accepted; it is sent before closing. "check": `check` failed.
            "idle", "age": `max_idle`, `max_age`. Only reasons that occurred are present.
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


class NetworkPool:
    """Up to `max_size` connections to one server, for any number of tasks.

        async with NetworkPool(config, max_size=10) as pool:
            async with pool.acquire() as client:
                await client.send(b"PING\\r\\n")
                pong = await client.receive_line()

    A connection is lent again only if its next user can begin on it as on a new one. One whose block was left by an
    exception of any kind is closed, for the rest of an answer may still come; so take the answer inside the block and
    judge it outside. The same goes for one that was closed, has bytes on hand, or a receive that timed out last. After
    the block the client is unconnected for whoever kept it: the connection has moved on.

    Waiting tasks are served strictly in their order, by whichever connection comes first, returned or new. Of the idle
    connections the one used last is lent first, so that those beyond the need stay idle and end by `max_idle`. An idle
    one that receives anything, ends or is lost is dropped at once.

    Made anywhere, used in the event loop of its first use only. A closed pool stays closed.
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
            config: Of every connection. Its `on_connect` runs on each before anybody gets it, to read a greeting or to
                log in. `reconnect`, `on_state` and `heartbeat` are refused: a pool replaces what is lost by itself.
            min_size: Connections that are opened at the start and kept, 0 or more. Lost ones are replaced in the
                background, after failures with the waits of `backoff.Backoff`.
            max_size: Connections at most, 1 or more. 10: as asyncpg and HikariCP.
            max_idle: Seconds after which an idle connection is closed, down to `min_size`; None for never. 300: as
                asyncpg.
            max_age: Seconds after which a connection is not lent any more, and closed; up to a tenth less, at random.
                None for no limit.
            check: `async check(client)` is run on an idle connection before it is lent, and says that it is no good by
                raising or returning False: it is closed then, and a new one made in its place.
            check_after: Seconds that a connection must have been idle to be checked; 0 for all idle ones. One that
                passes from one user to a waiting one is not checked. 0.5: HikariCP's `aliveBypassWindow`.
            check_timeout: Seconds a check may take, then it has failed. Arbitrary: well below `config.timeout`, so that
                who waits can still get a new connection.

        Raises:
            TypeError, ValueError: An argument of a wrong type, out of range, or a field of `config` that is refused.
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
        maker = Maker(config, max_age, check, check_after, check_timeout)
        self._slots = Slots(config, min_size, max_size, max_idle, maker)

    def __repr__(self) -> str:
        return f"NetworkPool({self.config.address!r}, max_size={self.max_size!r})"

    @property
    def stats(self) -> PoolStats:
        """How the pool is now, and what has happened."""
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

    def acquire(self, timeout: Timeout = Default.TIMEOUT) -> AbstractAsyncContextManager[NetworkClient]:
        """Borrow a connection for a block: `async with pool.acquire() as client`.

        Args:
            timeout: Seconds to wait for one, connecting included; a number from 0, None for no limit, by default
                `config.timeout`.

        Raises, on entering the block:
            PoolTimeoutError: None became free, and none could be made, in time. `details` has `elapsed` (seconds) and
                how many connections were `in_use` and `preparing`, and how many tasks `waiting`.
            ConnectError, NetworkTimeoutError: No connection could be made: a new one was begun for this task or one
                before it in the queue, and failed. Likewise all else that `NetworkClient.connect` raises.
            ClosedError: The pool was closed before or meanwhile.
            UsageError: Called in another event loop, thread or process than the first time.

        Cancellation: Nothing is taken; what was begun for this task serves the next. Leaving the block never waits.
        """
        return _Loan(self._slots, seconds_of(timeout, self.config.timeout))

    async def __aenter__(self) -> NetworkPool:
        """Open `min_size` connections. Raises what `acquire` does if one cannot be opened; the pool is closed then."""
        await self._slots.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, timeout: Timeout = Default.TIMEOUT) -> None:
        """Close the pool: lend nothing more, wait for what is lent, close all. A second call does nothing.

        Tasks that wait in `acquire()` get `ClosedError`. On return all descriptors are given back.

        Args:
            timeout: Seconds to wait for connections that are lent; then they are aborted, and their users get
                `ClosedError`. A number from 0, None for no limit, by default `config.close_timeout`.

        Raises:
            UsageError: Called in another event loop, while that of the pool is open.

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


class _Loan:
    """The block in which one connection is lent."""

    __slots__ = ("_connection", "_slots", "_timeout")

    def __init__(self, slots: Slots, timeout: float | None) -> None:
        self._slots = slots
        self._timeout = timeout
        self._connection: PooledConnection | None = None

    async def __aenter__(self) -> NetworkClient:
        if self._connection is not None:
            raise UsageError("acquire() gives one connection: call it for each block")
        self._connection = await self._slots.get(self._timeout)
        return self._connection.client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        failure = None
        if kind is not None:
            failure = "cancelled" if issubclass(kind, asyncio.CancelledError) else "failed"
        self._slots.put(connection, failure)
