"""The receiving side of a connection: what a task takes, and what it waits for.

Every receive has two halves. `take_*` is synchronous: it returns what is on hand, None where waiting may help, and
raises where it cannot. `wait_*` gives an awaitable that ends when another look is worth it: enough bytes, the end
of the stream, a loss, a close. The caller loops over the two, so there is one place where bytes change owner: the
take, in the task that keeps them. A wait that is cancelled has taken nothing.

One task at a time: a connection that somebody waits on refuses every other reader.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit, PyContext_New
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject
from cpython.time cimport monotonic
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcpy, memmove

from pepperpy.network._core.endpoint cimport Endpoint, State
from pepperpy.network._core.receive_buffer cimport OWN_MEMORY_FROM, ReceiveBuffer, Searcher, scratch_of
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter

from pepperpy.network.checks import Default
from pepperpy.network.errors import BusyError, IncompleteReadError, MessageTooLargeError

cdef extern from "platform.h":
    double coarse_monotonic() noexcept

cdef extern from *:
    """
    /* As _PyBytes_Resize(), which destroys the object where there is no memory: here it stays as it is. Only for an object
       that nobody else has seen, so that its hash is not computed. */
    static int resize_unshared_bytes(PyObject** object, Py_ssize_t size)
    {
        PyObject* resized = (PyObject*)PyObject_Realloc(*object, (size_t)(PyBytes_Type.tp_basicsize + size));
        if (resized == NULL)
            return 0;
        Py_SET_SIZE((PyVarObject*)resized, size);
        PyBytes_AS_STRING(resized)[size] = 0;
        *object = resized;
        return 1;
    }
    """
    bint resize_unshared_bytes(PyObject** object, Py_ssize_t size) noexcept

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    bint PyIndex_Check(object value)
    int PyGC_Disable() noexcept
    int PyGC_Enable() noexcept

cdef object _DEFAULT_TIMEOUT = Default.TIMEOUT

cdef bytes NEWLINE = b"\n"
cdef char* UNSIGNED_BYTE = "B"   # format of the struct module


cdef Py_ssize_t _as_size(object value, str name, Py_ssize_t minimum) except -1:
    cdef Py_ssize_t size

    if not PyIndex_Check(value):
        raise TypeError(f"{name} must be an int, not {value!r}")
    try:
        size = value
    except OverflowError:
        raise ValueError(f"{name} must be from {minimum} to {PY_SSIZE_T_MAX}, not {value}") from None
    if size < minimum:
        raise ValueError(f"{name} must be {minimum} or more, not {size}")
    return size


@cython.final
cdef class Destination:
    def __cinit__(self, Py_ssize_t size, Py_ssize_t capacity):
        # One at least: the empty bytes object is shared, and cannot grow.
        self.capacity = min(size, max(capacity, 1))
        try:
            self.result = PyBytes_FromStringAndSize(NULL, self.capacity)
        except OverflowError:
            raise MemoryError(f"no memory for {size} bytes") from None
        self._start = PyBytes_AS_STRING(self.result)
        self.lead = b""
        self.size = size

    cdef Status begin(self, ReceiveBuffer buffer) noexcept:
        # Takes what there is of it in `buffer`.
        cdef Py_ssize_t n

        memcpy(self._start, PyBytes_AS_STRING(self.lead), self.copied)
        buffer.discard(PyBytes_GET_SIZE(self.lead))
        n = min(self.size - self.copied, buffer.length)
        buffer.move_to(self._start + self.copied, n)
        self.filled = self.copied + n
        return Status.OK

    cdef Py_ssize_t room(self) noexcept:
        # For the next read: it grows here if that is short of what a read may bring.
        if self.capacity < self.size and self.capacity - self.filled < OWN_MEMORY_FROM:
            self.grow(self.filled)
        return self.capacity - self.filled

    cdef bint grow(self, Py_ssize_t arrived) noexcept:
        # To twice of what has arrived, at most; whether it has grown. Where the memory cannot stay in its place, the kernel
        # moves its pages (mremap) instead of their being copied, and they are not made anew: a message of 1 MiB that went
        # through storage which doubles came at 0.57 GB/s because of that, one that grows at 3.5 (measured, glibc 2.36).
        cdef Py_ssize_t capacity = min(self.size, 2 * arrived)
        cdef PyObject* result
        cdef bint grown

        if self._exports or capacity <= self.capacity:
            return False
        # The one reference is held by hand while the object moves.
        result = <PyObject*>self.result
        Py_INCREF(<object>result)
        self.result = None
        grown = resize_unshared_bytes(&result, capacity)
        self.result = <bytes>result
        Py_DECREF(<object>result)
        if grown:
            self._start = PyBytes_AS_STRING(self.result)
            self.capacity = capacity
        return grown

    def __getbuffer__(self, Py_buffer* view, int flags):
        # The rest that is still to be filled. By hand, because PyBuffer_FillInfo in a Cython class leaks a
        # reference to None with each export (cython#3023). The view holds this object, which holds the memory:
        # a loop that keeps its view for longer writes nowhere else.
        self._left = self.capacity - self.filled
        self._exports += 1
        view.buf = self._start + self.filled
        view.obj = self
        view.len = self._left
        view.itemsize = 1
        view.readonly = False
        view.ndim = 1
        view.format = UNSIGNED_BYTE if flags & PyBUF_FORMAT else NULL
        view.shape = &self._left if flags & PyBUF_ND else NULL
        view.strides = &view.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL

    def __releasebuffer__(self, Py_buffer* view):
        self._exports -= 1


@cython.final
cdef class Receiver:
    def __cinit__(self, Endpoint endpoint not None):
        self.endpoint = endpoint
        self.buffer = ReceiveBuffer()
        self._high = endpoint.config.buffers.receive_high
        self._low = endpoint.config.buffers.receive_low
        self._max_message_size = endpoint.config.max_message_size

    @property
    def bytes_buffered(self):
        return self.unread()

    @property
    def at_eof(self):
        """Whether a receive would return the end of the stream."""
        return self.is_at_eof()

    @property
    def unfinished(self):
        """Whether a receive waits, or the last one that waited was given up: its bytes may be still to come."""
        return self._waiter is not None

    @property
    def is_busy(self):
        """Whether a task waits here, which any other would get `BusyError` for."""
        return self._waiter is not None and not self._waiter.left

    @property
    def reading_paused(self):
        return self._reading_paused

    # ---- What the protocol calls ----

    cdef Status open(self) except Status.ERROR:
        self._scratch = scratch_of(self.endpoint.loop)
        self._area = self._scratch.view
        self._least_direct = 1
        return Status.OK

    cdef Status start_tls(self) except Status.ERROR:
        # From here on reads are those of a TLS transport. It gets room for all that it can have decrypted: what does not
        # fit is left inside it, and is lost when the end of the stream comes next (uvloop and aiofastnet throw it
        # away, asyncio stops reading).
        self._area = self._scratch.tls_view
        self._least_direct = len(self._area)
        return Status.OK

    cdef object next_buffer(self):
        # Where the next read goes: never empty, and nothing here touches the transport, which uvloop would answer
        # with a crash (it calls a NULL read_cb after pause_reading or close inside get_buffer; measured).
        if self._scratch is None:
            raise RuntimeError("get_buffer() before connection_made()")
        if self._scratch.borrower is not None:
            # Only a re-entrant loop reads again while a reader still looks at the last read.
            try:
                self._scratch.borrower.settle()
            except MemoryError:
                # Its connection's affair, which meets it when it settles itself.
                pass
        if self._destination is not None and self._destination.room() >= self._least_direct:
            self._offered = <PyObject*>self._destination
            return _view_of(self._destination)
        self._offered = NULL
        return self._area

    cdef Status received(self, Py_ssize_t n) except Status.ERROR:
        # `n` bytes have landed in what next_buffer() gave.
        self.bytes_received += n
        self.endpoint.last_activity = coarse_monotonic()
        if self._offered is not NULL and self._offered != <PyObject*>self._destination and self.endpoint.state == State.OPEN:
            # The end of an object, or a signal handler, ran in between and received by hand.
            raise RuntimeError("the receive that a read was for has ended during that read, and its bytes are gone")
        if self._missing():
            n = self._fill_destination(n)
            if self._waiter is None or self._waiter.is_done():
                # Its reader has given up meanwhile.
                self._give_back()
        if n and self.endpoint.state == State.OPEN:
            self.buffer.accept(self._scratch, n)
        try:
            if self._waiter is not None and not self._waiter.is_done() and self._is_satisfied():
                # From here on anything may have happened: the task has run, and may have waited again or closed all.
                self._waiter.wake(True)
        finally:
            self.buffer.settle()
        if (
            self.buffer.length >= self._high
            and (self._waiter is None or self._waiter.is_done())
            and self.endpoint.state == State.OPEN
        ):
            # Again each time: a TLS transport resumes the one below when it sees fit.
            self._reading_paused = True
            self.endpoint.source.pause_reading()
        return Status.OK

    cdef Py_ssize_t _missing(self) noexcept:
        return 0 if self._destination is None else self._destination.size - self._destination.filled

    cdef Py_ssize_t _fill_destination(self, Py_ssize_t n) except -1:
        # `n` bytes have landed in the destination, or in the scratch; returns how many of those are left there.
        cdef Py_ssize_t part = min(n, self._missing())
        cdef Py_ssize_t room = self._destination.capacity - self._destination.filled

        if self._offered is NULL:
            if room < part:
                self._grow_destination(self._destination.filled + part)
            memcpy(self._destination._start + self._destination.filled, self._scratch.area, part)
            memmove(self._scratch.area, self._scratch.area + part, n - part)
        self._destination.filled += part
        return n - part

    cdef Status _grow_destination(self, Py_ssize_t arrived) except Status.ERROR:
        cdef Destination before = self._destination
        cdef Destination after

        if before.grow(arrived):
            return Status.OK
        # A loop that keeps its view of it writes there, not here; or there is no memory, and the connection ends.
        after = Destination(before.size, 2 * arrived)
        after.lead, after.copied, after.filled = before.lead, before.copied, before.filled
        memcpy(after._start, before._start, before.filled)
        self._destination = after
        return Status.OK

    cdef Status end(self, bint direct) except Status.ERROR:
        # No more bytes will come: end of stream, loss or close. What the reader gets, its take decides.
        if self._waiter is not None:
            self._waiter.wake(direct)
        return Status.OK

    cdef Py_ssize_t unread(self) noexcept:
        if self._destination is None:
            return self.buffer.length
        return self.buffer.length + self._destination.filled - self._destination.copied + PyBytes_GET_SIZE(self._destination.lead)

    cdef bint is_at_eof(self) noexcept:
        return (
            self.eof
            and not self.unread()
            and self.endpoint.state != State.CLOSING
            and self.endpoint.state != State.CLOSED
        )

    cdef Status tell_at_eof(self) except Status.ERROR:
        # Called wherever the last unread byte may have gone, or the end of the stream has come.
        if self.on_at_eof is None or not self.is_at_eof():
            return Status.OK
        on_at_eof, self.on_at_eof = self.on_at_eof, None
        try:
            on_at_eof()
        except BaseException as error:
            # The caller may hold bytes that it has just taken, which must not be lost with this error.
            self.endpoint.break_off(error)
        return Status.OK

    cdef Status discard_all(self) except Status.ERROR:
        self._destination = None
        self.buffer.discard(self.buffer.length)
        if self._reading_paused:
            # A socket that is closed with unread bytes in it resets the connection (RFC 1122, 4.2.2.13).
            self._resume_reading()
        return Status.OK

    cdef Status read_to_the_end(self) except Status.ERROR:
        # Nothing more is asked of the peer: what is on its way is bounded by the kernel's buffer, and its end is news.
        self._high = PY_SSIZE_T_MAX
        if self._reading_paused:
            self._resume_reading()
        return Status.OK

    cdef bint is_due(self, double now) noexcept:
        return self.endpoint.is_due(self._waiter, now)

    cdef double expire(self, double now) except -1:
        cdef double due
        cdef double look_at = self._look_at

        if look_at and look_at <= now:
            self._look_at = look_at = 0
            # From now on any byte will do.
            self._wanted_count = self._looked_at + 1
            if self._waiter is not None and not self._waiter.is_done() and self._is_satisfied():
                self._waiter.wake(True)
                return 0.0
        due = self.endpoint.expire(self._waiter, now)
        return min(due, look_at) if due and look_at else max(due, look_at)

    # ---- For readers, see the .pxd ----

    cdef Status _end_wait(self, Searcher searcher, Py_ssize_t size) except Status.ERROR:
        # The reader that waited is back, or gone. As long as it is neither, it is the only one.
        # A destination is left in place only for the reader that it is for and that has it all: the one with this searcher,
        # or else that of `size` bytes.
        if self._waiter is not None and not self._waiter.left:
            raise self.endpoint.error(BusyError, "another task is already receiving; only one at a time can", "receive")
        if self._destination is not None and not (
            self._destination.filled == self._destination.size
            and self._searcher is searcher
            and (searcher is not None or self._destination.size == size)
        ):
            self._give_back()
        # Last: where there is no memory to give back into, the next receive tries again.
        self._waiter = None
        return Status.OK

    cdef Status put_back(self, Destination destination) except Status.ERROR:
        self._destination = destination
        self._give_back()
        return Status.OK

    cdef object end_take(self, object result):
        self.receives += 1
        if self._reading_paused and self.buffer.length <= self._low:
            self._resume_reading()
        if self.eof:
            self.tell_at_eof()
        return result

    cdef bint check_end(self) except -1:
        if self.eof and self.endpoint.state != State.CLOSING and self.endpoint.state != State.CLOSED:
            if self.buffer.length:
                return True
            self.tell_at_eof()
            # The first take returns the end at once. Each further one lets the loop run before: a program that asks
            # again and again would hold it up for ever.
            self._end_met = not self._end_met
            return self._end_met
        if self.endpoint.state != State.OPEN:
            self.told = self.endpoint.state == State.LOST
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
        # What fails does so before the waiter is in its place: one that nobody awaits would refuse all others.
        cdef Waiter waiter

        if self.limited_elsewhere and timeout is _DEFAULT_TIMEOUT:
            timeout = None
        waiter = self.endpoint.new_waiter(None if self.eof else timeout, "receive", previous)
        if self.eof:
            # Nothing can come: this is the one turn of the loop before a take returns the end again.
            self.endpoint.loop.call_soon(self._turn_passed, waiter)
        if self._reading_paused:
            # What is wanted may be more than the high-water mark; its own limit bounds it.
            self._resume_reading()
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
        # Memory that is not yet filled is not yet resident either; an absurd size fails here, and nothing is lost.
        cdef Destination destination = Destination(size, capacity)

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
            # Garbage was collected since the reader looked, and its end took bytes or let some come: it looks again.
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

    # ---- Taking ----

    def take(self, size):
        """1 to `size` bytes; `b""` at the end of the stream; None if none are on hand."""
        cdef Py_ssize_t n = _as_size(size, "size", 1)

        self.begin_take(None)
        if self.buffer.length:
            return self.end_take(self.buffer.take(min(n, self.buffer.length)))
        return b"" if self.check_end() else None

    def take_into(self, buffer):
        """Move 1 to `len(buffer)` bytes into a writable buffer and return how many; 0 at the end; None if none are on hand."""
        cdef Py_buffer view
        cdef Py_ssize_t n

        self.begin_take(None)
        try:
            PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        except (TypeError, BufferError) as error:
            raise TypeError(f"buffer must be writable and contiguous memory, not {type(buffer).__name__}: {error}") from None
        try:
            if not view.len:
                raise ValueError("buffer must have room for 1 byte or more, not 0")
            n = min(view.len, self.buffer.length)
            self.buffer.move_to(<char*>view.buf, n)
        finally:
            PyBuffer_Release(&view)
        if n:
            return self.end_take(n)
        return 0 if self.check_end() else None

    def take_exactly(self, size):
        """Exactly `size` bytes; None if fewer are on hand."""
        cdef Py_ssize_t n = _as_size(size, "size", 0)

        self.endpoint.check_user()
        if self._waiter is not None or self._destination is not None:
            self._end_wait(None, n)
        if self.has_destination():
            return self.end_take(self.take_destination().result)
        if n <= self.buffer.length:
            return self.end_take(self.buffer.take(n))
        if self.check_end():
            self.raise_incomplete(n)
        return None

    def take_until(self, separator, max_size=None):
        """Bytes up to and including the first `separator`; None if there is none on hand."""
        cdef Py_ssize_t limit = self._max_message_size if max_size is None else _as_size(max_size, "max_size", 1)
        cdef bytes wanted = _as_separator(separator)
        cdef Py_ssize_t end

        self.begin_take(None)
        end = self.buffer.find_end(wanted)
        if 0 < end <= limit:
            return self.end_take(self.buffer.take(end))
        if end or self.buffer.length >= limit:
            self._too_large(limit)
        if self.check_end():
            self.raise_incomplete(None)
        return None

    def take_line(self):
        """One line, newline included; at the end of the stream the unfinished one, then `b""`; None if none is on hand."""
        cdef Py_ssize_t end

        self.begin_take(None)
        end = self.buffer.find_end(NEWLINE)
        if 0 < end <= self._max_message_size:
            return self.end_take(self.buffer.take(end))
        if end or self.buffer.length >= self._max_message_size:
            self._too_large(self._max_message_size)
        if self.check_end():
            return self.end_take(self.buffer.take(self.buffer.length)) if self.buffer.length else b""
        return None

    def take_lines(self):
        """All complete lines on hand, at least one; at the end the unfinished one, then `[]`; None if none is on hand."""
        # Made first: making it may collect garbage, whose end runs anything, also with this connection.
        cdef list lines = []
        cdef Py_ssize_t end

        self.begin_take(None)
        end = self.buffer.find_end(NEWLINE)
        if 0 < end <= self._max_message_size:
            self.buffer.take_lines(lines, self._max_message_size)
            return self.end_take(lines)
        if end or self.buffer.length >= self._max_message_size:
            self._too_large(self._max_message_size)
        if self.check_end():
            return self.end_take([self.buffer.take(self.buffer.length)]) if self.buffer.length else []
        return None

    cdef Status _too_large(self, Py_ssize_t limit) except Status.ERROR:
        raise self.endpoint.error(
            MessageTooLargeError,
            f"message exceeds the limit of {limit} bytes (max_message_size or max_size); {self.buffer.length} bytes on hand",
            "receive",
            {"limit": limit, "buffered": self.buffer.length},
        )

    # ---- Waiting ----

    def wait(self, timeout):
        """An awaitable that ends when there is at least one byte, or no more can come."""
        return self.wait_for(1, None, None, timeout, None)

    def wait_exactly(self, Py_ssize_t size, timeout):
        """As `wait`, for `size` bytes; `take_exactly(size)` has just returned None."""
        if size - self.buffer.length < OWN_MEMORY_FROM:
            return self.wait_for(size, None, None, timeout, None)
        return self.fill(self.new_destination(size, size, 0, 0), None, timeout, None)

    def wait_until(self, separator, max_size, timeout):
        """As `wait`, for `separator`; `take_until(separator, max_size)` has just returned None."""
        limit = self._max_message_size if max_size is None else max_size
        return self.wait_for(limit, _as_separator(separator), None, timeout, None)

    def wait_line(self, timeout):
        """As `wait`, for a newline."""
        return self.wait_for(self._max_message_size, NEWLINE, None, timeout, None)

    def _turn_passed(self, Waiter waiter not None):
        waiter.wake(True)

    cdef bint _is_satisfied(self) noexcept:
        if self._destination is not None:
            return self._destination.filled == self._destination.size
        if self._wanted_separator is None:
            if self.buffer.length >= self._wanted_count and self._searcher is not None:
                self._wanted_count = self._searcher.bytes_wanted(self.buffer)
            return self.buffer.length >= self._wanted_count
        return self.buffer.find_end(self._wanted_separator) or self.buffer.length >= self._wanted_count

    cdef Status _give_back(self) except Status.ERROR:
        # The destination's reader has left without it: its bytes come first again. All of them, or on an error none.
        cdef Destination destination = self._destination
        cdef Py_ssize_t size = destination.filled - destination.copied
        cdef Py_ssize_t lead = PyBytes_GET_SIZE(destination.lead)

        if size + lead:
            self.buffer.reserve(size + lead)
        self.buffer.prepend(destination._start + destination.copied, size)
        self.buffer.prepend(PyBytes_AS_STRING(destination.lead), lead)
        self._destination = None
        return Status.OK

    cdef Status _resume_reading(self) except Status.ERROR:
        # Raises no Exception: what was taken is the caller's already. A transport that fails here takes itself for reading.
        self._reading_paused = False
        if self.endpoint.transport is not None:
            try:
                self._resume_source()
            except Exception as error:
                self.endpoint.break_off(error)
        return Status.OK

    cdef Status _resume_source(self) except Status.ERROR:
        # In nobody's context: the loop's new handle keeps it until the connection ends.
        context = PyContext_New()
        PyContext_Enter(context)
        try:
            self.endpoint.source.resume_reading()
        finally:
            PyContext_Exit(context)
        return Status.OK


cdef object _view_of(Destination destination):
    # Without a collection of garbage, whose end would run anything inside of get_buffer.
    cdef bint collects = PyGC_Disable()

    try:
        return PyMemoryView_FromObject(destination)
    finally:
        if collects:
            PyGC_Enable()


cdef bytes _as_separator(object separator):
    if type(separator) is not bytes:
        if not isinstance(separator, (bytes, bytearray, memoryview)):
            raise TypeError(f"separator must be bytes, not {type(separator).__name__}")
        separator = bytes(separator)
    if not separator:
        raise ValueError("separator must hold 1 byte or more, not 0")
    return <bytes>separator
