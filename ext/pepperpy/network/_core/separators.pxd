from pepperpy.network._core.receive_buffer cimport ReceiveBuffer, Searcher


cdef class Separators(Searcher):
    """Several separators, of which the one that ends first in the stream counts; if several end there, the longest."""
    cdef:
        tuple given                  # as the caller gave them
        tuple _longest_first
        Py_ssize_t longest           # bytes
        bint _is_last[256]           # whether a separator ends with this byte
        int _only_last               # the last byte, if all separators have the same; else -1
        # What find() has found. Offsets count from the start of its `data`.
        Py_ssize_t end               # behind the separator
        Py_ssize_t scanned           # where its last byte is; the size of the data if there is none
        Py_ssize_t limit             # for waiting: so many unread bytes end the wait, too

    cdef Py_ssize_t find(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) noexcept
    cdef Py_ssize_t find_end(self, ReceiveBuffer buffer) noexcept

    cdef Py_ssize_t _candidate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) noexcept
