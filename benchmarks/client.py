"""One peer, one workload, one fresh process: do it for a while, check what came, report.

    python client.py PEER WORKLOAD LOOP PORT SECONDS [CA_FILE]      prints one JSON object

PEER is a module in peers/tcp or peers/http. It has a function for each kind of workload that it knows, which takes the
`Job`, does the work inside `job.measure()`, and raises if what came is wrong. LOOP is one of the module's `LOOPS`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import ssl
import sys
import time
from array import array
from types import ModuleType
from typing import Any

from workloads import LAST_MESSAGE, WORKLOADS, Workload


class Job:
    """What a peer's function is given."""

    def __init__(self, workload: Workload, port: int, seconds: float, ca_file: str | None) -> None:
        self.workload = workload
        self.size = workload.size
        self.connections = workload.connections
        self.port = port
        self.ca_file = ca_file
        self.seconds = seconds
        self._clock = Clock(seconds)

    @property
    def host(self) -> str:
        """An address, so that no name is looked up; the certificate has it as well."""
        return "127.0.0.1"

    @property
    def url(self) -> str:
        return f"{'https' if self.workload.tls else 'http'}://{self.host}:{self.port}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """What verifies the server, as a client does by default; None where the workload is not over TLS."""
        return ssl.create_default_context(cafile=self.ca_file) if self.workload.tls else None

    @property
    def last_message(self) -> bytes:
        """What makes the sink answer with the number of bytes before it: TLS has no half-close."""
        return LAST_MESSAGE

    def measure(self) -> Clock:
        """The clock, for `with`; to be entered once, when all is connected."""
        return self._clock

    def report(self) -> dict[str, Any]:
        return self._clock.report()


class Clock:
    """Wall and processor time of what runs inside the `with` block, and what has been done in it.

    Attributes:
        operations: How many have been done; the peer counts.
        latencies: Seconds of each operation, where there is an answer to wait for.
        end: When to stop, on the clock of `time.perf_counter()`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.operations = 0
        self.latencies = array("d")
        self.bytes_per_operation = 0.0  # for workloads that measure memory

    def __enter__(self) -> Clock:
        self._cpu = time.process_time()
        self._wall = time.perf_counter()
        self.end = self._wall + self._seconds
        return self

    def __exit__(self, *exc: object) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = time.process_time() - self._cpu

    def running(self) -> bool:
        """Whether there is time left."""
        return time.perf_counter() < self.end

    def report(self) -> dict[str, Any]:
        if self.latencies:
            self.operations = len(self.latencies)
        if not self.operations:
            raise RuntimeError("nothing was done")
        ordered = sorted(self.latencies)
        return {
            "operations": self.operations,
            "seconds": self._wall,
            "cpu_seconds": self._cpu,
            "p50": ordered[len(ordered) // 2] if ordered else None,
            "p99": ordered[len(ordered) * 99 // 100] if ordered else None,
            "bytes_per_operation": self.bytes_per_operation,
        }


def module_of(peer: str) -> ModuleType:
    """PEER is tcp.NAME or http.NAME."""
    return importlib.import_module(f"peers.{peer}")


def run(peer: str, loop: str, job: Job) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    function = getattr(module_of(peer), job.workload.kind)
    if loop == "trio":
        import trio

        trio.run(function, job)
    elif loop == "none":
        function(job)
    else:
        factory = None
        if loop == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(function(job))


def main(peer: str, workload: str, loop: str, port: str, seconds: str, ca_file: str | None = None) -> None:
    # 10,000 connections are more than most systems allow at first.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    job = Job(WORKLOADS[workload], int(port), float(seconds), ca_file)
    run(peer, loop, job)
    peak = peak_memory()  # before the figures are made, which takes memory for each operation
    print(json.dumps(job.report() | {"peak_memory_bytes": peak}), flush=True)
    # pyreqwest's threads now and then abort an interpreter that ends in order.
    os._exit(0)


def peak_memory() -> int:
    """Bytes of memory that this process has had at most."""
    try:
        # Not getrusage(): Linux counts what the process had before exec(), which is a copy of the harness.
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except OSError:
        # Kibibytes, but bytes on macOS (getrusage(2) of each).
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(*sys.argv[1:])
