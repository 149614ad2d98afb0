from pepperpy.network._core.endpoint cimport Endpoint
from pepperpy.network._core.send_queue cimport SendQueue
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter


cdef class Sender:
    """The sending side of one connection: what is accepted, when it leaves, who is held back."""
    cdef:
        Endpoint _endpoint
        SendQueue _queue
        int _fd                      # a plain socket's, written without the transport; -1: only the transport may write
        Py_ssize_t _handed           # bytes given to the transport, which may still hold them
        bint _transport_full         # it holds some: from pause_writing() to resume_writing()
        # Senders are held back while one of these is set.
        bint _above_high_water       # `_high` bytes were pending, and more than `_low` still are
        bint _share_is_used          # FAIR_SHARE bytes were accepted in this turn of the loop
        bint _eof_accepted           # send_eof() was called
        bint _eof_passed_on          # ... and the transport's write_eof()
        bint _writing                # _write() is running; what is sent meanwhile waits in the queue
        unsigned long long _checked_at    # context_switches() at the last check of the loop
        # Gathering: the first send of a turn leaves at once, the others together.
        bint _fresh                  # nothing has left since data arrived or the last turn ended
        bint _flush_scheduled        # the loop will call _turn_ended()
        double _last_write           # seconds of coarse_monotonic()
        Py_ssize_t _high             # pending bytes from which on senders are held back
        Py_ssize_t _low              # pending bytes at which they go on
        object _held_back            # deque[Waiter]; or None
        Waiter _resuming             # the sender that was woken last; its task may not have run yet
        object _flushing             # deque[Waiter], ordered by target; or None
        readonly bint loss_raised    # a call has raised the loss, or is about to
        readonly long long bytes_sent     # bytes accepted
        long long _sent_before_turn  # bytes_sent when the last turn ended
        readonly long long sends     # calls that were accepted

    cpdef bint send(self, object data) except -1

    # ---- For the protocol ----

    cdef Status open(self, int fd) except Status.ERROR
    cdef Status hold_for_tls(self) except Status.ERROR
    cdef Status peer_ended(self, object error) except Status.ERROR
    cdef void data_arrived(self) noexcept
    cdef Status flush(self, bint wake_now) except Status.ERROR
    cdef void transport_is_full(self) noexcept
    cdef Status transport_is_empty(self) except Status.ERROR
    cdef Status end(self, bint wake_now) except Status.ERROR
    cdef Status close_when_empty(self, bint now) except Status.ERROR
    cdef bint is_due(self, double now) except -1
    cdef double expire(self, double now) except -1

    cdef inline Py_ssize_t pending(self) noexcept:
        # Bytes that were accepted and are not with the kernel.
        return self._queue.length + self._handed

    cdef bint is_unfinished(self) except -1

    cdef inline bint is_idle(self) except -1:
        # Whether everything is with the kernel, and no send waits.
        return not self.pending() and not self.is_unfinished()

    cdef inline bint holds_back(self) noexcept:
        # Whether a send would have to wait. So it may be for a moment where nothing is pending any more.
        return self._above_high_water or self._share_is_used

    cdef bint _check_sending(self) except -1
    cdef Status _refuse(self) except Status.ERROR
    cdef Status _break_off(self, int error) except Status.ERROR
    cdef Status _stop(self, object error) except Status.ERROR
    cdef bint _write(self) except -1
    cdef bint _call_at_turn_end(self) except -1
    cdef Status _wake_first(self, object waiters, object error, bint wake_now) except Status.ERROR
    cdef Status _push(self) except Status.ERROR
    cdef Status _wake_waiters(self, bint wake_now) except Status.ERROR
