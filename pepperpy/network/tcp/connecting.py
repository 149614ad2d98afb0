"""One `connect()`: its attempts, the waits between them, and how another task ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from pepperpy.network.backoff import Backoff
from pepperpy.network.errors import (
    ClosedError,
    ConnectError,
    ForbiddenAddressError,
    NetworkError,
    NetworkTimeoutError,
    ProxyError,
    TLSError,
    UsageError,
    also_as,
)
from pepperpy.network.tcp.attempt import AttemptFailed, attempt

if TYPE_CHECKING:
    from pepperpy.network._core.stream_protocol import StreamProtocol
    from pepperpy.network.config import NetworkConfig
    from pepperpy.network.events import Observer
    from pepperpy.network.link import Link
    from pepperpy.network.tcp.attempt import Lend
    from pepperpy.network.tcp.connect import Tried

logger = logging.getLogger("pepperpy.network.tcp")


class Connecting:
    """One `connect()`. The task that connects makes it; other tasks may close it and wait for its end."""

    __slots__ = (
        "_cancellations",
        "_cancelled",
        "_closed",
        "_config",
        "_ended",
        "_lend",
        "_link",
        "_loop",
        "_observer",
        "_owner",
        "_task",
    )

    def __init__(self, link: Link, lend: Lend, observer: Observer | None) -> None:
        self._loop = loop = asyncio.get_running_loop()
        # With the loop given: on CPython 3.11, each look for the running loop is a system call (getpid).
        task = asyncio.current_task(loop)
        assert task is not None
        self._link = link
        self._lend = lend
        self._observer = observer
        self._config = link.config
        self._owner = (threading.get_ident(), os.getpid())
        self._task: asyncio.Task[object] | None = task  # None after the end
        self._cancellations = task.cancelling()  # the task's cancellations before this call
        self._closed = False
        self._cancelled = False
        self._ended: asyncio.Future[None] | None = None  # done at the end; None if nobody waits for it

    async def run(self) -> tuple[StreamProtocol, float]:
        """Connect. Returns the connection, and the seconds that its attempt took.

        Raises:
            ClosedError: `close()` was called.
            All that `NetworkClient.connect()` raises.
        """
        try:
            if self._link.protocol.is_open:
                await self._close_ended()
            made = await self._attempts()
            if self._closed:
                # on_connect ignored its cancellation, or has closed the client itself.
                made[0].abort()
                raise self._closed_error()
            return made
        except BaseException as error:
            if not self._cancelled:
                raise
            assert self._task is not None
            others = self._task.uncancel() > self._cancellations
            if others and isinstance(error, asyncio.CancelledError):
                raise
            raise self._closed_error() from None
        finally:
            # A cancelled task keeps the frames of this call: that would be a cycle with the client in it.
            self._task = None
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or can never end because its loop was closed meanwhile."""
        return self._task is None or self._loop.is_closed()

    def check_user(self) -> None:
        """Raises UsageError in a thread, loop or process other than the task's."""
        try:
            foreign = asyncio.get_running_loop() is not self._loop and not self._loop.is_closed()
        except RuntimeError:
            # No loop runs here: abort() may be called after the loop has ended.
            foreign = False
        if foreign or self._owner != (threading.get_ident(), os.getpid()):
            what = "connecting in another thread, loop or process; close it there"
            raise self._link.error(UsageError, what, "connect")

    def close(self) -> None:
        """End it at whatever point it is; its task raises `ClosedError`."""
        self._closed = True
        if self._cancelled or self._task is None or self._loop.is_closed() or self._task is asyncio.current_task():
            return
        # run() takes this cancellation back, as asyncio.timeout() does.
        self._cancelled = True
        self._task.cancel()

    async def wait_ended(self, seconds: float) -> None:
        """After `close()`: wait until its sockets are closed, at most `seconds`."""
        if self.is_over or self._task is asyncio.current_task():
            return
        if self._ended is None:
            self._ended = self._loop.create_future()
        # Unlike `await`, this leaves the future alone when the task is cancelled.
        await asyncio.wait([self._ended], timeout=seconds)

    async def _close_ended(self) -> None:
        # Closes a connection whose peer has ended its stream. This comes before the attempts, because some servers take
        # one connection at a time. Nothing is left to send, so the peer sees an orderly end.
        protocol = self._link.protocol
        closed = protocol.wait_closed()
        protocol.abort()
        if closed is not None:
            await closed

    async def _attempts(self) -> tuple[StreamProtocol, float]:
        config, observer = self._config, self._observer
        started = time.monotonic()
        tried: Tried = {}
        number = 1
        while True:
            attempt_started = time.monotonic()
            if observer is not None:
                observer.attempt = number
            try:
                protocol = await attempt(config, tried, self._lend, observer, again=False)
            except AttemptFailed as failed:
                elapsed = time.monotonic() - started
                if number > config.retries or not failed.may_pass:
                    failure = connect_error(config, failed, number, elapsed)
                    if observer is not None:
                        attempt_done(observer, attempt_started, failure)
                    raise failure from failure.__cause__
                delay = Backoff(config.retry_delay, config.max_retry_delay).delay(number)
                logger.info(
                    "connect to %s: attempt %d of %d failed (%s), next in %.2f s",
                    config.address, number, config.retries + 1, failed.reason, delay,
                )  # fmt: skip
                if observer is not None:
                    attempt_done(observer, attempt_started, failed.error, delay)
            except BaseException as error:
                # Cancelled, or a file of the configuration cannot be used.
                if observer is not None:
                    attempt_done(observer, attempt_started, error)
                raise
            else:
                latency = time.monotonic() - attempt_started
                if observer is not None:
                    attempt_done(observer, attempt_started)
                if logger.isEnabledFor(logging.DEBUG):
                    logger.debug("connected to %s, attempt %d, %.3f s", config.address, number, latency)
                return protocol, latency
            if self._closed:
                # on_connect has closed the client, and then failed.
                raise self._closed_error()
            await asyncio.sleep(delay)
            number += 1
            self._link.retries += 1

    def _closed_error(self) -> ClosedError:
        return self._link.error(ClosedError, "closed while connecting", "connect")


def attempt_done(
    observer: Observer, began: float, error: BaseException | None = None, retry_in: float | None = None
) -> None:
    """Tell of the end of an attempt to connect, which began at `began`."""
    from pepperpy.network.events import AttemptDone

    observer.tell_done(AttemptDone, began, error=error, retry_in=retry_in)


def connect_error(config: NetworkConfig, failed: AttemptFailed, number: int, elapsed: float) -> NetworkError:
    """The error that ends `connect()`, or reconnecting, after `number` attempts in `elapsed` seconds."""
    error = failed.error
    kind = NetworkTimeoutError if isinstance(error, TimeoutError) else also_as(ConnectError, error)
    cause: BaseException | None = error
    details = config.place | {"phase": "connect"}
    if isinstance(error, (TLSError, ProxyError, ForbiddenAddressError)):
        # It says already what failed.
        kind, cause = type(error), error.__cause__
        details |= error.details
    tries = "1 attempt" if number == 1 else f"{number} attempts"
    details |= {"attempt": number, "elapsed": round(elapsed, 3)}
    message = f"{config.address}: cannot connect: {failed.reason} ({tries} in {elapsed:.2f} s)"
    made = kind(message, details, cause)
    made.is_transient = failed.may_pass
    return made
