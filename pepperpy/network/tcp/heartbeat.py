"""Asks a silent peer for a sign of life. It costs one timer for each connection, and nothing on the way of a byte."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
import weakref
from typing import TYPE_CHECKING

from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.errors import NetworkTimeoutError
from pepperpy.network.last_turns import after_last_turns
from pepperpy.network.requests.exchanges import Exchanges, exchanges_of
from pepperpy.network.tcp_settings import Heartbeat
from pepperpy.network.timers import Timer

if TYPE_CHECKING:
    from pepperpy.network.link import Link
    from pepperpy.network.tcp.attempt import Lend
    from pepperpy.network.tcp.state import ClientState


class Heartbeats:
    """The heartbeats of one connection, from the moment it is made until `stop()` or its end.

    They also end when the peer ends its stream: no answer can come then, and that is no failure.

    They rest while reading is paused (`BufferLimits.receive_high` is reached), because silence means nothing then. They
    also rest while a `request()` waits for its reply: the peer may take its time, and nothing else can be asked.
    """

    def __init__(self, link: Link, protocol: StreamProtocol, lend: Lend, state: ClientState) -> None:
        # Weak: this must not keep alive a client that nobody else holds.
        self._link = weakref.ref(link)
        self._protocol = protocol
        self._lend = lend
        self._state = state
        self.rtt: float | None = None  # see NetworkStats.heartbeat_rtt
        assert link.heartbeat is not None
        self._interval = link.heartbeat.interval
        self._timeout = link.heartbeat.timeout
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()
        self._received = 0  # bytes received when the last heartbeat began
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._judging = False  # whether the timer waits for the end of a heartbeat, not for the next one
        self._judge_at = math.inf  # when a heartbeat that was not answered ends the connection
        self._has_waited = False  # whether its request still waited for one of the client's when it was judged
        self._timer = Timer(self._loop, self._look)
        self._timer.look_by(time.monotonic() + self._interval)

    def stop(self) -> None:
        """End the heartbeats, and cancel a callable that is running."""
        self._stopped = True
        self._timer.end()
        if self._task is not None:
            self._task.cancel()

    def _look(self, now: float) -> float:
        if self._judging and not self._take_answer():
            if now < self._judge_at:
                # The next heartbeat may be due before: `interval` may be far less than `timeout`.
                return min(now + self._interval, self._judge_at)
            # An answer that has arrived counts, even if the loop was blocked and has not read it yet.
            after_last_turns(self._loop, lambda: self._stopped, self._judge)
            return math.inf
        link = self._link()
        if link is None or not self._protocol.is_open or self._protocol.peer_ended:
            return math.inf
        idle = time.monotonic() - max(self._started, self._protocol.last_activity)
        if self._protocol.receiver.reading_paused:
            return now + self._interval
        if idle < self._interval:
            return now + self._interval - idle
        self._received = self._protocol.receiver.bytes_received
        self._judging = True
        self._has_waited = False
        self._judge_at = now + self._timeout
        self._timer.look_by(min(now + self._interval, self._judge_at))
        self._task = self._loop.create_task(self._beat(link.heartbeat, exchanges_of(link)))
        return math.inf

    async def _beat(self, settings: Heartbeat | None, exchanges: Exchanges) -> None:
        assert settings is not None
        if self._task is not asyncio.current_task():
            # An eager task, which runs before its maker knows it, so that `stop()` could not cancel it.
            await asyncio.sleep(0)
        if exchanges.served is not None:
            self._judging = False
            self._timer.end()
            self._timer.look_by(time.monotonic() + self._interval)
            return
        began = time.monotonic()
        failure: BaseException | None = None
        try:
            with self._lend(self._protocol) as (connection, link):
                # The requests of the callable and those of the client take turns.
                link.exchanges = exchanges
                result = settings.probe(connection)
                if inspect.isawaitable(result):
                    await result
        except Exception as error:
            failure = error
            if self._protocol.is_open and not self._protocol.peer_ended:
                self._protocol.lose(error)
        except BaseException as error:
            failure = error
            raise
        finally:
            if failure is None and self._protocol.receiver.bytes_received > self._received:
                self.rtt = time.monotonic() - began
            if not self._stopped or not isinstance(failure, asyncio.CancelledError):
                self._tell(began, failure)

    def _tell(self, began: float, error: BaseException | None) -> None:
        link = self._link()
        if link is not None and (observer := self._state.observer(link.config)) is not None:
            from pepperpy.network.events import HeartbeatDone

            observer.tell_done(HeartbeatDone, began, error=error)

    def _take_answer(self) -> bool:
        """Whether the heartbeat is done and a byte has come since. Then it is over."""
        assert self._task is not None
        if not self._task.done() or self._protocol.receiver.bytes_received == self._received:
            return False
        self._task = None
        self._judging = False
        return True

    def _judge(self) -> None:
        if not self._protocol.is_open or self._protocol.peer_ended:
            return
        link, task = self._link(), self._task
        assert task is not None
        had_waited, self._has_waited = self._has_waited, link is not None and exchanges_of(link).served is link
        if not task.done() and (self._has_waited or had_waited):
            # The probe's request waits for one of the client's, or did so, and its turn may only just have come.
            self._judge_at = time.monotonic() + self._timeout
            self._timer.look_by(self._judge_at)
            return
        if self._take_answer():
            self._timer.look_by(self._look(time.monotonic()))
            return
        self._task = None
        self._judging = False
        task.cancel()
        what = "peer did not answer" if task.done() else "heartbeat was not done"
        details = self._protocol.config.place | {"phase": "heartbeat", "elapsed": self._timeout}
        self._protocol.lose(NetworkTimeoutError(f"the {what} within Heartbeat.timeout={self._timeout} s", details))
