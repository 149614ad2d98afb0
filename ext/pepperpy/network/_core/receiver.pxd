from pepperpy.network._core.input_stream cimport InputStream
from pepperpy.network._core.status cimport Status


cdef class Receiver(InputStream):
    """Takes raw bytes: what is there, an exact number, up to a separator, lines."""
    cdef:
        Py_ssize_t _max_message_size

    cdef Status _raise_too_large(self, Py_ssize_t limit) except Status.ERROR
