from pepperpy.network._core.http_head cimport HeadReader
from pepperpy.network._core.receiver cimport Receiver
from pepperpy.network._core.status cimport Status


cdef enum State:
    HEAD             # ... or an interim one
    KNOWN_LENGTH     # `_left` bytes of body are still to come
    CHUNK_SIZE       # a line with the size of the next chunk
    CHUNK_DATA       # `_left` bytes of this chunk are still to come
    CHUNK_END        # the line end behind its data
    TRAILERS
    UNTIL_END        # of the stream
    WHOLE


cdef class ResponseReader(HeadReader):
    """One response: its head, and where its body begins and ends."""
    cdef:
        readonly bint continued
        readonly bint reusable
        readonly long long body_bytes
        bint _without_body           # it answers HEAD
        State _state
        int _interims
        long long _left
        Py_ssize_t _spare            # bytes of chunked framing that may still come

    # take_head() and take_rest().
    cdef bint head_from(self, Receiver receiver) except -1
    cdef bytes rest_from(self, Receiver receiver)
    cdef bytes use_body(self, const char* data, Py_ssize_t size, Py_ssize_t most, Py_ssize_t* used)

    cdef Status _landed(self, Py_ssize_t size) except Status.ERROR
    cdef Status _note_end(self, Py_ssize_t unread) except Status.ERROR
    cdef bytes _use_chunks(self, const char* data, Py_ssize_t size, Py_ssize_t most, Py_ssize_t* used)
    cdef Py_ssize_t _copy_chunks(
        self, char* target, Py_ssize_t room, const char* data, Py_ssize_t size, Py_ssize_t* used
    ) except -1
    cdef Py_ssize_t _use_framing(self, const char* data, Py_ssize_t size) except -1
