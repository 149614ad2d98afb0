"""Threads for what may block for ever, where the system gives none."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from pepperpy.network import daemon_threads
from pepperpy.network.daemon_threads import DaemonThreads


def test_each_of_two_that_get_no_thread_at_once_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = DaemonThreads("test", 2)
    # Both fail at the same moment, if they are let; else one after the other.
    both = threading.Barrier(2)

    def no_thread(*_: Any, **__: Any) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.1)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as callers:
        patch.setattr(daemon_threads, "threading", SimpleNamespace(Thread=no_thread))
        asked = [callers.submit(jobs.submit, int) for _ in range(2)]
        assert [type(call.exception(timeout=5)) for call in asked] == [BlockingIOError, BlockingIOError]
    assert jobs.submit(int).result(timeout=5) == 0
