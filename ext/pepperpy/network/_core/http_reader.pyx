"""Reads one HTTP/1.x response: its head (http_head.pyx), and where its body begins and ends.

No byte behind the response is used, so whatever is left afterwards is what nobody asked for. Two things keep chunks
from going through llhttp, as heads do: httptools does not tell where a message has ended, and it copies each piece.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.string cimport memchr, memcpy

from pepperpy.network._core.http_head cimport Lines, ResponseRules, is_token
from pepperpy.network._core.receive_buffer cimport OWN_MEMORY_FROM
from pepperpy.network._core.receiver cimport Receiver
from pepperpy.network._core.status cimport Status

from pepperpy.network._core.http_head import MalformedResponse
from pepperpy.network.errors import BusyError

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL
    int _PyBytes_Resize(PyObject** object, Py_ssize_t size) except -1
    const Py_ssize_t PY_SSIZE_T_MAX

cdef extern from *:
    """
    /* Bytes of chunked framing that a body may have beyond 16 and twice its data for each chunk; and of one line of it.
       Extensions, and zeros before a size, have no limit of their own. Both are those of Go
       (net/http/internal/chunked.go). */
    #define SPARE_FRAMING (16 * 1024)
    #define MAX_CHUNK_LINE (4 * 1024)
    """
    const Py_ssize_t SPARE_FRAMING
    const Py_ssize_t MAX_CHUNK_LINE


class TruncatedResponse(Exception):
    """The stream ended, in order, before the response was whole."""


# What reading a response from a connection raises; NetworkErrors are OSErrors.
READ_ERRORS = (OSError, MalformedResponse, TruncatedResponse, MemoryError)


cdef class ResponseReader:
    """One response. `read_head()` until `has_head`, then `read_body()` until `is_whole`.

    Attributes:
        status: 0 before the head.
        has_head: Whether the final head has come.
        content_encoding: The value of that field as it came, or None. Of several, all, with commas.
        keep_alive: Likewise.
        continued: Whether an interim response has said that the body may be sent (100).
        reusable: Whether, by what this head says, the connection may carry another exchange after this one.
        body_bytes: Of the body as they came so far, without framing.
    """
    def __init__(self, ResponseRules rules not None, bint without_body=False):
        """Args: without_body: Whether the request was HEAD, whose answer has none whatever it says."""
        self._rules = rules
        self._without_body = without_body
        self._spare = SPARE_FRAMING

    @property
    def is_whole(self):
        """Whether all of it has come and been taken."""
        return self._state == State.WHOLE

    @property
    def remaining(self):
        """Bytes of the body that are still to be taken; None if its length is not known in advance."""
        if self._state == State.KNOWN_LENGTH:
            return self._left
        return 0 if self._state == State.WHOLE else None

    @property
    def ends_with_stream(self):
        """Whether only the end of the stream tells where the body ends."""
        return self._state == State.UNTIL_END

    # ---- The head ----

    cdef Status head_is_there(self) except Status.ERROR:
        # What follows it: another head, or the body, of which this is the one place that decides how long it is
        # (RFC 9112, section 6.3).
        cdef int status = self.status

        self._blanks = 0
        if status < 200:
            if status == 101:
                raise MalformedResponse("the server switched to another protocol (101), which nobody asked for")
            self._interims += 1
            if self._interims > self._rules.max_interim:
                raise MalformedResponse(
                    f"more than max_interim={self._rules.max_interim} interim (1xx) responses",
                    limit="max_interim",
                    size=self._rules.max_interim,
                )
            self.continued |= status == 100
            self.forget_head()
            return Status.OK
        self.has_head = True
        self.reusable = not self._says_close and (self._minor == 1 or self._says_keep_alive)
        if self._without_body:
            self._state = State.WHOLE
        elif status == 204 or status == 304:
            self._state = State.WHOLE
            if self._length > 0 or self._codings is not None:
                # Some servers send that body all the same, maybe later than the next request.
                self.reusable = False
        elif self._codings is not None:
            if not is_token(self._codings, b"chunked"):
                raise MalformedResponse("the Transfer-Encoding is another one than 'chunked'")
            if self._minor == 0:
                # RFC 9112, section 6.1: its framing may be faulty, so nothing is believed to follow.
                self.reusable = False
            self._state = State.CHUNK_SIZE
        elif self._length >= 0:
            self._left = self._length
            self._state = State.KNOWN_LENGTH if self._left else State.WHOLE
        else:
            self.reusable = False
            self._state = State.UNTIL_END
        return Status.OK

    def take_head(self, Receiver receiver not None):
        """Whether the head has come; if not, await `wait()` and ask again.

        Raises:
            MalformedResponse, TruncatedResponse, and what the receiver raises where no more can come.
        """
        return self.head_from(receiver)

    cdef bint head_from(self, Receiver receiver) except -1:
        cdef long long position
        cdef Py_ssize_t used

        receiver.begin_take(self)
        while receiver.buffer.length and not self.has_head:
            position = receiver.position()
            used = self.use_head(receiver.buffer.head, receiver.buffer.length)
            if not used:
                break
            _discard(receiver, used, position)
        if self.has_head:
            receiver.end_take(None)
            return True
        if receiver.check_end():
            self.note_end()
        return False

    def wait(self, Receiver receiver not None):
        """An awaitable that ends when there is more than now, or no more can come. Without a time limit."""
        return receiver.wait_for(receiver.buffer.length + 1, None, None, None, None)

    # ---- The body ----

    def take_body(self, Receiver receiver not None, Py_ssize_t most=PY_SSIZE_T_MAX):
        """The next piece of the body, at most so many bytes of it; b"" if it `is_whole`; None: await `wait()` and ask again.

        Raises: as `take_head()`.
        """
        cdef long long position
        cdef Py_ssize_t used = 0
        cdef bytes piece

        receiver.begin_take(None)
        if self._state == State.WHOLE:
            return b""
        if receiver.buffer.length:
            position = receiver.position()
            piece = self.use_body(receiver.buffer.head, receiver.buffer.length, most, &used)
            _discard(receiver, used, position)
            receiver.end_take(None)
            if piece or self._state == State.WHOLE:
                return piece
        if receiver.check_end():
            self.note_end()
            return b""
        return None

    def take_rest(self, Receiver receiver not None):
        """All that is still to come of a body of known length; None: await `wait_for_rest()`. Raises as `take_head()`."""
        return self.rest_from(receiver)

    cdef bytes rest_from(self, Receiver receiver):
        cdef bytes rest

        receiver.begin_take(self)
        if receiver.has_destination():
            rest = receiver.take_destination().result
        elif self._left <= receiver.buffer.length:
            rest = receiver.buffer.take(self._left)
        else:
            if receiver.check_end():
                self._note_end(receiver.unread())
            return None
        self._landed(self._left)
        receiver.end_take(None)
        return rest

    def wait_for_rest(self, Receiver receiver not None):
        """As `wait()`, until `take_rest()` has all. A large rest lands in its result, which grows with what arrives."""
        if self._left - receiver.buffer.length < OWN_MEMORY_FROM:
            return receiver.wait_for(self._left, None, None, None, None)
        return receiver.fill(
            receiver.new_destination(self._left, max(OWN_MEMORY_FROM, 2 * receiver.buffer.length), 0, 0), self, None, None
        )

    def read_body(self, data):
        """A piece of the body out of `data`, b"" if there is none, and how many bytes of `data` were used for it.

        Raises:
            MalformedResponse: The chunks are none, or past a limit. What came before that is returned first.
        """
        cdef const unsigned char[::1] view = data
        cdef Py_ssize_t used = 0
        cdef bytes piece

        if not view.shape[0]:
            return b"", 0
        piece = self.use_body(<const char*>&view[0], view.shape[0], PY_SSIZE_T_MAX, &used)
        return piece, used

    cdef bytes use_body(self, const char* data, Py_ssize_t size, Py_ssize_t most, Py_ssize_t* used):
        # At most `size` bytes, so what is made is bounded by what is on hand.
        cdef bytes piece

        if self._state == State.KNOWN_LENGTH or self._state == State.UNTIL_END:
            used[0] = min(most, size if self._state == State.UNTIL_END else min(size, self._left))
            piece = PyBytes_FromStringAndSize(data, used[0])
            self._landed(used[0])
            return piece
        if self._state == State.WHOLE:
            used[0] = 0
            return b""
        return self._use_chunks(data, size, most, used)

    cdef Status _landed(self, Py_ssize_t size) except Status.ERROR:
        # So many bytes of a body without chunks have gone to its reader.
        self.body_bytes += size
        if self._state == State.KNOWN_LENGTH:
            self._left -= size
            if not self._left:
                self._state = State.WHOLE
        return Status.OK

    def note_end(self):
        """The stream has ended, in order, and all that came before is used.

        Raises:
            TruncatedResponse: Something was still to come. `has_head` tells what.
        """
        self._note_end(0)

    cdef Status _note_end(self, Py_ssize_t unread) except Status.ERROR:
        # `unread` bytes of a body of known length have come, and stay where they are.
        if self._state == State.UNTIL_END:
            self._state = State.WHOLE
        elif self._state == State.KNOWN_LENGTH:
            raise TruncatedResponse(f"the body ended {self._left - unread} bytes before its Content-Length")
        elif self._state == State.HEAD:
            raise TruncatedResponse("the connection was closed before the head of an answer was whole")
        elif self._state != State.WHOLE:
            raise TruncatedResponse("the body ended before its last chunk")
        return Status.OK

    cdef bytes _use_chunks(self, const char* data, Py_ssize_t size, Py_ssize_t most, Py_ssize_t* used):
        # Into memory for all of it, which is made shorter in place; that needs the only reference to it.
        cdef Py_ssize_t room = min(size, most)
        cdef PyObject* piece = new_bytes(NULL, room)
        cdef Py_ssize_t filled

        try:
            filled = self._copy_chunks(PyBytes_AS_STRING(<bytes>piece), room, data, size, used)
        except BaseException:
            Py_DECREF(<object>piece)
            raise
        self.body_bytes += filled
        if filled < room:
            _PyBytes_Resize(&piece, filled)
        result = <bytes>piece
        Py_DECREF(result)
        return result

    cdef Py_ssize_t _copy_chunks(
        self, char* target, Py_ssize_t room, const char* data, Py_ssize_t size, Py_ssize_t* used
    ) except -1:
        cdef Py_ssize_t filled = 0
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t step

        while self._state != State.WHOLE and at < size:
            if self._state == State.CHUNK_DATA:
                step = min(min(size - at, room - filled), self._left)
                if not step:
                    break
                memcpy(target + filled, data + at, step)
                filled += step
                self._left -= step
                if not self._left:
                    self._state = State.CHUNK_END
            else:
                try:
                    step = self._use_framing(data + at, size - at)
                except MalformedResponse:
                    if not filled:
                        raise
                    # The data before it is good. The next call comes to this place again.
                    step = 0
                if not step:
                    break
            at += step
        used[0] = at
        return filled

    cdef Py_ssize_t _use_framing(self, const char* data, Py_ssize_t size) except -1:
        # Bytes of the line, or of the trailers, that come next; 0 if they are not all there.
        cdef const char* found
        cdef Py_ssize_t end

        if self._state == State.TRAILERS:
            end = self.find_end(data, size, False)
            if end:
                self.read_trailers(data, end)
                self._state = State.WHOLE
            return end
        if self._state == State.CHUNK_END:
            if data[0] != b"\r" or (size > 1 and data[1] != b"\n"):
                raise MalformedResponse("a chunk does not end where its size says")
            if size == 1:
                return 0
            self._state = State.CHUNK_SIZE
            return 2
        if _hex_digit(data[0]) < 0:
            raise MalformedResponse("a chunk does not begin with its size")
        found = <const char*>memchr(data, b"\n", min(size, MAX_CHUNK_LINE))
        if found is NULL:
            if size >= MAX_CHUNK_LINE:
                raise MalformedResponse(
                    f"the line with a chunk's size is longer than {MAX_CHUNK_LINE} bytes",
                    limit="chunk framing",
                    size=MAX_CHUNK_LINE,
                )
            return 0
        end = found - data + 1
        self._left = _chunk_size(data, end, self._rules.lenient)
        # The line end behind the data counts as well.
        self._spare = min(SPARE_FRAMING, self._spare - end - 2 + 16 + 2 * min(self._left, SPARE_FRAMING))
        if self._spare < 0:
            raise MalformedResponse("too much chunked framing for its data", limit="chunk framing", size=SPARE_FRAMING)
        if self._left:
            self._state = State.CHUNK_DATA
        else:
            self._state = State.TRAILERS
            self._lines = Lines(0, 0, 0, 0, 0, False)
        return end


cdef Status _discard(Receiver receiver, Py_ssize_t used, long long position) except Status.ERROR:
    # What was at `position` has been used. The parser makes objects, and so may have collected garbage, whose end may run
    # code that has closed this connection, or received from it.
    if receiver.position() != position:
        receiver.check_end()
        raise receiver.endpoint.error(BusyError, "the answer was taken by somebody else while it was read", "receive")
    receiver.buffer.discard(used)
    return Status.OK


cdef inline int _hex_digit(char c) noexcept:
    if b"0" <= c <= b"9":
        return c - c"0"
    c = c | 32
    return c - c"a" + 10 if b"a" <= c <= b"f" else -1


cdef long long _chunk_size(const char* line, Py_ssize_t size, bint lenient) except -1:
    # RFC 9112, section 7.1: 1*HEXDIG [ chunk-ext ] CRLF, where an extension begins with a semicolon.
    cdef long long value = 0
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t end = size - 1
    cdef int digit

    if not end or line[end - 1] != b"\r":
        # A lone LF may end a line of a head (RFC 9112, section 2.2); here it is how answers are smuggled.
        raise MalformedResponse("a line of the chunked framing ends with LF alone")
    end -= 1
    while at < end:
        digit = _hex_digit(line[at])
        if digit < 0:
            break
        if value >> 58:
            raise MalformedResponse("the size of a chunk is past 2^62 bytes")
        value = 16 * value + digit
        at += 1
    if at < end and lenient:
        while at < end and line[at] == b" ":
            at += 1
    if at < end and line[at] != b";":
        raise MalformedResponse("the size of a chunk is no hexadecimal number")
    while at < end:
        # 0 to 31 but the tab, and DEL.
        if (0 <= line[at] < 32 and line[at] != b"\t") or line[at] == 127:
            raise MalformedResponse("a chunk's extension has a control character")
        at += 1
    return value
