from pepperpy.network._core.status cimport Status

cdef enum:
    # Bytes. A receive that lacks at least this much gets memory of its own. For a smaller one the scratch is cheaper, because
    # one read brings several records (measured with `make bench ARGS="-k receive_record"`).
    OWN_MEMORY_FROM = 128 * 1024


cdef class ReceiveScratch:
    """The memory that all connections of one event loop read into, one read at a time."""
    cdef:
        object __weakref__
        bytearray _memory            # owns the bytes: headroom, then the area
        char* area                   # where a read lands; borrows from _memory
        readonly object view         # memoryview of the first 256 KiB of the area: what get_buffer() returns
        readonly object tls_view     # memoryview of the whole area: for a TLS transport
        ReceiveBuffer borrower       # the buffer whose unread bytes lie here; None except during a read callback

    cdef void settle_borrower(self) noexcept


cdef class Searcher:
    """Finds the end of what a reader waits for: a framer, for example."""
    # The number of unread bytes at which to wake the reader; 0: now. It runs inside of a read callback, so it must not call
    # Python code.
    cdef Py_ssize_t bytes_wanted(self, ReceiveBuffer buffer) noexcept


cdef class ReceiveBuffer:
    """The unread bytes of one connection: contiguous, in storage of its own or in the scratch."""
    cdef:
        # The unread bytes are [head, head + length).
        char* head
        readonly Py_ssize_t length
        # Storage of its own. NULL while nothing is unread, so an idle connection costs nothing.
        char* _storage
        Py_ssize_t _capacity
        # The scratch while head points into it, from accept() to settle(); otherwise None.
        ReceiveScratch _lender
        bint _has_lost               # bytes were dropped because there was no memory to keep them
        # How far `searcher` has searched, so that a slow drip is not searched again and again: no separator starts in the
        # first `scanned` unread bytes; what the number means to a Searcher is up to that.
        Py_ssize_t scanned
        object searcher              # bytes or Searcher

    # Bytes in.
    cdef Status accept(self, ReceiveScratch scratch, Py_ssize_t n) except Status.ERROR
    cdef Status settle(self) except Status.ERROR
    cdef Status append(self, const char* data, Py_ssize_t n) except Status.ERROR
    cdef Status prepend(self, const char* data, Py_ssize_t n) except Status.ERROR
    # Searching. Both functions may drop the searcher before, which may run Python code. So read `head` after the call.
    cdef Py_ssize_t find_end(self, bytes separator) noexcept

    cdef inline Status search_for(self, object searcher) noexcept:
        # From now on `scanned` is that of `searcher`.
        if self.searcher is not searcher:
            self._change_searcher(searcher)
        return Status.OK

    cdef Status _change_searcher(self, object searcher) noexcept
    # Bytes out.
    cdef bytes take(self, Py_ssize_t n)
    cdef Status take_lines(self, list lines, Py_ssize_t limit) except Status.ERROR
    cdef void move_to(self, char* target, Py_ssize_t n) noexcept
    cdef void discard(self, Py_ssize_t n) noexcept

    cdef Status reserve(self, Py_ssize_t n) except Status.ERROR
    cdef void _release(self) noexcept


cdef ReceiveScratch scratch_of(object loop)
