from cpython.object cimport PyObject

from pepperpy.network._core.status cimport Status


cdef class SendQueue:
    """Accepted bytes that have not left yet, in order. They can no longer change."""
    cdef:
        # The oldest first: large `bytes` by reference, and runs of small ones joined to one. They are [_first, _end) of
        # _chunks, which owns a reference to each. Not a list: that may allocate when it shrinks, after bytes have left.
        PyObject** _chunks
        Py_ssize_t _first
        Py_ssize_t _end
        Py_ssize_t _capacity
        Py_ssize_t _offset           # how many bytes of the first chunk have left
        # The newest small messages, to which more are appended. Invariant: newer than every chunk.
        char* _tail
        Py_ssize_t _tail_length
        Py_ssize_t _tail_capacity
        readonly Py_ssize_t length   # bytes in all

    cdef Status append(self, bytes data) except Status.ERROR
    cdef Status append_all(self, list messages) except Status.ERROR
    cdef int send_to(self, int fd) noexcept
    cdef object take_front(self, Py_ssize_t most)
    cdef void clear(self) noexcept

    cdef Status _append_to_tail(self, const char* data, Py_ssize_t n) except Status.ERROR
    cdef Status _seal_tail(self) except Status.ERROR
    cdef Status _append_chunk(self, bytes chunk) except Status.ERROR
    cdef void _drop_front(self) noexcept
    cdef void _discard(self, Py_ssize_t n) noexcept
    cdef void _release_tail(self) noexcept
