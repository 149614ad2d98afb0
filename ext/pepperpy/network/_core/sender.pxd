from pepperpy.network._core.endpoint cimport Endpoint
from pepperpy.network._core.send_queue cimport SendQueue
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter


cdef class Sender:
    """One connection's sending side: what is accepted, when it leaves, who is held back."""
    cdef:
        Endpoint _endpoint
        SendQueue _queue
        int _fd                      # the plain socket that is written directly; -1 where only the transport may write
        Py_ssize_t _handed           # bytes that the transport still holds
        bint _transport_full         # between pause_writing and resume_writing
        # Who sends is held back while one of these is set.
        bint _above_high_water       # from the high-water mark up, until at the low one
        bint _share_is_used          # FAIR_SHARE bytes were accepted since the loop ran last; until the turn ends
        bint _eof_accepted           # send_eof() was called
        bint _eof_passed_on          # ... and the transport has been told
        bint _writing                # inside of _write(): whoever sends meanwhile is gathered
        # context_switches() when the loop was compared last.
        unsigned long long _checked_at
        # Gathering: the first send of a turn leaves at once, the others together.
        bint _fresh                  # nothing has left since data arrived or the last turn ended
        bint _flush_scheduled
        double _last_write           # seconds of coarse_monotonic()
        Py_ssize_t _high
        Py_ssize_t _low
        object _held_back            # deque[Waiter]: senders above the high-water mark
        Waiter _resuming             # the sender that was woken last, and whose task may not have gone on yet
        object _flushing             # deque[Waiter], by rising target
        readonly bint loss_raised           # a call has raised the loss, or is about to
        readonly long long bytes_sent   # accepted
        long long _sent_before_turn     # bytes_sent when the loop last ran on this sender's account
        readonly long long sends

    # What the protocol calls.
    cdef Status open(self, int fd) except Status.ERROR
    cdef Status hold(self) except Status.ERROR
    cdef Status peer_ended(self, object error) except Status.ERROR
    cdef void data_arrived(self) noexcept
    cdef Status flush(self, bint wake_now) except Status.ERROR
    cdef void transport_is_full(self) noexcept
    cdef Status transport_is_empty(self) except Status.ERROR
    cdef Status end(self, bint wake_now) except Status.ERROR
    cdef Status close_when_empty(self) except Status.ERROR
    cdef bint is_due(self, double now) except -1
    cdef double expire(self, double now) except -1

    cdef inline Py_ssize_t pending(self) noexcept:
        return self._queue.length + self._handed

    cdef bint _start_sending(self) except -1
    cdef Status _refuse(self) except Status.ERROR
    cdef Status _break_off(self, int error) except Status.ERROR
    cdef Status _stop(self, object error) except Status.ERROR
    cdef bint _write(self) except -1
    cdef bint _call_at_turn_end(self) except -1
    cdef Status _wake_first(self, object waiters, object error, bint wake_now) except Status.ERROR
    cdef Status _push(self) except Status.ERROR
    cdef Status _progressed(self, bint wake_now) except Status.ERROR
