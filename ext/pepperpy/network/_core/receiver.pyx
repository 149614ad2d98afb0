"""Receives raw bytes, for `NetworkClient`. A reader like the others: it uses what `InputStream` offers to readers.

`take_*` returns what is on hand, or None if waiting may help, and raises if it cannot help. After None the caller awaits
what the `wait_*` of that name returns, and takes again.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize

from pepperpy.network._core.endpoint cimport Endpoint, State
from pepperpy.network._core.input_stream cimport InputStream
from pepperpy.network._core.receive_buffer cimport OWN_MEMORY_FROM, Searcher
from pepperpy.network._core.separators cimport Separators
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter

from pepperpy.network.checks import check_separators
from pepperpy.network.errors import EndOfStreamError, IncompleteReadError, MessageTooLargeError

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    bint PyIndex_Check(object value)

cdef enum:
    # Unread bytes that come together before a skip drops them. Arbitrary; one read may bring four times as much.
    SKIPPED_FROM = 64 * 1024

cdef bytes NEWLINE = b"\n"
# Marks a destination of exact size as one of take_exactly().
cdef Searcher _EXACTLY = Searcher()


@cython.final
cdef class Skip:
    """How far one skip has come: up to and including a separator, or one of a tuple."""
    cdef:
        object separator
        long long dropped            # bytes so far
        Waiter waiter                # of the last wait: all waits of a skip share one deadline

    def __cinit__(self, separator):
        self.separator = separator


@cython.final
cdef class Receiver(InputStream):
    def __cinit__(self, Endpoint endpoint not None):
        self._max_message_size = endpoint.config.max_message_size
        self._eof_raises = endpoint.config.eof == "raise"
        self._put_back_limit = max(self._max_message_size, self._high)

    # ---- Taking ----

    def take(self, size):
        """1 to `size` bytes; `b""` at the end of the stream; None if none are on hand."""
        cdef Py_ssize_t n = _as_size(size, "size", 1)

        self.begin_take(None)
        if self.buffer.length:
            return self.end_take(self.buffer.take(min(n, self.buffer.length)))
        return self._end(b"") if self.check_end() else None

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
        return self._end(0) if self.check_end() else None

    def take_exactly(self, size):
        """Exactly `size` bytes; None if fewer are on hand."""
        cdef Py_ssize_t n = _as_size(size, "size", 0)

        self.begin_take(_EXACTLY)
        if self.has_destination():
            if self.peek_destination().size == n:
                return self.end_take(self.take_destination().result)
            self.give_back_destination()
        if n <= self.buffer.length:
            return self.end_take(self.buffer.take(n))
        if self.check_end():
            self.raise_incomplete(n)
        return None

    def take_until(self, separator, max_size=None):
        """Bytes up to and including the first `separator`, or one of a tuple; None if there is none on hand."""
        cdef Py_ssize_t limit = self._max_message_size if max_size is None else _as_size(max_size, "max_size", 1)
        cdef Py_ssize_t end = self._find_end(separator)

        if 0 < end <= limit:
            return self.end_take(self.buffer.take(end))
        if self.buffer.length >= limit:
            self._raise_too_large(limit)
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
        if self.buffer.length >= self._max_message_size:
            self._raise_too_large(self._max_message_size)
        if self.check_end():
            return self.end_take(self.buffer.take(self.buffer.length)) if self.buffer.length else self._end(b"")
        return None

    def take_lines(self):
        """All complete lines on hand, at least one; at the end the unfinished one, then `[]`; None if none is on hand."""
        # Made first, because that may collect garbage and so run any code, also with this connection.
        cdef list lines = []
        cdef Py_ssize_t end

        self.begin_take(None)
        end = self.buffer.find_end(NEWLINE)
        if 0 < end <= self._max_message_size:
            self.buffer.take_lines(lines, self._max_message_size)
            return self.end_take(lines)
        if self.buffer.length >= self._max_message_size:
            self._raise_too_large(self._max_message_size)
        if self.check_end():
            return self.end_take([self.buffer.take(self.buffer.length)]) if self.buffer.length else self._end([])
        return None

    def take_skipped(self, Skip skip not None):
        """How many bytes were dropped, up to and including a separator; None if there is none on hand.

        Then all but the last bytes, which may be the beginning of a separator, are dropped already.
        """
        cdef Py_ssize_t end = self._find_end(skip.separator)
        cdef Py_ssize_t longest

        if end:
            dropped = skip.dropped + end
            self.buffer.discard(end)
            return self.end_take(dropped)
        if self.check_end():
            dropped = skip.dropped + self.buffer.length
            error = self.endpoint.error(
                IncompleteReadError,
                f"the peer ended the stream after {dropped} bytes, before the separator; they were dropped",
                "receive",
                {"received": dropped},
            )
            self.buffer.discard(self.buffer.length)
            self.tell_at_eof()
            raise error
        # Not of `_several`: since it was searched for, code of a `__del__` may have searched for others.
        longest = len(max(skip.separator, key=len)) if type(skip.separator) is tuple else len(skip.separator)
        if self.buffer.length >= longest:
            skip.dropped += self.buffer.length - longest + 1
            self.buffer.discard(self.buffer.length - longest + 1)
        return None

    # ---- Looking and putting back ----

    def peek(self, size):
        """Up to `size` unread bytes, which stay unread; fewer at the end of the stream. None if fewer are on hand."""
        cdef Py_ssize_t n = _as_size(size, "n", 1)

        self.begin_take(None)
        if self.buffer.length < n:
            if not self.check_end() or (self.buffer.length and not self.meet_end()):
                return None
            if not self.buffer.length:
                return self._end(b"")
        return PyBytes_FromStringAndSize(self.buffer.head, min(n, self.buffer.length))

    def put_back(self, data):
        """Put bytes in front of the unread ones."""
        cdef Py_buffer view
        cdef long long position
        cdef Py_ssize_t in_front

        try:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        except (TypeError, BufferError) as error:
            raise TypeError(f"data must be bytes-like and contiguous, not {type(data).__name__}: {error}") from None
        try:
            self.begin_take(None)
            if self.endpoint.state != State.OPEN and self.endpoint.state != State.LOST:
                # Whatever is unread was dropped.
                raise self.endpoint.refusal()
            position = self.position()
            in_front = max(0, self._put_back_until - position)
            if view.len > self._put_back_limit - in_front:
                raise ValueError(
                    f"data must have {self._put_back_limit - in_front} bytes or fewer, not {view.len}: up to"
                    f" {self._put_back_limit} (max_message_size or receive_high) can be put back, and {in_front} are"
                )
            self.buffer.prepend(<const char*>view.buf, view.len)
            self._put_back_until = position + in_front
        finally:
            PyBuffer_Release(&view)

    # ---- Waiting ----

    def wait(self, timeout):
        """An awaitable that ends when there is at least one byte, or no more can come."""
        return self.wait_for(1, None, None, timeout, None)

    def wait_exactly(self, Py_ssize_t size, timeout):
        """As `wait`, for `size` bytes; `take_exactly(size)` has just returned None."""
        if size - self.buffer.length < OWN_MEMORY_FROM:
            return self.wait_for(size, None, None, timeout, None)
        return self.fill(self.new_destination(size, size, 0, 0), _EXACTLY, timeout, None)

    def wait_until(self, separator, max_size, timeout):
        """As `wait`, for `separator`; `take_until(separator, max_size)` has just returned None."""
        limit = self._max_message_size if max_size is None else max_size
        return self._wait_until(separator, limit, timeout, None)

    def wait_line(self, timeout):
        """As `wait`, for a newline."""
        return self.wait_for(self._max_message_size, NEWLINE, None, timeout, None)

    def wait_peek(self, size, timeout):
        """As `wait`, for `size` bytes."""
        return self.wait_for(size, None, None, timeout, None)

    def wait_skipped(self, Skip skip not None, timeout):
        """As `wait`, for the separator or so many bytes that they should be dropped."""
        skip.waiter = self._wait_until(skip.separator, SKIPPED_FROM, timeout, skip.waiter)
        return skip.waiter

    cdef Waiter _wait_until(self, object separator, Py_ssize_t limit, object timeout, Waiter previous):
        cdef Separators several

        if type(separator) is not tuple:
            return self.wait_for(limit, _as_separator(separator), None, timeout, previous)
        several = self._separators_of(<tuple>separator)
        several.limit = limit
        return self.wait_for(self.buffer.length + 1, None, several, timeout, previous)

    cdef object _end(self, object nothing):
        # What a take gives at the end of the stream, with nothing in front of it.
        if self._eof_raises:
            raise self.endpoint.error(EndOfStreamError, "the peer has ended its stream", "receive")
        return nothing

    cdef Py_ssize_t _find_end(self, object separator) except -1:
        # Begins a take. The number of bytes up to the end of the first separator; 0 if there is none.
        cdef Separators several
        cdef bytes only

        if type(separator) is tuple:
            several = self._separators_of(<tuple>separator)
            self.begin_take(None)
            return several.find_end(self.buffer)
        only = _as_separator(separator)
        self.begin_take(None)
        return self.buffer.find_end(only)

    cdef Separators _separators_of(self, tuple separators):
        # Kept from call to call, and so is how far it has searched.
        if self._several is None or (self._several.given is not separators and self._several.given != separators):
            check_separators(separators)
            self._several = Separators(separators)
        return self._several

    cdef Status _raise_too_large(self, Py_ssize_t limit) except Status.ERROR:
        raise self.endpoint.error(
            MessageTooLargeError,
            f"message exceeds the limit of {limit} bytes (max_message_size or max_size); {self.buffer.length} bytes on hand",
            "receive",
            {"limit": limit, "buffered": self.buffer.length},
        )


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


cdef bytes _as_separator(object separator):
    if type(separator) is not bytes:
        if not isinstance(separator, (bytes, bytearray, memoryview)):
            raise TypeError(f"separator must be bytes or a tuple of bytes, not {type(separator).__name__}")
        separator = bytes(separator)
    if not separator:
        raise ValueError("separator must hold 1 byte or more, not 0")
    return <bytes>separator
