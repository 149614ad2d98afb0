"""One connection's identity: who may use it, what state it is in, when its waits end. Moves no bytes.

States: UNCONNECTED -> OPEN -> LOST, or OPEN -> CLOSING -> CLOSED. No way back: `connect()` makes a new endpoint,
so that nothing of an old connection can reach the users of a new one.

Time: a timeout costs no timer. Each wait stores its deadline; the one timer is armed only when a deadline comes
before the one it is set for, and when it fires it fails what is due and moves itself to the earliest of the rest.
"""

cimport cython
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit, PyContext_New
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.time cimport monotonic

from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter, new_waiter

import asyncio
import contextlib
import os
import socket
import struct

from pepperpy.network._core.waiter import reraise
from pepperpy.network.checks import Default, check_timeout
from pepperpy.network.errors import (
    ClosedError, ConnectionLostError, NetworkTimeoutError, NotConnectedError, UsageError,
)

cdef object _running_loop = asyncio._get_running_loop
cdef object _DEFAULT_TIMEOUT = Default.TIMEOUT

# struct linger: two ints, on Windows two shorts.
cdef bytes _LINGER_0_S = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)

# Counts the forks that led to this process. A child shares its parent's sockets: bytes it sent or took would be
# torn out of the parent's stream (python/asyncio#347).
cdef unsigned long _process_generation = 0


def _count_fork():
    global _process_generation
    _process_generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


cdef Py_ssize_t _held_by(object transport, object source) except -1:
    # Bytes that a TLS transport holds although it has told to go on.
    if source is not transport:
        return source.get_write_buffer_size()
    # aiofastnet's, with what it has encrypted.
    return transport.get_local_write_buffer_size() if hasattr(transport, "get_local_write_buffer_size") else 0


@cython.final
cdef class Endpoint:
    def __cinit__(self, config):
        self.config = config
        self.state = State.UNCONNECTED
        self._timeout = config.timeout or 0.0

    # ---- State ----

    cdef Status open(self, object loop, object transport) except Status.ERROR:
        self.loop = loop
        self.transport = self.source = transport
        self._thread = PyThread_get_thread_ident()
        self._process = _process_generation
        self.state = State.OPEN
        return Status.OK

    cdef Status close(self, State state) except Status.ERROR:
        # The transport is gone; so is the timer, which would keep everything here alive until it fires.
        self.state = state
        self.transport = self.source = self.sender = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return Status.OK

    cdef Status break_off(self, object error) except Status.ERROR:
        # A failure on our side of the wire. From here on nothing leaves; what has arrived can still be taken. The transport
        # answers with connection_lost.
        if self.loss is None:
            self.loss = error
        if self.transport is not None:
            self.abort_transport()
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            # A signal that came while this code ran: not the connection's doing alone.
            self.loop.call_soon(reraise, error)
        return Status.OK

    cdef Status abort_transport(self) except Status.ERROR:
        # Closes at once. If accepted bytes are still in this process, the peer sees a reset: after an orderly end, half a
        # file would look whole. If none are, what the kernel has taken still reaches the peer, and the end is orderly.
        try:
            held = _held_by(self.transport, self.source) if self.tls else 0
            if held or self.undelivered or self.sender.bytes_queued:
                self.reset_on_close()
            if self.send_error is None:
                self.undelivered = held
        except Exception:
            # For lack of memory, say. The connection ends all the same.
            pass
        try:
            self.transport.abort()
        except BaseException:
            # It may take itself for closed already, and never call connection_lost.
            self.abort_failed = True
            self.loop.call_soon(self.on_timer, context=PyContext_New())
        return Status.OK

    cdef Status reset_on_close(self) except Status.ERROR:
        # A socket that lingers for 0 seconds is closed with a RST (Linux socket(7), tcp_close()). Unix sockets ignore it.
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            # It may be closed already.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0_S)
        return Status.OK

    # ---- Flow control ----

    cdef Status pause_reading(self) except Status.ERROR:
        # To be called after each read that finds the buffer full: a TLS transport resumes the one below when it sees fit.
        self.reading_paused = True
        self.source.pause_reading()
        return Status.OK

    cdef Status resume_reading(self) except Status.ERROR:
        # Raises no Exception: what the caller has taken is his already. The connection ends instead, because a transport that
        # fails here takes itself for reading.
        self.reading_paused = False
        if self.source is not None:
            try:
                self._resume_source()
            except Exception as error:
                self.break_off(error)
        return Status.OK

    cdef Status _resume_source(self) except Status.ERROR:
        # In nobody's context: the loop's new handle keeps it until the connection ends.
        context = PyContext_New()
        PyContext_Enter(context)
        try:
            self.source.resume_reading()
        finally:
            PyContext_Exit(context)
        return Status.OK

    # ---- Refusals ----

    cdef Status check_user(self) except Status.ERROR:
        # On the way of every call, so it compares two integers and no more.
        if self._thread != PyThread_get_thread_ident() or self._process != _process_generation:
            if self.state == State.UNCONNECTED:
                raise self.refusal()
            if self.is_forked():
                raise self.error(UsageError, "connection belongs to the parent process; make a new client after a fork", "use")
            raise self.error(UsageError, "connection belongs to another thread; use it where it was connected", "use")
        return Status.OK

    cdef bint is_forked(self) noexcept:
        return self._process != _process_generation

    cdef Status check_loop(self) except Status.ERROR:
        # 80 ns on CPython 3.11, so only on roads that lead to the loop anyway.
        if self.loop is not _running_loop():
            raise self.error(
                UsageError, "connection belongs to another event loop; use it where it was connected", "use"
            )
        return Status.OK

    cdef object cause(self):
        # Of the loss, in whichever direction it was met; None while there is none, or it is not known.
        return self.send_error if self.loss is None else self.loss

    cdef object refusal(self):
        # What a call that needs the connection raises in this state; None while there is one.
        if self.state == State.UNCONNECTED:
            return self.error(NotConnectedError, "not connected: call connect() or use `async with` first", "use")
        if self.state == State.CLOSING or self.state == State.CLOSED:
            return self.error(ClosedError, "connection was closed by this side", "use")
        if self.state == State.LOST or self.send_error is not None:
            self.loss_reported = True
            cause = self.cause()
            why = f": {self.config.explained(cause)}" if cause is not None else ""
            return self.error(ConnectionLostError, "connection lost" + why, "use", None, cause)
        return None

    cdef object error(self, object kind, str what, str phase, dict more=None, object cause=None):
        details = self.config.place | {"phase": phase}
        if more is not None:
            details.update(more)
        return kind(f"{self.config.address}: {what}", details, cause)

    # ---- Waiting ----

    cdef Waiter new_waiter(self, object timeout, str phase, Waiter previous):
        # `timeout` as the caller of the public method gave it. A wait that goes on where `previous` ended has its deadline.
        cdef Waiter waiter
        cdef double seconds
        cdef double now

        self.check_loop()
        if previous is not None and previous.deadline:
            seconds = 0.0
        elif timeout is _DEFAULT_TIMEOUT:
            seconds = self._timeout or -1.0
        elif timeout is None:
            seconds = -1.0
        else:
            check_timeout("timeout", timeout, zero=True)
            seconds = timeout
        waiter = new_waiter(self.loop)
        if seconds >= 0.0:
            now = monotonic()
            waiter.phase = phase
            waiter.started = now
            waiter.deadline = now + seconds
            if previous is not None and previous.deadline:
                waiter.started = previous.started
                waiter.deadline = previous.deadline
            self.arm_timer(waiter.deadline, now)
        return waiter

    cdef bint is_due(self, Waiter waiter, double now) noexcept:
        return waiter is not None and waiter.deadline != 0.0 and waiter.deadline <= now and not waiter.is_done()

    cdef double expire(self, Waiter waiter, double now) except -1:
        # Fails the waiter if it is due. Otherwise its deadline, or 0 if it has none (any more).
        if waiter is None or waiter.deadline == 0.0 or waiter.is_done():
            return 0.0
        if waiter.deadline > now:
            return waiter.deadline
        elapsed = round(now - waiter.started, 3)
        waiter.fail(
            self.error(
                NetworkTimeoutError, f"{waiter.phase} timed out after {elapsed} s", waiter.phase, {"elapsed": elapsed}
            ),
            True,
        )
        return 0.0

    cdef Status arm_timer(self, double deadline, double now) except Status.ERROR:
        # Afterwards the timer fires at `deadline` or before.
        if self.timer is not None:
            if self._timer_at <= deadline:
                return Status.OK
        # In nobody's context: it serves all tasks, and would keep alive what the first of them has in its own.
        timer = self.loop.call_later(max(0.0, deadline - now), self.on_timer, context=PyContext_New())
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer
        self._timer_at = deadline
        return Status.OK
