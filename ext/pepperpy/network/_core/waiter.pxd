from pepperpy.network._core.status cimport Status


cdef class Waiter:
    """What one task awaits on a connection: like a future, for one wake-up, without data."""
    cdef:
        object _loop
        # A task adds one callback, with its context. Further ones go to a list.
        object _callback
        object _context
        list _more_callbacks         # of (callback, context), or None
        bint _done
        bint _cancelled
        object _cancel_message
        # asyncio's tasks read and set it: whether they have seen the waiter being yielded.
        public bint _asyncio_future_blocking
        # Whether the awaiting coroutine has resumed or was closed: then the connection may have another waiter.
        bint left
        double deadline              # when it times out, in seconds of time.monotonic(); 0 for never
        readonly double started      # when the wait began, on the same clock; 0: not known, for a wait without a deadline
        str phase                    # what the wait is part of, for the error
        long long target             # for flush(): how many bytes must have left
        object error                 # raised in the awaiting coroutine; None: it returns

    # `wake_now`: the task runs inside of this call where that is possible. Otherwise the loop runs it in its next turn.
    cdef Status wake(self, bint wake_now) except Status.ERROR
    cdef Status fail(self, object error, bint wake_now) except Status.ERROR

    cdef inline bint is_done(self) noexcept:
        return self._done

    cdef Status _call_back(self, bint wake_now) except Status.ERROR
    cdef int _run_now(self) except -1
    cdef void _abandon(self) noexcept


cdef Waiter new_waiter(object loop)
