from pepperpy.network._core.receive_buffer cimport ReceiveBuffer, Searcher


cdef enum Look:
    # The answer of locate().
    ERROR = -1    # an exception is set
    MORE          # no complete message yet: look again at `wanted` bytes
    FOUND         # a message, which ends at `end`
    SKIP          # the first `end` bytes are no message
    TOO_LARGE     # a message beyond `limit`; `declared` has its size, if that is known
    MALFORMED     # the bytes will never be a message: `fault` says why, `cause` may have an exception


cdef class Framer(Searcher):
    """Finds where one message ends in a stream of bytes. It knows no connection, and consumes nothing."""
    cdef:
        bint runs_python             # whether locate() runs Python code
        bint in_pairs                # a message is a tuple (header, payload)
        Py_ssize_t limit             # bytes of the longest message, at most LARGEST
        # What the last locate() found; see Look. Offsets count from the start of its `data`.
        Py_ssize_t end
        Py_ssize_t wanted
        # With MORE: if `lead` is not 0, `wanted` is the size of the whole frame. The message is the frame's first `copied`
        # bytes and everything behind its first `lead` bytes.
        Py_ssize_t lead
        Py_ssize_t copied
        # With FOUND and SKIP: whether bytes that are still to come belong to it too. Then ask skip_rest() first.
        bint unfinished
        Py_ssize_t left              # how many such bytes, in the framers that know
        double pause                 # with MORE: seconds after which to look again, whatever has come; 0: do not
        object declared              # int or None
        str fault
        object cause
        # How many bytes the next look at the same bytes may leave out.
        Py_ssize_t scanned

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR
    cdef object message(self, const char* data)
    cdef object joined(self, bytes lead, bytes rest)
    cdef Look discard_message(self, const char* data, Py_ssize_t n) except Look.ERROR
    cdef Look skip_rest(self, const char* data, Py_ssize_t n) noexcept
    cdef Look skip(self, object size, Py_ssize_t n) except Look.ERROR
    cdef bint may_be_left_over(self, const char* data, Py_ssize_t n) noexcept

    cdef Look look(self, ReceiveBuffer buffer) except Look.ERROR
    cdef Py_ssize_t wake_at(self, Py_ssize_t n) noexcept
    cdef str subject(self)


cdef str text_of(object error)
