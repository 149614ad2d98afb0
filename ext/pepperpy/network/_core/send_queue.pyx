"""Bytes that wait to leave. The queue knows at most a file descriptor; the sender decides when to send.

Small messages are copied side by side into one tail, so that a burst of them leaves as one write. Large ones are kept
by reference. That is safe because the queue takes only immutable `bytes`: a transport may keep what it is given for
long, and asyncio does not copy it since 3.12 (CPython gh-91166, measured in both loops).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcpy, memmove

from pepperpy.network._core.status cimport Status

cdef extern from "platform.h":
    ctypedef struct send_piece:
        const char* base
        size_t length
    const int DIRECT_SEND_MAX_PIECES
    long long direct_send(int fd, const send_piece* pieces, int count) noexcept
    int direct_send_error() noexcept

cdef extern from *:
    """
    /* Bytes below which a message is copied: a memcpy costs less than a reference in the queue and one more
       piece for the kernel. Arbitrary; measure with `make bench ARGS="-k send_"`. */
    #define SMALL_MESSAGE (8 * 1024)
    #define SMALLEST_TAIL 512
    #define FEWEST_CHUNKS 8
    """
    const Py_ssize_t SMALL_MESSAGE
    const Py_ssize_t SMALLEST_TAIL
    const Py_ssize_t FEWEST_CHUNKS


@cython.final
cdef class SendQueue:
    def __dealloc__(self):
        self.clear()
        PyMem_RawFree(self._chunks)

    cdef Status append(self, bytes data) except Status.ERROR:
        # Appends all of `data`; on an error nothing.
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data)

        if n >= SMALL_MESSAGE:
            self._seal_tail()
            self._append_chunk(data)
        elif n:
            self._append_to_tail(PyBytes_AS_STRING(data), n)
        self.length += n
        return Status.OK

    cdef Status append_all(self, list messages) except Status.ERROR:
        # Appends all `bytes` in `messages`; on an error none.
        cdef Py_ssize_t length = self.length
        cdef Py_ssize_t chunks
        cdef Py_ssize_t tail
        cdef bytes message

        for message in messages:
            if PyBytes_GET_SIZE(message) >= SMALL_MESSAGE:
                # Seal now, so that older bytes and these share no chunk.
                self._seal_tail()
                break
        chunks = self._end - self._first
        tail = self._tail_length
        try:
            for message in messages:
                self.append(message)
        except BaseException:
            while self._end - self._first > chunks:
                self._end -= 1
                Py_DECREF(<object>self._chunks[self._end])
            self._tail_length = tail
            self.length = length
            raise
        return Status.OK

    cdef int send_to(self, int fd) noexcept:
        # Gives the kernel what it takes now. Returns 0, or the errno of a connection that takes nothing any more.
        # It allocates nothing, so what the kernel has taken surely leaves the queue.
        cdef:
            send_piece pieces[DIRECT_SEND_MAX_PIECES]
            int count
            long long sent
            Py_ssize_t wanted
            Py_ssize_t offset
            Py_ssize_t i

        while self.length:
            count = 0
            wanted = 0
            offset = self._offset
            for i in range(self._first, min(self._end, self._first + DIRECT_SEND_MAX_PIECES)):
                pieces[count].base = PyBytes_AS_STRING(<object>self._chunks[i]) + offset
                pieces[count].length = PyBytes_GET_SIZE(<object>self._chunks[i]) - offset
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
                # The socket's buffer is full: another call would only return EAGAIN.
                return 0
        return 0

    cdef object take_front(self, Py_ssize_t most):
        # Takes the oldest bytes out of the queue, at most so many, as one immutable object for a transport. On an error nothing
        # leaves.
        cdef Py_ssize_t size

        if self._first == self._end:
            self._seal_tail()
        chunk = <object>self._chunks[self._first]
        size = PyBytes_GET_SIZE(chunk) - self._offset
        if size > most:
            piece = memoryview(chunk)[self._offset:self._offset + most]
            self._offset += most
            self.length -= most
            return piece
        piece = memoryview(chunk)[self._offset:] if self._offset else chunk
        self.length -= size
        self._drop_front()
        return piece

    cdef void clear(self) noexcept:
        while self._first < self._end:
            self._drop_front()
        self._release_tail()
        self.length = 0

    cdef Status _append_chunk(self, bytes chunk) except Status.ERROR:
        cdef Py_ssize_t count = self._end - self._first
        cdef Py_ssize_t capacity = self._capacity
        cdef PyObject** chunks = self._chunks

        if self._end == capacity:
            if 2 * count >= capacity:
                capacity = max(FEWEST_CHUNKS, 2 * capacity)
                chunks = <PyObject**>PyMem_RawRealloc(self._chunks, capacity * sizeof(PyObject*))
                if chunks is NULL:
                    raise MemoryError(f"no memory for {capacity} chunks of send queue")
            memmove(chunks, chunks + self._first, count * sizeof(PyObject*))
            self._chunks = chunks
            self._capacity = capacity
            self._first = 0
            self._end = count
        Py_INCREF(chunk)
        chunks[self._end] = <PyObject*>chunk
        self._end += 1
        return Status.OK

    cdef void _drop_front(self) noexcept:
        cdef PyObject* chunk = self._chunks[self._first]

        self._offset = 0
        self._first += 1
        if self._first == self._end:
            self._first = self._end = 0
        Py_DECREF(<object>chunk)

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
            self._append_chunk(PyBytes_FromStringAndSize(self._tail, self._tail_length))
            self._release_tail()
        return Status.OK

    cdef void _discard(self, Py_ssize_t n) noexcept:
        # Removes the oldest `n` bytes, which have left.
        cdef Py_ssize_t left

        assert 0 <= n <= self.length
        self.length -= n
        while self._first < self._end:
            left = PyBytes_GET_SIZE(<object>self._chunks[self._first]) - self._offset
            if n < left:
                self._offset += n
                return
            n -= left
            self._drop_front()
        if n == self._tail_length:
            self._release_tail()
        else:
            self._tail_length -= n
            memmove(self._tail, self._tail + n, self._tail_length)

    cdef void _release_tail(self) noexcept:
        PyMem_RawFree(self._tail)
        self._tail = NULL
        self._tail_length = 0
        self._tail_capacity = 0
