"""Where the first of several separators ends.

The one that *ends* first counts, not the one that begins first. So the answer never depends on bytes that are still to
come, nor on how the stream was cut into reads; asyncio's `readuntil()` has the same rule (cpython#81322). A separator
that contains another one before its own end would never be found; `check_separators()` refuses it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from pepperpy.network._core.receive_buffer cimport ReceiveBuffer, Searcher


@cython.final
cdef class Separators(Searcher):
    def __cinit__(self, tuple separators not None):
        # Requires check_separators().
        cdef bytes separator
        cdef unsigned char last

        self.given = separators
        self._longest_first = tuple(sorted(separators, key=len, reverse=True))
        self.longest = len(self._longest_first[0])
        self._only_last = -2
        for separator in separators:
            last = <unsigned char>PyBytes_AS_STRING(separator)[PyBytes_GET_SIZE(separator) - 1]
            self._is_last[last] = True
            self._only_last = last if self._only_last in (-2, last) else -1

    cdef Py_ssize_t find(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) noexcept:
        # The size of the first separator; 0 if there is none. None ends within the first `scanned` bytes.
        cdef bytes separator
        cdef Py_ssize_t size

        while True:
            scanned = self._candidate(data, n, scanned)
            self.scanned = scanned
            if scanned == n:
                return 0
            self.end = scanned + 1
            for separator in self._longest_first:
                size = PyBytes_GET_SIZE(separator)
                if self.end >= size and memcmp(data + self.end - size, PyBytes_AS_STRING(separator), size) == 0:
                    return size
            scanned += 1

    cdef Py_ssize_t _candidate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) noexcept:
        # Where the next byte is that a separator may end with; `n` if there is none.
        cdef const char* at

        if self._only_last >= 0:
            at = <const char*>memchr(data + scanned, self._only_last, n - scanned) if scanned < n else NULL
            return n if at is NULL else at - data
        while scanned < n and not self._is_last[<unsigned char>data[scanned]]:
            scanned += 1
        return scanned

    cdef Py_ssize_t find_end(self, ReceiveBuffer buffer) noexcept:
        # As ReceiveBuffer.find_end(): the number of bytes up to the end of the first separator; 0 if there is none.
        cdef Py_ssize_t size

        buffer.search_for(self)
        size = self.find(buffer.head, buffer.length, buffer.scanned)
        buffer.scanned = self.scanned
        return self.end if size else 0

    cdef Py_ssize_t bytes_wanted(self, ReceiveBuffer buffer) noexcept:
        if self.find_end(buffer) or buffer.length >= self.limit:
            return 0
        return buffer.length + 1
