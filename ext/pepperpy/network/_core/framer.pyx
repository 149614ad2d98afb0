"""The base of all framers: how to ask one where a message ends.

`locate()` looks at bytes that somebody else owns, and says where the first message in them ends. `message()`, called
right after it, makes that message from the same bytes. Neither consumes anything, so the same question gets the same
answer until somebody consumes bytes. What was consumed may be `unfinished`: the rest of a message that is discarded, or
the newline behind a carriage return, is still to come. Then `skip_rest()` is asked first, each time with what has come.
The buffer remembers which bytes need no second look, next to the position of its searches for a separator. So that
stays true, whatever other receives take from the buffer in between.

Sizes that a peer declares are compared with `limit` before anything is computed with them. No more memory is ever
allocated than bytes have arrived. `limit` is at most LARGEST, which leaves room for every sum.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from pepperpy.network._core.receive_buffer cimport OWN_MEMORY_FROM, ReceiveBuffer, Searcher

from pepperpy.network.printable import printable

import sys

# Bytes. No memory holds a message of this size, and four times as much fits a Py_ssize_t.
LARGEST = sys.maxsize // 4


cdef class Framer(Searcher):
    def __cinit__(self, limit, *args):
        self.limit = min(limit, LARGEST)

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        raise NotImplementedError

    cdef object message(self, const char* data):
        raise NotImplementedError

    cdef object joined(self, bytes lead, bytes rest):
        # The message whose frame begins with `lead`; `rest` is what a Destination has collected for it.
        return rest

    cdef Look discard_message(self, const char* data, Py_ssize_t n) except Look.ERROR:
        # Called right after TOO_LARGE, to discard the message. SKIP: the first `end` bytes belong to it. MORE and MALFORMED:
        # as from locate().
        raise NotImplementedError

    cdef Look skip_rest(self, const char* data, Py_ssize_t n) noexcept:
        # The first `end` bytes (maybe none) belong to what is unfinished, and the caller consumes them. SKIP: it is finished
        # with them. MORE: it is still unfinished.
        self.end = min(self.left, n)
        self.left -= self.end
        return Look.MORE if self.left else Look.SKIP

    cdef Look skip(self, object size, Py_ssize_t n) except Look.ERROR:
        # The answer SKIP for a frame of `size` bytes, of which `n` have arrived.
        self.end = min(size, n)
        self.left = min(size - self.end, LARGEST)
        self.unfinished = self.left > 0
        return Look.SKIP

    cdef bint may_be_left_over(self, const char* data, Py_ssize_t n) noexcept:
        # Whether the stream may end with these bytes, which are no whole message.
        return False

    cdef Look look(self, ReceiveBuffer buffer) except Look.ERROR:
        # locate() in the unread bytes of a connection.
        cdef Look found

        buffer.search_for(self)
        found = self.locate(buffer.head, buffer.length, buffer.scanned)
        buffer.scanned = self.scanned
        return found

    cdef Py_ssize_t bytes_wanted(self, ReceiveBuffer buffer) noexcept:
        # 0 if there is a message, or if looking runs Python code, which only the reader may do.
        try:
            if self.runs_python or self.look(buffer) != Look.MORE:
                return 0
        except MemoryError:
            return 0
        return self.wake_at(buffer.length)

    cdef Py_ssize_t wake_at(self, Py_ssize_t n) noexcept:
        # The number of unread bytes at which to wake the reader, after a look at `n` bytes that wants more.
        if self.lead and self.wanted - n >= OWN_MEMORY_FROM:
            # Wake it at the beginning of a large message: it lends memory that grows to the whole of it (Destination).
            return min(self.wanted // 2, OWN_MEMORY_FROM // 4)
        return self.wanted

    def decode(self, bytes data not None, Py_ssize_t start):
        """The message that begins at `start`, and where it ends; or how many bytes from `start` on it needs at least.

        It works without a connection.
        """
        cdef Py_ssize_t at = start
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Look found

        if not 0 <= start <= size:
            raise ValueError(f"start must be from 0 to {size}, not {start}")
        while True:
            found = self.locate(PyBytes_AS_STRING(data) + at, size - at, 0)
            if found == Look.FOUND:
                return self.message(PyBytes_AS_STRING(data) + at), at + self.end
            if found == Look.MORE:
                return self.wanted + at - start
            if found == Look.TOO_LARGE:
                raise ValueError(f"{self.subject()} exceeds the limit of {self.limit} bytes")
            if found == Look.MALFORMED:
                raise ValueError(self.fault)
            at += self.end

    cdef str subject(self):
        return "message" if self.declared is None else f"message of {self.declared} bytes"


cdef str text_of(object error):
    # The text of an exception that a codec raised; never empty, and printable, because it may quote the peer. A ValueError
    # explains itself; others begin with their class.
    try:
        text = printable(str(error), 500)
    except Exception:
        text = ""
    if isinstance(error, ValueError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
