from cpython.bytes cimport PyBytes_GET_SIZE

from pepperpy.network._core.receive_buffer cimport ReceiveBuffer
from pepperpy.network._core.status cimport Status


cdef class Destination:
    """The result of one large receive: the loop reads straight into it.

    A size that only the peer has named gets no memory in advance: `result` grows with what arrives.
    """
    cdef:
        bytes result                 # owns `capacity` bytes; complete when `filled` is `size`
        char* _start                 # borrows from result
        Py_ssize_t size              # bytes of the complete result
        Py_ssize_t filled
        Py_ssize_t capacity          # at most `size`
        # The stream has `lead` where the result has its first `copied` bytes: the length field of a message, say. Both are
        # needed to give the bytes back as they came. Empty and 0 for most.
        bytes lead
        Py_ssize_t copied
        # The unread bytes for which it was made: where they begin in the stream, and how many they are.
        long long position
        Py_ssize_t on_hand
        Py_ssize_t _left             # shape of the exported rest
        int _exports                 # views that point into the result

    cdef inline bint is_whole(self) noexcept:
        return self.filled == self.size

    cdef inline Py_ssize_t unread(self) noexcept:
        # Bytes of the stream that it holds.
        return self.filled - self.copied + PyBytes_GET_SIZE(self.lead)

    cdef Status begin(self, ReceiveBuffer buffer) noexcept
    cdef Py_ssize_t room(self) noexcept
    cdef object view(self)
    cdef Destination with_room(self, Py_ssize_t n)
    cdef Status append(self, const char* data, Py_ssize_t n) noexcept
    cdef Status give_back(self, ReceiveBuffer buffer) except Status.ERROR
    cdef bint _grow(self, Py_ssize_t arrived) noexcept
