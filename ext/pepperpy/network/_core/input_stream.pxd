from cpython.object cimport PyObject

from pepperpy.network._core.destination cimport Destination
from pepperpy.network._core.endpoint cimport Endpoint
from pepperpy.network._core.receive_buffer cimport ReceiveBuffer, ReceiveScratch, Searcher
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter


cdef class InputStream:
    """The receiving side of one connection: the unread bytes, the task that waits for more, flow control."""
    cdef:
        Endpoint endpoint            # who may use the connection, its state, its errors
        ReceiveBuffer buffer         # the unread bytes; those in the destination come before them
        ReceiveScratch _scratch      # of the loop; None before the connection is made
        object _area                 # memoryview: the part of the scratch that one read may fill
        Py_ssize_t _least_direct     # bytes; a destination with less room is filled from the scratch
        PyObject* _offered           # where the read under way lands: this destination, which its view keeps; NULL: the scratch
        Destination _destination     # set while its reader waits, and until that has taken it; or None
        bint eof                     # the peer has ended its stream, in order
        bint _end_met                # a take has returned the end of the stream, and nothing has waited since
        object on_at_eof             # callable without arguments, called once when is_at_eof() becomes true; or None
        object on_unasked            # callable without arguments, called when bytes come while nobody waits; or None
        readonly bint loss_raised    # a take has raised the loss
        Py_ssize_t _high             # unread bytes from which on reading is paused
        Py_ssize_t _low              # unread bytes at which it goes on
        # What the one waiting task waits for: a separator; or a number of bytes, and then what the searcher wants.
        Waiter _waiter
        Searcher _holder             # of the one reader that may take, also between its waits; None: any
        bytes _wanted_separator
        Searcher _searcher
        Py_ssize_t _wanted_count     # with a separator: so many bytes without one end the wait as well
        # From this time on any byte wakes the reader, which has looked at `_looked_at` bytes. Seconds of time.monotonic(), or
        # 0: never.
        double _look_at
        Py_ssize_t _looked_at
        double _idle                 # seconds of silence after which a wait fails; 0: none
        double _listens_from         # when the present wait began; seconds of time.monotonic()
        double _last_received        # when bytes last came, exact to a timer tick
        readonly long long bytes_received
        readonly long long receives
        public bint limited_elsewhere    # request() has a timeout for the whole exchange, so its receives have no default one
        public bint silence_allowed      # the waits are not for something that is due: those of a pipeline

    # ---- For readers ----
    #
    # A reader takes bytes out of the stream: Receiver raw ones, FrameReader messages, ResponseReader an HTTP response. It uses
    # what stands here, and no private field. Its take is synchronous, and the one place where bytes change owner:
    #
    #     stream.begin_take(searcher)
    #     look at stream.buffer: [head, head + length); consume by discard(n), take(n) or move_to(target, n)
    #     return stream.end_take(result)
    #
    # If nothing can be taken:
    #
    #     if stream.check_end(): the stream has ended
    #     else: the caller awaits what wait_for() or fill() returns, and takes again
    #
    # Python code may do anything, also with this connection. So keep no pointer into the buffer across a call that may run
    # some; position() tells whether that has taken bytes.

    cdef inline void hold(self, Searcher searcher) noexcept:
        # From now on only the reader with this `searcher` may take. Any other one gets BusyError, also while this one is
        # between two waits or has not begun to receive.
        self._holder = searcher

    cdef inline void let_go(self, Searcher searcher) noexcept:
        if self._holder is searcher:
            self._holder = None

    cdef inline Status begin_take(self, Searcher searcher) except Status.ERROR:
        # Ends a wait that was given up. If the last wait was a fill() with this `searcher` and its destination is whole, that
        # stays for take_destination(); any other one is put back.
        # Raises UsageError in another thread or process, NotConnectedError, and BusyError while another task waits or another
        # reader holds the stream.
        self.endpoint.check_user()
        if self._waiter is not None or self._destination is not None or self._holder is not None:
            self._end_wait(searcher)
        return Status.OK

    cdef inline bint has_destination(self) noexcept:
        # After begin_take(): whether there is a whole destination for this reader. Its bytes come before those in the buffer.
        return self._destination is not None

    cdef inline Destination peek_destination(self):
        # That destination, or None. It stays where it is.
        return self._destination

    cdef inline Destination take_destination(self):
        # Requires has_destination(). Its `result` is the caller's now.
        cdef Destination destination = self._destination

        self._destination = None
        return destination

    # Requires has_destination(). Puts its bytes in front of the unread ones, as they came: all of them, or on an error none.
    cdef Status give_back_destination(self) except Status.ERROR
    # Counts a receive, resumes reading if the buffer is empty enough, calls on_at_eof() if it is due. Returns `result`.
    cdef object end_take(self, object result)
    # Calls on_at_eof() if it is due; for readers that consume without end_take(). If it raises, the connection ends with that.
    cdef Status tell_at_eof(self) except Status.ERROR
    # False: more may come. True: the peer has ended its stream, in order. Raises ConnectionLostError or ClosedError where no
    # more can come for another reason, and NotConnectedError.
    cdef bint check_end(self) except -1
    cdef inline bint meet_end(self) noexcept:
        # Whether to return the end of the stream now. The first take returns it at once, each further one after a turn of the
        # loop. Otherwise a program that receives again and again would hold up the loop for ever.
        self._end_met = not self._end_met
        return self._end_met

    # Consumes the unread bytes and raises IncompleteReadError with them. It says what they are short of: `expected` bytes, or
    # if that is None, `end`.
    cdef Status raise_incomplete(self, object expected, str end=*) except Status.ERROR

    cdef inline long long position(self) noexcept:
        # Where in the stream the first byte of the buffer is. It changes if and only if somebody takes bytes.
        return self.bytes_received - self.buffer.length

    # An awaitable that ends when another take is worth it: at the end, a loss or a close; or with `count` unread bytes. With a
    # separator: or when that has come. With a searcher: and when the bytes that it wants have come, too.
    # `timeout` is as the caller of the public method gave it. With `previous`, the deadline of that wait holds.
    # Requires begin_take() and check_end() right before.
    cdef Waiter wait_for(self, Py_ssize_t count, bytes separator, Searcher searcher, object timeout, Waiter previous)
    # A new destination of `size` bytes. Memory for `capacity` of them is allocated now, for the others as bytes arrive. Of the
    # first `lead` unread bytes only the first `copied` are part of the result. On a MemoryError nothing has changed.
    cdef Destination new_destination(self, Py_ssize_t size, Py_ssize_t capacity, Py_ssize_t lead, Py_ssize_t copied)
    # As wait_for(), until the new `destination` is whole. It gets the unread bytes, which must be fewer than it needs, and the
    # loop reads the rest into it. If the reader gives up, or no more comes, the next begin_take() puts back all of it.
    cdef Waiter fill(self, Destination destination, Searcher searcher, object timeout, Waiter previous)
    # Right after wait_for() has returned `waiter`: end that wait also when any byte has come and `seconds` have passed. If
    # there is no memory for a timer, or the deadline is earlier, any byte ends it.
    cdef Status look_again_after(self, Waiter waiter, double seconds) except Status.ERROR

    # ---- For the protocol ----

    cdef Status open(self) except Status.ERROR
    cdef Status start_tls(self) except Status.ERROR
    cdef object next_buffer(self)
    cdef Status received(self, Py_ssize_t n) except Status.ERROR
    cdef Status end(self, bint wake_now) except Status.ERROR
    cdef Py_ssize_t unread(self) noexcept
    cdef bint is_at_eof(self) noexcept

    cdef inline bint is_idle(self) noexcept:
        # Whether nothing is unread, nothing waits, no reader holds the stream, and the peer may still send.
        return not (
            self.eof
            or self.unread()
            or self._waiter is not None
            or self._holder is not None
            or self.limited_elsewhere
        )

    cdef Status discard_all(self) except Status.ERROR
    cdef Status read_to_the_end(self) except Status.ERROR
    cdef bint is_due(self, double now) noexcept
    cdef double expire(self, double now) except -1

    cdef double _silent_at(self) noexcept
    cdef Status _end_wait(self, Searcher searcher) except Status.ERROR
    cdef bint _is_satisfied(self) noexcept
    cdef Py_ssize_t _fill_destination(self, Py_ssize_t n) except -1
    cdef Status _show(self, Py_ssize_t n) except Status.ERROR
