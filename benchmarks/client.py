"""One peer, one workload, one fresh process: run, check, report.

    python client.py PEER WORKLOAD LOOP PORT      prints one JSON object

PEER is a module in peers/, whose coroutine function WORKLOAD does a fixed amount of work and raises if the result is
wrong. LOOP is asyncio or uvloop.
"""

import asyncio
import importlib
import json
import os
import resource
import sys
import time
from typing import Any


def run(peer: str, workload: str, loop: str, port: int) -> dict[str, Any]:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    function = getattr(importlib.import_module(f"peers.{peer}"), workload)
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(function(port))
    with asyncio.Runner() as runner:
        return runner.run(function(port))


class Clock:
    """Wall and processor time of what runs inside the `with` block."""

    def __enter__(self) -> "Clock":
        self._cpu = time.process_time()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = time.perf_counter() - self._wall
        self.cpu_seconds = time.process_time() - self._cpu

    def report(self, operations: int) -> dict[str, Any]:
        return {"operations": operations, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds}


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    result = run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    result["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))
