"""Received bytes: where they lie, who owns them, where a separator is. It knows no loop and no protocol.

The way of a byte. The loop reads into the scratch, one region for all connections of the loop. One is enough, because a
loop fills it between `get_buffer` and `buffer_updated` without doing anything else: selector loops and uvloop read from
the socket, TLS decrypts, the proactor copies from memory of its own. Then:

1. `accept()` makes the new bytes the unread bytes *where they lie*. Bytes that were unread before (the first half of a
   line) are moved in front of them, into the headroom, so all unread bytes are contiguous.
2. The waiting reader is woken and takes what it wants out of the scratch.
3. `settle()` frees the scratch: it copies what is still unread to storage of the connection's own.

Rules. An unread byte is in exactly one place. Nobody keeps a pointer into `head` across a call that may run Python code.
If another read begins before `settle()` (nest_asyncio makes a loop re-entrant), the scratch settles its borrower first.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.weakref cimport PyWeakref_NewRef
from libc.string cimport memchr, memcmp, memcpy, memmove

from pepperpy.network._core.status cimport Status

import weakref

cdef extern from *:
    """
    /* Bytes of one read at most. asyncio's own transports ask for 256 KiB. */
    #define READ_AREA (256 * 1024)
    /* Bytes of a TLS read at most. Transports decrypt up to 256 KiB at a time (asyncio, uvloop) or 257 (aiofastnet), and
       the rest of one 16 KiB record. There is room for all of that, so nothing decrypted stays in a transport; see
       InputStream.start_tls(). */
    #define SCRATCH_AREA (320 * 1024)
    /* Unread bytes that are moved in front of a read, at most. If there are more, the read is appended to them. */
    #define SCRATCH_HEADROOM (64 * 1024)
    /* Bytes that storage of its own begins with. Enough for the rest of a line. */
    #define SMALLEST_STORAGE 256
    """
    const Py_ssize_t READ_AREA
    const Py_ssize_t SCRATCH_AREA
    const Py_ssize_t SCRATCH_HEADROOM
    const Py_ssize_t SMALLEST_STORAGE

# One scratch for each loop, which goes with its loop. Loops of several threads share none. A WeakKeyDictionary would cost
# each connection 2,000 instructions.
cdef dict _scratches = {}  # by weak references


cdef ReceiveScratch scratch_of(object loop):
    scratch = _scratches.get(PyWeakref_NewRef(loop, None))
    if scratch is None:
        scratch = _scratches[weakref.ref(loop, _scratches.pop)] = ReceiveScratch()
    return <ReceiveScratch>scratch


@cython.final
cdef class ReceiveScratch:
    def __cinit__(self):
        self._memory = bytearray(SCRATCH_HEADROOM + SCRATCH_AREA)
        self.area = PyByteArray_AS_STRING(self._memory) + SCRATCH_HEADROOM
        # While there is a view, nobody can resize the bytearray, which would move `area`.
        self.tls_view = memoryview(self._memory)[SCRATCH_HEADROOM:]
        self.view = self.tls_view[:READ_AREA]

    cdef void settle_borrower(self) noexcept:
        # The loop is re-entrant: it reads again while a reader still looks at what the last read brought.
        try:
            self.borrower.settle()
        except MemoryError:
            # That other connection gets this error when it settles.
            pass


cdef class Searcher:
    cdef Py_ssize_t bytes_wanted(self, ReceiveBuffer buffer) noexcept:
        return 0


@cython.final
cdef class ReceiveBuffer:
    def __cinit__(self):
        self.head = NULL
        self._storage = NULL

    def __dealloc__(self):
        PyMem_RawFree(self._storage)

    # ---- Bytes in ----

    cdef Status accept(self, ReceiveScratch scratch, Py_ssize_t n) except Status.ERROR:
        # `n` bytes have just landed in the scratch. This buffer has it until settle().
        assert scratch.borrower is None and 0 < n <= SCRATCH_AREA
        # More than the headroom takes, or than has come, is appended to: if a long message drips in, moving it with each read
        # would cost the square of its length.
        if self.length <= SCRATCH_HEADROOM and self.length <= n + SMALLEST_STORAGE:
            if self.length:
                memcpy(scratch.area - self.length, self.head, self.length)
                self._release()
            self.head = scratch.area - self.length
            self._lender = scratch
            scratch.borrower = self
            self.length += n
        else:
            self.append(scratch.area, n)
        return Status.OK

    cdef Status append(self, const char* data, Py_ssize_t n) except Status.ERROR:
        # Puts bytes behind the unread ones, into storage of the buffer's own.
        self.reserve(n)
        memcpy(self.head + self.length, data, n)
        self.length += n
        return Status.OK

    cdef Status settle(self) except Status.ERROR:
        # Frees the scratch for the next read: all unread bytes are in storage of the buffer's own then.
        cdef ReceiveScratch lender = self._lender
        cdef ReceiveBuffer alive = self

        if lender is None:
            if self._has_lost:
                raise MemoryError("no memory for received bytes")
            return Status.OK
        try:
            if self.length:
                self.reserve(0)
            else:
                if self._storage is not NULL:
                    # Bytes were put back in this read callback, and taken again.
                    self._release()
                self.head = NULL
        except MemoryError:
            # The bytes are dropped, because the scratch gets those of another connection next. Whoever called ends the
            # connection.
            self.head = NULL
            self.length = self.scanned = 0
            self._has_lost = True
            raise
        finally:
            alive._lender = None
            lender.borrower = None
        return Status.OK

    cdef Status prepend(self, const char* data, Py_ssize_t n) except Status.ERROR:
        # Puts bytes in front of the unread ones.
        cdef Py_ssize_t behind = self.length

        if not n:
            return Status.OK
        # Where there is storage, the head is in it.
        if self._storage is not NULL and self.head - self._storage >= n:
            # Bytes were taken from here: there is room in front.
            self.head -= n
        else:
            self.reserve(n)
            if behind:
                memmove(self.head + n, self.head, behind)
        memcpy(self.head, data, n)
        self.length = behind + n
        self.scanned = 0
        return Status.OK

    cdef Status reserve(self, Py_ssize_t n) except Status.ERROR:
        # Moves the unread bytes to storage of the buffer's own, if they are not there, with room for `n` more behind them.
        cdef Py_ssize_t needed = self.length + n
        cdef Py_ssize_t capacity = SMALLEST_STORAGE
        cdef char* storage

        if self._storage is not NULL and needed <= self._capacity:
            if self._storage + self._capacity - self.head < needed:
                memmove(self._storage, self.head, self.length)
                self.head = self._storage
            return Status.OK
        # Doubling makes the cost of appending linear. It cannot overflow: `needed` bytes fit the address space, so twice as
        # many fit 64 bits.
        while capacity < needed:
            capacity *= 2
        if self._storage is not NULL:
            # Moved to the front first, because realloc copies from there. It moves the pages of a large block (mremap).
            memmove(self._storage, self.head, self.length)
            self.head = self._storage
        storage = <char*>PyMem_RawRealloc(self._storage, capacity)
        if storage is NULL:
            raise MemoryError(f"no memory for {capacity} bytes of receive buffer")
        if self._storage is NULL and self.length:
            memcpy(storage, self.head, self.length)
        self._storage = self.head = storage
        self._capacity = capacity
        return Status.OK

    cdef void _release(self) noexcept:
        PyMem_RawFree(self._storage)
        self._storage = NULL
        self._capacity = 0

    # ---- Looking ----

    cdef Status _change_searcher(self, object searcher) noexcept:
        # This may drop the last reference to a framer, and with it a user's codec, whose `__del__` may do anything: close this
        # connection, or receive from it. So it is dropped before anybody looks, and the loop starts again after that.
        while self.searcher is not searcher:
            before, self.searcher = self.searcher, searcher
            if type(before) is not bytes or type(searcher) is not bytes or <bytes>before != <bytes>searcher:
                self.scanned = 0
            before = None
        return Status.OK

    cdef Py_ssize_t find_end(self, bytes separator) noexcept:
        # The number of bytes up to the end of the first `separator`; 0 if there is none.
        cdef:
            Py_ssize_t size = PyBytes_GET_SIZE(separator)
            const char* wanted = PyBytes_AS_STRING(separator)
            const char* end
            const char* at

        self.search_for(separator)
        end = self.head + self.length
        at = self.head + self.scanned
        while end - at >= size:
            at = <const char*>memchr(at, wanted[0], end - at - size + 1)
            if at is NULL:
                break
            if memcmp(at, wanted, size) == 0:
                # The reader that is woken searches once more, and finds it at once.
                self.scanned = at - self.head
                return at + size - self.head
            at += 1
        self.scanned = max(0, self.length - size + 1)
        return 0

    # ---- Bytes out ----

    cdef bytes take(self, Py_ssize_t n):
        # Requires 0 <= n <= length.
        cdef bytes data

        assert 0 <= n <= self.length
        data = PyBytes_FromStringAndSize(self.head, n)
        self.discard(n)
        return data

    cdef Status take_lines(self, list lines, Py_ssize_t limit) except Status.ERROR:
        # Appends all complete lines, up to the first one that exceeds `limit` bytes.
        # Requires that find_end(b"\\n") has just found one: `scanned` is where that line's newline is.
        cdef:
            const char* start = self.head
            const char* at = start + self.scanned
            const char* end = start + self.length

        while at < end:
            at = <const char*>memchr(at, c"\n", end - at)
            if at is NULL or at - start >= limit:
                break
            at += 1
            lines.append(PyBytes_FromStringAndSize(start, at - start))
            start = at
        self.discard(start - self.head)
        return Status.OK

    cdef void move_to(self, char* target, Py_ssize_t n) noexcept:
        # Requires 0 <= n <= length, and room for `n` bytes at `target`.
        if n:
            memcpy(target, self.head, n)
            self.discard(n)

    cdef void discard(self, Py_ssize_t n) noexcept:
        # Requires 0 <= n <= length.
        self.head += n
        self.length -= n
        self.scanned = self.scanned - n if self.scanned > n else 0
        if not self.length and self._lender is None:
            self._release()
            self.head = NULL
