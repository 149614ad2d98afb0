from pepperpy.network._core.receive_buffer cimport Searcher
from pepperpy.network._core.status cimport Status


cdef struct Lines:
    # What is known of lines that are not all there yet, so that a slow drip is looked at once. Offsets are from the
    # first byte that is not used up.
    Py_ssize_t looked        # no line feed before it but those that have been counted
    Py_ssize_t checked       # no CR without LF before it, if more lines were waited for
    Py_ssize_t start         # of the present line
    Py_ssize_t field         # bytes of the present field in its lines before this one
    Py_ssize_t count         # lines before it
    bint irregular           # a bare LF, or a folded line


cdef class ResponseRules:
    """What a response may be."""
    cdef:
        readonly Py_ssize_t max_head_size
        readonly Py_ssize_t max_field_size
        readonly Py_ssize_t max_fields
        readonly Py_ssize_t max_interim
        readonly bint lenient


cdef class HeadReader(Searcher):
    """Reads heads until `head_is_there()` takes one for the last; and trailers."""
    cdef:
        readonly int status
        readonly bint has_head
        readonly bytes content_encoding
        readonly bytes keep_alive
        # Nothing, which the parser looks for; not to find them takes longer.
        readonly object on_message_begin, on_message_complete, on_chunk_header, on_chunk_complete, on_status
        ResponseRules _rules
        int _minor                   # HTTP/1.x
        int _blanks                  # empty lines that came before the present head
        Lines _lines
        bytes _head                  # as it was parsed
        list _fields                 # (name, value) of the head, as bytes
        list _trailers               # likewise; None before them
        object _headers              # CIMultiDictProxy of `_fields`, once somebody has asked
        # What the fields say of the body.
        long long _length            # -1: nothing
        bytes _codings               # Transfer-Encoding, all of them
        bint _says_close
        bint _says_keep_alive
        int _heads_parsed
        str _fault                   # found in a callback

    # Uses what belongs to one head, if that is whole; returns how many bytes. May run Python code.
    cdef Py_ssize_t use_head(self, const char* data, Py_ssize_t size) except -1
    # Called for each one, which has been parsed. Sets `has_head`, or makes room for the next one.
    cdef Status head_is_there(self) except Status.ERROR
    cdef Status forget_head(self) except Status.ERROR
    cdef Py_ssize_t find_end(self, const char* data, Py_ssize_t size, bint has_status) except -1
    cdef Status read_trailers(self, const char* data, Py_ssize_t size) except Status.ERROR

    cdef bint _skip_blank_line(self, const char* data, Py_ssize_t size, Py_ssize_t* used) except -1
    cdef Status _read_status(self, const char* line, Py_ssize_t size) except Status.ERROR
    cdef Status _parse(self, const char* data, Py_ssize_t size) except Status.ERROR
    cdef Status _feed(self, bytes data) except Status.ERROR
    cdef Status _read_length(self, bytes value) except Status.ERROR


cdef inline bint is_blank(char c) noexcept:
    return c == b" " or c == b"\t"


# Whether they are equal but for case. `lower` has letters and hyphens only.
cdef bint is_token(bytes name, bytes lower) noexcept
