"""Threads for what may block for a very long time: a name lookup, a read from a pipe."""

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
    """At most `limit` threads at a time; what is submitted while all are busy waits for one.

    `concurrent.futures.ThreadPoolExecutor` would do, but the interpreter waits for its threads when the program ends,
    and one lookup that hangs would hold up the end for as long as the system's own limit (30 s, with the usual
    resolv.conf). These threads are daemons. Each one ends when nothing came for `LINGER_S`, so a program that forks
    after its loop has ended forks a process of one thread (CPython warns of more since 3.12).
    """

    # Seconds. To start a thread takes 100 us (measured), 0.5 % of this time.
    LINGER_S = 0.02

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._reset()
        if hasattr(os, "register_at_fork"):
            # A forked process has none of these threads, and perhaps a lock that one of them was holding.
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._threads = 0
        self._idle = 0  # of these, how many wait for a job, or are about to take one
        self._queue: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()

    def submit(self, function: Callable[..., Result], /, *arguments: Any, **_: Any) -> Future[Result]:
        """Begin `function(*arguments)` in a thread. `Future.cancel()` takes it back while it waits for one.

        Raises:
            BlockingIOError: The system has no thread to give, and none is running.
        """
        future: Future[Result] = Future()
        with self._changed:
            self._queue.append((future, function, arguments))
            if self._idle >= len(self._queue):
                self._changed.notify()
            elif self._threads < self._limit:
                try:
                    # Under the lock: of two that fail at once, each would leave the other's job to nobody.
                    threading.Thread(target=self._work, name=self._name, daemon=True).start()
                except RuntimeError as error:
                    if not self._threads:
                        # Nobody else takes it.
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
            # Otherwise this thread would keep them, and a failed one in a cycle, until the next ones come.
            del future, function, arguments
