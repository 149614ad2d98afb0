from pepperpy.network._core.status cimport Status

cdef enum:
    # A large receive that misses at least this much gets its own memory; below, one read into the scratch that brings
    # several records is cheaper. Measured with `make bench ARGS="-k receive_record"`.
    OWN_MEMORY_FROM = 128 * 1024


cdef class ReceiveScratch:
    """Memory that one event loop's connections all receive into, one read at a time."""
    cdef:
        object __weakref__
        bytearray _memory            # owns; [headroom | area that a read fills]
        char* area                   # borrows from _memory: where a read lands
        readonly object view         # memoryview of the area's first 256 KiB, what get_buffer() hands to the loop
        readonly object tls_view     # ... of all of it, for a TLS transport
        ReceiveBuffer borrower       # whose unread bytes lie here now; None almost always


cdef class Searcher:
    """Knows what one reader waits for, and how many bytes that takes: a framer, say."""
    # Bytes at which to wake the reader; 0 = now. Runs inside a read callback, so it must not call Python code.
    cdef Py_ssize_t bytes_wanted(self, ReceiveBuffer buffer) noexcept


cdef class ReceiveBuffer:
    """Bytes received and not yet taken, contiguous, in own storage or lent by the scratch."""
    cdef:
        # The unread bytes: [head, head + length).
        char* head
        readonly Py_ssize_t length
        # Own storage. NULL while nothing is kept, so that an idle connection costs nothing.
        char* _storage
        Py_ssize_t _capacity
        # Set while head points into the scratch, between accept() and settle().
        ReceiveScratch _lender
        bint _has_lost               # bytes for which there was no memory
        # The first `scanned` unread bytes hold nothing new for `searcher`, which is a separator (none starts there) or a
        # Searcher: a slow drip is searched once, not over and over.
        Py_ssize_t scanned
        object searcher              # bytes or Searcher

    # Bytes in.
    cdef Status accept(self, ReceiveScratch scratch, Py_ssize_t n) except Status.ERROR
    cdef Status settle(self) except Status.ERROR
    cdef Status prepend(self, const char* data, Py_ssize_t n) except Status.ERROR
    # Looking. Both may run Python code where another searcher ends: take `head` afterwards.
    cdef Py_ssize_t find_end(self, bytes separator) noexcept

    cdef inline Status search_for(self, object searcher) noexcept:
        # Afterwards `scanned` is that of `searcher`.
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
