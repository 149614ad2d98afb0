"""One connection of a `NetworkPool`: how it is made, and whether another user could begin on it as on a new one.

While nobody uses a connection, the pool itself waits for its next byte, by a callback and without a task. Nothing may
come then: a byte that nobody asked for, an end of the stream or a loss ends the connection there and then, instead of
surprising its next user.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
import select
from collections.abc import Awaitable, Callable

from pepperpy.network._core.waiter import Waiter
from pepperpy.network.config import NetworkConfig
from pepperpy.network.errors import NetworkError, UsageError
from pepperpy.network.tcp.client import NetworkClient, link_of, passed_on
from pepperpy.network.watchdog import time_limit

logger = logging.getLogger("pepperpy.network.pool")

# Of `max_age`: how much earlier a connection may go, drawn evenly, so that those made together do not end together.
# Arbitrary; HikariCP takes up to a fortieth, pgxpool leaves it to its user.
AGE_JITTER = 0.1

Check = Callable[[NetworkClient], Awaitable[object]]

# For callbacks of idle connections, which would else keep alive what the last user had in its context.
_NOBODYS = contextvars.Context()

# The peer has ended its stream, in Linux's words; elsewhere that reads as a byte that is there.
_ENDED = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0) if hasattr(select, "poll") else 0


class PooledConnection:
    """A connected client with what the pool knows of it. Times are on the loop's clock."""

    __slots__ = ("_config", "_poll", "_protocol", "_tls", "_watch", "client", "expires_at", "idle_since", "used")

    def __init__(self, client: NetworkClient, expires_at: float) -> None:
        self.client = client
        self._config = client.config
        self.expires_at = expires_at  # not to be lent from then on; `inf` for never
        self.idle_since = 0.0
        self.used = False
        self._protocol = link_of(client).protocol
        self._tls = self._protocol.is_tls
        self._watch: Waiter | None = None
        self._poll: select.poll | None = None
        sock = self._protocol.extra_info("socket")
        # Over TLS, bytes in the kernel need not be bytes of the stream: TLS 1.3 sends session tickets unasked.
        if sock is not None and not self._tls and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN | _ENDED)

    def flaw(self) -> str | None:
        """Why nobody else can begin here as on a new connection: a key of `PoolStats.dropped`; None if one can."""
        protocol = self._protocol
        receiver, sender = protocol.receiver, protocol.sender
        if protocol.state in ("closing", "closed"):
            return "closed"
        if receiver.bytes_buffered:
            return "unread"
        if not protocol.is_open or receiver.at_eof:
            return "lost"
        # A request may do something else than receive at this moment.
        if receiver.unfinished or sender.unfinished or receiver.limited_elsewhere:
            return "unfinished"
        if protocol.is_tls != self._tls:
            return "unfinished"  # start_tls() in a block: the next user would expect a plain connection
        try:
            if sender.start_flush(None) is not None:
                return "unsent"
        except UsageError:
            raise
        except NetworkError:
            return "lost"
        # What the kernel has and the loop has not read yet. 0.8 us (measured), and there is no other way to know.
        if self._poll is not None and (events := self._poll.poll(0)):
            return "lost" if events[0][1] & _ENDED else "unread"
        return None

    def pass_on(self) -> None:
        """Move the connection to a new client: whoever kept the old one finds that unconnected."""
        self.client = passed_on(self.client, self._config)

    def watch(self, disturbed: Callable[[PooledConnection, str], object]) -> None:
        """Call `disturbed(connection, flaw)`, once, if it does not stay silent until `unwatch()`."""

        def report(waiter: Waiter) -> None:
            # Not if the watch has ended since: the loop may have been asked to call this before.
            if self._watch is waiter:
                disturbed(self, self.wake() or "lost")

        self._watch = self._protocol.receiver.wait(None)
        self._watch.add_done_callback(report, context=_NOBODYS)

    def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def wake(self) -> str | None:
        """End the watch, and say what `flaw` says."""
        self.unwatch()
        try:
            # Nothing is there to take, so this only ends the receive that the watch was.
            if self._protocol.receiver.take(1):
                return "unread"
        except UsageError:
            raise
        except NetworkError:
            return "lost"
        return self.flaw()


class Maker:
    """Makes connections ready for use, and checks old ones."""

    def __init__(
        self,
        config: NetworkConfig,
        max_age: float | None,
        check: Check | None,
        check_after: float,
        check_timeout: float,
    ) -> None:
        self._config = config
        self._max_age = math.inf if max_age is None else max_age
        self._check = check
        self._check_after = check_after
        self._check_timeout = check_timeout

    async def make(self) -> PooledConnection:
        """Raises what `connect()` does; a cancellation or an error leaves no connection."""
        client = NetworkClient(self._config)
        await client.connect()
        now = asyncio.get_running_loop().time()
        return PooledConnection(client, now + self._max_age * (1 - random.uniform(0, AGE_JITTER)))

    def needs_check(self, connection: PooledConnection) -> bool:
        """Whether it has been idle so long that it must be checked before it is lent."""
        if self._check is None:
            return False
        return asyncio.get_running_loop().time() - connection.idle_since >= self._check_after

    async def passes(self, connection: PooledConnection) -> bool:
        """Whether the connection is as good as new; if not, or on a cancellation, it is closed."""
        assert self._check is not None
        client = connection.client
        try:
            with time_limit(self._check_timeout):
                result = await self._check(client)
        except Exception as error:
            client.abort()
            logger.info("%s: an idle connection failed its check (%s)", client.config.address, type(error).__name__)
            return False
        except BaseException:
            client.abort()
            raise
        if result is False or connection.flaw() is not None:
            client.abort()
            return False
        connection.pass_on()
        return True
