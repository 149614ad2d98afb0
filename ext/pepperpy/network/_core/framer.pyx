"""The base of all framers: how one is asked where a message ends.

`locate()` looks at bytes that somebody else owns and says where the first message in them ends; `message()`, right
after it, makes that message out of the same bytes. Neither consumes anything, so the same question gets the same
answer until somebody does. What has been consumed may be `unfinished`: the rest of a message that is discarded, or the
newline behind a carriage return, is still to come. Then `pass_over()` is asked first, each time with what has come. What need not be looked at again is remembered with the buffer, next to the position of
its searches for a separator, and so it stays true whatever other receives take out of the same buffer in between.

Sizes that a peer declares are compared with `limit` before anything is computed with them: no more memory is ever
allocated than bytes have arrived. `limit` is at most LARGEST, which leaves room for every sum.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from pepperpy.network._core.receive_buffer cimport OWN_MEMORY_FROM, ReceiveBuffer, Searcher

from pepperpy.network.printable import printable

import sys

# No message of this size fits any memory; four of them fit a Py_ssize_t.
LARGEST = sys.maxsize // 4


cdef class Framer(Searcher):
    def __cinit__(self, limit, *args):
        self.limit = min(limit, LARGEST)

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        raise NotImplementedError

    cdef object message(self, const char* data):
        raise NotImplementedError

    cdef Look give_up(self, const char* data, Py_ssize_t n) except Look.ERROR:
        # Right after TOO_LARGE: the message is to be discarded. SKIP: what is on hand of it is its first `end` bytes. MORE and
        # MALFORMED: as from locate().
        raise NotImplementedError

    cdef Look pass_over(self, const char* data, Py_ssize_t n) noexcept:
        # SKIP: with these first `end` bytes (or none) it is finished. MORE: and it is still unfinished. Its caller consumes them.
        self.end = min(self.left, n)
        self.left -= self.end
        return Look.MORE if self.left else Look.SKIP

    cdef Look skip(self, object size, Py_ssize_t n) except Look.ERROR:
        # SKIP of a frame of `size` bytes, of which `n` are on hand.
        self.end = min(size, n)
        self.left = min(size - self.end, LARGEST)
        self.unfinished = self.left > 0
        return Look.SKIP

    cdef bint is_nothing(self, const char* data, Py_ssize_t n) noexcept:
        # Whether these bytes, which are no whole message, may be left at the end of the stream.
        return False

    cdef Look look(self, ReceiveBuffer buffer) except Look.ERROR:
        # locate() in what a connection has on hand.
        cdef Look found

        buffer.search_for(self)
        found = self.locate(buffer.head, buffer.length, buffer.scanned)
        buffer.scanned = self.scanned
        return found

    cdef Py_ssize_t bytes_wanted(self, ReceiveBuffer buffer) noexcept:
        # 0 where there is a message, or where only the reader may look, because that runs Python code.
        try:
            if self.runs_python or self.look(buffer) != Look.MORE:
                return 0
        except MemoryError:
            return 0
        return self.wake_at(buffer.length)

    cdef Py_ssize_t wake_at(self, Py_ssize_t n) noexcept:
        # How many bytes are to be on hand when the reader is woken, after a look at `n` that wants more.
        if self.lead and self.wanted - n >= OWN_MEMORY_FROM:
            # The beginning of a large message: the reader then gets memory that grows to all of it (Destination).
            return min(self.wanted // 2, OWN_MEMORY_FROM // 4)
        return self.wanted

    def decode(self, bytes data not None, Py_ssize_t start):
        """The message that begins at `start`, and where it ends; or how many bytes from `start` on are needed for one.

        Without a connection. The number may still be too small: it is what is known by now.
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


cdef str words_of(object error):
    # Of an exception that a codec raised: never empty. A ValueError explains itself, of others the class does.
    # It may quote the peer.
    try:
        words = printable(str(error), 500)
    except Exception:
        words = ""
    if isinstance(error, ValueError):
        return words or type(error).__name__
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
