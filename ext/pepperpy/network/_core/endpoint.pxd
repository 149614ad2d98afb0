from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter


cdef enum State:
    UNCONNECTED   # never had a transport
    OPEN
    CLOSING       # disconnect() was called; what was accepted may still leave
    # In the states below nothing leaves, even while the transport is still there.
    CLOSED        # by this side
    LOST          # by the peer, by the network, or because something failed here


cdef object running_loop()


cdef class Endpoint:
    """What the two directions of one connection share: who may use it, its state, its timer."""
    cdef:
        readonly object config       # NetworkConfig
        State state
        str given_back               # what errors say if the client has given back its connection; None: it has not
        object transport             # None before connection_made and after connection_lost
        object sender                # Sender, between connection_made and connection_lost
        object source                # what reads from the socket: the transport, or the one below the TLS of a loop
        bint reading_paused          # ... and is paused
        bint tls                     # set when the handshake starts
        bint tls_of_proxy            # the TLS ends at a proxy: none has begun with the peer
        # The loop, thread and process that it was connected in. No other may use it.
        object loop
        unsigned long _thread
        unsigned long _process       # value of _process_generation
        # How it ended. Sending may fail first, and the receiving side then still hands out what had arrived.
        object send_error            # why sending failed; an OSError, or None
        object on_send_error         # callable without arguments, called when sending fails; or None
        object loss                  # why the connection ended; an error, or None
        bint loss_reported           # some call has raised the loss, or nobody wants to know
        Py_ssize_t undelivered       # bytes accepted for sending that did not reach the kernel, as far as is known
        bint closing_failed          # the transport's close() or abort() raised, so it may never call connection_lost()
        public object tap            # callable("<" or ">", the first bytes, how many), told of what comes and goes; or None
        double last_activity         # seconds of time.monotonic() when bytes last came or left, exact to a timer tick; 0: never
        # One timer serves all waits. It fires at the earliest deadline or before, and then arms itself again.
        double _timeout              # config.timeout in seconds; 0: none
        object on_timer              # callable without arguments
        object timer                 # asyncio's handle; None if it is not armed
        double _timer_at             # when it fires: seconds of time.monotonic()

    cdef Status open(self, object loop, object transport) except Status.ERROR
    cdef Status close(self, State state) except Status.ERROR
    cdef Status break_off(self, object error) except Status.ERROR
    cdef Status abort_transport(self) except Status.ERROR
    cdef Status close_transport(self) except Status.ERROR
    cdef Status _transport_failed(self) except Status.ERROR
    cdef Status pause_reading(self) except Status.ERROR
    cdef Status resume_reading(self) except Status.ERROR
    cdef Status _resume_source(self) except Status.ERROR
    cdef Status reset_on_close(self) except Status.ERROR
    cdef Status check_user(self) except Status.ERROR
    cdef bint is_forked(self) noexcept
    cdef Status check_loop(self) except Status.ERROR
    cdef object cause(self)
    cdef object unusable(self)
    cdef object refusal(self)
    cdef object error(self, object kind, str what, str phase, dict more=*, object cause=*)
    cdef Waiter new_waiter(self, object timeout, str phase, Waiter previous)
    cdef bint is_due(self, Waiter waiter, double now) noexcept
    cdef double expire(self, Waiter waiter, double now) except -1
    cdef Status arm_timer(self, double deadline, double now) except Status.ERROR
