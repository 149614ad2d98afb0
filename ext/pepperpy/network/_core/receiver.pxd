from pepperpy.network._core.input_stream cimport InputStream
from pepperpy.network._core.separators cimport Separators
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter


cdef class Receiver(InputStream):
    """Takes raw bytes: what is there, an exact number, up to a separator, lines."""
    cdef:
        Py_ssize_t _max_message_size
        bint _eof_raises             # the end of the stream is an error for a take that finds nothing else
        Separators _several          # those of the last call with several, or None
        # For put_back(): bytes in front of this position in the stream were put back. At most so many may be.
        long long _put_back_until
        Py_ssize_t _put_back_limit

    cdef object _end(self, object nothing)
    cdef Py_ssize_t _find_end(self, object separator) except -1
    cdef Separators _separators_of(self, tuple separators)
    cdef Waiter _wait_until(self, object separator, Py_ssize_t limit, object timeout, Waiter previous)
    cdef Status _raise_too_large(self, Py_ssize_t limit) except Status.ERROR
