r"""Takes the pieces of a `text/event-stream` body, and gives its events one by one.

It does no I/O, and knows no connection. It follows the WHATWG HTML standard, sections 9.2.5 and 9.2.6
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream). It finds lines in bytes, and
decodes them later. The text is the same, because neither `\r` nor `\n` can be part of a longer UTF-8 sequence.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.object cimport PyObject_GenericSetAttr
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memchr, memcmp

from pepperpy.network._core.status cimport Status

from pepperpy.network.checks import check_int
from pepperpy.network.errors import MessageTooLargeError

cdef extern from *:
    """
    /* The number fits 64 bits; more is no useful time. int() of an endless number would take quadratic time. */
    #define MAX_RETRY_DIGITS 18
    """
    const Py_ssize_t MAX_RETRY_DIGITS

cdef bytes _BOM = b"\xef\xbb\xbf"
cdef str _MESSAGE = "message"


@cython.final
cdef class EventParser:
    """Parses one event stream: `feed()` it a piece, then iterate over it for the events that the piece completes.

    Between two pieces it holds one unfinished event (at most `max_size` bytes) and one ID.

    Args:
        max_size: Bytes of the lines of the largest event; 1 or more. Terminators and comments do not count, because
            comments alone may keep a stream alive for ever. But no comment line may be larger either.
        kind: The class of the events. They are made by `kind.__new__`, and get `data`, `event`, `id` and `retry`.
        last_event_id: The last event ID of the stream that this one goes on with.

    Attributes:
        last_event_id: The last event ID as of the last empty line; an event without data counts too.
        retry: Milliseconds to wait before reconnecting, as the server last said; None if it has not.
    """
    cdef:
        readonly str last_event_id
        readonly object retry
        object _kind
        object _new                  # `_kind.__new__`
        Py_ssize_t _max_size
        Py_ssize_t _too_large        # bytes of the event that was too large; 0 if none was
        bint _at_start               # nothing has come yet but a part of a BOM
        bint _skip_lf                # the last byte was \r: a \n behind it belongs to it
        # The present piece, how far it has been read, and where its next \n is, or its end.
        bytes _piece
        Py_ssize_t _at
        Py_ssize_t _next_lf
        # The unfinished line of earlier pieces, and the size of the event's lines before it.
        bytearray _pending
        Py_ssize_t _size
        # The buffers as the standard names them. Of `_fields` fields with data, the last one may still lie in the present
        # piece, at `_value`: most events have no other, which is never copied then.
        bytearray _data
        Py_ssize_t _fields
        const char* _value           # NULL: it is in `_data`
        Py_ssize_t _value_size
        str _event                   # None: none was given
        str _id

    def __init__(self, max_size, kind, str last_event_id not None=""):
        check_int("max_size", max_size, 1)
        self._max_size = max_size
        self._kind = kind
        self._new = kind.__new__
        self.last_event_id = last_event_id
        self._begin()

    cdef Status _begin(self) except Status.ERROR:
        self._at_start = True
        self._skip_lf = False
        self._pending = bytearray()
        self._piece = b""
        self._at = 0
        self._id = self.last_event_id
        self._begin_event()
        return Status.OK

    cdef Status _begin_event(self) except Status.ERROR:
        self._size = 0
        self._fields = 0
        self._value = NULL
        self._event = None
        if self._data is None or PyByteArray_GET_SIZE(self._data):
            self._data = bytearray()
        return Status.OK

    def feed(self, bytes piece not None):
        """The next piece. Returns this parser, to be iterated over to its end before the next call.

        The iteration raises:
            MessageTooLargeError: An event has more than `max_size` bytes. So does each further one. What followed is
                dropped.
        """
        self._let_go()
        if self._at_start:
            self._pending += piece
            piece = bytes(self._pending)
            if PyBytes_GET_SIZE(piece) < 3 and _BOM.startswith(piece):
                return self
            self._pending.clear()
            self._at_start = False
            piece = piece.removeprefix(_BOM)
        self._piece = piece
        self._at = 0
        self._next_lf = -1
        return self

    def finish(self):
        """End the stream. The event that no empty line has ended is dropped, as the standard says.

        The parser can then read the stream of a new connection; `last_event_id` and `retry` stay.

        Raises:
            MessageTooLargeError: As `feed()`.
        """
        if self._too_large:
            self._raise_too_large()
        self._begin()

    def __iter__(self):
        return self

    def __next__(self):
        cdef bytes piece = self._piece
        cdef const char* data = PyBytes_AS_STRING(piece)
        cdef Py_ssize_t end = PyBytes_GET_SIZE(piece)
        cdef Py_ssize_t start
        cdef const char* found

        if self._too_large:
            self._raise_too_large()
        while self._at < end:
            if self._skip_lf:
                self._skip_lf = False
                if data[self._at] == b"\n":
                    self._at += 1
                    continue
            start = self._at
            if self._next_lf < start:
                # Looked for once, however many \r come before it.
                found = <const char*>memchr(data + start, b"\n", end - start)
                self._next_lf = end if found is NULL else found - data
            found = <const char*>memchr(data + start, b"\r", self._next_lf - start)
            if found is not NULL:
                self._at = found - data + 1
                self._skip_lf = True
            elif self._next_lf < end:
                self._at = self._next_lf + 1
            else:
                self._at = end
                self._keep(data + start, end - start)
                break
            if PyByteArray_GET_SIZE(self._pending):
                event = self._complete_line(data + start, self._at - 1 - start)
            else:
                event = self._use_line(data + start, self._at - 1 - start)
            if event is not None:
                return event
        self._let_go()
        raise StopIteration

    cdef object _complete_line(self, const char* rest, Py_ssize_t size):
        cdef bytearray line = self._pending

        line += rest[:size]
        self._pending = bytearray()
        event = self._use_line(PyByteArray_AS_STRING(line), PyByteArray_GET_SIZE(line))
        self._store_value()  # it is not in the piece
        return event

    cdef object _use_line(self, const char* line, Py_ssize_t size):
        # The event that this line ends, or None.
        cdef const char* colon
        cdef const char* value
        cdef Py_ssize_t name

        if not size:
            return self._end_event()
        if line[0] == b":":
            if size > self._max_size:
                self._fail(size)
            return None
        self._size += size
        if self._size > self._max_size:
            self._fail(self._size)
        colon = <const char*>memchr(line, b":", size)
        name = size if colon is NULL else colon - line
        value = line + min(size, name + 1)
        if value < line + size and value[0] == b" ":
            value += 1
        self._use_field(line, name, value, line + size - value)
        return None

    cdef Status _use_field(
        self, const char* line, Py_ssize_t name, const char* value, Py_ssize_t size
    ) except Status.ERROR:
        if name == 4 and memcmp(line, b"data", 4) == 0:
            self._store_value()
            self._fields += 1
            self._value = value
            self._value_size = size
        elif name == 5 and memcmp(line, b"event", 5) == 0:
            self._event = _text(value, size) if size else None
        elif name == 2 and memcmp(line, b"id", 2) == 0:
            if memchr(value, 0, size) is NULL:
                self._id = _text(value, size)
        elif name == 5 and memcmp(line, b"retry", 5) == 0:
            if 0 < size <= MAX_RETRY_DIGITS and value[:size].isdigit():
                self.retry = int(value[:size])
        return Status.OK

    cdef Status _store_value(self) except Status.ERROR:
        # Copies it out of the present piece.
        if self._value is not NULL:
            if self._fields > 1:
                self._data.append(c"\n")
            self._data += self._value[:self._value_size]
            self._value = NULL
        return Status.OK

    cdef object _end_event(self):
        cdef object event = None

        self.last_event_id = self._id
        if self._fields:
            if self._fields > 1:
                self._store_value()
            if self._value is not NULL:
                data = _text(self._value, self._value_size)
            else:
                data = _text(PyByteArray_AS_STRING(self._data), PyByteArray_GET_SIZE(self._data))
            event = self._new(self._kind)
            # A frozen class refuses what is set in the usual way.
            PyObject_GenericSetAttr(event, "data", data)
            PyObject_GenericSetAttr(event, "event", _MESSAGE if self._event is None else self._event)
            PyObject_GenericSetAttr(event, "id", self._id)
            PyObject_GenericSetAttr(event, "retry", self.retry)
        self._begin_event()
        return event

    # ---- Pieces that end, and limits ----

    cdef Status _keep(self, const char* rest, Py_ssize_t size) except Status.ERROR:
        # The start of a line, whose end comes later.
        self._pending += rest[:size]
        size = PyByteArray_GET_SIZE(self._pending)
        if PyByteArray_AS_STRING(self._pending)[0] != b":":
            size += self._size
        if size > self._max_size:
            self._fail(size)
        return Status.OK

    cdef Status _let_go(self) except Status.ERROR:
        # Of the present piece.
        self._store_value()
        self._piece = b""
        self._at = 0
        return Status.OK

    cdef Status _fail(self, Py_ssize_t size) except Status.ERROR:
        self._begin()
        self._too_large = size
        self._raise_too_large()
        return Status.OK

    cdef Status _raise_too_large(self) except Status.ERROR:
        raise MessageTooLargeError(
            f"a server-sent event of at least {self._too_large} bytes exceeds max_line_size={self._max_size}",
            {"limit": self._max_size},
        )


cdef inline str _text(const char* data, Py_ssize_t size):
    return PyUnicode_DecodeUTF8(data, size, b"replace")
