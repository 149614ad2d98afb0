"""The head of an HTTP/1.x response: where it ends, what it says, what is refused. Trailers are read in the same way.

Its lines are found and counted here, and judged and taken apart by llhttp (httptools), in one call, when they are all
there. So nothing is parsed, and no object made of it, before it is within its limit; and a parser that is given whole
heads only cannot take what follows for a part of one. What llhttp accepts and is none is refused here.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from pepperpy.network._core.status cimport Status

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict, CIMultiDictProxy

# What stands before the trailers when they are given to the parser: the head of a message whose last chunk comes next.
# Empty lines before a head. Arbitrary.
cdef int MAX_BLANKS = 4

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

cdef bytes _BEFORE_TRAILERS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"


class MalformedResponse(Exception):
    """What came is no response, or one past a limit. The text holds nothing of it.

    Attributes:
        details: `limit`, a name of `ResponseRules` or "chunk framing", and its `size`, where it was a limit.
    """

    def __init__(self, text, **details):
        super().__init__(text)
        self.details = details


@cython.final
cdef class ResponseRules:
    """What a response may be. Shared by all responses of a client.

    Attributes:
        max_head_size: Bytes of one head, and of the trailers.
        max_field_size: Bytes of one line of a head, or of several where it is folded.
        max_fields: Fields of one head, and of the trailers.
        max_interim: Interim (1xx) responses before the final one. RFC 9110 sets no limit.
        lenient: Whether lines of a head may end with LF alone (RFC 9112, section 2.2: MAY) and fields may be folded
            (section 5.2: a user agent MUST put blanks in place of the fold), and blanks may stand behind a chunk's size.
            On, because embedded servers do all of that, and the end of a head is unambiguous to a client. The lines of
            chunked framing end with CR LF, always.
    """
    # The defaults are those of `ResponseLimits`, which says where they come from.
    def __init__(
        self,
        *,
        Py_ssize_t max_head_size=256 * 1024,
        Py_ssize_t max_field_size=64 * 1024,
        Py_ssize_t max_fields=1000,
        Py_ssize_t max_interim=8,
        bint lenient=True,
    ):
        self.max_head_size = max_head_size
        self.max_field_size = max_field_size
        self.max_fields = max_fields
        self.max_interim = max_interim
        self.lenient = lenient


cdef class HeadReader:
    def __cinit__(self):
        self._length = -1
        self._fields = []

    @property
    def version(self):
        """`1.0` or `1.1`."""
        return f"1.{self._minor}"

    @property
    def reason(self):
        """The words behind the status; may be empty."""
        # "HTTP/1.1 200 " are 13 characters.
        return self._head[12 : self._head.index(b"\r\n")].strip(b" \t").decode("utf-8", "surrogateescape")

    @property
    def headers(self):
        """A `CIMultiDictProxy`; made when somebody asks."""
        if self._headers is None:
            self._headers = _as_mapping(self._fields)
        return self._headers

    @property
    def fields(self):
        """The headers as they came: (name, value) as bytes."""
        return self._fields

    @property
    def trailers(self):
        """The same of the fields behind a chunked body; empty before its end."""
        return _as_mapping(self._trailers or ())

    def header(self, str name not None):
        """The first value of a field, named in lower case, or None. Makes a str of this one only."""
        cdef bytes lower = name.encode("ascii")

        for key, value in self._fields:
            if is_token(<bytes>key, lower):
                return (<bytes>value).decode("utf-8", "surrogateescape")
        return None

    # ---- The head ----

    def read_head(self, data):
        """Use what belongs to the head, once it is whole, and to interim ones before it; returns how many bytes.

        Raises:
            MalformedResponse: It is no head, or past a limit.
        """
        cdef const unsigned char[::1] view = data
        cdef Py_ssize_t used = 0
        cdef Py_ssize_t step

        while used < view.shape[0] and not self.has_head:
            step = self.use_head(<const char*>&view[used], view.shape[0] - used)
            if not step:
                break
            used += step
        return used

    cdef Py_ssize_t use_head(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t used = 0
        cdef Py_ssize_t end

        if self._lines.count or self._skip_blank_line(data, size, &used):
            end = self.find_end(data + used, size - used, True)
            if end:
                self._parse(data + used, end)
                self._lines = Lines(0, 0, 0, 0, 0, False)
                self.head_is_there()
                used += end
        return used

    cdef bint _skip_blank_line(self, const char* data, Py_ssize_t size, Py_ssize_t* used) except -1:
        # False if there is nothing to look at yet. A few line ends before a head are skipped: old servers send one behind
        # a body (RFC 9112, section 2.2), and that it belongs to no response before this one has been made sure of.
        cdef const char* at = data + used[0]
        cdef Py_ssize_t left = size - used[0]
        cdef int ends

        while left and (at[0] == b"\n" or at[0] == b"\r"):
            if at[0] == b"\r" and left == 1:
                return False
            ends = 1 if at[0] == b"\n" else 2
            if self._blanks == MAX_BLANKS or (ends == 2 and at[1] != b"\n") or (ends == 1 and not self._rules.lenient):
                raise MalformedResponse("it does not begin with 'HTTP/1.'")
            self._blanks += 1
            used[0] += ends
            at += ends
            left -= ends
        return left > 0

    cdef Py_ssize_t find_end(self, const char* data, Py_ssize_t size, bint has_status) except -1:
        # Bytes of all lines up to the empty one, that included; 0 if it has not come. Counts, and so keeps the limits.
        cdef Lines* lines = &self._lines
        cdef ResponseRules rules = self._rules
        cdef const char* found
        cdef Py_ssize_t start
        cdef Py_ssize_t end          # of the line, line end included
        cdef Py_ssize_t content      # of the line, without it

        if has_status and not lines.count:
            _check_start(data, size)
        while True:
            start = lines.start
            found = <const char*>memchr(data + lines.looked, b"\n", size - lines.looked)
            end = size if found is NULL else found - data + 1
            if start < end and not is_blank(data[start]):
                lines.field = 0
            if lines.field + end - start > rules.max_field_size:
                raise _too_large(
                    "line of the head" if has_status else "trailer", "max_field_size", rules.max_field_size
                )
            if end > rules.max_head_size:
                raise _too_large("head" if has_status else "part with the trailers", "max_head_size", rules.max_head_size)
            if found is NULL:
                lines.checked = _check_bare_cr(data, lines.checked, size)
                lines.looked = size
                return 0
            content = end - start - 1
            if content and data[end - 2] == b"\r":
                content -= 1
            else:
                lines.irregular = True
            if not content:
                return end
            if data[start + content - 1] == b"\r":
                raise MalformedResponse("a CR without LF")
            if is_blank(data[start]):
                lines.irregular = True
                if lines.count <= has_status:
                    # Of the first field, or of the status.
                    raise MalformedResponse("a line that continues no field")
            if has_status and not lines.count:
                self._read_status(data, content)
            elif lines.count - has_status >= rules.max_fields:
                raise MalformedResponse(
                    f"more than max_fields={rules.max_fields} header fields", limit="max_fields", size=rules.max_fields
                )
            lines.field += end - start
            lines.start = lines.looked = end
            lines.count += 1

    cdef Status _read_status(self, const char* line, Py_ssize_t size) except Status.ERROR:
        # HTTP/1.1 200 OK. What llhttp lets through is decided here: HTTP/0.9 and 2.0, and a status below 100.
        cdef int i

        if size < 12 or line[7] < b"0" or line[7] > b"1" or line[8] != b" " or (size > 12 and line[12] != b" "):
            raise MalformedResponse("the status line is not one of HTTP/1.0 or HTTP/1.1")
        self.status = 0
        for i in range(9, 12):
            if line[i] < b"0" or line[i] > b"9":
                raise MalformedResponse("the status is no number of three digits")
            self.status = 10 * self.status + (line[i] - c"0")
        if self.status < 100:
            raise MalformedResponse("the status is below 100")
        self._minor = line[7] - c"0"
        return Status.OK

    cdef Status _parse(self, const char* data, Py_ssize_t size) except Status.ERROR:
        cdef bytes head = PyBytes_FromStringAndSize(data, size)

        if self._lines.irregular and self._rules.lenient:
            head = _regular(head)
        self._head = head
        self._feed(head)
        return Status.OK

    cdef Status _feed(self, bytes data) except Status.ERROR:
        self._heads_parsed = 0
        try:
            HttpResponseParser(self).feed_data(data)
        except HttpParserUpgrade:
            pass  # of a 101, which is judged by its status
        except HttpParserCallbackError as error:
            # A lack of memory, or a signal that came while one of the methods below ran.
            raise error if error.__context__ is None else error.__context__
        except HttpParserError as error:
            # The words are llhttp's own, and hold nothing of what came.
            raise MalformedResponse(str(error)) from None
        if self._heads_parsed != 1:
            self._fault = "the end of the head is ambiguous"
        if self._fault is not None:
            raise MalformedResponse(self._fault)
        return Status.OK

    # What the parser calls.

    def on_header(self, bytes name, bytes value):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
        cdef bytes given = value

        if PyBytes_GET_SIZE(value) and is_blank(PyBytes_AS_STRING(value)[PyBytes_GET_SIZE(value) - 1]):
            value = value.rstrip(b" \t")
        if self._trailers is not None:
            self._trailers.append((name, value))
            return
        self._fields.append((name, value))
        if size == 14:
            if is_token(name, b"content-length"):
                self._read_length(value)
        elif size == 10:
            if is_token(name, b"connection"):
                self._says_close |= _has_token(value, b"close")
                self._says_keep_alive |= _has_token(value, b"keep-alive")
            elif is_token(name, b"keep-alive"):
                self.keep_alive = _joined(self.keep_alive, value)
        elif size == 16:
            if is_token(name, b"content-encoding"):
                self.content_encoding = _joined(self.content_encoding, value)
        elif size == 17:
            if is_token(name, b"transfer-encoding"):
                # With a tab behind it: llhttp takes it for an unknown one, and so may who stands in between.
                self._codings = _joined(self._codings, given.rstrip(b" "))

    def on_headers_complete(self):
        self._heads_parsed += 1

    def on_body(self, data):
        # It is given heads only.
        self._fault = "the end of the head is ambiguous"

    cdef Status _read_length(self, bytes value) except Status.ERROR:
        if not value.isdigit() or len(value.lstrip(b"0")) > 19:
            self._fault = "Content-Length is no number of bytes"
            return Status.OK
        length = int(value)
        if length > PY_SSIZE_T_MAX:
            self._fault = "Content-Length is no number of bytes"
        else:
            self._length = length
        return Status.OK

    cdef Status head_is_there(self) except Status.ERROR:
        raise NotImplementedError

    cdef Status forget_head(self) except Status.ERROR:
        # It was an interim one.
        self._fields = []
        self.content_encoding = self.keep_alive = self._codings = None
        self._length = -1
        self._says_close = self._says_keep_alive = False
        return Status.OK

    cdef Status read_trailers(self, const char* data, Py_ssize_t size) except Status.ERROR:
        # Up to the empty line, as find_end() says.
        cdef bytes trailers

        if self._lines.irregular:
            raise MalformedResponse("a line of the chunked framing ends with LF alone, or is folded")
        if self._lines.count:
            trailers = PyBytes_FromStringAndSize(data, size)
            self._trailers = []
            self._feed(_BEFORE_TRAILERS + trailers)
            del self._trailers[0]
        return Status.OK


cdef object _as_mapping(object fields):
    # As aiohttp decodes them; what is no UTF-8 becomes surrogates (PEP 383).
    cdef list pairs = []
    cdef tuple pair
    for name, value in fields:
        pair = (name.decode("ascii"), value.decode("utf-8", "surrogateescape"))
        pairs.append(pair)
    return CIMultiDictProxy(CIMultiDict(pairs))


cdef object _too_large(str what, str name, Py_ssize_t limit):
    # `name` is that of the limit in ResponseRules.
    return MalformedResponse(f"the {what} is longer than {name}={limit} bytes", limit=name, size=limit)


cdef Py_ssize_t _check_bare_cr(const char* data, Py_ssize_t at, Py_ssize_t size) except -1:
    # In lines of which more are to come: what ends its lines with CR alone may never send an empty one. Returns where the
    # next check begins.
    cdef const char* found

    while at < size:
        found = <const char*>memchr(data + at, b"\r", size - at)
        if found is NULL:
            break
        if found + 1 == data + size:
            return size - 1
        if found[1] != b"\n":
            raise MalformedResponse("a CR without LF")
        at = found - data + 2
    return size


cdef Status _check_start(const char* data, Py_ssize_t size) except Status.ERROR:
    # At once, because what speaks another protocol may never send an empty line.
    if memcmp(data, b"HTTP/1.", min(size, 7)):
        raise MalformedResponse("it does not begin with 'HTTP/1.'")
    return Status.OK


cdef bint is_token(bytes name, bytes lower) noexcept:
    # Whether they are equal but for case. `lower` has letters and hyphens only.
    cdef Py_ssize_t i
    cdef char c

    if PyBytes_GET_SIZE(name) != PyBytes_GET_SIZE(lower):
        return False
    for i in range(PyBytes_GET_SIZE(lower)):
        c = PyBytes_AS_STRING(name)[i]
        if b"A" <= c <= b"Z":
            c += 32
        if c != PyBytes_AS_STRING(lower)[i]:
            return False
    return True


cdef bytes _joined(bytes before, bytes value):
    # Fields of one name are one list (RFC 9110, section 5.3).
    return value if before is None else before + b", " + value


cdef bint _has_token(bytes value, bytes token) except -1:
    if is_token(value, token):
        return True
    if b"," in value:
        for word in value.split(b","):
            if is_token(word.strip(b" \t"), token):
                return True
    return False


cdef bytes _regular(bytes lines):
    # Lines that end with CRLF, none of them folded (RFC 9112, section 5.2).
    cdef list regular = []

    for line in lines.split(b"\n"):
        line = line.removesuffix(b"\r")
        if line[:1] in (b" ", b"\t"):
            regular.append(regular.pop() + b" " + line.strip(b" \t"))
        else:
            regular.append(line)
    return b"\r\n".join(regular)
