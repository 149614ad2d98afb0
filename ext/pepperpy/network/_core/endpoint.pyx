"""One connection: who may use it, what state it is in, when its waits end. It moves no bytes.

States: UNCONNECTED -> OPEN -> LOST, or OPEN -> CLOSING -> CLOSED. None is entered twice: `connect()` makes a new
endpoint, so nothing of an old connection can reach the users of a new one.

Time: a wait with a timeout sets no timer of its own. It stores its deadline, and arms the connection's one timer if that
is set for a later time. When the timer fires, it fails the waits that are due, and arms itself for the earliest deadline
of the others.
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
    ClosedError, ConnectionLostError, NetworkTimeoutError, NotConnectedError, UsageError, also_as,
)

cdef extern from "running.h":
    object running_loop_of(object get_running_loop, object key)

cdef object _get_running_loop = asyncio._get_running_loop
cdef object _DEFAULT_TIMEOUT = Default.TIMEOUT

# struct linger: two ints, on Windows two shorts.
cdef bytes _LINGER_0_S = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)

# The number of forks that led to this process. A child has its parent's sockets: bytes that it sends or receives would be
# missing in the parent's stream (python/asyncio#347).
cdef unsigned long _process_generation = 0


def _count_fork():
    global _process_generation
    _process_generation += 1
    # The parent's loop does not run here: see running_loop_of().
    asyncio._set_running_loop(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


cdef object running_loop():
    # The loop that runs in this thread, or None.
    return running_loop_of(_get_running_loop, "__asyncio_running_event_loop__")


cdef Py_ssize_t _held_by(object transport, object source) except -1:
    # Bytes that a TLS transport still holds although it has called resume_writing().
    if source is not transport:
        return source.get_write_buffer_size()
    # aiofastnet's counts what it has encrypted.
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
        # The transport is gone. The timer is cancelled, because it keeps all of this alive until it fires.
        self.state = state
        self.transport = self.source = self.sender = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return Status.OK

    cdef Status break_off(self, object error) except Status.ERROR:
        # Ends the connection as lost because of `error`. Nothing leaves any more; what has arrived can still be taken. The
        # transport calls connection_lost() later.
        if self.loss is None:
            self.loss = error
        if self.transport is not None:
            self.abort_transport()
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            # A signal came while this code ran. It concerns the whole program.
            self.loop.call_soon(reraise, error)
        return Status.OK

    cdef Status abort_transport(self) except Status.ERROR:
        # Closes at once. If accepted bytes are still in this process, the connection is reset: an orderly end would make half
        # a file look whole. Otherwise the end is orderly, and what the kernel has taken still reaches the peer.
        try:
            held = _held_by(self.transport, self.source) if self.tls else 0
            if held or self.undelivered or self.sender.bytes_queued:
                self.reset_on_close()
            if self.send_error is None:
                self.undelivered = held
        except Exception:
            # There was no memory, for example. The connection ends all the same.
            pass
        try:
            self.transport.abort()
        except BaseException:
            self._transport_failed()
        return Status.OK

    cdef Status close_transport(self) except Status.ERROR:
        # Closes in order; everything has left. Nobody has a time limit for this.
        try:
            self.transport.close()
        except BaseException as error:
            self.break_off(error)
            self._transport_failed()
        return Status.OK

    cdef Status _transport_failed(self) except Status.ERROR:
        # close() or abort() has raised. The transport may count as closed now, and never call connection_lost().
        self.closing_failed = True
        self.loop.call_soon(self.on_timer, context=PyContext_New())
        return Status.OK

    cdef Status reset_on_close(self) except Status.ERROR:
        # Closing a socket that lingers for 0 seconds sends a RST (Linux: socket(7), tcp_close()). Unix sockets ignore this.
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            # It may be closed already.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0_S)
        return Status.OK

    # ---- Flow control ----

    cdef Status pause_reading(self) except Status.ERROR:
        # Called after each read that leaves the buffer full: a TLS transport may have resumed the one below meanwhile.
        self.reading_paused = True
        self.source.pause_reading()
        return Status.OK

    cdef Status resume_reading(self) except Status.ERROR:
        # If the transport raises an Exception, the connection ends with it: that transport counts as reading, and never will.
        # It is not raised, because the caller holds bytes that would be lost.
        self.reading_paused = False
        if self.source is not None:
            try:
                self._resume_source()
            except Exception as error:
                self.break_off(error)
        return Status.OK

    cdef Status _resume_source(self) except Status.ERROR:
        # In an empty context, because the loop keeps the present one in a handle until the connection ends.
        context = PyContext_New()
        PyContext_Enter(context)
        try:
            self.source.resume_reading()
        finally:
            PyContext_Exit(context)
        return Status.OK

    # ---- Refusals ----

    cdef Status check_user(self) except Status.ERROR:
        # Every call comes here, so it only compares two integers.
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
        # Costs more than check_user(), so it is called only where the loop has to run anyway.
        if self.loop is not running_loop():
            raise self.error(
                UsageError, "connection belongs to another event loop; use it where it was connected", "use"
            )
        return Status.OK

    cdef object cause(self):
        # The error that explains the loss; None if there is no loss, or no error explains it.
        return self.send_error if self.loss is None else self.loss

    cdef object unusable(self):
        # The error for a call that needs the connection, if this side has not made it, has given it back or has closed it;
        # else None.
        if self.state == State.UNCONNECTED:
            what = "not connected: call connect() or use `async with` first" if self.given_back is None else self.given_back
            return self.error(NotConnectedError, what, "use")
        if self.state == State.CLOSING or self.state == State.CLOSED:
            return self.error(ClosedError, "connection was closed by this side", "use")
        return None

    cdef object refusal(self):
        # The error for a call that needs the connection; None if it is open and sending works.
        error = self.unusable()
        if error is not None:
            return error
        if self.state == State.LOST or self.send_error is not None:
            self.loss_reported = True
            cause = self.cause()
            why = f": {self.config.explained(cause)}" if cause is not None else ""
            return self.error(also_as(ConnectionLostError, cause), "connection lost" + why, "use", None, cause)
        return None

    cdef object error(self, object kind, str what, str phase, dict more=None, object cause=None):
        details = self.config.place | {"phase": phase}
        if more is not None:
            details.update(more)
        return kind(f"{self.config.address}: {what}", details, cause)

    # ---- Waiting ----

    cdef Waiter new_waiter(self, object timeout, str phase, Waiter previous):
        # `timeout` is as the caller of the public method gave it. If `previous` has a deadline, that holds instead.
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
        # Fails the waiter if it is due. Returns its deadline if it still waits for that, or else 0.
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
        # From now on the timer fires at `deadline` or before.
        if self.timer is not None:
            if self._timer_at <= deadline:
                return Status.OK
        # In an empty context: the timer serves all tasks, and the present context belongs to one of them.
        timer = self.loop.call_later(max(0.0, deadline - now), self.on_timer, context=PyContext_New())
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer
        self._timer_at = deadline
        return Status.OK
