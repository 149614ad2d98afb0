"""Received bytes: where they lie, who owns them, and where a message ends. Knows no loop and no protocol.

The way of a byte. The loop reads into the scratch, one region per event loop, because a loop that reads
synchronously between `get_buffer` and `buffer_updated` needs no more (selector loops, uvloop and SSL over
them; the proactor reads into memory of its own and copies it in just as synchronously). Then:

1. `accept()` makes the fresh bytes the unread bytes *where they lie*. What little was left unread before
   (the first half of a line) is moved into the headroom in front of them, so that all stays contiguous.
2. The reader that waited is woken and takes what it wants, straight from the scratch.
3. `settle()` gives the scratch back: only what is still unread is copied to storage of the connection's own.

Rules: an unread byte is in exactly one place. Nobody keeps a pointer into `head` across a call that may run
Python code. If another read begins while bytes are lent (a loop made re-entrant by nest_asyncio, say), the
scratch settles its borrower first.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.string cimport memchr, memcmp, memcpy, memmove

from pepperpy.network._core.status cimport Status

from weakref import WeakKeyDictionary

cdef extern from *:
    """
    /* One read takes at most this; 256 KiB is what asyncio's own transports ask for. */
    #define READ_AREA (256 * 1024)
    /* All transports decrypt at most 256 KiB at a time (asyncio, uvloop) or 257 (aiofastnet), and what was left of one
       16 KiB record. With room for all of that, nothing decrypted is ever left behind in one of them; see _receiver. */
    #define SCRATCH_AREA (320 * 1024)
    /* Leftovers up to this move in front of the next read; more are appended to instead. */
    #define SCRATCH_HEADROOM (64 * 1024)
    /* Own storage starts with this: the rest of a line. */
    #define SMALLEST_STORAGE 256
    """
    const Py_ssize_t READ_AREA
    const Py_ssize_t SCRATCH_AREA
    const Py_ssize_t SCRATCH_HEADROOM
    const Py_ssize_t SMALLEST_STORAGE

# One scratch per loop, gone with the loop. Loops of other threads each have their own.
cdef object _scratches = WeakKeyDictionary()


cdef ReceiveScratch scratch_of(object loop):
    scratch = _scratches.get(loop)
    if scratch is None:
        scratch = _scratches[loop] = ReceiveScratch()
    return <ReceiveScratch>scratch


@cython.final
cdef class ReceiveScratch:
    def __cinit__(self):
        self._memory = bytearray(SCRATCH_HEADROOM + SCRATCH_AREA)
        self.area = PyByteArray_AS_STRING(self._memory) + SCRATCH_HEADROOM
        # The view also keeps the bytearray from being resized, which would move `area`.
        self.tls_view = memoryview(self._memory)[SCRATCH_HEADROOM:]
        self.view = self.tls_view[:READ_AREA]


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
        # `n` bytes have just landed in the scratch's area; until settle() it is this buffer's.
        assert scratch.borrower is None and 0 < n <= SCRATCH_AREA
        # A long message that drips in is appended to: moving it each time would cost its length squared.
        if self.length <= SCRATCH_HEADROOM and self.length <= n + SMALLEST_STORAGE:
            if self.length:
                memcpy(scratch.area - self.length, self.head, self.length)
                self._release()
            self.head = scratch.area - self.length
            self._lender = scratch
            scratch.borrower = self
        else:
            self.reserve(n)
            memcpy(self.head + self.length, scratch.area, n)
        self.length += n
        return Status.OK

    cdef Status settle(self) except Status.ERROR:
        # Owns all unread bytes afterwards; the scratch is free for the next read.
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
                self.head = NULL
        except MemoryError:
            # The receiver ends the connection, as it settles. Lost bytes are better than those of another one, which come
            # here next.
            self.head = NULL
            self.length = self.scanned = 0
            self._has_lost = True
            raise
        finally:
            alive._lender = None
            lender.borrower = None
        return Status.OK

    cdef Status prepend(self, const char* data, Py_ssize_t n) except Status.ERROR:
        # Bytes that were on their way to a reader which gave up: they come first again.
        cdef Py_ssize_t behind = self.length

        if not n:
            return Status.OK
        self.reserve(n)
        if behind:
            memmove(self.head + n, self.head, behind)
        memcpy(self.head, data, n)
        self.length = behind + n
        self.scanned = 0
        return Status.OK

    cdef Status reserve(self, Py_ssize_t n) except Status.ERROR:
        # Afterwards the unread bytes are in own storage with room for `n` more behind them.
        cdef Py_ssize_t needed = self.length + n
        cdef Py_ssize_t capacity = SMALLEST_STORAGE
        cdef char* storage

        if self._storage is not NULL and needed <= self._capacity:
            if self._storage + self._capacity - self.head < needed:
                memmove(self._storage, self.head, self.length)
                self.head = self._storage
            return Status.OK
        # Doubling keeps appending linear. No overflow: what is on hand fits the address space, so its double fits 64 bits.
        while capacity < needed:
            capacity *= 2
        if self._storage is not NULL:
            # All of it is unread bytes and what is in front of them. The kernel moves the pages of a large one (mremap).
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
        # The one before may be a framer, and end here. With it ends the codec of a user, whose `__del__` runs anything:
        # it closes this connection, or receives from it. So it ends before anybody looks, and we begin again after it.
        while self.searcher is not searcher:
            before, self.searcher = self.searcher, searcher
            if type(before) is not bytes or type(searcher) is not bytes or <bytes>before != <bytes>searcher:
                self.scanned = 0
            before = None
        return Status.OK

    cdef Py_ssize_t find_end(self, bytes separator) noexcept:
        # Where the first message that ends with `separator` ends, separator included; 0 if none is complete.
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
                # A second look, by the reader that this wakes, finds it at once.
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
        # Appends every complete line on hand, up to the first that exceeds `limit` bytes.
        # Requires find_end(b"\\n") just before, which has found one and left `scanned` in front of its end.
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
        # Requires 0 <= n <= length, and room for n bytes at target.
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
