from cpython.object cimport PyObject

from pepperpy.network._core.destination cimport Destination
from pepperpy.network._core.endpoint cimport Endpoint
from pepperpy.network._core.receive_buffer cimport ReceiveBuffer, ReceiveScratch, Searcher
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter


cdef class InputStream:
    """One connection's receiving side: the buffer, the one task that waits for bytes, flow control."""
    cdef:
        Endpoint endpoint            # who may use the connection, its state, its errors
        ReceiveBuffer buffer         # what is unread, but for the bytes in the destination
        ReceiveScratch _scratch      # of the loop; None before the connection is made
        object _area                 # memoryview: as much of the scratch as one read may fill
        Py_ssize_t _least_direct     # a destination that misses less is filled from the scratch
        PyObject* _offered           # the destination that next_buffer() gave a view of, which holds it; NULL: the scratch
        Destination _destination     # only while its reader waits, or has been woken and not yet run. Bytes in it come first.
        bint eof
        bint _end_met                # a take has returned the end of the stream, and nothing has waited since
        object on_at_eof             # callable without arguments, told once when is_at_eof() becomes true; or None
        readonly bint loss_raised           # a take has raised the loss
        Py_ssize_t _high
        Py_ssize_t _low
        # The one task that waits, and for what: a separator, or else a number of bytes, and what the searcher wants in them.
        Waiter _waiter
        bytes _wanted_separator
        Searcher _searcher
        Py_ssize_t _wanted_count     # with a separator: how many bytes without one end the wait as well
        # When the reader is to be woken with more than `_looked_at` bytes, though fewer than that; 0: never.
        double _look_at
        Py_ssize_t _looked_at
        readonly long long bytes_received
        readonly long long receives
        public bint limited_elsewhere    # request() limits the whole exchange: no default timeout for its parts

    # ---- For readers ----
    #
    # A reader is a class of the core that makes more than raw bytes of a stream: messages (FrameReader), HTTP. It uses what
    # stands here, and no private field. Its take is synchronous, and the one place where bytes change owner:
    #
    #     receiver.begin_take(searcher)
    #     look at receiver.buffer: [head, head + length), consume by discard(n), take(n) or move_to(target, n)
    #     return receiver.end_take(result)
    #
    # or, where nothing could be taken:
    #
    #     if receiver.check_end(): the stream has ended
    #     else the caller awaits what wait_for() or fill() returns, and takes again
    #
    # No pointer into the buffer is kept across a call that may run Python code, which may do anything, also with this
    # connection. position() tells whether that has taken bytes.

    cdef inline Status begin_take(self, Searcher searcher) except Status.ERROR:
        # Raises UsageError in another thread or process, BusyError while another task waits. A wait that was given up ends.
        # The finished destination that the reader with this searcher has waited for stays for take_destination().
        self.endpoint.check_user()
        if self._waiter is not None or self._destination is not None:
            self._end_wait(searcher)
        return Status.OK

    cdef inline bint has_destination(self) noexcept:
        # After begin_take(searcher): whether what that reader's fill() was for is whole. Its bytes come before the unread ones.
        return self._destination is not None

    cdef inline Destination take_destination(self):
        # Requires has_destination(). The `result` changes owner; what can fail is done before, or followed by put_back().
        cdef Destination destination = self._destination

        self._destination = None
        return destination

    # Back in front of the unread bytes, as they came: what take_destination() gave. Nothing was taken in between.
    cdef Status put_back(self, Destination destination) except Status.ERROR
    # Counts the take, lets the peer send on, tells of the end of the stream. Returns `result`.
    cdef object end_take(self, object result)
    # Whoever consumes without end_take() calls this: on_at_eof() may be due. Raises nothing: the connection ends instead.
    cdef Status tell_at_eof(self) except Status.ERROR
    # False: more may come. True: the stream has ended, in order. Raises ConnectionLostError, ClosedError, NotConnectedError.
    cdef bint check_end(self) except -1
    # Raises IncompleteReadError with the unread bytes, and consumes them. `expected` is a number of bytes, or None and `end`
    # says what the stream has ended before.
    cdef Status raise_incomplete(self, object expected, str end=*) except Status.ERROR

    cdef inline long long position(self) noexcept:
        # Of the first unread byte in the stream: it moves when somebody takes bytes, and only then.
        return self.bytes_received - self.buffer.length

    # An awaitable that ends when another take is worth it: `count` bytes are on hand (with a separator: or that, with a
    # searcher: and then the bytes that it wants), or the end, a loss or a close has come. `timeout` as the caller of the
    # public method gave it; a wait that goes on where `previous` ended has the deadline of that one. At most one task waits.
    cdef Waiter wait_for(self, Py_ssize_t count, bytes separator, Searcher searcher, object timeout, Waiter previous)
    # Memory for `size` bytes, of which `capacity` are allocated at once and the rest as bytes arrive. The first `lead` unread
    # bytes are no part of the result, but for the first `copied` of those. Raises MemoryError, and nothing has changed.
    cdef Destination new_destination(self, Py_ssize_t size, Py_ssize_t capacity, Py_ssize_t lead, Py_ssize_t copied)
    # As wait_for(), until `destination`, which is new, is whole: the unread bytes go there, fewer than it needs, and the loop
    # reads the rest into it. If the reader gives up, or no more comes, the next begin_take() puts all of it back.
    cdef Waiter fill(self, Destination destination, Searcher searcher, object timeout, Waiter previous)
    # The reader that has just begun to wait, with `waiter`, is to look again after so many seconds, if anything has come; at
    # once when something comes, where that is not possible.
    cdef Status look_again_after(self, Waiter waiter, double seconds) except Status.ERROR

    # What the protocol calls.
    cdef Status open(self) except Status.ERROR
    cdef Status start_tls(self) except Status.ERROR
    cdef object next_buffer(self)
    cdef Status received(self, Py_ssize_t n) except Status.ERROR
    cdef Status end(self, bint wake_now) except Status.ERROR
    cdef Py_ssize_t unread(self) noexcept
    cdef bint is_at_eof(self) noexcept
    cdef Status discard_all(self) except Status.ERROR
    cdef Status read_to_the_end(self) except Status.ERROR
    cdef bint is_due(self, double now) noexcept
    cdef double expire(self, double now) except -1

    cdef Status _end_wait(self, Searcher searcher) except Status.ERROR
    cdef bint _is_satisfied(self) noexcept
    cdef Py_ssize_t _fill_destination(self, Py_ssize_t n) except -1
    cdef Status _give_back(self) except Status.ERROR
