"""Framers for messages that end with one byte which does not occur in them: SLIP escapes it, COBS stuffs it.

Two such bytes in a row have no message between them: RFC 1055 lets senders put one in front of a frame too.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcpy

from pepperpy.network._core.framer cimport Framer, Look

cdef enum:
    # RFC 1055, "Protocol".
    SLIP_END = 0xC0
    SLIP_ESC = 0xDB
    SLIP_ESC_END = 0xDC
    SLIP_ESC_ESC = 0xDD
    # Cheshire and Baker, "Consistent Overhead Byte Stuffing" (1999), section 3: 254 bytes and no zero follow.
    COBS_FULL = 0xFF


cdef class StuffingFramer(Framer):
    cdef:
        unsigned char _delimiter
        Py_ssize_t _longest          # bytes of the largest frame, without the delimiter
        Py_ssize_t _size             # bytes of the message that was found

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        # `scanned`: the first so many bytes have no delimiter.
        cdef const char* at = NULL

        if scanned < n:
            at = <const char*>memchr(data + scanned, self._delimiter, n - scanned)
        if at is NULL:
            self.scanned = n
            self.wanted = n + 1
            self.declared = None
            return Look.TOO_LARGE if n > self._longest else Look.MORE
        self.scanned = at - data
        self.end = self.scanned + 1
        if not self.scanned:
            return Look.SKIP
        self._size = self._measure(<const unsigned char*>data, self.scanned)
        if self._size < 0:
            return Look.MALFORMED
        if self._size > self.limit:
            self.declared = self._size
            return Look.TOO_LARGE
        return Look.FOUND

    cdef Look discard_message(self, const char* data, Py_ssize_t n) except Look.ERROR:
        if self.skip_rest(data, n) == Look.MORE:
            self.unfinished = True
        return Look.SKIP

    cdef Look skip_rest(self, const char* data, Py_ssize_t n) noexcept:
        cdef const char* at = <const char*>memchr(data, self._delimiter, n) if n else NULL

        self.end = n if at is NULL else at - data + 1
        return Look.MORE if at is NULL else Look.SKIP

    cdef object message(self, const char* data):
        cdef bytes message = PyBytes_FromStringAndSize(NULL, self._size)
        if self._size:
            self._unstuff(<const unsigned char*>data, self.end - 1, <unsigned char*>PyBytes_AS_STRING(message))
        return message

    cdef Py_ssize_t _measure(self, const unsigned char* data, Py_ssize_t n) noexcept:
        # The size of the message in these bytes; or -1, and `fault` is set.
        return -1

    cdef void _unstuff(self, const unsigned char* data, Py_ssize_t n, unsigned char* target) noexcept:
        # Writes the message to `target`, which has room for _measure() bytes.
        pass


@cython.final
cdef class SLIPFramer(StuffingFramer):
    def __cinit__(self, limit):
        self._delimiter = SLIP_END
        self._longest = 2 * self.limit

    cdef Py_ssize_t _measure(self, const unsigned char* data, Py_ssize_t n) noexcept:
        cdef const unsigned char* at = data
        cdef const unsigned char* end = data + n
        cdef Py_ssize_t size = n

        while True:
            at = <const unsigned char*>memchr(at, SLIP_ESC, end - at)
            if at is NULL:
                return size
            if end - at < 2 or (at[1] != SLIP_ESC_END and at[1] != SLIP_ESC_ESC):
                self.fault = "a SLIP escape is followed by neither DC nor DD"
                return -1
            size -= 1
            at += 2

    cdef void _unstuff(self, const unsigned char* data, Py_ssize_t n, unsigned char* target) noexcept:
        cdef const unsigned char* end = data + n
        cdef const unsigned char* at

        while True:
            at = <const unsigned char*>memchr(data, SLIP_ESC, end - data)
            if at is NULL:
                memcpy(target, data, end - data)
                return
            memcpy(target, data, at - data)
            target += at - data
            target[0] = SLIP_END if at[1] == SLIP_ESC_END else SLIP_ESC
            target += 1
            data = at + 2


@cython.final
cdef class COBSFramer(StuffingFramer):
    def __cinit__(self, limit):
        self._delimiter = 0
        self._longest = self.limit + self.limit // (COBS_FULL - 1) + 1

    cdef Py_ssize_t _measure(self, const unsigned char* data, Py_ssize_t n) noexcept:
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t at = 0
        cdef unsigned char code = 0

        while at < n:
            code = data[at]
            at += code
            # A block stands for its other bytes, and for a zero behind them unless it is full.
            size += code - (code == COBS_FULL)
        if at > n:
            self.fault = "a COBS block is longer than its frame"
            return -1
        # The last block stands for no zero either.
        return size - (code != COBS_FULL)

    cdef void _unstuff(self, const unsigned char* data, Py_ssize_t n, unsigned char* target) noexcept:
        cdef const unsigned char* end = data + n
        cdef unsigned char code

        while data < end:
            code = data[0]
            memcpy(target, data + 1, code - 1)
            target += code - 1
            data += code
            if code != COBS_FULL and data < end:
                target[0] = 0
                target += 1


def cobs_encode(bytes data not None):
    """`data` in blocks without a zero, each behind its length. The caller appends the delimiter."""
    cdef:
        Py_ssize_t n = PyBytes_GET_SIZE(data)
        const unsigned char* at = <const unsigned char*>PyBytes_AS_STRING(data)
        const unsigned char* end = at + n
        const unsigned char* zero
        bytes result = PyBytes_FromStringAndSize(NULL, n + n // (COBS_FULL - 1) + 1)
        unsigned char* start = <unsigned char*>PyBytes_AS_STRING(result)
        unsigned char* target = start
        Py_ssize_t run

    while True:
        zero = <const unsigned char*>memchr(at, 0, end - at)
        run = (end if zero is NULL else zero) - at
        while run >= COBS_FULL - 1:
            target[0] = COBS_FULL
            memcpy(target + 1, at, COBS_FULL - 1)
            target += COBS_FULL
            at += COBS_FULL - 1
            run -= COBS_FULL - 1
            if at == end:
                # Nothing needs to follow a full block.
                return result[:target - start]
        target[0] = run + 1
        memcpy(target + 1, at, run)
        target += run + 1
        if zero is NULL:
            return result[:target - start]
        at = zero + 1
