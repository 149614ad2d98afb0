"""A block with a time limit: it ends by a cancellation of its task. `watchdog.py` has the one timer of many blocks.

It is compiled because each HTTP request runs in such a block, and many a receive.
"""

cimport cython

import asyncio

cdef object _current_task = asyncio.current_task
cdef object _CancelledError = asyncio.CancelledError


@cython.final
@cython.freelist(16)
cdef class Limit:
    cdef:
        public double ends_at        # seconds of time.monotonic(), which may be set to a later time; infinity: never
        set _watched                 # the blocks that run now, of this watchdog
        object _timer                # looks after these
        object _error                # makes what the block raises
        object _on_expire            # callable with the task, called before it is cancelled; or None
        object _task
        Py_ssize_t _cancelling       # the task's cancellations when the block began
        bint _expired

    def __init__(self, set watched not None, timer, double ends_at, error, on_expire=None):
        self._watched = watched
        self._timer = timer
        self.ends_at = ends_at
        self._error = error
        self._on_expire = on_expire

    def __enter__(self):
        self._task = _current_task()
        assert self._task is not None, "a coroutine always runs in a task here"
        self._cancelling = self._task.cancelling()
        # First what may fail: nobody ends a block that has not begun.
        if self.ends_at < self._timer.at:
            self._timer.look_by(self.ends_at)
        self._watched.add(self)

    def expire(self):
        self._expired = True
        try:
            if self._on_expire is not None:
                self._on_expire(self._task)
        finally:
            self._task.cancel()

    def __exit__(self, kind, error, traceback):
        # The timer stays: not moving it is what makes a limit cheap.
        self._watched.discard(self)
        # As asyncio.timeout: a task that was cancelled from outside too stays cancelled.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is _CancelledError:
            raise self._error() from error
