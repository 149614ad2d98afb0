from cpython.object cimport PyObject

from pepperpy.network._core.endpoint cimport Endpoint
from pepperpy.network._core.framer cimport Framer
from pepperpy.network._core.receive_buffer cimport ReceiveBuffer, ReceiveScratch
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter


cdef enum:
    FRAMED = -2   # no size


cdef class Destination:
    """The result of one large receive, which the loop fills without a detour.

    What a peer has only announced gets no memory: the result of a framed receive grows with what arrives.
    """
    cdef:
        bytes result                 # owns `capacity` bytes
        char* _start                 # borrows from result
        readonly Py_ssize_t size     # bytes when it is whole
        readonly Py_ssize_t filled
        Py_ssize_t capacity          # at most `size`
        # What the stream has in place of the first `copied` bytes of the result, for giving it back. Empty and 0 but for
        # messages, whose length field is no part of them.
        bytes lead
        Py_ssize_t copied
        Py_ssize_t owner             # whose it is: that of the reader of `size` bytes, or FRAMED
        Py_ssize_t _left             # shape of the exported rest
        int _exports                 # views that point into the result

    cdef Py_ssize_t room(self) noexcept
    cdef bint grow(self, Py_ssize_t arrived) noexcept


cdef class Receiver:
    """One connection's receiving side: the buffer, the one task that waits for bytes, flow control."""
    cdef:
        Endpoint _endpoint
        ReceiveScratch _scratch      # of the loop; None before the connection is made
        object _area                 # memoryview: as much of the scratch as one read may fill
        Py_ssize_t _least_direct     # a destination that misses less is filled from the scratch
        ReceiveBuffer _buffer
        PyObject* _offered           # the destination that next_buffer() gave a view of, which holds it; NULL: the scratch
        Destination _destination     # only while its reader waits, or has been woken and not yet run. Bytes in it come first.
        bint eof
        bint _end_met                # a take has returned the end of the stream, and nothing has waited since
        object on_at_eof             # callable without arguments, told once when is_at_eof() becomes true; or None
        readonly bint told           # a take has raised the loss
        bint _reading_paused
        Py_ssize_t _high
        Py_ssize_t _low
        Py_ssize_t _max_message_size
        # The one task that waits, and for what: a separator, or else a number of bytes, and a message of the framer in them.
        Waiter _waiter
        bytes _wanted_separator
        Framer _wanted_frame
        Py_ssize_t _wanted_count     # with a separator: how many bytes without one end the wait as well
        # When the reader is to be woken with more than `_looked_at` bytes, though fewer than that; 0: never.
        double _look_at
        Py_ssize_t _looked_at
        readonly long long bytes_received
        readonly long long receives
        public bint limited_elsewhere    # request() limits the whole exchange: no default timeout for its parts

    # What the protocol calls.
    cdef Status open(self) except Status.ERROR
    cdef Status start_tls(self) except Status.ERROR
    cdef object next_buffer(self)
    cdef Status received(self, Py_ssize_t n) except Status.ERROR
    cdef Status end(self, bint direct) except Status.ERROR
    cdef Py_ssize_t unread(self) noexcept
    cdef bint is_at_eof(self) noexcept
    cdef Status tell_at_eof(self) except Status.ERROR
    cdef Status discard_all(self) except Status.ERROR
    cdef Status read_to_the_end(self) except Status.ERROR
    cdef bint is_due(self, double now) noexcept
    cdef double expire(self, double now) except -1

    cdef Status look_in(self, Waiter waiter, double seconds) except Status.ERROR
    cdef Status _start_taking(self) except Status.ERROR
    cdef Status _start_taking_exactly(self, Py_ssize_t n) except Status.ERROR
    cdef Status _end_wait(self, Py_ssize_t n) except Status.ERROR
    cdef object _took(self, object data)
    cdef object _nothing_on_hand(self)
    cdef object _incomplete(self, object expected, str end=*)
    cdef object _too_large(self, Py_ssize_t limit)
    cdef bint _is_satisfied(self) noexcept
    cdef Py_ssize_t _missing(self) noexcept
    cdef Py_ssize_t _fill_destination(self, Py_ssize_t n) except -1
    cdef Status _grow_destination(self, Py_ssize_t arrived) except Status.ERROR
    cdef Waiter _wait(self, bytes separator, Py_ssize_t count, object timeout, Waiter previous)
    cdef Status _give_back(self) except Status.ERROR
    cdef Status _resume_reading(self) except Status.ERROR
    cdef Status _resume_source(self) except Status.ERROR
