"""Framers for messages that end by a length or by a separator. `messages/codecs.py` documents the codecs.

A message is its frame without the length field, the separator (unless kept), or the digits and the comma of a
netstring. Nothing that a peer sends is trusted: framer.pyx says how sizes are checked.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memchr, memcmp, memcpy

from pepperpy.network._core.framer cimport Framer, Look
from pepperpy.network._core.separators cimport Separators

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    # Bytes: 64 bits in groups of 7 (Protocol Buffers, "Encoding", section "Base 128 Varints").
    LONGEST_VARINT = 10
    # Digits of the largest number of 64 bits. A netstring with such a length can be discarded; more digits are malformed.
    LONGEST_NUMBER = 20


@cython.final
cdef class LengthFramer(Framer):
    """[`offset` bytes][length field][rest]. The rest has as many bytes as the field says, plus `adjust`.

    With a `header` the message is a pair: so many bytes of the frame, those in front of the field and the first ones of the
    rest; and the remaining rest. Without one (-1) it is what stands in front of the field and the rest, in one piece.
    """
    cdef:
        Py_ssize_t _behind           # bytes of the header in the rest
        Py_ssize_t _offset
        Py_ssize_t _width            # bytes of the field; 0: a varint
        Py_ssize_t _adjust
        bint _little
        Py_ssize_t _rest             # where the rest starts in the frame that was found

    def __cinit__(
        self, limit, Py_ssize_t width, bint little, Py_ssize_t offset, Py_ssize_t adjust, Py_ssize_t header=-1
    ):
        self._width = width
        self._little = little
        self._offset = offset
        self._adjust = adjust
        if header >= 0:
            self.in_pairs = True
            self._behind = header - offset
        else:
            self.copied = offset

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        cdef const unsigned char* field = <const unsigned char*>data + self._offset
        cdef Py_ssize_t width = self._width
        cdef unsigned long long value = 0
        cdef Py_ssize_t rest
        cdef Py_ssize_t i

        self.lead = 0
        if width:
            self._rest = self._offset + width
            if n < self._rest:
                self.wanted = self._rest
                return Look.MORE
            if self._little:
                for i in range(width - 1, -1, -1):
                    value = value << 8 | field[i]
            else:
                for i in range(width):
                    value = value << 8 | field[i]
        else:
            while True:
                if self._offset + width >= n:
                    self.wanted = self._offset + width + 1
                    return Look.MORE
                if width == LONGEST_VARINT - 1 and field[width] > 1:
                    self.fault = "a varint is longer than 10 bytes or 64 bits"
                    return Look.MALFORMED
                value |= <unsigned long long>(field[width] & 0x7F) << (7 * width)
                width += 1
                if field[width - 1] < 0x80:
                    break
            self._rest = self._offset + width
        if value > PY_SSIZE_T_MAX // 2:
            self.declared = <object>value + self._adjust + self._offset
            return Look.TOO_LARGE
        rest = <Py_ssize_t>value + self._adjust
        if rest < 0:
            self.fault = f"a length field of {value} with adjust={self._adjust} leaves {rest} bytes"
            return Look.MALFORMED
        if rest > self.limit - self._offset:
            self.declared = rest + self._offset
            return Look.TOO_LARGE
        if rest < self._behind:
            self.fault = f"a length field of {value} leaves {rest} bytes, fewer than the {self._behind} of the header"
            return Look.MALFORMED
        self.end = self._rest + rest
        if n < self.end:
            self.wanted = self._rest + self._behind
            if n >= self.wanted:
                self.wanted = self.end
                self.lead = self._rest + self._behind
            return Look.MORE
        return Look.FOUND

    cdef Look discard_message(self, const char* data, Py_ssize_t n) except Look.ERROR:
        return self.skip(self.declared - self._offset + self._rest, n)

    cdef object message(self, const char* data):
        cdef bytes message
        cdef Py_ssize_t start

        if self.in_pairs:
            start = self._rest + self._behind
            return self._header(data, self._rest), PyBytes_FromStringAndSize(data + start, self.end - start)
        if not self._offset:
            return PyBytes_FromStringAndSize(data + self._rest, self.end - self._rest)
        message = PyBytes_FromStringAndSize(NULL, self._offset + self.end - self._rest)
        memcpy(PyBytes_AS_STRING(message), data, self._offset)
        memcpy(PyBytes_AS_STRING(message) + self._offset, data + self._rest, self.end - self._rest)
        return message

    cdef object joined(self, bytes lead, bytes rest):
        return (self._header(PyBytes_AS_STRING(lead), len(lead) - self._behind), rest) if self.in_pairs else rest

    cdef bytes _header(self, const char* data, Py_ssize_t rest):
        # The header of the frame at `data`, whose rest begins at `rest`.
        cdef bytes header = PyBytes_FromStringAndSize(NULL, self._offset + self._behind)

        memcpy(PyBytes_AS_STRING(header), data, self._offset)
        memcpy(PyBytes_AS_STRING(header) + self._offset, data + rest, self._behind)
        return header


@cython.final
cdef class FixedFramer(Framer):
    """Every message has `limit` bytes."""

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        self.end = self.wanted = self.limit
        return Look.FOUND if n >= self.limit else Look.MORE

    cdef object message(self, const char* data):
        return PyBytes_FromStringAndSize(data, self.limit)


@cython.final
cdef class SeparatorFramer(Framer):
    """A message ends where the first separator in the stream ends. If several end there, the longest is its separator.

    With `any_newline` the separators are CR and LF, and an LF right behind a CR belongs to the CR, whenever it comes.
    """
    cdef:
        Separators _several          # if there is more than one separator; else None
        bytes _only                  # the separator, if there is only one
        Py_ssize_t _longest
        bint _keep                   # messages keep their separators
        bint _skip_blank             # a message of nothing but white space is skipped
        bint _any_newline
        bint _discarding             # unfinished: a message to discard, up to its separator; False: an LF that may follow a CR
        Py_ssize_t _size             # of the message that was found

    def __cinit__(self, limit, tuple separators, bint keep, bint skip_blank, bint any_newline=False):
        if not all(separators):
            raise ValueError(f"separators must hold 1 byte or more each, not {separators}")
        if not separators:
            raise ValueError("separators must be one or more, not ()")
        if len(separators) == 1:
            self._only = separators[0]
        else:
            self._several = Separators(separators)
        self._longest = max(map(len, separators))
        self._keep = keep
        self._skip_blank = skip_blank
        self._any_newline = any_newline

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        # `scanned`: no separator ends within the first so many bytes.
        cdef Py_ssize_t size         # of the separator

        self.scanned = scanned
        size = self._find(data, n)
        if not size:
            self.wanted = n + 1
            # A separator could end with the next byte at the earliest.
            if n >= self.limit + self._longest:
                self.declared = None
                return Look.TOO_LARGE
            return Look.MORE
        self._size = self.end - size
        if self._size > self.limit:
            self.declared = self._size
            return Look.TOO_LARGE
        if self._skip_blank and _is_blank(data, self._size):
            return Look.SKIP
        return Look.FOUND

    cdef object message(self, const char* data):
        if self._keep:
            # Keep only the CR of CR LF: so it makes no difference whether the LF has come yet.
            return PyBytes_FromStringAndSize(data, self._size + 1 if self._any_newline else self.end)
        return PyBytes_FromStringAndSize(data, self._size)

    cdef Look discard_message(self, const char* data, Py_ssize_t n) except Look.ERROR:
        self.unfinished = False
        if not self._find(data, n):
            self._discard_all(n)
        return Look.SKIP

    cdef Look skip_rest(self, const char* data, Py_ssize_t n) noexcept:
        if not self._discarding:
            self.end = n and data[0] == c"\n"
            return Look.SKIP if n else Look.MORE
        self.scanned = 0
        self.unfinished = self._discarding = False
        if not self._find(data, n):
            self._discard_all(n)
        return Look.MORE if self.unfinished else Look.SKIP

    cdef void _discard_all(self, Py_ssize_t n) noexcept:
        # All but the last bytes, which may be the beginning of a separator.
        self.end = max(0, n - self._longest + 1)
        self.unfinished = self._discarding = True

    cdef Py_ssize_t _find(self, const char* data, Py_ssize_t n) noexcept:
        # Searches from `scanned` on. Returns the size of the separator and sets `end`, or returns 0. Then `scanned` is the
        # index of the separator's last byte, or `n`.
        cdef Py_ssize_t size

        if self._only is not None:
            return self._find_only(data, n)
        size = self._several.find(data, n, self.scanned)
        self.scanned = self._several.scanned
        if size:
            self.end = self._several.end
        if self._any_newline:
            self.unfinished = self._discarding = False
            if size and data[self.scanned] == c"\r":
                if self.end == n:
                    self.unfinished = True
                elif data[self.end] == c"\n":
                    self.end += 1
                    return 2
        return size

    cdef Py_ssize_t _find_only(self, const char* data, Py_ssize_t n) noexcept:
        cdef const char* wanted = PyBytes_AS_STRING(self._only)
        cdef Py_ssize_t size = self._longest
        cdef const char* at

        while self.scanned < n:
            at = <const char*>memchr(data + self.scanned, wanted[size - 1], n - self.scanned)
            if at is NULL:
                break
            self.scanned = at - data
            self.end = self.scanned + 1
            if size == 1 or (self.end >= size and memcmp(data + self.end - size, wanted, size) == 0):
                return size
            self.scanned += 1
        self.scanned = n
        return 0


cdef bint _is_blank(const char* data, Py_ssize_t n) noexcept:
    # The white space of JSON without the newline (RFC 8259, section 2).
    cdef Py_ssize_t i

    for i in range(n):
        if data[i] != c" " and data[i] != c"\t" and data[i] != c"\r":
            return False
    return True


@cython.final
cdef class NetstringFramer(Framer):
    """A decimal length without leading zeros, a colon, the message, a comma."""
    cdef Py_ssize_t _colon

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t i = 0

        while i < n and c"0" <= data[i] <= c"9":
            if i == 1 and data[0] == c"0":
                self.fault = "the length of a netstring has a leading zero"
                return Look.MALFORMED
            # No overflow: before this digit `size` was within the limit, a quarter of the largest number.
            if size > self.limit // 10 or size * 10 + (data[i] - c"0") > self.limit:
                self.declared = None
                return Look.TOO_LARGE
            size = size * 10 + (data[i] - c"0")
            i += 1
        if i == n:
            self.wanted = n + 1
            return Look.MORE
        if not i or data[i] != c":":
            self.fault = "a netstring does not start with its length and a colon"
            return Look.MALFORMED
        self._colon = i
        self.end = self.wanted = i + 1 + size + 1
        if n < self.end:
            return Look.MORE
        if data[self.end - 1] != c",":
            self.fault = f"a netstring of {size} bytes does not end with a comma"
            return Look.MALFORMED
        return Look.FOUND

    cdef Look discard_message(self, const char* data, Py_ssize_t n) except Look.ERROR:
        cdef Py_ssize_t i = 0

        while i < n and c"0" <= data[i] <= c"9":
            i += 1
        if i > LONGEST_NUMBER or (i < n and data[i] != c":"):
            self.fault = "a netstring does not start with its length and a colon"
            return Look.MALFORMED
        if i == n:
            self.wanted = n + 1
            return Look.MORE
        # The comma is discarded too, without a check.
        return self.skip(i + 1 + int(data[:i]) + 1, n)

    cdef object message(self, const char* data):
        return PyBytes_FromStringAndSize(data + self._colon + 1, self.end - self._colon - 2)
