from pepperpy.network._core.status cimport Status


cdef class Waiter:
    """What one task awaits on a connection: future-like, for one wake-up, carrying no data."""
    cdef:
        object _loop
        # A task adds exactly one callback, with its context. More callbacks go to a list.
        object _callback
        object _context
        list _more_callbacks         # of (callback, context), or None
        bint _done
        bint _cancelled
        object _cancel_message
        # Read and set by asyncio's tasks: whether they have seen the waiter being yielded.
        public bint _asyncio_future_blocking
        # The awaiting coroutine has resumed, or was closed: the connection may have another waiter.
        bint left
        double deadline              # seconds of time.monotonic(), 0 if none
        double started               # likewise: when the wait began
        str phase                    # what the wait is part of, for the error
        long long target             # for flush(): bytes that must have been handed on
        object error                 # raised in the awaiting coroutine instead of returning

    cdef Status wake(self, bint wake_now) except Status.ERROR
    cdef Status fail(self, object error, bint wake_now) except Status.ERROR

    cdef inline bint is_done(self) noexcept:
        return self._done

    cdef Status _call_back(self, bint wake_now) except Status.ERROR
    cdef int _run_now(self) except -1
    cdef void _abandon(self) noexcept


cdef Waiter new_waiter(object loop)
