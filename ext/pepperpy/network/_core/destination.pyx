"""Memory of its own for one large receive, which the loop fills without a copy."""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcpy

from pepperpy.network._core.receive_buffer cimport OWN_MEMORY_FROM, ReceiveBuffer
from pepperpy.network._core.status cimport Status

cdef extern from *:
    """
    /* As _PyBytes_Resize(), which destroys the object where there is no memory: here it stays as it is. Only for an object
       that nobody else has seen, so that its hash is not computed. */
    static int resize_unshared_bytes(PyObject** object, Py_ssize_t size)
    {
        PyObject* resized = (PyObject*)PyObject_Realloc(*object, (size_t)(PyBytes_Type.tp_basicsize + size));
        if (resized == NULL)
            return 0;
        Py_SET_SIZE((PyVarObject*)resized, size);
        PyBytes_AS_STRING(resized)[size] = 0;
        *object = resized;
        return 1;
    }
    """
    bint resize_unshared_bytes(PyObject** object, Py_ssize_t size) noexcept

cdef extern from "Python.h":
    int PyGC_Disable() noexcept
    int PyGC_Enable() noexcept

cdef char* UNSIGNED_BYTE = "B"   # format of the struct module


@cython.final
cdef class Destination:
    def __cinit__(self, Py_ssize_t size, Py_ssize_t capacity):
        # One at least: the empty bytes object is shared, and cannot grow.
        self.capacity = min(size, max(capacity, 1))
        try:
            self.result = PyBytes_FromStringAndSize(NULL, self.capacity)
        except OverflowError:
            raise MemoryError(f"no memory for {size} bytes") from None
        self._start = PyBytes_AS_STRING(self.result)
        self.lead = b""
        self.size = size

    cdef Status begin(self, ReceiveBuffer buffer) noexcept:
        # Takes the first bytes out of `buffer`, which begins with the lead.
        cdef Py_ssize_t n

        memcpy(self._start, PyBytes_AS_STRING(self.lead), self.copied)
        buffer.discard(PyBytes_GET_SIZE(self.lead))
        n = min(self.size - self.copied, buffer.length)
        buffer.move_to(self._start + self.copied, n)
        self.filled = self.copied + n
        return Status.OK

    cdef Status give_back(self, ReceiveBuffer buffer) except Status.ERROR:
        # Puts all bytes in front of those in `buffer`, as they came; none of them where there is no memory for that.
        cdef Py_ssize_t size = self.filled - self.copied
        cdef Py_ssize_t lead = PyBytes_GET_SIZE(self.lead)

        if size + lead:
            buffer.reserve(size + lead)
        buffer.prepend(self._start + self.copied, size)
        buffer.prepend(PyBytes_AS_STRING(self.lead), lead)
        return Status.OK

    cdef Py_ssize_t room(self) noexcept:
        # Bytes that the next read may bring. Grows first if that is short of a large read.
        if self.capacity < self.size and self.capacity - self.filled < OWN_MEMORY_FROM:
            self._grow(self.filled)
        return self.capacity - self.filled

    cdef object view(self):
        # A memoryview of the room. It is made without a collection of garbage: that could run any code, and get_buffer must
        # run none.
        cdef bint collects = PyGC_Disable()

        try:
            return PyMemoryView_FromObject(self)
        finally:
            if collects:
                PyGC_Enable()

    cdef Destination with_room(self, Py_ssize_t n):
        # Returns this object, with room for `n` more bytes; or a copy with room, if a loop keeps a view and so it cannot grow.
        cdef Destination copy

        if self.capacity - self.filled >= n or self._grow(self.filled + n):
            return self
        copy = Destination(self.size, 2 * (self.filled + n))
        copy.lead, copy.copied, copy.filled = self.lead, self.copied, self.filled
        memcpy(copy._start, self._start, self.filled)
        return copy

    cdef Status append(self, const char* data, Py_ssize_t n) noexcept:
        # Requires with_room(n).
        memcpy(self._start + self.filled, data, n)
        self.filled += n
        return Status.OK

    cdef bint _grow(self, Py_ssize_t arrived) noexcept:
        # Grows to twice what has arrived, at most. Returns False, with nothing changed, where that is impossible.
        # realloc lets the kernel move the pages of a large block (mremap), where storage that is allocated anew has to be
        # copied and faulted in: messages of 1 MiB came at 3.5 GB/s this way, and at 0.57 the other (measured, glibc 2.36).
        cdef Py_ssize_t capacity = min(self.size, 2 * arrived)
        cdef PyObject* result
        cdef bint grown

        if self._exports or capacity <= self.capacity:
            return False
        # The one reference is held by hand while the object moves.
        result = <PyObject*>self.result
        Py_INCREF(<object>result)
        self.result = None
        grown = resize_unshared_bytes(&result, capacity)
        self.result = <bytes>result
        Py_DECREF(<object>result)
        if grown:
            self._start = PyBytes_AS_STRING(self.result)
            self.capacity = capacity
        return grown

    def __getbuffer__(self, Py_buffer* view, int flags):
        # Exports the room. By hand, because PyBuffer_FillInfo in a Cython class leaks a reference to None with each export
        # (cython#3023). The view holds this object, which holds the memory.
        self._left = self.capacity - self.filled
        self._exports += 1
        view.buf = self._start + self.filled
        view.obj = self
        view.len = self._left
        view.itemsize = 1
        view.readonly = False
        view.ndim = 1
        view.format = UNSIGNED_BYTE if flags & PyBUF_FORMAT else NULL
        view.shape = &self._left if flags & PyBUF_ND else NULL
        view.strides = &view.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL

    def __releasebuffer__(self, Py_buffer* view):
        self._exports -= 1
