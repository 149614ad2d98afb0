"""Supervises the connections of one client: reconnects after a loss, runs the heartbeat, reports changes of state.

A client has a `Supervisor` only if its configuration asks for one of these. While there is a connection, it does
nothing. After a loss it runs one task, which holds the client weakly: if nobody uses the client any more, it ends.

A new connection is used once it has received a byte, or has lived for `attempt.PROBATION_S`: the server that accepts
may be the lost one on its way down. If the connection ends before that, the attempt has failed; no call gets to see
it, and no send uses it. A server that only listens costs that short wait; waiting for its first byte could take for
ever.

The backoff begins again only after a connection has proved itself: it has to live as long as the longest wait that may
have preceded it (`Backoff.ceiling`). So connections that die at once are not made more often than attempts that fail,
and a connection that lives is up for half of the time or more. (Kubernetes' CrashLoopBackOff asks for twice its
longest wait.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.backoff import Backoff, Outages
from pepperpy.network.checks import Timeout
from pepperpy.network.config import NetworkConfig
from pepperpy.network.detached import detached_task
from pepperpy.network.errors import (
    ClosedError,
    ConnectError,
    NetworkError,
    NotConnectedError,
    UsageError,
)
from pepperpy.network.link import Link, deadline_of
from pepperpy.network.lookup import forget
from pepperpy.network.tcp.heartbeat import Heartbeats
from pepperpy.network.tcp.pending import PendingReceiver, PendingSender
from pepperpy.network.tcp.state import ClientState
from pepperpy.network.tcp_settings import heartbeat_of, reconnect_of

if TYPE_CHECKING:
    from pepperpy.network.tcp.attempt import Lend
    from pepperpy.network.tcp.client import NetworkClient
    from pepperpy.network.tcp.connect import Tried

logger = logging.getLogger("pepperpy.network.tcp")

_outages = Outages()


class Supervisor:
    """Supervises the connections of one client. It belongs to the thread and loop in which the client connected."""

    def __init__(self, client: NetworkClient, link: Link, lend: Lend) -> None:
        # Weak: if nobody uses the client any more, this ends. The link lives as long as the client.
        self._link = weakref.ref(link)
        self._lend = lend
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner = (threading.get_ident(), os.getpid())
        self.state: ClientState = ClientState(client, link.config.bare)
        self._configure(link.config)
        self.last: StreamProtocol = link.protocol
        self._connected_at = 0.0  # seconds of time.monotonic()
        self._retry = 0  # attempts since a connection last proved itself
        self._tried: Tried = {}  # addresses used in these attempts
        self._delay = 0.0  # seconds until the next attempt
        self._task: asyncio.Task[None] | None = None
        self._heartbeats: Heartbeats | None = None
        self._receiving = PendingReceiver(self)
        self._sending = PendingSender(self)

    def _configure(self, config: NetworkConfig) -> None:
        self._configured = weakref.ref(config)  # weak, because its callables keep alive what they belong to
        self.config: NetworkConfig = config.bare
        self.state.config = self.config
        self._policy = reconnect_of(config.reconnect)  # None: a lost connection stays lost

    @property
    def _attempts(self) -> int | None:
        return None if self._policy is None else self._policy.attempts

    # ---- What NetworkClient calls ----

    def connecting(self) -> None:
        """`connect()` begins."""
        link = self._link()
        assert link is not None
        if link.config is not self._configured():  # the client was given another configuration
            self._configure(link.config)
        self._loop = asyncio.get_running_loop()
        self._owner = (threading.get_ident(), os.getpid())
        self._retry = 0
        self._receiving.lost = self._sending.lost = None
        self.state.begin(self._loop)

    def connect_failed(self, error: BaseException) -> None:
        """`connect()` ended without a connection."""
        if not isinstance(error, NetworkError):
            error = self.state.error(NotConnectedError, f"connecting was ended by {type(error).__name__}", "connect")
        self.state.finish(error)

    def connected(self, protocol: StreamProtocol) -> None:
        """The client has a new connection, and uses it already."""
        link = self._link()
        assert link is not None
        self.last = protocol
        self._connected_at = time.monotonic()
        for pending in (self._receiving, self._sending):
            if not pending.loss_raised:
                pending.stand_in(link)
        self._stop_heartbeats()
        link.heartbeat = heartbeat_of(link.config.heartbeat)
        if link.heartbeat is not None:
            self._heartbeats = Heartbeats(link, protocol, self._lend, self.state)
        self.state.become("connected")
        protocol.watch(self._ended, self._policy is not None)

    def stop(self) -> asyncio.Task[None] | None:
        """`disconnect()` or `abort()`: no further connection. Cancels the task that reconnects, if there is one."""
        if self.state.now == "closed":
            return None
        if self._owner != (threading.get_ident(), os.getpid()):
            raise self.state.error(UsageError, "connection belongs to another thread or process", "use")
        self._stop_heartbeats()
        task, self._task = self._task, None
        if task is not None and not task.get_loop().is_closed():
            task.cancel()
        self.state.finish(self.state.error(ClosedError, "connection was closed by this side", "use"))
        return task

    async def disconnect(self) -> None:
        """Stop, and wait for the end of the task, at most `close_timeout` seconds."""
        if self._task is not None:
            self.last.check_user()
        task = self.stop()
        # on_connect, which runs in that task, may call this too.
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait([task], timeout=self.config.close_timeout)

    def take_undelivered(self) -> int:
        """Bytes that earlier connections accepted and lost, and that no call has reported yet."""
        return sum([pending.lost.take_undelivered() for pending in (self._receiving, self._sending) if pending.lost])

    def abandon(self) -> None:
        """The client was collected. Called from any thread."""
        task = self._task
        if task is not None and self._owner[1] == os.getpid():
            # RuntimeError: the loop is closed, or is closing in its own thread.
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)

    @property
    def heartbeat_rtt(self) -> float | None:
        return None if self._heartbeats is None else self._heartbeats.rtt

    @property
    def is_reconnecting(self) -> bool:
        return self._task is not None

    async def wait_connected(self, link: Link, timeout: Timeout, fail_after: int | None) -> None:
        deadline = deadline_of(timeout, self.config)
        while not link.protocol.is_connected:
            # Sending may have failed on a connection whose end has not come yet.
            going_on = (
                self.state.now == "connecting"
                or self._task is not None
                or (self._policy is not None and self.state.now == "connected")
            )
            if not going_on:
                raise self.state.why_unconnected(link.protocol)
            if self._task is not None:
                self.check_user()
            await self.state.wait(deadline, "wait_connected", fail_after)
        link.protocol.check_user()

    # ---- What the pending directions call ----

    def check_user(self) -> None:
        self.last.check_user()

    def connected_link(self) -> Link | None:
        """The client's link if it has a connection, None if it has none yet. Raises why there will be none."""
        link = self._link()
        if self.state.now == "connected" and link is not None:
            return link
        self.state.raise_end()
        return None

    # ---- The end of a connection ----

    def _stop_heartbeats(self) -> None:
        if self._heartbeats is not None:
            self._heartbeats.stop()
            self._heartbeats = None

    def _ended(self, protocol: StreamProtocol) -> None:
        # Called when the connection of the protocol is gone, before the tasks that waited on it run.
        if protocol is not self.last:
            return
        self._stop_heartbeats()
        link = self._link()
        if link is None or self.state.now != "connected":
            # The client was closed. Or only sending had met the end, and connect() was called, which does the rest.
            return
        if protocol.state == "closed":
            # The heartbeat, which was lent the connection, has closed it.
            self.state.finish(self.state.error(ClosedError, "connection was closed by this side", "use"))
            return
        if self._policy is not None:
            for pending in (self._receiving, self._sending):
                if pending.loss_raised:
                    pending.lost = protocol
                pending.stand_in(link)
            if time.monotonic() - self._connected_at >= self._backoff.ceiling(max(1, self._retry)):
                self._retry = 0
                self._tried = {}
            if self._attempts is None or self._retry < self._attempts:
                self._delay = self._backoff.delay(self._retry + 1)
            assert self._loop is not None
            self._task = detached_task(self._loop, self._reconnect())
            self._task.add_done_callback(self._reconnect_ended)
        self.state.become("lost", protocol.loss)

    # ---- Reconnecting ----

    @property
    def _backoff(self) -> Backoff:
        return Backoff(self.config.retry_delay, self.config.max_retry_delay)

    async def _reconnect(self) -> None:
        if self._task is not asyncio.current_task():
            # An eager task, which runs before its maker knows it. It may give up at once: before the state is "lost".
            await asyncio.sleep(0)
        host = self.config.address
        for name in (self.config.host, *(name for name, _ in self.config.hosts)):
            # The server may have moved, which may be why the connection was lost.
            forget(name)
        started = time.monotonic()
        _outages.enter(host, started)
        try:
            while await self._pause(host):
                if await self._try(host, started):
                    return
        except Exception as error:
            if self._task is asyncio.current_task():
                self._give_up(self.state.error(ConnectError, f"reconnecting failed: {error!r}", "connect", error))
        finally:
            _outages.leave(host)

    def _reconnect_ended(self, task: asyncio.Task[None]) -> None:
        if task is self._task and task.cancelled():
            # Not stop() has cancelled it: somebody ends all tasks of the loop, maybe before this one began; or
            # on_connect raised CancelledError.
            self._give_up(self.state.error(ClosedError, "reconnecting was cancelled", "connect"))

    async def _pause(self, host: str) -> bool:
        limit = self._attempts
        if limit is not None and self._retry >= limit:
            what = f"gave up: the connection was lost again at once, after {limit} attempts"
            self._give_up(self.state.error(ConnectError, what, "connect", self.last.loss))
            return False
        self._retry += 1
        await asyncio.sleep(self._delay)
        while not _outages.may_try(host, time.monotonic()):
            await asyncio.sleep(max(_outages.pause(), self._backoff.delay(self._retry)))
        return True

    async def _try(self, host: str, started: float) -> bool:
        """Make one attempt. Returns whether it was the last one."""
        from pepperpy.network.tcp.attempt import AttemptFailed, attempt
        from pepperpy.network.tcp.connecting import attempt_done, connect_error

        link = self._link()
        if link is None:
            return True
        config = link.config
        del link
        observer = self.state.observer(config, self._retry)
        began = time.monotonic()
        try:
            protocol = await attempt(config, self._tried, self._lend, observer, again=True)
        except AttemptFailed as failed:
            link = self._link()
            if link is None or self._task is not asyncio.current_task():
                return True
            error = connect_error(config, failed, self._retry, time.monotonic() - started)
            if not failed.may_pass or self._retry == self._attempts:
                if observer is not None:
                    attempt_done(observer, began, error)
                self._give_up(error)
                return True
            link.retries += 1
            self._delay = self._backoff.delay(self._retry + 1)
            if observer is not None:
                attempt_done(observer, began, failed.error, self._delay)
            self.state.attempt_failed(error)
            logger.info("reconnect to %s: attempt %d failed (%s)", host, self._retry, failed.reason)
            return False
        except BaseException as error:
            if observer is not None:
                attempt_done(observer, began, error)
            raise
        link = self._link()
        if link is None or self._task is not asyncio.current_task():
            # The client was closed meanwhile, and on_connect ignored its cancellation.
            protocol.abort()
            return True
        _outages.succeeded(host)
        self._task = None
        if observer is not None:
            attempt_done(observer, began)
        logger.info("reconnected to %s, attempt %d", host, self._retry)
        link.take_over(protocol, time.monotonic() - began)
        self.connected(protocol)
        return True

    def _give_up(self, error: NetworkError) -> None:
        logger.warning("%s", error)
        self._task = None
        self.state.finish(error)
