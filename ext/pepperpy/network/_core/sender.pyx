"""The sending side of a connection: what is accepted, when it leaves, who is held back.

The way of a byte. `send()` puts it into the queue and decides when the queue leaves:

- The first send after data arrived, or after a quiet moment, leaves at once. So an answer never waits.
- Further sends in the same turn of the loop are gathered. They leave as one write when the turn ends, or when 64 KiB
  have come together. A message costs 62 ns then, instead of 5 us for a system call of its own (measured).

To leave means: into the socket, by one system call from the queue's own memory. What the kernel does not take goes to
the transport, one piece at a time, because the loop watches the socket for that. While the transport holds anything,
nothing else is written, so bytes cannot overtake each other. Its high-water mark is 0, so `pause_writing` and
`resume_writing` tell exactly whether it holds anything. Transports without a plain socket (TLS, the proactor's) get
everything in this way.

A send waits *before* it queues, and then queues all or nothing. So a send that is cancelled has queued nothing.
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
    /* Bytes. A queue of this size leaves before the turn ends. A system call costs little beside so many bytes, and the
       buffer of a socket takes them at once. */
    #define GATHER_LIMIT (64 * 1024)
    /* Seconds without a write after which a send leaves at once. The coarse clock cannot tell less than one of its ticks, 1
       to 10 ms. In a turn that lasts longer than that, waiting for its end delays more than it saves. */
    #define QUIET 0.001
    /* Bytes that are accepted in one turn of the loop, at most. A peer that keeps up never makes a sender wait, so without
       this limit timers, cancellations and other tasks would never run. It is about 1 ms of sending; a turn of the loop
       costs 1 % of that (measured). */
    #define FAIR_SHARE (4 * 1024 * 1024)
    /* Bytes that a transport gets at once, at most. asyncio copies them before Python 3.12, and encrypts them in one go. What
       it gets of a plain connection only wakes us up when there is room: the rest leaves without it. */
    #define LARGEST_PIECE (256 * 1024)
    """
    const Py_ssize_t GATHER_LIMIT
    const double QUIET
    const Py_ssize_t FAIR_SHARE
    const Py_ssize_t LARGEST_PIECE


cdef bytes _immutable(object data):
    # The present content of any bytes-like object. The caller may change the object later.
    if type(data) is bytes:
        return <bytes>data
    if not PyObject_CheckBuffer(data):
        hint = ": send data.encode()" if isinstance(data, str) else ""
        raise TypeError(f"data must be bytes-like, not {type(data).__name__}{hint}")
    return <bytes>PyBytes_FromObject(data)


cdef Status _append(object waiters, Waiter waiter) except Status.ERROR:
    # Drops waiters that were given up: with a peer that takes nothing there could be more and more of them.
    while waiters and (<Waiter>waiters[0]).is_done():
        waiters.popleft()
    waiters.append(waiter)
    return Status.OK


cdef object _without_done(object waiters):
    if not waiters:
        return waiters
    kept = deque()
    for waiter in waiters:
        if not (<Waiter>waiter).is_done():
            kept.append(waiter)
    return kept


@cython.final
cdef class Sender:
    def __cinit__(self, Endpoint endpoint not None):
        self._endpoint = endpoint
        self._queue = SendQueue()
        self._fd = -1
        self._fresh = True
        self._checked_at = -1
        limits = endpoint.config.buffers
        self._high = limits.send_high
        self._low = limits.send_low

    @property
    def bytes_queued(self):
        return self.pending()

    @property
    def unfinished(self):
        """Whether a send is held back, which will go on to send; or the sending side was ended."""
        return self.is_unfinished()

    cdef bint is_unfinished(self) except -1:
        cdef Waiter waiter

        # Tasks run in the order in which they are woken, so this one is the last.
        if self._resuming is not None and not self._resuming.left:
            return True
        if self._held_back:
            for waiter in self._held_back:
                if not waiter.is_done():
                    return True
        return self._eof_accepted

    # ---- Accepting ----

    cpdef bint send(self, object data) except -1:
        """Accept `data` whole, or return False while the queue is above its high-water mark."""
        cdef bytes unchanging = _immutable(data)

        if not self._check_sending():
            return False
        self._queue.append(unchanging)
        self.bytes_sent += PyBytes_GET_SIZE(unchanging)
        self.sends += 1
        self._push()
        if self._endpoint.tap is not None:
            # Last: what a signal handler raises in it must not keep back what was accepted.
            self._endpoint.tap(">", unchanging, PyBytes_GET_SIZE(unchanging))
        return True

    def immutable(self, buffers):
        """A list of `bytes` with what is in `buffers` now."""
        cdef list pieces = []
        cdef bytes piece

        if isinstance(buffers, (bytes, bytearray, memoryview, str)):
            raise TypeError(f"buffers must be an iterable of bytes-like objects, not one {type(buffers).__name__}")
        for data in buffers:
            piece = _immutable(data)
            pieces.append(piece)
        return pieces

    def send_many(self, list messages):
        """Accept all of the `bytes` in `messages`, or none; see `send`."""
        cdef Py_ssize_t before

        if not self._check_sending():
            return False
        before = self._queue.length
        self._queue.append_all(messages)
        self.bytes_sent += self._queue.length - before
        self.sends += 1
        self._push()
        if self._endpoint.tap is not None:
            for message in messages:
                self._endpoint.tap(">", message, len(message))
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
        self._check_sending()
        self._eof_accepted = True
        self.flush(False)
        if self._endpoint.send_error is not None:
            self._refuse()

    cdef bint _check_sending(self) except -1:
        # Whether something may be queued now; if not, the sender waits.
        self._endpoint.check_user()
        if self._endpoint.state != State.OPEN or self._endpoint.send_error is not None:
            self._refuse()
        if self._eof_accepted:
            raise self._endpoint.error(ClosedError, "sending side was closed by send_eof()", "send")
        if self._checked_at != context_switches():
            # Only the first send of a burst pays for this check: no other loop can have come since. (That a flush is
            # scheduled does not tell the same: its loop may have stopped.)
            self._endpoint.check_loop()
            self._checked_at = context_switches()
        return not self.holds_back()

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
            self._check_sending()
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
            # flush() has ended the connection, and the next call raises that.
            pass

    cdef Status flush(self, bint wake_now) except Status.ERROR:
        # Writes what can be written now. An error ends the connection; a MemoryError is raised as well.
        if (
            self._transport_full
            or self._writing
            or self._endpoint.state > State.CLOSING
            or self._endpoint.loss is not None
            # The child of a fork has a copy of the queue, and the same socket.
            or self._endpoint.is_forked()
        ):
            return Status.OK
        try:
            if not self._queue.length or self._write():
                self._wake_waiters(wake_now)
        except BaseException as error:
            # It is not known what has left, and who has been woken.
            if self._endpoint.send_error is None:
                self._stop(error)
            self._endpoint.break_off(error)
            if isinstance(error, MemoryError) or not isinstance(error, Exception):
                raise
        return Status.OK

    cdef bint _write(self) except -1:
        # False if the transport has failed; it calls connection_lost() later.
        cdef int error

        self._last_write = self._endpoint.last_activity = coarse_monotonic()
        if self._fd >= 0:
            error = self._queue.send_to(self._fd)
            if error:
                self._break_off(error)
        # The transport, or a collection of garbage at any allocation, may run code that sends. Its bytes wait in the queue.
        self._writing = True
        try:
            while self._queue.length and not self._transport_full:
                piece = self._queue.take_front(LARGEST_PIECE)
                self._handed += len(piece)
                self._endpoint.transport.write(piece)
                if self._endpoint.transport.is_closing():
                    # It may have dropped the piece, so that still counts as pending.
                    return False
                if not self._transport_full:
                    if self._fd >= 0 and self._endpoint.transport.get_write_buffer_size():
                        # It holds bytes without having called pause_writing(), which has failed: both loops only report
                        # that. The next bytes would overtake these.
                        raise MemoryError("no memory to wait for the transport")
                    self._handed = 0
        finally:
            self._writing = False
        return True

    cdef Status _break_off(self, int error) except Status.ERROR:
        # Nothing can be sent any more. The transport is not told, because it would close, and what the peer sent before its end
        # (often the reason) could not be received. The loop will find the end of the stream.
        self._stop(OSError(error, os.strerror(error)))
        if self._endpoint.undelivered:
            # With some errors the connection is still there: ENOBUFS, for example.
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
        # Inside of resume_writing() no task may run, and nothing may be written or closed. When it returns, both loops check
        # whether the transport is closing, and would call connection_lost() twice (selector_events._write_ready).
        self._transport_full = False
        self._handed = 0
        # Tried twice for lack of memory: nobody calls this again, and the connection cannot be closed in here.
        if not self._call_at_turn_end() and not self._call_at_turn_end():
            raise MemoryError("no memory to go on with sending")
        return Status.OK

    cdef void data_arrived(self) noexcept:
        self._fresh = True

    cdef Status _wake_waiters(self, bint wake_now) except Status.ERROR:
        # Bytes have left, or sending has failed. Wakes whom that concerns.
        if self._endpoint.send_error is not None:
            self.end(wake_now)
        if self._above_high_water and self.pending() <= self._low:
            self._above_high_water = False
        # A task that is woken may send again, so each condition is looked up anew.
        while self._flushing and (<Waiter>self._flushing[0]).target <= self.bytes_sent - self.pending():
            self._wake_first(self._flushing, None, wake_now)
        while self._held_back and not self.holds_back():
            self._resuming = self._held_back[0]
            self._wake_first(self._held_back, None, wake_now)
        if not self.pending() and (self._eof_accepted or self._endpoint.state == State.CLOSING):
            self._endpoint.loop.call_soon(self._finish)
        return Status.OK

    cdef Status _wake_first(self, object waiters, object error, bint wake_now) except Status.ERROR:
        # Wakes the first waiter, or fails it with `error`. If this raises, the waiter stays in its place.
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
        # All that was accepted has left. Now the end of the stream may follow, or the connection may close.
        if self._endpoint.state > State.CLOSING or self.pending():
            return
        if self._endpoint.state == State.CLOSING:
            # Called once only: by a second close() asyncio's TLS transport loses what its abort() needs.
            if not self._endpoint.transport.is_closing():
                self._endpoint.close_transport()
        elif not self._eof_passed_on:
            self._eof_passed_on = True
            # The connection may have been reset. The receiving side tells of that.
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
        # Fails the waits that are due, drops those that are over, and returns the earliest deadline of the others, or 0.
        cdef double earliest = 0.0
        cdef double deadline
        cdef Waiter waiter

        self._held_back = _without_done(self._held_back)
        self._flushing = _without_done(self._flushing)
        # Copies, because the tasks that run now may change both.
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

    cdef Status hold_for_tls(self) except Status.ERROR:
        # TLS begins. What is accepted from now on waits in the queue until transport_is_empty() is called.
        self._check_sending()
        self._fd = -1
        self._transport_full = True
        return Status.OK

    cdef Status peer_ended(self, object error) except Status.ERROR:
        # The end of a TLS stream ends both directions: the transport drops what is sent after it, and does not say so.
        if self._endpoint.send_error is None:
            self._stop(error)
            if self._endpoint.undelivered:
                self._endpoint.reset_on_close()
            self.end(False)
        return Status.OK

    cdef Status close_when_empty(self, bint now) except Status.ERROR:
        # For disconnect(): what was accepted leaves, then the transport closes; with `now` in this turn of the loop, if all has
        # left. Senders that are held back raise.
        while self._held_back:
            self._wake_first(self._held_back, None, False)
        if now and not self.pending() and not self._writing:
            self._finish()
        else:
            self.flush(False)
        return Status.OK

    cdef Status end(self, bint wake_now) except Status.ERROR:
        # Nothing more will leave. Flushes raise the reason. Senders that are held back try again, and raise it then.
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
