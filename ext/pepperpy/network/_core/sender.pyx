"""The sending side of a connection: what is accepted, when it leaves, who is held back.

The way of a byte. `send()` queues it and decides when the queue leaves:

- the first send after data arrived, or after a quiet moment, leaves at once: an answer never waits;
- what follows in the same turn of the loop is gathered, and leaves as one write when the turn ends, or before that
  when 64 KiB are together. 62 ns a message instead of the 5 us of a system call each.

To leave means: straight into the socket, by one system call from the queue's own memory. Only what the kernel does
not take is given to the transport, one piece at a time, because the loop watches the socket on its behalf; until it
reports itself empty nothing else is written, so bytes cannot overtake each other. The transport's high-water mark is
0, hence `pause_writing` and `resume_writing` say exactly whether it holds anything. Transports without a plain socket
(TLS, the proactor's) get everything the same way.

Accepted is accepted whole: a send waits *before* it queues, so a cancelled one has queued nothing.
"""

cimport cython
from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytes cimport PyBytes_GET_SIZE

from pepperpy.network._core.endpoint cimport Endpoint, State
from pepperpy.network._core.send_queue cimport SendQueue
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter

import contextlib
import os
from collections import deque

from pepperpy.network.errors import ClosedError, UsageError

cdef extern from "platform.h":
    double coarse_monotonic() noexcept

cdef extern from "running.h":
    unsigned long long context_switches() noexcept

cdef extern from "Python.h":
    object PyBytes_FromObject(object data)

cdef extern from *:
    """
    /* A gathered queue of this size leaves before the turn ends: far above the point where the system call is paid
       for, and what a socket's buffer takes at once. */
    #define GATHER_LIMIT (64 * 1024)
    /* Seconds of quiet after which a send leaves at once again. One tick of the coarse clock, 1 to 10 ms, is the least
       it can tell; in a turn that lasts longer than that, waiting for its end would delay more than it saves. */
    #define QUIET 0.001
    /* Bytes after which a task that sends without ever waiting lets the loop run once, so that timers, cancellations and
       other tasks get their turn while the peer keeps up. About 1 ms of sending; the trip costs 1 % of that. */
    #define FAIR_SHARE (4 * 1024 * 1024)
    """
    const Py_ssize_t GATHER_LIMIT
    const double QUIET
    const Py_ssize_t FAIR_SHARE


cdef bytes _immutable(object data):
    # The bytes of any bytes-like object as they are now: what the caller does to it later changes nothing.
    if type(data) is bytes:
        return <bytes>data
    if not PyObject_CheckBuffer(data):
        raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
    return <bytes>PyBytes_FromObject(data)


cdef Status _append(object waiters, Waiter waiter) except Status.ERROR:
    # Tasks that give up again and again, on a peer that takes nothing, leave no heap of waiters behind.
    while waiters and (<Waiter>waiters[0]).is_done():
        waiters.popleft()
    waiters.append(waiter)
    return Status.OK


cdef object _without_done(object waiters):
    return waiters and deque([waiter for waiter in waiters if not (<Waiter>waiter).is_done()])


@cython.final
cdef class Sender:
    def __cinit__(self, Endpoint endpoint not None):
        self._endpoint = endpoint
        self._queue = SendQueue()
        self._fd = -1
        self._fresh = True
        self._checked_at = -1
        self._high = endpoint.config.buffers.send_high
        self._low = endpoint.config.buffers.send_low

    @property
    def bytes_queued(self):
        return self.pending()

    @property
    def unfinished(self):
        """Whether a send is held back, which will go on to send; or the sending side was ended."""
        cdef Waiter waiter

        # Tasks go on in the order in which they are woken, so this one is the last.
        if self._resuming is not None and not self._resuming.left:
            return True
        for waiter in self._held_back or ():
            if not waiter.is_done():
                return True
        return self._eof_accepted

    # ---- Accepting ----

    def send(self, data):
        """Accept `data` whole, or return False while the queue is above its high-water mark."""
        cdef bytes unchanging = _immutable(data)

        if not self._start_sending():
            return False
        self._queue.append(unchanging)
        self.bytes_sent += PyBytes_GET_SIZE(unchanging)
        self.sends += 1
        self._push()
        return True

    def immutable(self, buffers):
        """A list of `bytes` with what is in `buffers` now."""
        if isinstance(buffers, (bytes, bytearray, memoryview, str)):
            raise TypeError(f"buffers must be an iterable of bytes-like objects, not one {type(buffers).__name__}")
        return [_immutable(data) for data in buffers]

    def send_many(self, list messages):
        """Accept all of the `bytes` in `messages`, or none; see `send`."""
        cdef Py_ssize_t before

        if not self._start_sending():
            return False
        before = self._queue.length
        self._queue.append_all(messages)
        self.bytes_sent += self._queue.length - before
        self.sends += 1
        self._push()
        return True

    def send_eof(self):
        """No more will be accepted; the peer sees the end of the stream after what was."""
        self._endpoint.check_user()
        if self._endpoint.tls:
            raise self._endpoint.error(
                UsageError, "TLS has no end of one direction here: close the whole connection with disconnect()", "send"
            )
        if self._eof_accepted and self._endpoint.state == State.OPEN:
            return
        self._start_sending()
        self._eof_accepted = True
        self.flush(False)
        if self._endpoint.send_error is not None:
            self._refuse()

    cdef bint _start_sending(self) except -1:
        # 1 if anything may be queued now, 0 if it has to wait.
        self._endpoint.check_user()
        if self._endpoint.state != State.OPEN or self._endpoint.send_error is not None:
            self._refuse()
        if self._eof_accepted:
            raise self._endpoint.error(ClosedError, "sending side was closed by send_eof()", "send")
        if self._checked_at != context_switches():
            # Before anything is queued. Later sends of a burst, the many, are spared it: no other loop can have come in
            # between. (A flush that is scheduled tells nothing: the loop that it is scheduled in may have stopped.)
            self._endpoint.check_loop()
            self._checked_at = context_switches()
        return not (self._above_high_water or self._share_is_used)

    cdef Status _refuse(self) except Status.ERROR:
        self.loss_raised = True
        raise self._endpoint.refusal()

    # ---- Leaving ----

    cdef Status _push(self) except Status.ERROR:
        # Decides when what has just been queued leaves.
        if self._queue.length >= GATHER_LIMIT or self.pending() >= self._high:
            self.flush(False)
            if self.pending() >= self._high:
                self._above_high_water = True
        elif not self._flush_scheduled and not self._transport_full:
            if self._fresh or coarse_monotonic() - self._last_write >= QUIET or not self._call_at_turn_end():
                self._fresh = False
                self.flush(False)
        if self.bytes_sent - self._sent_before_turn >= FAIR_SHARE and not self._transport_full:
            if self._call_at_turn_end():
                self._share_is_used = True
        if self._endpoint.send_error is not None:
            self._start_sending()
        return Status.OK

    cdef bint _call_at_turn_end(self) except -1:
        # Whether it will be called: not where there is no memory for that.
        if not self._flush_scheduled:
            try:
                self._endpoint.loop.call_soon(self._turn_ended)
            except MemoryError:
                return False
            self._flush_scheduled = True
        return True

    def _turn_ended(self):
        self._flush_scheduled = False
        self._fresh = True
        self._sent_before_turn = self.bytes_sent
        self._share_is_used = False
        try:
            self.flush(True)
        except MemoryError:
            # The connection has ended, which whoever uses it is told.
            pass

    cdef Status flush(self, bint wake_now) except Status.ERROR:
        # Gets rid of all that can be got rid of now. What fails ends the connection, see `send_error`.
        if (
            self._transport_full
            or self._writing
            or self._endpoint.state > State.CLOSING
            or self._endpoint.loss is not None
            # A child process has a copy of the queue, and the same socket.
            or self._endpoint.is_forked()
        ):
            return Status.OK
        try:
            if not self._queue.length or self._write():
                self._progressed(wake_now)
        except BaseException as error:
            # Nobody knows what has left, or who has been told.
            if self._endpoint.send_error is None:
                self._stop(error)
            self._endpoint.break_off(error)
            if isinstance(error, MemoryError) or not isinstance(error, Exception):
                raise
        return Status.OK

    cdef bint _write(self) except -1:
        # False if the transport has failed. That is told by connection_lost.
        cdef int error

        self._last_write = self._endpoint.last_activity = coarse_monotonic()
        if self._fd >= 0:
            error = self._queue.send_to(self._fd)
            if error:
                self._break_off(error)
        # A transport's code, and a collection of garbage at any allocation, may run code that sends: it does not overtake.
        self._writing = True
        try:
            while self._queue.length and not self._transport_full:
                piece = self._queue.take_front()
                self._handed += len(piece)
                self._endpoint.transport.write(piece)
                if self._endpoint.transport.is_closing():
                    # What it was given may be gone, so it still counts.
                    return False
                if not self._transport_full:
                    if self._fd >= 0 and self._endpoint.transport.get_write_buffer_size():
                        # Its pause_writing() failed, which both loops only report; the next bytes would overtake these.
                        raise MemoryError("no memory to wait for the transport")
                    self._handed = 0
        finally:
            self._writing = False
        return True

    cdef Status _break_off(self, int error) except Status.ERROR:
        # Nothing can be sent any more. The transport is not told: it would close, and what the peer sent before it
        # went (the reason, often) could not be received any more. The loop will find the end of the stream by itself.
        self._stop(OSError(error, os.strerror(error)))
        if self._endpoint.undelivered:
            # Not every errno means that the connection is gone, ENOBUFS for one.
            self._endpoint.reset_on_close()
        if self._endpoint.on_send_error is not None:
            self._endpoint.loop.call_soon(self._endpoint.on_send_error)
        return Status.OK

    cdef Status _stop(self, object error) except Status.ERROR:
        self._endpoint.send_error = error
        self._endpoint.undelivered = self.pending()
        self._queue.clear()
        return Status.OK

    cdef void transport_is_full(self) noexcept:
        self._transport_full = True

    cdef Status transport_is_empty(self) except Status.ERROR:
        # Inside resume_writing no task may run, and nothing be written or closed: when it returns, both loops look
        # whether the transport is closing, and would report connection_lost twice (selector_events._write_ready).
        self._transport_full = False
        self._handed = 0
        # Nobody comes here again where that fails, and here nothing can be closed either: so it is tried twice.
        if not self._call_at_turn_end() and not self._call_at_turn_end():
            raise MemoryError("no memory to go on with sending")
        return Status.OK

    cdef void data_arrived(self) noexcept:
        self._fresh = True

    cdef Status _progressed(self, bint wake_now) except Status.ERROR:
        # The queue has become shorter: tells everybody whom that concerns.
        if self._endpoint.send_error is not None:
            self.end(wake_now)
        if self._above_high_water and self.pending() <= self._low:
            self._above_high_water = False
        # Each task that is woken may send again, so everything is looked at anew in each round.
        while self._flushing and (<Waiter>self._flushing[0]).target <= self.bytes_sent - self.pending():
            self._wake_first(self._flushing, None, wake_now)
        while self._held_back and not (self._above_high_water or self._share_is_used):
            self._resuming = self._held_back[0]
            self._wake_first(self._held_back, None, wake_now)
        if not self.pending() and (self._eof_accepted or self._endpoint.state == State.CLOSING):
            self._endpoint.loop.call_soon(self._finish)
        return Status.OK

    cdef Status _wake_first(self, object waiters, object error, bint wake_now) except Status.ERROR:
        # Wakes the first, or fails it with `error`. If that is what fails, it stays.
        cdef Waiter waiter = waiters.popleft()

        try:
            if error is None:
                waiter.wake(wake_now)
            else:
                waiter.fail(error, wake_now)
        except BaseException:
            waiters.appendleft(waiter)
            raise
        return Status.OK

    def _finish(self):
        # All that was accepted has left: so may the end of the stream, or the connection.
        if self._endpoint.state > State.CLOSING or self.pending():
            return
        if self._endpoint.state == State.CLOSING:
            # Once only: a second close() makes asyncio's TLS transport forget what abort() needs.
            if not self._endpoint.transport.is_closing():
                self._endpoint.transport.close()
        elif not self._eof_passed_on:
            self._eof_passed_on = True
            # On a connection that has been reset meanwhile; the receiving side will tell.
            with contextlib.suppress(OSError):
                self._endpoint.transport.write_eof()

    # ---- Waiting ----

    def wait(self, timeout, Waiter previous):
        """An awaitable that ends when another `send` is worth trying; the deadline is that of the `previous` one."""
        cdef Waiter waiter = self._endpoint.new_waiter(timeout, "send", previous)

        if self._held_back is None:
            self._held_back = deque()
        _append(self._held_back, waiter)
        return waiter

    def start_flush(self, timeout):
        """None if all that was accepted is with the kernel, else an awaitable that ends when it is."""
        cdef Waiter waiter

        self._endpoint.check_user()
        if self._endpoint.state != State.OPEN or self._endpoint.send_error is not None:
            self._refuse()
        self._endpoint.check_loop()
        self.flush(False)
        if self._endpoint.send_error is not None:
            self._refuse()
        if not self.pending():
            return None
        waiter = self._endpoint.new_waiter(timeout, "flush", None)
        waiter.target = self.bytes_sent
        if self._flushing is None:
            self._flushing = deque()
        _append(self._flushing, waiter)
        return waiter

    cdef bint is_due(self, double now) except -1:
        cdef Waiter waiter

        for waiters in (self._held_back, self._flushing):
            for waiter in waiters or ():
                if self._endpoint.is_due(waiter, now):
                    return True
        return False

    cdef double expire(self, double now) except -1:
        # Fails who is due, drops who is done, and returns the earliest deadline of the others, or 0.
        cdef double earliest = 0.0
        cdef double deadline
        cdef Waiter waiter

        self._held_back = _without_done(self._held_back)
        self._flushing = _without_done(self._flushing)
        # Of copies: the tasks that run now may change both.
        for waiters in (list(self._held_back or ()), list(self._flushing or ())):
            for waiter in waiters:
                deadline = self._endpoint.expire(waiter, now)
                if deadline and (not earliest or deadline < earliest):
                    earliest = deadline
        return earliest

    # ---- Ending ----

    cdef Status open(self, int fd) except Status.ERROR:
        self._fd = fd
        return Status.OK

    cdef Status hold(self) except Status.ERROR:
        # TLS begins: what is accepted from now on waits until it is there, see transport_is_empty().
        self._start_sending()
        self._fd = -1
        self._transport_full = True
        return Status.OK

    cdef Status peer_ended(self, object error) except Status.ERROR:
        # The end of a TLS stream ends both directions: the transport would drop what it is given, and say nothing.
        if self._endpoint.send_error is None:
            self._stop(error)
            if self._endpoint.undelivered:
                self._endpoint.reset_on_close()
            self.end(False)
        return Status.OK

    cdef Status close_when_empty(self) except Status.ERROR:
        # disconnect(): what was accepted leaves, then the transport closes; who is held back has sent nothing.
        while self._held_back:
            self._wake_first(self._held_back, None, False)
        self.flush(False)
        return Status.OK

    cdef Status end(self, bint wake_now) except Status.ERROR:
        # Nothing more will leave. Who is held back finds out by trying again, who flushes is told.
        self._fd = -1
        if self._endpoint.send_error is None:
            self._endpoint.undelivered = max(self.pending(), self._endpoint.undelivered)
        self._queue.clear()
        self._handed = 0
        while self._flushing:
            error = None
            if not (<Waiter>self._flushing[0]).is_done():
                self.loss_raised = True
                error = self._endpoint.refusal()
            self._wake_first(self._flushing, error, wake_now)
        while self._held_back:
            self._wake_first(self._held_back, None, wake_now)
        return Status.OK
