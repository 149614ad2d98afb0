"""The receiving side of `pepperpy.network.streams`: the unread bytes of one `StreamReader`, and asyncio's rules for them.

It stands beside `InputStream`, which has the rules of `NetworkClient`. The memory is the same: the loop reads into the
scratch of all its connections, and a waiting task takes its bytes from there (receive_buffer.pyx, waiter.pyx).

Each read has two halves. `take_*` returns what is on hand, None where waiting may help, or raises. After None the caller
awaits what the `wait_*` of that name returns, and takes again. So a read that is cancelled has taken nothing.

Where asyncio's reader was seen to lose bytes or to hang, this one does not: `read()` to the end keeps in the buffer what
has come until it is done, and an exception that comes while a task is being woken is raised by that task.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memcmp

from pepperpy.network._core.receive_buffer cimport ReceiveBuffer, ReceiveScratch, scratch_of
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter, new_waiter

import asyncio

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    # With NULL for `overflow`, a number that is too large counts as PY_SSIZE_T_MAX.
    Py_ssize_t PyNumber_AsSsize_t(object value, PyObject* overflow) except? -1

cdef object _IncompleteReadError = asyncio.IncompleteReadError
cdef object _LimitOverrunError = asyncio.LimitOverrunError


@cython.final
cdef class ReaderCore:
    cdef:
        readonly object transport    # what to pause; None: nothing, or it cannot be paused
        readonly object exception    # raised by each read; or None
        readonly bint ended          # no more will come
        readonly bint paused         # the transport was told to pause, and not yet to resume
        object _loop
        ReceiveBuffer _buffer
        ReceiveScratch _scratch      # of the loop; None before there is a transport
        bint _deaf                   # what comes is dropped
        # Bytes. A line or the like is as long as `_limit` at most, its separator not counted. With more than `_high` unread,
        # reading pauses; with `_low` or fewer it goes on.
        Py_ssize_t _limit
        Py_ssize_t _low
        Py_ssize_t _high
        # What the waiting task waits for: a separator, a number of bytes, or the end.
        Waiter _waiter
        bint _wants_all              # all that comes is for this task, so the others find nothing on hand
        bytes _wanted_separator      # or None
        Py_ssize_t _wanted_count

    def __cinit__(self, loop, limit):
        # asyncio takes any number for a limit, infinity included.
        self._limit = self._low = <Py_ssize_t>int(min(limit, PY_SSIZE_T_MAX))
        self._high = <Py_ssize_t>int(min(2 * limit, PY_SSIZE_T_MAX))
        self._loop = loop
        self._buffer = ReceiveBuffer()

    @property
    def unread(self):
        """Bytes on hand."""
        return self._buffer.length

    @property
    def waiter(self):
        """What a task waits for now; or None."""
        return None if self._waiter is None or self._waiter.is_done() else self._waiter

    # ---- Bytes in ----

    def read_from(self, transport):
        """Bytes come from `transport`. After a start_tls() as well: the plain one is what to pause."""
        self.transport = transport
        self._scratch = scratch_of(self._loop)

    def get_buffer(self, sizehint):
        # As in InputStream.next_buffer(): nothing here touches the transport. All reads have the room that TLS needs, because
        # TLS may begin at any time: what did not fit would be lost if the stream ended next (InputStream.start_tls()).
        if self._scratch is None:
            raise RuntimeError("get_buffer() before connection_made()")
        if self._scratch.borrower is not None:
            self._scratch.settle_borrower()
        return self._scratch.tls_view

    def buffer_updated(self, Py_ssize_t nbytes):
        # The loop ends the connection with what is raised here.
        if self._deaf:
            return
        self._check_not_ended()
        self._buffer.accept(self._scratch, nbytes)
        try:
            if self._is_awaited() and self._is_satisfied():
                # After this anything may have changed: the task has run, and may wait again or have closed the connection.
                self._waiter.wake(True)
        finally:
            self._buffer.settle()
        self._pause_if_full()

    def feed(self, data):
        """Append bytes that come in another way than from a transport with buffers."""
        cdef Py_buffer view

        self._check_not_ended()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if not view.len:
                return
            self._buffer.append(<const char*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        if self._is_awaited() and self._is_satisfied():
            self._waiter.wake(False)
        self._pause_if_full()

    def feed_eof(self):
        self.ended = True
        self._wake()

    def set_exception(self, error):
        self.exception = error
        self._wake()

    def stop_listening(self):
        """Nobody will read any more: drop what comes, so that the end of the stream is found. For any thread."""
        self._deaf = True
        if self.paused and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._read_on)

    def _read_on(self):
        self._buffer.discard(self._buffer.length)
        self._resume()

    cdef Status _check_not_ended(self) except Status.ERROR:
        if self.ended:
            raise AssertionError("feed_data after feed_eof")
        return Status.OK

    cdef bint _is_awaited(self) noexcept:
        return self._waiter is not None and not self._waiter.is_done()

    cdef Status _wake(self) except Status.ERROR:
        # In the loop's next turn, so that the protocol is done with what it does before the task runs.
        if self._waiter is not None:
            self._waiter.wake(False)
        return Status.OK

    cdef bint _is_satisfied(self) noexcept:
        if self._wanted_separator is None:
            return self._buffer.length >= self._wanted_count
        return self._buffer.find_end(self._wanted_separator) or self._is_too_long(self._wanted_separator)

    cdef bint _is_too_long(self, bytes separator) noexcept:
        # Whether what is on hand is more than a line, which has no end.
        return self._buffer.length >= PyBytes_GET_SIZE(separator) and self._searched(separator) > self._limit

    cdef Py_ssize_t _searched(self, bytes separator) noexcept:
        # How many of the unread bytes no separator can begin with, if none was found.
        return self._buffer.length + 1 - PyBytes_GET_SIZE(separator)

    # ---- Flow control ----

    cdef Status _pause_if_full(self) except Status.ERROR:
        # Not while a task waits for more: its own limit bounds what comes. Again each time: a TLS transport resumes the one
        # below when it sees fit.
        if self._buffer.length <= self._high or self._is_awaited() or self.transport is None:
            return Status.OK
        if self.transport.is_closing():
            return Status.OK
        try:
            self.transport.pause_reading()
        except NotImplementedError:
            self.transport = None
        else:
            self.paused = True
        return Status.OK

    cdef Status _resume(self) except Status.ERROR:
        if self.paused:
            if not self.transport.is_closing():
                self.transport.resume_reading()
            # If that raises, the next read tries again.
            self.paused = False
        return Status.OK

    # ---- Taking ----

    def take(self, size):
        """1 to `size` bytes; `b""` at the end of the stream, or for a size of 0; None if none are on hand."""
        cdef Py_ssize_t n

        self._check_exception()
        if size == 0:
            return b""
        if self._is_reading_all() or (not self._buffer.length and not self.ended):
            return None
        n = PyNumber_AsSsize_t(size, NULL)
        return self._take(min(n, self._buffer.length))

    def take_all(self):
        """All bytes up to the end of the stream; None before that has come."""
        self._check_exception()
        return self._take(self._buffer.length) if self.ended else None

    def take_exactly(self, size):
        """Exactly `size` bytes; None if fewer are on hand."""
        cdef Py_ssize_t n

        if size < 0:
            raise ValueError("readexactly size can not be less than zero")
        self._check_exception()
        n = PyNumber_AsSsize_t(size, NULL)
        if not n:
            return b""
        if self._is_reading_all():
            return None
        if self._buffer.length >= n:
            return self._take(n)
        if self.ended:
            self._raise_incomplete(size)
        return None

    def take_until(self, bytes separator not None):
        """Bytes up to and including the first `separator`; None if there is none on hand."""
        cdef Py_ssize_t end

        self._check_exception()
        if self._is_reading_all():
            return None
        end = self._buffer.find_end(separator)
        if end:
            if end - PyBytes_GET_SIZE(separator) > self._limit:
                raise _LimitOverrunError(
                    "Separator is found, but chunk is longer than limit", end - PyBytes_GET_SIZE(separator)
                )
            return self._take(end)
        if self._is_too_long(separator):
            raise _LimitOverrunError("Separator is not found, and chunk exceed the limit", self._searched(separator))
        if self.ended:
            self._raise_incomplete(None)
        return None

    def take_until_any(self, list separators not None):
        """As `take_until`, for the one of several separators that ends first; they come sorted, the shortest first."""
        cdef Py_ssize_t size, end
        cdef Py_ssize_t first_end = 0, first_size = 0
        cdef bytes separator

        self._check_exception()
        if self._is_reading_all():
            return None
        for separator in separators:
            size = PyBytes_GET_SIZE(separator)
            end = self._buffer.find_end(separator)
            if end and (not first_end or end < first_end):
                first_end, first_size = end, size
        if first_end:
            if first_end - first_size > self._limit:
                raise _LimitOverrunError(
                    "Separator is found, but chunk is longer than limit", first_end - first_size
                )
            return self._take(first_end)
        # `separator` is the longest.
        if self._buffer.length >= PyBytes_GET_SIZE(separators[0]) and self._searched(separator) > self._limit:
            raise _LimitOverrunError("Separator is not found, and chunk exceed the limit", self._searched(separator))
        if self.ended:
            self._raise_incomplete(None)
        return None

    def drop_line(self, Py_ssize_t consumed):
        """After a line that was too long: drop it, if its newline is behind `consumed` bytes, and otherwise everything."""
        if consumed < self._buffer.length and memcmp(self._buffer.head + consumed, b"\n", 1) == 0:
            self._buffer.discard(consumed + 1)
        else:
            self._buffer.discard(self._buffer.length)
        self._resume_if_low(0)

    cdef Status _raise_incomplete(self, object expected) except Status.ERROR:
        # The bytes leave when the error has them: if there is no memory for it, they are still on hand.
        cdef bytes partial = PyBytes_FromStringAndSize(self._buffer.head, self._buffer.length)

        error = _IncompleteReadError(partial, expected)
        self._buffer.discard(min(PyBytes_GET_SIZE(partial), self._buffer.length))
        raise error

    cdef bint _is_reading_all(self) noexcept:
        return self._wants_all and self._is_awaited()

    cdef Status _check_exception(self) except Status.ERROR:
        if self.exception is not None:
            raise self.exception
        return Status.OK

    cdef object _take(self, Py_ssize_t n):
        # The bytes leave last: a transport that fails to read on takes none from the caller.
        cdef bytes data = PyBytes_FromStringAndSize(self._buffer.head, n)

        self._resume_if_low(n)
        self._buffer.discard(n)
        return data

    cdef Status _resume_if_low(self, Py_ssize_t leaving) except Status.ERROR:
        if self.paused and self._buffer.length - leaving <= self._low:
            self._resume()
        return Status.OK

    # ---- Waiting ----

    def wait(self):
        """An awaitable that ends when there is at least one byte, or no more can come. As all of them."""
        return self._wait("read", self._buffer.length + 1, None)

    def wait_all(self):
        """As `wait`, for the end of the stream."""
        waiter = self._wait("read", PY_SSIZE_T_MAX, None)
        self._wants_all = True
        return waiter

    def wait_exactly(self, size):
        """As `wait`, for `size` bytes."""
        return self._wait("readexactly", PyNumber_AsSsize_t(size, NULL), None)

    def wait_until(self, bytes separator not None):
        """As `wait`, for `separator`, or for more bytes than may come without one."""
        return self._wait("readuntil", 0, separator)

    def wait_more(self):
        """As `wait`, for more bytes than now."""
        return self._wait("readuntil", self._buffer.length + 1, None)

    cdef Waiter _wait(self, str method, Py_ssize_t count, bytes separator):
        if self._is_awaited():
            raise RuntimeError(f"{method}() called while another coroutine is already waiting for incoming data")
        # The reader may want more than what reading pauses at.
        self._resume()
        self._wanted_count = count
        self._wanted_separator = separator
        self._wants_all = False
        self._waiter = new_waiter(self._loop)
        return self._waiter
