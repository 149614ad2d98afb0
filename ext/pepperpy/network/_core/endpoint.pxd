from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter


cdef enum State:
    UNCONNECTED   # never had a transport
    OPEN
    CLOSING       # disconnect() was called: what was accepted may still leave
    # From here on nothing leaves, whether the transport is still there or not.
    CLOSED        # by us
    LOST          # by the peer or the network, or because something failed here


cdef class Endpoint:
    """What both directions of one connection share: who may use it, its state, its timer."""
    cdef:
        readonly object config       # NetworkConfig
        State state
        object transport             # None before connection_made and after connection_lost
        object sender                # Sender, between connection_made and connection_lost
        object source                # whose reading is paused: the transport, or the one below a loop's own TLS
        bint reading_paused
        bint tls                     # from the start of the handshake on
        # Who may use this: the thread, loop and process in which it was connected.
        object loop
        unsigned long _thread
        unsigned long _process       # value of _process_generation
        # How it ended.
        object send_error            # OSError: sending failed, and the receiving side still hands out what had arrived; or None
        object on_send_error         # callable without arguments, told of that; or None
        object loss                  # why the connection ended: an OSError, or what a reconnecting client takes for a loss; or None
        bint loss_reported           # somebody was told, or wants to know nothing of it
        Py_ssize_t undelivered       # bytes accepted for sending that were not, or not certainly, handed to the kernel
        bint abort_failed            # the transport may never call connection_lost
        double last_activity         # seconds of time.monotonic(), exact to a timer tick; 0 if none
        # One timer serves all waits: it is armed for the earliest deadline at most, and moves itself when it fires early.
        double _timeout              # seconds, config.timeout; 0 for none
        object on_timer              # callable without arguments
        object timer                 # handle, None once it has fired
        double _timer_at             # seconds of time.monotonic()

    cdef Status open(self, object loop, object transport) except Status.ERROR
    cdef Status close(self, State state) except Status.ERROR
    cdef Status break_off(self, object error) except Status.ERROR
    cdef Status abort_transport(self) except Status.ERROR
    cdef Status pause_reading(self) except Status.ERROR
    cdef Status resume_reading(self) except Status.ERROR
    cdef Status _resume_source(self) except Status.ERROR
    cdef Status reset_on_close(self) except Status.ERROR
    cdef Status check_user(self) except Status.ERROR
    cdef bint is_forked(self) noexcept
    cdef Status check_loop(self) except Status.ERROR
    cdef object cause(self)
    cdef object refusal(self)
    cdef object error(self, object kind, str what, str phase, dict more=*, object cause=*)
    cdef Waiter new_waiter(self, object timeout, str phase, Waiter previous)
    cdef bint is_due(self, Waiter waiter, double now) noexcept
    cdef double expire(self, Waiter waiter, double now) except -1
    cdef Status arm_timer(self, double deadline, double now) except Status.ERROR
