"""The sending side of `pepperpy.network.streams`: small writes of one `StreamWriter` leave together.

All bytes leave through the transport, which has the rules: its limits, its errors, what it does after a loss. This class
only decides when: the first write of a step of a task, or after a quiet moment, at once. Further small ones of the same
turn of the loop are gathered, and leave as one write when the turn ends or 64 KiB have come together. A write to the
socket costs 5 us, a gathered message 0.1 (measured).

Nothing is gathered while the transport holds bytes: it counts them against its limits. So those limits hold as they do in
asyncio, but for the 64 KiB of one turn.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE

from pepperpy.network._core.send_queue cimport SendQueue
from pepperpy.network._core.status cimport Status

cdef extern from "platform.h":
    double coarse_monotonic() noexcept

cdef extern from "running.h":
    unsigned long long context_switches() noexcept

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

cdef extern from *:
    """
    /* Bytes: as in sender.pyx and send_queue.pyx, which say why. */
    #define GATHER_LIMIT (64 * 1024)
    #define SMALL_MESSAGE (8 * 1024)
    /* Seconds without a write after which one leaves at once. As there. */
    #define QUIET 0.001
    """
    const Py_ssize_t GATHER_LIMIT
    const Py_ssize_t SMALL_MESSAGE
    const double QUIET


@cython.final
cdef class WriterCore:
    cdef:
        object _loop
        object _transport
        SendQueue _queue             # what is gathered
        bint _at_once                # nothing is gathered any more
        bint _turn_end_scheduled     # the loop will call _turn_ended()
        unsigned long long _step     # context_switches() at the last write
        double _last_write           # seconds of coarse_monotonic()

    def __cinit__(self, loop, transport):
        self._loop = loop
        self._transport = transport
        self._queue = SendQueue()

    def write(self, data):
        if type(data) is bytes and self._is_gathered(PyBytes_GET_SIZE(<bytes>data)):
            self._gather(<bytes>data)
        else:
            self.flush()
            self._note_write()
            self._transport.write(data)

    def writelines(self, data):
        cdef Py_ssize_t size = 0
        cdef list pieces = list(data)

        for piece in pieces:
            if type(piece) is not bytes:
                size = PY_SSIZE_T_MAX
                break
            size += PyBytes_GET_SIZE(<bytes>piece)
        if pieces and self._is_gathered(size):
            self._gather(b"".join(pieces))
        else:
            self.flush()
            self._note_write()
            self._transport.writelines(pieces)

    cdef Status _gather(self, bytes data) except Status.ERROR:
        self._queue.append(data)
        if self._queue.length >= GATHER_LIMIT:
            self.flush()
        return Status.OK

    cpdef flush(self):
        """Hand what is gathered to the transport. If it takes only a part, the connection ends: a stream has no gap."""
        if self._queue.length:
            self._note_write()
            try:
                while self._queue.length:
                    self._transport.write(self._queue.take_front(PY_SSIZE_T_MAX))
            except BaseException:
                self._transport.abort()
                raise

    def stop_gathering(self):
        """Hand it over, and each further write at once: somebody else may now use the transport."""
        self._at_once = True
        self.flush()

    cdef Status _note_write(self) except Status.ERROR:
        self._last_write = coarse_monotonic()
        self._step = context_switches()
        return Status.OK

    cdef bint _is_gathered(self, Py_ssize_t size) except -1:
        if size >= SMALL_MESSAGE or self._at_once:
            return False
        if self._queue.length:
            return True
        if self._step != context_switches() or coarse_monotonic() - self._last_write >= QUIET:
            return False
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            return False
        if not self._turn_end_scheduled:
            self._loop.call_soon(self._turn_ended)
            self._turn_end_scheduled = True
        return True

    def _turn_ended(self):
        self._turn_end_scheduled = False
        self.flush()
