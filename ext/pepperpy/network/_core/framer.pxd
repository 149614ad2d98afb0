from pepperpy.network._core.receive_buffer cimport ReceiveBuffer, Searcher


cdef enum Look:
    # What locate() says of the bytes that it was shown.
    ERROR = -1    # an exception is set
    MORE          # no complete message: `wanted` bytes are worth another look
    FOUND         # a message, which ends at `end`
    SKIP          # the first `end` bytes are no message
    TOO_LARGE     # a message beyond `limit`; its `declared` size, if it is known
    MALFORMED     # no message and never one: `fault`, and `cause` if there is one


cdef class Framer(Searcher):
    """Where one message ends in a stream of bytes. Knows no connection; consumes nothing."""
    cdef:
        bint runs_python             # inside of locate()
        Py_ssize_t limit             # bytes of the longest message, at most LARGEST
        # What the last locate() found, counted from where it was shown; see Look.
        Py_ssize_t end
        Py_ssize_t wanted
        # With MORE: if `lead` is not 0, `wanted` is the whole frame, and the message is its first `copied` bytes and all that
        # is behind the first `lead`.
        Py_ssize_t lead
        Py_ssize_t copied
        # With FOUND and SKIP: what comes next may belong to it as well; pass_over() is asked about that, not locate().
        bint unfinished
        Py_ssize_t left              # ... so many bytes of it, in the framers that know
        double pause                 # with MORE: seconds until another look is due, with whatever has come; 0: none is
        object declared              # int or None
        str fault
        object cause
        # How far the next look at the same bytes need not look again.
        Py_ssize_t scanned

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR
    cdef object message(self, const char* data)
    cdef Look give_up(self, const char* data, Py_ssize_t n) except Look.ERROR
    cdef Look pass_over(self, const char* data, Py_ssize_t n) noexcept
    cdef Look skip(self, object size, Py_ssize_t n) except Look.ERROR
    cdef bint is_nothing(self, const char* data, Py_ssize_t n) noexcept

    cdef Look look(self, ReceiveBuffer buffer) except Look.ERROR
    cdef Py_ssize_t wake_at(self, Py_ssize_t n) noexcept
    cdef str subject(self)


cdef str words_of(object error)
