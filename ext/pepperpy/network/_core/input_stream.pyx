"""What arrives on one connection: the unread bytes, the one task that waits for them, flow control.

The protocol puts bytes in (`next_buffer`, `received`). Readers take them out: `Receiver` raw bytes, `FrameReader`
messages. Every receive has two halves. The take is synchronous: it returns what is on hand, says that waiting may help,
or raises. The wait gives an awaitable that ends when another take is worth it: enough bytes, the end of the stream, a
loss, a close. The caller repeats the two. So bytes change owner in one place, the take, which runs in the task that gets
them; and a wait that is cancelled has taken nothing.

One task waits at a time: every other reader gets `BusyError` meanwhile. A reader that holds the stream keeps the others
away between its waits, too.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.time cimport monotonic
from libc.string cimport memmove

from pepperpy.network._core.destination cimport Destination
from pepperpy.network._core.endpoint cimport Endpoint, State
from pepperpy.network._core.receive_buffer cimport ReceiveBuffer, Searcher, scratch_of
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter

from pepperpy.network.checks import Default
from pepperpy.network.errors import BusyError, IncompleteReadError, NetworkTimeoutError

cdef extern from "platform.h":
    double coarse_monotonic() noexcept

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

cdef extern from *:
    """
    /* Bytes of one read that a wire log gets: more than it shows of the longest line, whatever the encoding. */
    #define MOST_SHOWN 2048
    """
    const Py_ssize_t MOST_SHOWN

cdef object _DEFAULT_TIMEOUT = Default.TIMEOUT


cdef inline double _earlier(double one, double other) noexcept:
    # Of two times, where 0 is never.
    return min(one, other) if one and other else max(one, other)


cdef class InputStream:
    def __cinit__(self, Endpoint endpoint not None):
        self.endpoint = endpoint
        self.buffer = ReceiveBuffer()
        limits = endpoint.config.buffers
        self._high = limits.receive_high
        self._low = limits.receive_low
        self._idle = endpoint.config.idle_timeout or 0.0

    @property
    def bytes_buffered(self):
        return self.unread()

    @property
    def at_eof(self):
        """Whether a receive would return the end of the stream."""
        return self.is_at_eof()

    @property
    def unfinished(self):
        """Whether a receive waits, or has waited and was given up; then its bytes may still come."""
        return self._waiter is not None

    @property
    def is_busy(self):
        """Whether a task waits, or a reader holds the stream, so that any other gets `BusyError`."""
        return self._holder is not None or (self._waiter is not None and not self._waiter.left)

    @property
    def reading_paused(self):
        return self.endpoint.reading_paused

    # ---- What the protocol calls ----

    cdef Status open(self) except Status.ERROR:
        self._scratch = scratch_of(self.endpoint.loop)
        self._area = self._scratch.view
        self._least_direct = 1
        return Status.OK

    cdef Status start_tls(self) except Status.ERROR:
        # A TLS transport reads from here on. Each read has room for all that it can have decrypted. What did not fit would stay
        # in the transport, and be lost if the end of the stream comes next: uvloop and aiofastnet drop it, asyncio does not
        # read it.
        self._area = self._scratch.tls_view
        self._least_direct = len(self._area)
        return Status.OK

    cdef object next_buffer(self):
        # Where the next read goes: 1 byte or more. Nothing here may touch the transport: after pause_reading() or close()
        # inside of get_buffer(), uvloop calls a NULL read_cb (measured: it crashes).
        if self._scratch is None:
            raise RuntimeError("get_buffer() before connection_made()")
        if self._scratch.borrower is not None:
            self._scratch.settle_borrower()
        if self._destination is not None and self._destination.room() >= self._least_direct:
            self._offered = <PyObject*>self._destination
            return self._destination.view()
        self._offered = NULL
        return self._area

    cdef Status received(self, Py_ssize_t n) except Status.ERROR:
        # `n` bytes have landed in what next_buffer() gave.
        if self.endpoint.tap is not None:
            self._show(n)
        self.bytes_received += n
        self._last_received = self.endpoint.last_activity = coarse_monotonic()
        if self._offered is not NULL or self._destination is not None:
            n = self._fill_destination(n)
        if n and self.endpoint.state == State.OPEN:
            self.buffer.accept(self._scratch, n)
        try:
            if self._waiter is not None and not self._waiter.is_done() and self._is_satisfied():
                # After this anything may have changed: the task has run, and may wait again or have closed the connection.
                self._waiter.wake(True)
            elif self.on_unasked is not None and (self._waiter is None or self._waiter.is_done()):
                self.on_unasked()
        finally:
            self.buffer.settle()
        if (
            self.buffer.length >= self._high
            and (self._waiter is None or self._waiter.is_done())
            and self.endpoint.state == State.OPEN
        ):
            # Again each time: a TLS transport resumes the one below when it sees fit.
            self.endpoint.pause_reading()
        return Status.OK

    cdef Status _show(self, Py_ssize_t n) except Status.ERROR:
        # For the wire log, the first of the bytes that have just landed.
        area = self._area
        if self._offered is not NULL:
            if self._offered != <PyObject*>self._destination:
                return Status.OK
            area = self._destination.view()
        self.endpoint.tap("<", bytes(area[:min(n, MOST_SHOWN)]), n)
        return Status.OK

    cdef Py_ssize_t _fill_destination(self, Py_ssize_t n) except -1:
        # `n` bytes have landed in the destination, if that was offered, or in the scratch; then the destination gets a copy of
        # what it lacks. Returns how many bytes in the scratch are left for the buffer.
        cdef Destination destination = self._destination
        cdef Py_ssize_t part

        if self._offered is not NULL:
            if self._offered != <PyObject*>destination:
                if self.endpoint.state != State.OPEN:
                    return 0
                # Between get_buffer and buffer_updated, code of a signal handler or a `__del__` has received.
                raise RuntimeError("the receive that a read was for has ended during that read, and its bytes are gone")
            destination.filled += n
            n = 0
        elif destination.is_whole():
            return n
        else:
            part = min(n, destination.size - destination.filled)
            self._destination = destination = destination.with_room(part)
            destination.append(self._scratch.area, part)
            n -= part
            memmove(self._scratch.area, self._scratch.area + part, n)
        if self._waiter is None or self._waiter.is_done():
            # Its reader has given up.
            self.give_back_destination()
        return n

    cdef Status end(self, bint wake_now) except Status.ERROR:
        # No more bytes will come: the end of the stream, a loss or a close. The reader's next take tells which.
        if self._waiter is not None:
            self._waiter.wake(wake_now)
        return Status.OK

    cdef Py_ssize_t unread(self) noexcept:
        if self._destination is None:
            return self.buffer.length
        return self.buffer.length + self._destination.unread()

    cdef bint is_at_eof(self) noexcept:
        return (
            self.eof
            and not self.unread()
            and self.endpoint.state != State.CLOSING
            and self.endpoint.state != State.CLOSED
        )

    cdef Status tell_at_eof(self) except Status.ERROR:
        # To be called whenever the last unread byte may have been taken, and when the stream ends.
        if self.on_at_eof is None or not self.is_at_eof():
            return Status.OK
        on_at_eof, self.on_at_eof = self.on_at_eof, None
        try:
            on_at_eof()
        except BaseException as error:
            # Not raised: the caller may hold bytes that it has just taken, which would be lost.
            self.endpoint.break_off(error)
        return Status.OK

    cdef Status discard_all(self) except Status.ERROR:
        self._destination = None
        self.buffer.discard(self.buffer.length)
        if self.endpoint.reading_paused:
            # Because closing a socket with unread bytes resets the connection (RFC 1122, section 4.2.2.13).
            self.endpoint.resume_reading()
        return Status.OK

    cdef Status read_to_the_end(self) except Status.ERROR:
        # Sending has failed, so the peer's end is what matters. What may still come is bounded by the buffers of the kernel.
        self._high = PY_SSIZE_T_MAX
        if self.endpoint.reading_paused:
            self.endpoint.resume_reading()
        return Status.OK

    cdef bint is_due(self, double now) noexcept:
        cdef double silent_at = self._silent_at()

        return self.endpoint.is_due(self._waiter, now) or (silent_at != 0 and silent_at <= now)

    cdef double expire(self, double now) except -1:
        cdef double due
        cdef double look_at = self._look_at
        cdef double silent_at

        if look_at and look_at <= now:
            self._look_at = look_at = 0
            # From now on any byte ends the wait.
            self._wanted_count = self._looked_at + 1
            if self._waiter is not None and not self._waiter.is_done() and self._is_satisfied():
                self._waiter.wake(True)
                return 0.0
        due = self.endpoint.expire(self._waiter, now)
        silent_at = self._silent_at()
        if silent_at and silent_at <= now:
            self._waiter.fail(
                self.endpoint.error(
                    NetworkTimeoutError,
                    f"receive timed out: no byte came for idle_timeout={self._idle:g} s",
                    "receive",
                    {"elapsed": round(now - self._listens_from, 3), "idle_timeout": self._idle},
                ),
                True,
            )
            return 0.0
        return _earlier(_earlier(due, look_at), silent_at)

    cdef double _silent_at(self) noexcept:
        # When the wait fails if no byte comes; 0: never.
        if not self._idle or self.silence_allowed or self._waiter is None or self._waiter.is_done():
            return 0.0
        return max(self._listens_from, self._last_received) + self._idle

    # ---- For readers, see the .pxd ----

    cdef Status _end_wait(self, Searcher searcher) except Status.ERROR:
        # The reader that waited is back, or was cancelled; otherwise nobody else may read. begin_take() says which destination
        # stays.
        if (self._waiter is not None and not self._waiter.left) or (
            self._holder is not None and self._holder is not searcher
        ):
            raise self.endpoint.error(BusyError, "another task is already receiving; only one at a time can", "receive")
        if self._destination is not None:
            if searcher is None or self._searcher is not searcher or not self._destination.is_whole():
                self.give_back_destination()
        # Last: if there was no memory to give back into, the next receive tries again.
        self._waiter = None
        return Status.OK

    cdef Status give_back_destination(self) except Status.ERROR:
        self._destination.give_back(self.buffer)
        self._destination = None
        return Status.OK

    cdef object end_take(self, object result):
        self.receives += 1
        if self.endpoint.reading_paused and self.buffer.length <= self._low:
            self.endpoint.resume_reading()
        if self.eof:
            self.tell_at_eof()
        return result

    cdef bint check_end(self) except -1:
        if self.eof and self.endpoint.state != State.CLOSING and self.endpoint.state != State.CLOSED:
            if self.buffer.length:
                return True
            self.tell_at_eof()
            return self.meet_end()
        if self.endpoint.state != State.OPEN:
            self.loss_raised = self.endpoint.state == State.LOST
            raise self.endpoint.refusal()
        return False

    cdef Status raise_incomplete(self, object expected, str end="the separator") except Status.ERROR:
        cdef bytes partial = PyBytes_FromStringAndSize(self.buffer.head, self.buffer.length)

        details = {"received": len(partial)}
        if expected is not None:
            details["expected"] = expected
            end = f"{expected} bytes"
        error = self.endpoint.error(
            IncompleteReadError, f"the peer ended the stream after {len(partial)} bytes, before {end}", "receive", details
        )
        error.partial = partial
        self.buffer.discard(min(PyBytes_GET_SIZE(partial), self.buffer.length))
        self.tell_at_eof()
        raise error

    cdef Waiter wait_for(self, Py_ssize_t count, bytes separator, Searcher searcher, object timeout, Waiter previous):
        # All that can fail comes before `_waiter` is set: a waiter that nobody awaits would refuse every other reader.
        cdef Waiter waiter

        if self.limited_elsewhere and timeout is _DEFAULT_TIMEOUT:
            timeout = None
        waiter = self.endpoint.new_waiter(None if self.eof else timeout, "receive", previous)
        if self.eof:
            # Nothing more can come: the wait is one turn of the loop, see check_end().
            self.endpoint.loop.call_soon(self._turn_passed, waiter)
        if self._idle:
            self._listens_from = monotonic()
            self.endpoint.arm_timer(self._listens_from + self._idle, self._listens_from)
        if self.endpoint.reading_paused:
            # The reader may want more than the high-water mark. Its own limit bounds what comes.
            self.endpoint.resume_reading()
        self._wanted_separator = separator
        self._searcher = searcher
        self._wanted_count = count
        self._look_at = 0
        self._waiter = waiter
        return waiter

    cdef Destination new_destination(self, Py_ssize_t size, Py_ssize_t capacity, Py_ssize_t lead, Py_ssize_t copied):
        cdef long long position = self.position()
        cdef Py_ssize_t on_hand = self.buffer.length
        cdef bytes kept = PyBytes_FromStringAndSize(self.buffer.head, lead)
        # Memory becomes resident as it is filled. An absurd size fails here, before anything is taken.
        cdef Destination destination = Destination(size, max(capacity, on_hand - lead + copied))

        destination.lead = kept
        destination.copied = copied
        destination.position = position
        destination.on_hand = on_hand
        return destination

    cdef Waiter fill(self, Destination destination, Searcher searcher, object timeout, Waiter previous):
        cdef Waiter waiter = self.wait_for(destination.size, None, searcher, timeout, previous)

        if self.position() == destination.position and self.buffer.length == destination.on_hand:
            destination.begin(self.buffer)
            self._destination = destination
        else:
            # Since the reader looked, a collection of garbage has run code that took bytes, or let some come. It looks again.
            waiter.wake(False)
        return waiter

    cdef Status look_again_after(self, Waiter waiter, double seconds) except Status.ERROR:
        cdef double now = monotonic()
        cdef double then = now + seconds

        self._looked_at = self.buffer.length
        if not waiter.deadline or then < waiter.deadline:
            try:
                self.endpoint.arm_timer(then, now)
                self._look_at = then
                return Status.OK
            except MemoryError:
                pass
        self._wanted_count = self._looked_at + 1
        return Status.OK

    def _turn_passed(self, Waiter waiter not None):
        waiter.wake(True)

    cdef bint _is_satisfied(self) noexcept:
        if self._destination is not None:
            return self._destination.is_whole()
        if self._wanted_separator is None:
            if self.buffer.length >= self._wanted_count and self._searcher is not None:
                self._wanted_count = self._searcher.bytes_wanted(self.buffer)
            return self.buffer.length >= self._wanted_count
        return self.buffer.find_end(self._wanted_separator) or self.buffer.length >= self._wanted_count
