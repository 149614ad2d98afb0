"""One connection of a `NetworkPool`: how it is made, and whether another user could begin on it as on a new one.

While a connection is idle, the pool waits for its next byte, by a callback and without a task. Nothing should come. A
byte that nobody asked for, the end of the stream or a loss ends the connection at once, before it surprises its next
user.
"""

from __future__ import annotations

import contextvars
import logging
import math
import random
import select
from collections.abc import Awaitable, Callable
from time import monotonic

from pepperpy.network._core.waiter import Waiter
from pepperpy.network.config import NetworkConfig, observer_of
from pepperpy.network.errors import NetworkError, UsageError
from pepperpy.network.tcp.client import NetworkClient, link_of, passed_on
from pepperpy.network.watchdog import time_limit

logger = logging.getLogger("pepperpy.network.pool")

# Share of `max_age` by which a connection may end earlier, at random, so that those made together do not end together.
# Arbitrary; HikariCP takes up to a fortieth, pgxpool leaves it to its user.
AGE_JITTER = 0.1

Check = Callable[[NetworkClient], Awaitable[object]]

# The context of callbacks of idle connections. That of the last user would stay alive with all that is in it.
_NOBODYS = contextvars.Context()

# The events by which Linux says that the peer has ended its stream. Other systems report a byte to read instead.
_ENDED = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0) if hasattr(select, "poll") else 0


class PooledConnection:
    """A connected client, with what the pool knows about it. Times are on the loop's clock."""

    __slots__ = ("_config", "_poll", "_protocol", "_tls", "_watch", "client", "expires_at", "idle_since", "used")

    def __init__(self, client: NetworkClient, expires_at: float) -> None:
        self.client: NetworkClient = client
        self._config = client.config
        self.expires_at: float = expires_at  # it is not lent from then on; `inf` for never
        self.idle_since: float = 0.0
        self.used: bool = False
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
        """None if another user could begin here as on a new connection; else why not, a key of `PoolStats.dropped`."""
        protocol = self._protocol
        receiver, sender = protocol.receiver, protocol.sender
        if protocol.state in ("closing", "closed"):
            return "closed"
        if receiver.bytes_buffered:
            return "unread"
        if not protocol.is_open or receiver.at_eof:
            return "lost"
        # `limited_elsewhere`: a request is under way, though it may not be receiving at this moment.
        if receiver.unfinished or sender.unfinished or receiver.limited_elsewhere:
            return "unfinished"
        if protocol.is_tls != self._tls:
            return "unfinished"  # the block called start_tls(), and the next user expects a plain connection
        try:
            if sender.start_flush(None) is not None:
                return "unsent"
        except UsageError:
            raise
        except NetworkError:
            return "lost"
        # Ask the kernel what the loop has not read yet. It takes 0.8 us (measured), and nothing else tells.
        if self._poll is not None and (events := self._poll.poll(0)):
            return "lost" if events[0][1] & _ENDED else "unread"
        return None

    def pass_on(self) -> None:
        """Move the connection to a new client. Whoever kept the old client has no connection then."""
        self.client = passed_on(self.client, self._config)

    def watch(self, disturbed: Callable[[PooledConnection, str], object]) -> None:
        """Call `disturbed(connection, flaw)` once, if anything happens on the connection before `unwatch()`."""

        def report(waiter: Waiter) -> None:
            # The watch may have ended after the loop was asked to call this.
            if self._watch is waiter:
                disturbed(self, self.wake() or "lost")

        self._watch = self._protocol.receiver.wait(None)
        self._watch.add_done_callback(report, context=_NOBODYS)

    def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def wake(self) -> str | None:
        """End the watch and return the flaw, see `flaw()`."""
        self.unwatch()
        try:
            # There is nothing to take. This only ends the receive by which the pool watched.
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
        self._observed = config
        # A connection outlives its clients, so the pool tells of it, not they.
        self._config = config if config.on_event is None else config.replace(on_event=None)
        self._max_age = math.inf if max_age is None else max_age
        self._check = check
        self._check_after = check_after
        self._check_timeout = check_timeout

    async def make(self) -> PooledConnection:
        """A new connection. Raises what `connect()` raises; a cancellation or an error leaves no connection open."""
        client = NetworkClient(self._config)
        await link_of(client).connect(observer_of(self._observed))
        now = monotonic()
        return PooledConnection(client, now + self._max_age * (1 - random.uniform(0, AGE_JITTER)))

    def needs_check(self, connection: PooledConnection) -> bool:
        """Whether it has been idle so long that it must be checked before it is lent."""
        if self._check is None:
            return False
        return monotonic() - connection.idle_since >= self._check_after

    async def passes(self, connection: PooledConnection) -> bool:
        """Run the check: whether the connection is as good as new. If not, or on a cancellation, it is closed."""
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
