"""Bytes that wait to leave. Knows a file descriptor at most; when to send is the protocol's affair.

Small messages are copied side by side into one tail, so that a burst of them leaves as one write. Large ones
are kept by reference, which is safe because only immutable `bytes` come in here: a transport may keep what it
is given for long, and since 3.12 asyncio does not copy it (CPython gh-91166, measured in both loops).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.string cimport memcpy, memmove

from pepperpy.network._status cimport Status

cdef extern from "_platform.h":
    ctypedef struct send_piece:
        const char* base
        size_t length
    const int DIRECT_SEND_MAX_PIECES
    long long direct_send(int fd, const send_piece* pieces, int count) noexcept
    int direct_send_error() noexcept

cdef extern from *:
    """
    /* Messages below this are copied: up to here a memcpy costs less than a reference in the queue
       plus one more piece for the kernel. Arbitrary; measure with `make bench ARGS="-k send_"`. */
    #define SMALL_MESSAGE (8 * 1024)
    #define SMALLEST_TAIL 512
    """
    const Py_ssize_t SMALL_MESSAGE
    const Py_ssize_t SMALLEST_TAIL


@cython.final
cdef class SendQueue:
    def __cinit__(self):
        self._chunks = []
        self._tail = NULL

    def __dealloc__(self):
        PyMem_RawFree(self._tail)

    cdef Status append(self, bytes data) except Status.ERROR:
        # Whole or, on an error, not at all.
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data)

        if n >= SMALL_MESSAGE:
            self._seal_tail()
            self._chunks.append(data)
        elif n:
            self._append_to_tail(PyBytes_AS_STRING(data), n)
        self.length += n
        return Status.OK

    cdef int send_to(self, int fd) except -1:
        # Hands the kernel what it takes now. 0, or the errno of a connection that takes nothing any more.
        cdef:
            send_piece pieces[DIRECT_SEND_MAX_PIECES]
            int count
            long long sent
            Py_ssize_t wanted
            Py_ssize_t offset

        while self.length:
            count = 0
            wanted = 0
            offset = self._offset
            for chunk in self._chunks:
                if count == DIRECT_SEND_MAX_PIECES:
                    break
                pieces[count].base = PyBytes_AS_STRING(chunk) + offset
                pieces[count].length = PyBytes_GET_SIZE(chunk) - offset
                wanted += pieces[count].length
                offset = 0
                count += 1
            if self._tail_length and count < DIRECT_SEND_MAX_PIECES:
                pieces[count].base = self._tail
                pieces[count].length = self._tail_length
                wanted += self._tail_length
                count += 1
            sent = direct_send(fd, pieces, count)
            if sent < 0:
                return direct_send_error()
            self._discard(sent)
            if sent < wanted:
                # The socket's buffer is full; asking once more would only be told so.
                return 0
        return 0

    cdef object take_front(self):
        # The oldest part as one immutable object, for a transport; it leaves the queue.
        cdef Py_ssize_t offset = self._offset

        self._seal_tail()
        chunk = self._chunks.pop(0)
        self._offset = 0
        self.length -= PyBytes_GET_SIZE(chunk) - offset
        return memoryview(chunk)[offset:] if offset else chunk

    cdef void clear(self) noexcept:
        self._chunks.clear()
        self._offset = 0
        self._release_tail()
        self.length = 0

    cdef Status _append_to_tail(self, const char* data, Py_ssize_t n) except Status.ERROR:
        cdef Py_ssize_t needed = self._tail_length + n
        cdef Py_ssize_t capacity = self._tail_capacity or SMALLEST_TAIL
        cdef char* tail

        if needed > self._tail_capacity:
            while capacity < needed:
                capacity *= 2
            tail = <char*>PyMem_RawRealloc(self._tail, capacity)
            if tail is NULL:
                raise MemoryError(f"no memory for {capacity} bytes of send queue")
            self._tail = tail
            self._tail_capacity = capacity
        memcpy(self._tail + self._tail_length, data, n)
        self._tail_length = needed
        return Status.OK

    cdef Status _seal_tail(self) except Status.ERROR:
        if self._tail_length:
            self._chunks.append(PyBytes_FromStringAndSize(self._tail, self._tail_length))
            self._release_tail()
        return Status.OK

    cdef Status _discard(self, Py_ssize_t n) except Status.ERROR:
        # The oldest `n` bytes are gone.
        cdef Py_ssize_t total = n
        cdef Py_ssize_t gone = 0
        cdef Py_ssize_t left

        assert 0 <= n <= self.length
        for chunk in self._chunks:
            left = PyBytes_GET_SIZE(chunk) - self._offset
            if n < left:
                break
            n -= left
            self._offset = 0
            gone += 1
        if gone:
            del self._chunks[:gone]
        self.length -= total
        if self._chunks:
            self._offset += n
        elif n == self._tail_length:
            self._release_tail()
        else:
            self._tail_length -= n
            memmove(self._tail, self._tail + n, self._tail_length)
        return Status.OK

    cdef void _release_tail(self) noexcept:
        PyMem_RawFree(self._tail)
        self._tail = NULL
        self._tail_length = 0
        self._tail_capacity = 0
