"""Threads for calls that may block for a very long time: a name lookup, a read from a pipe."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class DaemonThreads(Executor):
    """Runs functions in at most `limit` daemon threads at a time; while all are busy, further jobs wait in a queue.

    The interpreter waits for the threads of `concurrent.futures.ThreadPoolExecutor` when the program ends. One lookup
    that hangs would delay the end by the system's own limit (30 s, with the usual resolv.conf). It waits for no daemon.
    An idle thread ends after `LINGER_S`. So a program that forks after its loop has ended has one thread; CPython warns
    of a fork with more since 3.12.
    """

    # Seconds. Starting a thread takes 100 us (measured): 0.5 % of this time.
    LINGER_S = 0.02

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._reset()
        if hasattr(os, "register_at_fork"):
            # A forked process has none of these threads. Its copy of the lock may be locked for ever.
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._threads = 0
        self._idle = 0  # how many of them wait for a job, or are about to take one
        self._queue: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()

    def submit(self, function: Callable[..., Result], /, *arguments: Any, **_: Any) -> Future[Result]:
        """Run `function(*arguments)` in a thread. `Future.cancel()` withdraws it while it waits in the queue.

        Raises:
            BlockingIOError: The system cannot start a thread, and none is running.
        """
        future: Future[Result] = Future()
        with self._changed:
            self._queue.append((future, function, arguments))
            if self._idle >= len(self._queue):
                self._changed.notify()
            elif self._threads < self._limit:
                try:
                    # Under the lock: if two calls failed at once, each would leave its job to the other's thread.
                    threading.Thread(target=self._work, name=self._name, daemon=True).start()
                except RuntimeError as error:
                    if not self._threads:
                        # No other thread will take the job.
                        self._queue.pop()
                        raise BlockingIOError(errno.EAGAIN, f"no thread to be had: {error}") from error
                else:
                    self._threads += 1
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._queue:
                    self._idle += 1
                    self._changed.wait(self.LINGER_S)
                    self._idle -= 1
                if not self._queue:
                    self._threads -= 1
                    return
                future, function, arguments = self._queue.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*arguments)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            # Otherwise this thread keeps them alive until the next job comes, and a failed one in a reference cycle.
            del future, function, arguments
